// Fused plans against plans that compute every node by itself with the reference kernels.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "graph/base/random.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"
#include "graph/kernels/quantized_primitive.h"

namespace onnxpress {
namespace {

std::vector<Tensor> random_inputs(const Model& model, std::uint64_t seed) {
  std::vector<Tensor> inputs;
  Random random(seed);
  for (const Value* input : model.required_inputs()) {
    Tensor tensor(DType::float32, concrete(*input->type.shape).value());
    for (float& value : tensor.mutable_data<float>()) value = static_cast<float>(random.normal());
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}

// Largest difference over the range of the expected values.
double difference(const Tensor& found, const Tensor& expected) {
  REQUIRE(found.dtype() == expected.dtype());
  REQUIRE(found.dims() == expected.dims());
  const std::vector<float> a = found.to_floats(), b = expected.to_floats();
  double worst = 0, low = 0, high = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(std::isfinite(a[i]));
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    low = std::min<double>(low, b[i]);
    high = std::max<double>(high, b[i]);
  }
  return worst / std::max(high - low, 1e-30);
}

struct Steps {
  std::vector<std::string> ops;  // of the fused plan
  std::string joined() const {
    std::string text;
    for (const std::string& op : ops) text += (text.empty() ? "" : " ") + op;
    return text;
  }
};

// Runs both twice, on 1 and 2 threads, and returns the fused plan's steps.
std::string check(const std::string& text, double tolerance = 1e-5) {
  CAPTURE(text);
  const auto model = parse_model("model ir=8 opset=18 com.microsoft=1\n" + text);
  Engine reference(*model, {.threads = 1, .reference = true});
  Steps steps;
  for (const int threads : {1, 2}) {
    Engine fused(*model, {.threads = threads});
    for (const std::uint64_t seed : {1, 2}) {
      const std::vector<Tensor> inputs = random_inputs(*model, seed);
      const std::vector<Tensor> expected = reference.run(std::span(inputs));
      const std::vector<Tensor> found = fused.run(std::span(inputs));
      REQUIRE(found.size() == expected.size());
      for (std::size_t i = 0; i < found.size(); ++i)
        CHECK(difference(found[i], expected[i]) <= tolerance);
    }
    std::vector<Type> types;
    for (const Tensor& input : random_inputs(*model, 1)) types.push_back(Type::of(input));
    steps.ops.clear();
    for (const PlanSummary::Step& step : fused.summary(types).steps)
      steps.ops.push_back(step.backend == "layout" ? "layout" : step.op_type);
  }
  return steps.joined();
}

const std::string image = "input x: float32[2,6,9,7]\n";
const std::string kernel =
    "initializer w: float32[8,6,3,3] = random(1)\ninitializer b: float32[8] = random(2)\n";

TEST_CASE("elementwise operations behind a convolution or product join it") {
  CHECK(check(image + kernel +
              "c = Conv(x, w, b) {pads=[1,1,1,1]}\ny = Relu(c)\noutput y: float32[2,8,9,7]\n") ==
        "layout Conv layout");
  const std::string plain = "input a: float32[3,5,4]\ninitializer m: float32[4,6] = random(3)\n";
  for (const char* op : {"Relu(p)", "Sigmoid(p)", "Tanh(p)", "Elu(p)", "LeakyRelu(p) {alpha=0.2}",
                         "HardSwish(p)", "Mish(p)", "Abs(p)", "Exp(p)"})
    CHECK(check(plain + "p = MatMul(a, m)\ny = " + op + "\noutput y: float32[3,5,6]\n") ==
          "MatMul");
  for (const char* op : {"HardSigmoid(p) {alpha=0.3}", "Softplus(p)", "Erf(p)"})
    CHECK(check(plain + "p = MatMul(a, m)\ny = " + op + "\noutput y: float32[3,5,6]\n")
              .starts_with("MatMul "));
}

TEST_CASE("the same operation twice keeps its parameters apart") {
  const std::string bounds =
      "initializer l: float32[] = {-0.5}\ninitializer h: float32[] = {0.7}\n"
      "initializer g: float32[] = {2}\ninput z: float32[2,8,9,7]\n";
  check(image + kernel + bounds +
        "c = Conv(x, w, b) {pads=[1,1,1,1]}\nd = Clip(c, l, h)\ne = Exp(d)\nf = Add(e, z)\n"
        "y = Clip(f, l, g)\noutput y: float32[2,8,9,7]\n");
  check(image + kernel + bounds +
        "c = Conv(x, w, b) {pads=[1,1,1,1]}\nd = Relu(c)\nf = Add(d, z)\n"
        "y = LeakyRelu(f) {alpha=0.3}\noutput y: float32[2,8,9,7]\n");
}

TEST_CASE("an addition joins whether the operator has a bias or not") {
  for (const char* bias : {"", ", b"}) {
    const std::string conv = std::string("c = Conv(x, w") + bias + ") {pads=[1,1,1,1]}\n";
    CHECK(check(image + kernel + "input z: float32[2,8,9,7]\n" + conv +
                "s = Add(c, z)\ny = Relu(s)\noutput y: float32[2,8,9,7]\n") ==
          "layout layout Conv layout");
  }
  CHECK(check("input a: float32[2,3,4,5]\ninput b: float32[2,3,5,6]\ninput z: float32[2,3,4,6]\n"
              "p = MatMul(a, b)\ns = Add(z, p)\ny = Sigmoid(s)\noutput y: float32[2,3,4,6]\n") ==
        "MatMul");
  CHECK(check("input a: float32[4,5]\ninitializer b: float32[6,5] = random(1)\n"
              "initializer c: float32[6] = random(2)\ninput z: float32[4,6]\n"
              "p = Gemm(a, b, c) {transB=1}\ny = Add(p, z)\noutput y: float32[4,6]\n") == "Gemm");
}

TEST_CASE("what is added may be read again, made later, or be the model's own input") {
  const std::string both = "c = Conv(x, w, b) {pads=[1,1,1,1]}\nd = Conv(x, v) {pads=[1,1,1,1]}\n";
  const std::string more = "initializer v: float32[8,6,3,3] = random(5)\n";
  check(image + kernel + more + both + "s = Add(c, d)\ny = Relu(s)\noutput y: float32[2,8,9,7]\n");
  check(image + kernel + more + both +
        "s = Add(c, d)\nr = Relu(d)\ny = Add(s, r)\noutput y: float32[2,8,9,7]\n");
  // A residual whose shortcut is the convolution's own input.
  for (const char* size : {"1,1", "3,3"})
    check(image + "initializer w: float32[6,6," + size + "] = random(1)\nr = Relu(x)\n" +
          "c = Conv(r, w) {auto_pad=\"SAME_UPPER\"}\ny = Add(c, r)\nz = Relu(y)\n"
          "output z: float32[2,6,9,7]\n");
  check(image +
        "initializer w: float32[6,6,1,1] = random(1)\n"
        "c = Conv(x, w)\ns = Add(c, x)\nt = Conv(s, w)\nu = Add(t, s)\ny = Mul(u, s)\n"
        "output y: float32[2,6,9,7]\noutput u: float32[2,6,9,7]\n");
}

TEST_CASE("scales and shifts of channels go into the weights") {
  const std::string norm =
      "initializer g: float32[8] = random(3)\ninitializer h: float32[8] = random(4)\n"
      "initializer m: float32[8] = random(5)\ninitializer v: float32[8] = {1,2,3,4,5,6,7,8}\n";
  CHECK(
      check(image + kernel + norm +
            "c = Conv(x, w) {pads=[1,1,1,1]}\nn = BatchNormalization(c, g, h, m, v)\ny = Relu(n)\n"
            "output y: float32[2,8,9,7]\n") == "layout Conv layout");
  CHECK(check(image + kernel +
              "initializer s: float32[8,1,1] = random(3)\n"
              "c = Conv(x, w, b)\nn = Mul(s, c)\ny = Add(n, s)\noutput y: float32[2,8,7,5]\n") ==
        "layout Conv layout");
  CHECK(check("input a: float32[3,4]\ninitializer m: float32[4,6] = random(3)\n"
              "initializer s: float32[6] = random(4)\n"
              "p = MatMul(a, m)\ny = Sub(p, s)\noutput y: float32[3,6]\n") == "MatMul");
  // Along the columns of the image, not its channels.
  check(image + kernel +
        "initializer s: float32[7] = random(3)\n"
        "c = Conv(x, w, b) {pads=[1,1,1,1]}\ny = Mul(s, c)\noutput y: float32[2,8,9,7]\n");
}

TEST_CASE("operators written out are recognized") {
  const std::string x =
      "input x: float32[3,5,8]\ninitializer half: float32[] = {0.5}\n"
      "initializer one: float32[] = {1}\ninitializer root: float32[] = {1.41421356}\n";
  CHECK(check(x + "d = Div(x, root)\ne = Erf(d)\ns = Add(e, one)\np = Mul(x, s)\ny = Mul(p, half)\n"
                  "output y: float32[3,5,8]\n") == "Gelu");
  CHECK(check(x + "d = Div(x, root)\ne = Erf(d)\ns = Add(one, e)\nh = Mul(x, half)\ny = Mul(h, s)\n"
                  "output y: float32[3,5,8]\n") == "Gelu");
  CHECK(check(x + "s = Sigmoid(x)\ny = Mul(x, s)\noutput y: float32[3,5,8]\n") == "Swish");
  CHECK(check(x + "s = Softplus(x)\nt = Tanh(s)\ny = Mul(t, x)\noutput y: float32[3,5,8]\n") ==
        "Mish");
  const std::string norm =
      "initializer axes: int64[1] = {-1}\ninitializer two: float32[] = {2}\ninitializer e: "
      "float32[] = {1e-5}\n"
      "initializer g: float32[8] = random(1)\ninitializer b: float32[8] = random(2)\n"
      "m = ReduceMean(x, axes)\nd = Sub(x, m)\nq = Pow(d, two)\nv = ReduceMean(q, axes)\n"
      "s = Add(v, e)\nr = Sqrt(s)\nn = Div(d, r)\np = Mul(n, g)\ny = Add(p, b)\n";
  CHECK(check(x + norm + "output y: float32[3,5,8]\n") == "LayerNormalization");
  // The centred values are wanted too.
  CHECK(check(x + norm + "output y: float32[3,5,8]\noutput d: float32[3,5,8]\n") !=
        "LayerNormalization");
}

TEST_CASE("images keep their channels last through elementwise steps, and only there") {
  const std::string start = image + kernel + "c = Conv(x, w, b) {pads=[1,1,1,1]}\n";
  CHECK(check(start + "initializer q: float32[4,8,1,1] = random(8)\n"
                      "e = Sigmoid(c)\nf = Mul(c, e)\ng = Conv(f, q) {pads=[0,0,0,0]}\n"
                      "output g: float32[2,4,9,7]\n") == "layout Conv Conv layout");
  check(start +
        "initializer s: float32[9,7] = random(7)\ne = Mul(c, s)\ny = Softmax(e) {axis=1}\n"
        "output y: float32[2,8,9,7]\n");
  check(start +
        "p = GlobalAveragePool(c)\ne = Sigmoid(p)\ny = Mul(c, e)\n"
        "output y: float32[2,8,9,7]\n");
  check(start +
        "m = MaxPool(c) {kernel_shape=[2,2],strides=[2,2]}\nt = Concat(m, m) {axis=1}\n"
        "y = Flatten(t)\noutput y: float32[2,192]\n");
  check(start + "r = Transpose(c) {perm=[0,2,3,1]}\ny = Add(r, r)\noutput y: float32[2,9,7,8]\n");
}

TEST_CASE("3x3 convolutions with many channels agree") {
  check(
      "input x: float32[1,64,14,14]\ninitializer w: float32[64,64,3,3] = random(1)\n"
      "initializer b: float32[64] = random(2)\ninput z: float32[1,64,14,14]\n"
      "c = Conv(x, w, b) {pads=[1,1,1,1]}\ns = Add(c, z)\ny = Relu(s)\n"
      "output y: float32[1,64,14,14]\n");
}

TEST_CASE("quantized convolutions, products, sums and pools run on integers") {
  const std::string scales =
      "initializer s: float32[] = {0.05}\ninitializer t: float32[] = {0.07}\ninitializer u: "
      "float32[] = {0.3}\n"
      "initializer zs: uint8[] = {120}\ninitializer zt: uint8[] = {0}\ninitializer zu: uint8[] = "
      "{131}\n"
      "initializer wq: int8[4,6,3,3] = random(1)\ninitializer bias: float32[4] = random(2)\n"
      "initializer ws: float32[4] = {0.004,0.006,0.005,0.003}\ninitializer wz: int8[4] = "
      "{0,0,0,0}\n"
      "wf = DequantizeLinear(wq, ws, wz) {axis=0}\n"
      "xq = QuantizeLinear(x, s, zs)\nxf = DequantizeLinear(xq, s, zs)\n";
  const std::string conv = "c = Conv(xf, wf, bias) {pads=[1,1,1,1]}\n";
  // Where 8-bit products are not summed exactly, the convolution runs in float.
  const std::string convolution =
      onednn::has_exact_sums() ? "QuantizeLinear layout QLinearConv "
                       : "QuantizeLinear DequantizeLinear layout Conv QuantizeLinear ";
  // One quantum of the output, over its range.
  CHECK(check(image + scales + conv +
                  "r = Relu(c)\nq = QuantizeLinear(r, t, zt)\n"
                  "y = DequantizeLinear(q, t, zt)\noutput y: float32[2,4,9,7]\n",
              1.0 / 40) == convolution + "DequantizeLinear layout");
  CHECK(check(image + scales + conv +
                  "q = QuantizeLinear(c, t, zu)\nf = DequantizeLinear(q, t, zu)\n"
                  "a = Add(f, f)\nk = QuantizeLinear(a, u, zu)\nl = DequantizeLinear(k, u, zu)\n"
                  "p = GlobalAveragePool(l)\no = QuantizeLinear(p, u, zu)\n"
                  "y = DequantizeLinear(o, u, zu)\noutput y: float32[2,4,1,1]\n",
              1.0) ==
        convolution + "QLinearAdd QLinearGlobalAveragePool DequantizeLinear layout");
}

TEST_CASE("scales that make weights vanish, and shifts that round, are steps of their own") {
  const std::string head = "input x: float32[2,4]\ninitializer w: float32[4,4] = random(1)\n";
  CHECK(check(head + "initializer c: float32[] = {1e-25}\nt = MatMul(x, w)\nu = Mul(t, c)\n"
                     "y = Mul(u, c)\noutput y\n") == "MatMul Mul");
  CHECK(check(head + "initializer c: float32[] = {12582912}\nt = MatMul(x, w)\nu = Add(t, c)\n"
                     "y = Sub(u, c)\noutput y\n") == "MatMul Sub");
}

}  // namespace
}  // namespace onnxpress
