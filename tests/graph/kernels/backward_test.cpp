// Fast gradient rows against the plain ones.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "graph/ops/gradient.h"
#include "tests/graph/kernels/rows.h"

namespace onnxpress {
namespace {

// The gradients of the only node of `text` on the row of that backend and on the plain one.
void check_gradients(const std::string& text, int opset = 17, const char* backend = "onednn",
                     double tolerance = 4e-6) {
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
  gradients[0] = rows::random_tensor(DType::float32, outputs[0].dims(), 99);

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

}  // namespace
}  // namespace onnxpress
