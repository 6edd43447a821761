// Convolutions, products, pooling and normalization against slow direct formulas.
#include "graph/base/random.h"
#include "graph/ops/conv.h"
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

struct Case {
  const char* x;
  const char* w;
  const char* attributes;
};

double element(const Tensor& tensor, const std::vector<std::int64_t>& at) {
  std::int64_t index = 0;
  for (std::size_t i = 0; i < at.size(); ++i) index = index * tensor.dim(i) + at[i];
  return tensor.data<float>()[static_cast<std::size_t>(index)];
}

// Cells of dims in order.
template <class Body>
void for_each_cell(const Dims& dims, Body&& body) {
  std::vector<std::int64_t> at(dims.size(), 0);
  for (std::int64_t i = 0; i < element_count(dims); ++i) {
    std::int64_t rest = i;
    for (std::size_t k = dims.size(); k-- > 0; rest /= dims[k]) at[k] = rest % dims[k];
    body(at);
  }
}

// The definition: y[n,m,o] = b[m] + sum over c, k of x[n, g*C+c, o*stride - pad + k*dilation] *
// w[m,c,k].
Tensor direct_conv(const Tensor& x, const Tensor& w, const Tensor& b, const ConvAttrs& attrs) {
  const Dims dims = attrs.output_dims(x.dims(), w.dims());
  const Dims spatial(x.dims().begin() + 2, x.dims().end());
  const auto pads = attrs.window.resolved_pads(spatial);
  std::vector<float> values;
  for_each_cell(dims, [&](const std::vector<std::int64_t>& o) {
    double sum = b.data<float>()[static_cast<std::size_t>(o[1])];
    const std::int64_t group = o[1] / (w.dim(0) / attrs.group);
    for_each_cell(
        Dims(w.dims().begin() + 1, w.dims().end()), [&](const std::vector<std::int64_t>& k) {
          std::vector<std::int64_t> in{o[0], group * w.dim(1) + k[0]};
          std::vector<std::int64_t> tap{o[1], k[0]};
          for (std::size_t axis = 0; axis < spatial.size(); ++axis) {
            const std::int64_t at = o[axis + 2] * attrs.window.strides[axis] - pads[axis] +
                                    k[axis + 1] * attrs.window.dilations[axis];
            if (at < 0 || at >= spatial[axis]) return;
            in.push_back(at);
            tap.push_back(k[axis + 1]);
          }
          sum += element(x, in) * element(w, tap);
        });
    values.push_back(static_cast<float>(sum));
  });
  return Tensor::of<float>(dims, values);
}

TEST_CASE("Conv matches its definition") {
  const Case cases[] = {
      {"2,3,7,6", "4,3,3,3", ""},
      {"1,4,9,8", "6,2,3,2", "group=2, strides=[2,1], pads=[1,0,2,1], dilations=[2,3]"},
      {"2,5,6,6", "5,1,3,3", "group=5, pads=[1,1,1,1]"},
      {"1,8,5,5", "3,8,1,1", ""},
      {"1,8,5,5", "3,8,1,1", "strides=[2,2]"},
      {"2,3,11", "4,3,4", "strides=[3], auto_pad=\"SAME_UPPER\""},
      {"2,3,11", "4,3,4", "strides=[3], auto_pad=\"SAME_LOWER\""},
      {"1,2,4,5,6", "3,2,2,3,2", "pads=[1,0,1,0,1,1], strides=[1,2,1]"},
      {"1,2,70,70", "3,2,3,3", "pads=[1,1,1,1]"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.attributes);
    const Computed computed(fmt::format(R"(initializer x: float32[{}] = random(1)
initializer w: float32[{}] = random(2)
initializer b: float32[{}] = random(3)
y = Conv(x, w, b) {{{}}}
)",
                                        c.x, c.w, c.w[0], c.attributes));
    const Node& node = *computed.model().graph.find("y")->producer();
    check_close(computed["y"],
                direct_conv(computed["x"], computed["w"], computed["b"], ConvAttrs::from(node)),
                1e-4);
  }
}

TEST_CASE("convolutions refuse biases that are not one for each filter") {
  const std::string inputs = "input x: float32[1,2,5,5]\ninput w: float32[2,2,3,3]\n";
  for (const std::string op : {"Conv", "ConvTranspose"}) {
    CHECK_THROWS_WITH_AS(Computed(inputs + "input b: float32[3]\ny = " + op + "(x, w, b)\n"),
                         doctest::Contains("expected 2 biases, found [3]"), Error);
  }
}

TEST_CASE("ConvTranspose is the adjoint of Conv") {
  // <Conv(a), x> = <a, ConvTranspose(x)> for all a and x, with the same weights.
  const Case cases[] = {
      {"1,4,5,4", "4,3,3,3", "strides=[2,1], pads=[1,1,1,1]"},
      {"2,4,3,3", "4,2,2,3", "group=2, dilations=[1,2]"},
      {"1,2,6", "2,3,4", "strides=[3], auto_pad=\"VALID\""},
  };
  for (const Case& c : cases) {
    CAPTURE(c.attributes);
    const Computed computed(fmt::format(R"(initializer x: float32[{}] = random(1)
initializer w: float32[{}] = random(2)
y = ConvTranspose(x, w) {{{}}}
)",
                                        c.x, c.w, c.attributes));
    const Tensor& y = computed["y"];
    std::string dims = to_string(y.dims());
    const Computed back(fmt::format(R"(initializer a: float32{} = random(4)
initializer x: float32[{}] = random(1)
initializer w: float32[{}] = random(2)
z = Conv(a, w) {{{}}}
)",
                                    dims, c.x, c.w, c.attributes));
    REQUIRE(back["z"].dims() == computed["x"].dims());
    double left = 0;
    double right = 0;
    for (std::size_t i = 0; i < back["z"].data<float>().size(); ++i)
      left += double{back["z"].data<float>()[i]} * computed["x"].data<float>()[i];
    for (std::size_t i = 0; i < y.data<float>().size(); ++i)
      right += double{y.data<float>()[i]} * back["a"].data<float>()[i];
    CHECK(left == doctest::Approx(right).epsilon(1e-4));
  }
}

TEST_CASE("ConvTranspose output sizes") {
  const std::string inputs =
      "initializer x: float32[1,1,3,3] = ones\ninitializer w: float32[1,1,3,3] = ones\n";
  const auto dims = [&](const char* attributes) {
    return to_string(
        Computed(inputs + "y = ConvTranspose(x, w) {" + attributes + "}\n")["y"].dims());
  };
  CHECK(dims("strides=[3,2]") == "[1,1,9,7]");
  CHECK(dims("output_shape=[10,8], strides=[3,2]") == "[1,1,10,8]");
  CHECK(dims("output_padding=[1,1], strides=[3,2]") == "[1,1,10,8]");
  CHECK(dims("auto_pad=\"SAME_UPPER\", strides=[2,2]") == "[1,1,6,6]");
  CHECK(dims("pads=[1,0,1,0], strides=[1,1]") == "[1,1,3,5]");
}

TEST_CASE("MatMul follows numpy") {
  check_y(
      "initializer a: float32[2,3] = {1,2,3,4,5,6}\ninitializer b: float32[3,2] = {1,2,3,4,5,6}\ny "
      "= MatMul(a, b)\n",
      "float32[2,2]{22,28,49,64}");
  check_y(
      "initializer a: float32[3] = {1,2,3}\ninitializer b: float32[3] = {4,5,6}\ny = MatMul(a, "
      "b)\n",
      "float32[]{32}");
  check_y(
      "initializer a: float32[2] = {1,2}\ninitializer b: float32[2,2,1] = {1,1,2,2}\ny = MatMul(a, "
      "b)\n",
      "float32[2,1]{3,6}");
  check_y(R"(initializer a: float32[2,1,1,2] = {1,2,3,4}
initializer b: float32[2,2,1] = {1,0,0,1}
y = MatMul(a, b)
)",
          "float32[2,2,1,1]{1,2,3,4}");
  check_y(
      "initializer a: int32[1,2] = {3,4}\ninitializer b: int32[2,1] = {5,6}\ny = MatMul(a, b)\n",
      "int32[1,1]{39}");
  CHECK_THROWS_AS(
      Computed(
          "initializer a: float32[2] = ones\ninitializer b: float32[3] = ones\ny = MatMul(a, b)\n"),
      Error);
}

TEST_CASE("large products agree with a plain sum whatever the blocks") {
  const Computed computed(R"(initializer a: float32[130,70] = random(1)
initializer b: float32[70,301] = random(2)
y = MatMul(a, b)
)");
  const auto a = computed["a"].data<float>();
  const auto b = computed["b"].data<float>();
  for (std::size_t i : {0U, 64U, 129U})
    for (std::size_t j : {0U, 150U, 300U}) {
      double sum = 0;
      for (std::size_t k = 0; k < 70; ++k) sum += double{a[i * 70 + k]} * b[k * 301 + j];
      CHECK(computed["y"].data<float>()[i * 301 + j] == doctest::Approx(sum).epsilon(1e-4));
    }
}

TEST_CASE("Gemm transposes, scales and broadcasts its bias") {
  const std::string inputs =
      "initializer a: float32[2,3] = {1,2,3,4,5,6}\ninitializer b: float32[2,3] = {1,0,1,0,1,0}\n";
  check_y(inputs +
              "initializer c: float32[2,1] = {10,20}\ny = Gemm(a, b, c) {alpha=2.0, beta=0.5, "
              "transB=1}\n",
          "float32[2,2]{13,9,30,20}");
  check_y(inputs + "y = Gemm(a, b) {transA=1}\n", "float32[3,3]{1,4,1,2,5,2,3,6,3}");
  check_y(inputs + "initializer c: float32[2] = {1,2}\ny = Gemm(a, b, c) {broadcast=1, transB=1}\n",
          "float32[2,2]{5,4,11,7}", 6);
}

TEST_CASE("MaxPool with padding, dilation, ceil_mode and indices") {
  const std::string x = "initializer x: float32[1,1,3,3] = {1,2,3,4,5,6,7,8,9}\n";
  check_y(x + "y = MaxPool(x) {kernel_shape=[2,2]}\n", "float32[1,1,2,2]{5,6,8,9}");
  check_y(x + "y = MaxPool(x) {ceil_mode=1, kernel_shape=[2,2], strides=[2,2]}\n",
          "float32[1,1,2,2]{5,6,8,9}");
  check_y(x + "y = MaxPool(x) {dilations=[2,2], kernel_shape=[2,2]}\n", "float32[1,1,1,1]{9}");
  check_y(x + "y = MaxPool(x) {auto_pad=\"SAME_UPPER\", kernel_shape=[2,2]}\n",
          "float32[1,1,3,3]{5,6,6,8,9,9,8,9,9}");
  const Computed indexed(x +
                         "y, i = MaxPool(x) {kernel_shape=[2,2]}\ny2, j = MaxPool(x) "
                         "{kernel_shape=[2,2], storage_order=1}\n");
  check_close(indexed["i"], parse_tensor("int64[1,1,2,2]{4,5,7,8}"));
  check_close(indexed["j"], parse_tensor("int64[1,1,2,2]{4,7,5,8}"));
  check_y("initializer x: int8[1,1,2] = {-5,-3}\ny = MaxPool(x) {kernel_shape=[2], pads=[1,0]}\n",
          "int8[1,1,2]{-5,-3}");
}

TEST_CASE("AveragePool counts cells as asked") {
  const std::string x = "initializer x: float32[1,1,4] = {1,2,3,4}\n";
  check_y(x + "y = AveragePool(x) {kernel_shape=[2], pads=[1,1], strides=[2]}\n",
          "float32[1,1,3]{1,2.5,4}");
  check_y(
      x + "y = AveragePool(x) {count_include_pad=1, kernel_shape=[2], pads=[1,1], strides=[2]}\n",
      "float32[1,1,3]{0.5,2.5,2}");
  check_y(
      x + "y = AveragePool(x) {ceil_mode=1, count_include_pad=1, kernel_shape=[3], strides=[2]}\n",
      "float32[1,1,2]{2,3.5}");
  check_y("initializer x: float32[1,2,2,1] = {1,3,5,9}\ny = GlobalAveragePool(x)\n",
          "float32[1,2,1,1]{2,7}");
  check_y("initializer x: float32[1,2,2,1] = {1,3,5,9}\ny = GlobalMaxPool(x)\n",
          "float32[1,2,1,1]{3,9}");
}

TEST_CASE("BatchNormalization in inference and in training") {
  const std::string inputs = R"(initializer x: float32[1,2,2] = {1,3,10,20}
initializer s: float32[2] = {2,1}
initializer b: float32[2] = {0,5}
initializer m: float32[2] = {1,10}
initializer v: float32[2] = {4,25}
)";
  check_y(inputs + "y = BatchNormalization(x, s, b, m, v) {epsilon=0.0}\n",
          "float32[1,2,2]{0,2,5,7}");
  check_y(inputs + "y = BatchNormalization(x, s, b, m, v) {epsilon=0.0, is_test=1}\n",
          "float32[1,2,2]{0,2,5,7}", 6);
  const Computed trained(inputs +
                         "y, rm, rv = BatchNormalization(x, s, b, m, v) {epsilon=0.0, "
                         "momentum=0.5, training_mode=1}\n");
  check_close(trained["y"], parse_tensor("float32[1,2,2]{-2,2,4,6}"));
  check_close(trained["rm"], parse_tensor("float32[2]{1.5,12.5}"));
  check_close(trained["rv"], parse_tensor("float32[2]{2.5,25}"));
}

TEST_CASE("layer, instance and group normalization") {
  const Computed layer(R"(initializer x: float32[2,2] = {1,3,10,30}
initializer s: float32[2] = {1,2}
initializer b: float32[2] = {0,1}
y, mean, inverse = LayerNormalization(x, s, b) {epsilon=0.0}
)");
  check_close(layer["y"], parse_tensor("float32[2,2]{-1,3,-1,3}"));
  check_close(layer["mean"], parse_tensor("float32[2,1]{2,20}"));
  check_close(layer["inverse"], parse_tensor("float32[2,1]{1,0.1}"));
  // Root mean square 5; a scale for each element, or for each row.
  const std::string rows = "initializer x: float32[2,2] = {7,1,5,5}\n";
  check_y(rows + "initializer s: float32[2] = {1,2}\ny = RMSNormalization(x, s) {epsilon=0.0}\n", "float32[2,2]{1.4,0.4,1,2}", 23);
  check_y(rows + "initializer s: float32[2,2] = {1,2,3,4}\ny = RMSNormalization(x, s) {epsilon=0.0}\n", "float32[2,2]{1.4,0.4,3,4}", 23);
  check_y(rows + "initializer s: float32[2,1] = {1,2}\ny = RMSNormalization(x, s) {epsilon=0.0}\n", "float32[2,2]{1.4,0.2,2,2}", 23);
  check_y(R"(initializer x: float32[1,2,2] = {1,3,10,30}
initializer s: float32[2] = {1,2}
initializer b: float32[2] = {0,1}
y = InstanceNormalization(x, s, b) {epsilon=0.0}
)",
          "float32[1,2,2]{-1,1,-1,3}");
  check_y(R"(initializer x: float32[1,2,1] = {1,3}
initializer s: float32[2] = {1,2}
initializer b: float32[2] = {0,1}
y = GroupNormalization(x, s, b) {epsilon=0.0, num_groups=1}
)",
          "float32[1,2,1]{-1,3}", 21);
}

TEST_CASE("Softmax over one axis, or over all from an axis before opset 13") {
  const std::string x = "initializer x: float32[1,2,2] = {0,1,2,1003}\n";
  check_y(x + "y = Softmax(x) {axis=1}\n", "float32[1,2,2]{0.11920292,0,0.88079708,1}");
  check_y(x + "y = Softmax(x)\n", "float32[1,2,2]{0,0,0,1}", 11);
  check_y("initializer x: float32[2] = {0,1}\ny = LogSoftmax(x)\n",
          "float32[2]{-1.3132617,-0.31326169}");
  check_y("initializer x: float32[3] = {0,2,2}\ny = Hardmax(x)\n", "float32[3]{0,1,0}");
}

TEST_CASE("reductions in both forms") {
  const std::string x = "initializer x: float32[2,2,2] = {1,2,3,4,5,6,7,8}\n";
  check_y(x + "y = ReduceMean(x) {axes=[1], keepdims=0}\n", "float32[2,2]{2,3,6,7}");
  check_y(x + "initializer a: int64[2] = {0,-1}\ny = ReduceSum(x, a)\n", "float32[1,2,1]{14,22}");
  check_y(x + "y = ReduceMax(x) {keepdims=0}\n", "float32[]{8}");
  check_y(x + "initializer a: int64[0] = {}\ny = ReduceSum(x, a) {noop_with_empty_axes=1}\n",
          "float32[2,2,2]{1,2,3,4,5,6,7,8}");
  check_y(x + "y = ReduceL2(x) {axes=[2], keepdims=0}\n",
          "float32[2,2]{2.236068,5,7.8102497,10.630146}");
  check_y("initializer x: float32[2] = {1000,1000}\ny = ReduceLogSumExp(x)\n",
          "float32[1]{1000.6931}");
  check_y("initializer x: int8[3] = {-1,5,3}\ny = ReduceMin(x)\n", "int8[1]{-1}");
  check_y(x + "y = ReduceProd(x) {axes=[0], keepdims=0}\n", "float32[2,2]{5,12,21,32}");
  check_y("initializer x: float32[2,3] = {1,5,5,7,2,7}\ny = ArgMax(x) {axis=1, keepdims=0}\n",
          "int64[2]{1,0}");
  check_y("initializer x: int8[2,3] = {1,5,5,7,2,7}\ny = ArgMax(x) {axis=1, select_last_index=1}\n",
          "int64[2,1]{2,2}");
}

}  // namespace
}  // namespace onnxpress
