// Fast gradient rows against the plain ones.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "graph/ops/gradient.h"
#include "tests/graph/kernels/rows.h"

namespace onnxpress {
namespace {

// The gradients of the only node of `text` on the row of that backend and on the plain one: from one of
// its first output, or of all.
void check_gradients(const std::string& text, int opset = 17, const char* backend = "onednn",
                     double tolerance = 4e-6, bool of_all = false) {
  CAPTURE(text);
  const auto model = parse_model(
      fmt::format("model ir=8 opset={} com.microsoft=1 onnxpress.training=1\n{}", opset, text));
  const Node& node = *model->graph.nodes().back();
  std::vector<Tensor> inputs;
  std::vector<bool> wanted;
  std::uint64_t seed = 1;
  for (const Value* input : node.inputs()) {
    inputs.push_back(!input             ? Tensor()
                     : input->constant() ? *input->constant()
                                         : rows::random_tensor(DType::float32, *concrete(*input->type.shape), seed));
    wanted.push_back(inputs.back().defined() && inputs.back().dtype() == DType::float32);
    ++seed;
  }
  const auto pointers = [](const std::vector<Tensor>& tensors) {
    std::vector<const Tensor*> result;
    for (const Tensor& tensor : tensors) result.push_back(tensor.defined() ? &tensor : nullptr);
    return result;
  };
  ThreadPool pool(2);
  const std::vector<Tensor> outputs = evaluate(*operators().find(node), node, pointers(inputs), pool);
  std::vector<Tensor> gradients(outputs.size());
  for (std::size_t i = 0; i < (of_all ? outputs.size() : 1); ++i)
    if (outputs[i].defined()) gradients[i] = rows::random_tensor(DType::float32, outputs[i].dims(), 99 + i);

  const std::vector<const GradientDef*> rows_of = operators().gradients(node);
  REQUIRE(rows_of.size() >= 2);
  const GradientDef* fast = nullptr;
  for (const GradientDef* row : rows_of)
    if (row->backend == backend) fast = row;
  REQUIRE(fast != nullptr);
  const auto run = [&](const GradientDef& row) {
    return differentiate(row, node, pointers(inputs), pointers(outputs), pointers(gradients), wanted, pool);
  };
  const std::vector<Tensor> found = run(*fast), expected = run(*rows_of.back());
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (wanted[i]) rows::check_floats(found[i], expected[i], tolerance);
}

TEST_CASE("oneDNN's convolution gradients are those of the reference") {
  const auto conv = [](const char* op, const char* x, const char* w, const char* b, const char* attributes) {
    check_gradients(fmt::format("input x: float32[{}]\ninput w: float32[{}]\ninput b: float32[{}]\n"
                                "y = {}(x, w, b) {{{}}}\n", x, w, b, op, attributes));
  };
  conv("Conv", "2,3,9,8", "16,3,3,3", "16", "");
  conv("Conv", "2,16,9,8", "16,16,3,3", "16", "pads=[1,1,1,1]");
  conv("Conv", "2,16,9,8", "8,16,1,1", "8", "strides=[2,2]");
  conv("Conv", "3,8,9,8", "12,4,3,2", "12", "group=2, strides=[2,1], pads=[1,0,2,1], dilations=[1,2]");
  conv("Conv", "2,16,7,7", "16,1,3,3", "16", "group=16, pads=[1,1,1,1]");
  conv("Conv", "2,3,19", "4,3,4", "4", "strides=[3], auto_pad=\"SAME_UPPER\"");
  conv("Conv", "1,2,5,6,5", "3,2,2,3,2", "3", "pads=[1,0,1,0,1,1], strides=[1,2,1]");
  conv("ConvTranspose", "2,3,5,4", "3,8,3,3", "8", "");
  conv("ConvTranspose", "2,16,4,4", "16,8,4,4", "8", "strides=[2,2], pads=[1,1,1,1]");
  conv("ConvTranspose", "2,4,3,3", "4,2,3,2", "4", "group=2, strides=[2,1], pads=[1,0,1,1], output_padding=[1,0]");
}

TEST_CASE("oneDNN's product gradients are those of the reference") {
  const auto matmul = [](const char* a, const char* b) {
    check_gradients(fmt::format("input a: float32[{}]\ninput b: float32[{}]\ny = MatMul(a, b)\n", a, b));
  };
  matmul("5,7", "7,4");
  matmul("3,5,7", "7,4");
  matmul("2,3,5,7", "2,3,7,4");
  for (const char* attributes : {"", "transA=1", "transB=1", "transA=1, transB=1"})
    for (const char* c : {"6", "1", "5,6"}) {
      const std::string text = attributes;
      const bool ta = text.find("transA") != std::string::npos, tb = text.find("transB") != std::string::npos;
      check_gradients(fmt::format("input a: float32[{}]\ninput b: float32[{}]\ninput c: float32[{}]\n"
                                  "y = Gemm(a, b, c) {{beta=0.5{}{}}}\n", ta ? "7,5" : "5,7", tb ? "6,7" : "7,6", c,
                                  text.empty() ? "" : ", ", text));
    }
}

struct RecurrentCase {
  std::string op, attributes = "", lengths = "", outputs = "y, h";
  int steps = 5, batch = 3, input = 7, hidden = 19;
  bool both = false, has_rest = true;  // directions; bias and states
};

void check_recurrent(const RecurrentCase& of) {
  const bool is_lstm = of.op == "LSTM", batch_first = of.attributes.find("layout=1") != std::string::npos;
  const int d = of.both ? 2 : 1, width = of.hidden * (is_lstm ? 4 : of.op == "GRU" ? 3 : 1);
  const std::string state = batch_first ? fmt::format("float32[{},{},{}]", of.batch, d, of.hidden)
                                        : fmt::format("float32[{},{},{}]", d, of.batch, of.hidden);
  std::string text = batch_first ? fmt::format("input x: float32[{},{},{}]\n", of.batch, of.steps, of.input)
                                 : fmt::format("input x: float32[{},{},{}]\n", of.steps, of.batch, of.input);
  text += fmt::format("input w: float32[{0},{1},{2}]\ninput r: float32[{0},{1},{3}]\n", d, width, of.input, of.hidden);
  std::string inputs = "x, w, r";
  if (of.has_rest) text += fmt::format("input b: float32[{},{}]\n", d, 2 * width);
  inputs += of.has_rest ? ", b" : ", _";
  if (!of.lengths.empty()) text += fmt::format("initializer l: int32[{}] = {{{}}}\n", of.batch, of.lengths);
  inputs += of.lengths.empty() ? ", _" : ", l";
  if (of.has_rest) {
    text += "input h0: " + state + "\n";
    inputs += ", h0";
    if (is_lstm) {
      text += "input c0: " + state + "\n";
      inputs += ", c0";
    }
  }
  check_gradients(fmt::format("{}{} = {}({}) {{hidden_size={}{}{}}}\n", text, of.outputs, of.op, inputs, of.hidden,
                              of.both ? ", direction=\"bidirectional\"" : "", of.attributes), 17, "vector", 2e-5, true);
}

TEST_CASE("gradients of instance and group normalization on vectors are those of the reference") {
  const auto check = [](const std::string& call, const char* shape, int scales, int opset) {
    check_gradients(fmt::format("input x: float32[{}]\ninput a: float32[{}]\ninput b: float32[{}]\ny = {}\n", shape, scales, scales, call),
                    opset, "vector", 2e-5);
  };
  for (const char* shape : {"2,6,8", "1,6,5,7", "3,6,2,3,4"}) {
    check("InstanceNormalization(x, a, b)", shape, 6, 17);
    for (const int groups : {1, 2, 6}) {
      const std::string call = fmt::format("GroupNormalization(x, a, b) {{num_groups={}}}", groups);
      check(call, shape, groups, 18);
      check(call, shape, 6, 21);
    }
  }
}

TEST_CASE("gradients of recurrent networks on vectors are those of the reference") {
  for (const auto& [op, attributes] : {std::pair{"RNN", ""}, {"GRU", ""}, {"GRU", ", linear_before_reset=1"}, {"LSTM", ""}}) {
    const bool is_lstm = std::string_view(op) == "LSTM";
    for (const std::string outputs : {"y, h", "y", "_, h"})
      check_recurrent({.op = op, .attributes = attributes, .outputs = is_lstm && outputs != "y" ? outputs + ", c" : outputs});
    check_recurrent({.op = op, .attributes = attributes, .has_rest = false});
    check_recurrent({.op = op, .attributes = attributes, .steps = 1, .batch = 1, .input = 1, .hidden = 1});
    check_recurrent({.op = op, .attributes = attributes, .steps = 3, .batch = 37, .input = 16, .hidden = 32});
    for (const char* lengths : {"", "5,2,0", "0,0,0", "3,3,3"}) {
      check_recurrent({.op = op, .attributes = attributes, .lengths = lengths});
      check_recurrent({.op = op, .attributes = attributes, .lengths = lengths, .both = true});
      check_recurrent({.op = op, .attributes = std::string(attributes) + ", direction=\"reverse\", layout=1", .lengths = lengths});
    }
    check_recurrent({.op = op, .attributes = attributes, .steps = 0});
    check_recurrent({.op = op, .attributes = attributes, .batch = 0});
  }
}

void check_vector(const std::string& inputs, const std::string& call, int opset = 17,
                  const char* backend = "vector") {
  check_gradients(fmt::format("{}y = {}\n", inputs, call), opset, backend);
}

TEST_CASE("activations' gradients on vectors are those of the reference") {
  for (const char* call :
       {"Relu(x)", "LeakyRelu(x) {alpha=0.2}", "Elu(x) {alpha=0.7}", "Sigmoid(x)", "Tanh(x)",
        "HardSigmoid(x) {alpha=0.3}", "HardSwish(x)", "Softplus(x)", "Erf(x)", "Exp(x)", "Sqrt(x)", "Abs(x)",
        "Reciprocal(x)", "com.microsoft.Gelu(x)", "com.microsoft.QuickGelu(x)"})
    check_vector("input x: float32[3,37]\n", call);
  check_vector("input x: float32[3,37]\n", "Clip(x) {min=-0.5, max=1.0}", 10);
  for (const char* call : {"Mish(x)", "Gelu(x)", "Gelu(x) {approximate=\"tanh\"}"})
    check_vector("input x: float32[3,37]\n", call, 20);
  check_vector("input x: float32[3,37]\n", "Swish(x) {alpha=1.5}", 24);
}

TEST_CASE("products' gradients on vectors are those of the reference, broadcast or not") {
  const auto product = [](const char* a, const char* b) {
    check_vector(fmt::format("input a: float32[{}]\ninput b: float32[{}]\n", a, b), "Mul(a, b)");
  };
  product("3,37", "3,37");
  product("4,3,37", "37");
  product("4,3,37", "3,1");
  product("3,37", "");
  product("1,37", "5,1");
}

TEST_CASE("gradients of rows on vectors are those of the reference") {
  check_vector("input x: float32[5,3,37]\n", "Softmax(x)");
  check_vector("input x: float32[5,3,37]\n", "Softmax(x) {axis=1}", 11);
  check_vector("input x: float32[5,3,8]\n", "LogSoftmax(x) {axis=-1}");
  const std::string norm = "input x: float32[50,7,37]\ninput s: float32[37]\ninput b: float32[37]\n";
  check_vector(norm, "LayerNormalization(x, s, b)");
  check_vector(norm, "LayerNormalization(x, s) {epsilon=0.1}");
  check_vector("input x: float32[9,7,8]\ninput s: float32[7,8]\ninput b: float32[1,7,8]\n",
               "LayerNormalization(x, s, b) {axis=1}");
  check_vector("input x: float32[9,7,8]\ninput s: float32[8]\n", "RMSNormalization(x, s)", 23);
}

TEST_CASE("batch normalization on vectors is that of the reference") {
  const std::string inputs =
      "input x: float32[4,3,5,7]\ninput s: float32[3]\ninput b: float32[3]\n"
      "initializer m: float32[3] = {0.5,-1,0}\ninitializer v: float32[3] = {1,2,0.25}\n";
  check_vector(inputs, "BatchNormalization(x, s, b, m, v)");
  check_gradients(inputs + "y, rm, rv = BatchNormalization(x, s, b, m, v) {training_mode=1}\n", 17, "vector");
  const std::string training = "onnxpress.training.BatchNormalization(x, s, b, m, v) {epsilon=0.1, momentum=0.8}\n";
  check_gradients(inputs + "y, rm, rv = " + training, 17, "vector");
  check_gradients(inputs + "y, rm, rv, mean, variance = " + training, 17, "vector");
  for (std::size_t output = 0; output < 3; ++output) {
    rows::RowOptions options{.output = output, .threads = 2, .backend = "vector"};
    rows::check_rows(inputs + "y, rm, rv = BatchNormalization(x, s, b, m, v) {training_mode=1}\n", rows::reassociated,
                     17, options);
  }
  CHECK_FALSE(rows::is_supported("input x: float32[40,3]\ninput s: float32[3]\ninput b: float32[3]\n"
                                 "input m: float32[3]\ninput v: float32[3]\ny = BatchNormalization(x, s, b, m, v)\n",
                                 17, {.backend = "vector"}));
}

TEST_CASE("pooling's gradients by tables are those of the reference") {
  const auto pool = [](const char* x, const char* call, int opset = 17) {
    check_vector(fmt::format("input x: float32[{}]\n", x), call, opset, "direct");
  };
  pool("2,3,6,8", "MaxPool(x) {kernel_shape=[2,2], strides=[2,2]}");
  for (const char* odd : {"2,3,7,8", "2,3,6,7", "2,3,7,7", "2,3,3,2"})
    pool(odd, "MaxPool(x) {kernel_shape=[2,2], strides=[2,2]}");
  pool("2,3,7,8", "MaxPool(x) {kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]}");
  pool("2,3,6,5", "MaxPool(x) {kernel_shape=[3,2], pads=[1,0,1,1], strides=[2,1], dilations=[1,2]}");
  pool("2,2,7", "MaxPool(x) {kernel_shape=[3], strides=[2], ceil_mode=1}");
  pool("1,2,4,4,3", "MaxPool(x) {kernel_shape=[2,2,2]}");
  pool("2,3,6,5", "AveragePool(x) {kernel_shape=[3,2], pads=[1,0,1,1]}");
  pool("2,3,6,5", "AveragePool(x) {kernel_shape=[3,2], pads=[1,0,1,1], count_include_pad=1}");
  pool("2,2,7", "AveragePool(x) {kernel_shape=[3], strides=[3], ceil_mode=1, pads=[1,1], count_include_pad=1}", 19);
  // Equal cells and such that are no numbers: the first has the maximum.
  check_gradients("initializer x: float32[1,1,2,6] = {1,1,0,nan,nan,2,1,1,nan,0,nan,nan}\n"
                  "y = MaxPool(x) {kernel_shape=[2,2], strides=[2,2]}\n", 17, "direct");
}

TEST_CASE("rows that are gathered several times get the sum") {
  const auto gather = [](const char* table, const char* indices) {
    check_vector(fmt::format("input x: float32[{}]\ninitializer i: {}\n", table, indices), "Gather(x, i)", 17, "direct");
  };
  gather("50,9", "int64[2,4] = {3,-1,3,0,7,49,3,20}");
  gather("3000,40", "int64[3] = {2999,5,-3000}");
}

}  // namespace
}  // namespace onnxpress
