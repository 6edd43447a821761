// Axis roles and costs: what pruning, per-channel quantization and MAC counts ask.
#include <doctest/doctest.h>

#include "graph/ir/parse.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// "0 r w w | 1 r w w | 1": output axis, reduced, window or - by operand.
std::string roles(const std::string& body, std::int64_t opset = 17) {
  auto model = parse_model(fmt::format("model ir=8 opset={} com.microsoft=1\n{}", opset, body));
  infer_types(*model);
  const Node& node = *model->graph.find("y")->producer();
  std::string text;
  for (const auto& operand : operators().find(node)->axes(node)) {
    if (!text.empty()) text += " | ";
    std::string axes;
    for (const AxisRole& role : operand) {
      if (!axes.empty()) axes += ' ';
      switch (role.kind) {
        case AxisRole::Kind::output:
          axes += std::to_string(role.output_axis);
          break;
        case AxisRole::Kind::reduced:
          axes += 'r';
          break;
        case AxisRole::Kind::window:
          axes += 'w';
          break;
        case AxisRole::Kind::other:
          axes += '-';
          break;
      }
    }
    text += axes;
  }
  return text;
}

class StaticTypes final : public PrepareContext {
 public:
  explicit StaticTypes(const Node& node) : node_(node) {}
  const Node& node() const override { return node_; }
  const Type* input_type(std::size_t i) const override {
    return node_.input(i) ? &node_.input(i)->type : nullptr;
  }
  const Type* output_type(std::size_t i) const override { return &node_.output(i)->type; }
  const Tensor* constant_input(std::size_t) const override { return nullptr; }
  int threads() const override { return 1; }

 private:
  const Node& node_;
};

std::int64_t macs(const std::string& body, std::int64_t opset = 17) {
  auto model = parse_model(fmt::format("model ir=8 opset={} com.microsoft=1\n{}", opset, body));
  infer_types(*model);
  const Node& node = *model->graph.find("y")->producer();
  return operators().find(node)->cost(StaticTypes(node)).macs;
}

TEST_CASE("axes of image operators") {
  const std::string x = "input x: float32[2,4,6,6]\n";
  const std::string scales = "initializer s: float32[4] = {1,1,2,2}\n";
  CHECK(roles(x + scales + "y = Resize(x, _, s)\noutput y: float32\n") == "0 1 - - |  | ");
  CHECK(roles(x + scales + "y = Upsample(x, s)\noutput y: float32\n", 9) == "0 1 - - | ");
  CHECK(roles(x + "initializer s: int64[4] = {2,4,6,9}\ny = Resize(x, _, _, s)\n"
                  "output y: float32\n") == "0 1 2 - |  |  | ");
  CHECK(roles(x + "input s: float32[2]\ny = Resize(x, _, s) {axes=[2,3]}\noutput y: float32\n",
              18) == "0 1 - - |  | ");
  // Cropping moves elements even where the size stays.
  CHECK(roles(x + scales +
              "input r: float32[8]\ny = Resize(x, r, s) "
              "{coordinate_transformation_mode=\"tf_crop_and_resize\"}\n"
              "output y: float32\n") == "- - - - |  | ");
  CHECK(roles(x + "input g: float32[2,3,5,2]\ny = GridSample(x, g)\noutput y: float32\n") ==
        "0 1 w w | 0 2 3 -");
  CHECK(roles(x + "input r: float32[7,4]\ninput b: int64[7]\ny = RoiAlign(x, r, b)\n"
                  "output y: float32\n") == "- 1 w w | 0 - | 0");
  CHECK(roles(x + "input w: float32[3,4,1,1]\ninput o: float32[2,2,6,6]\ninput b: float32[3]\n"
                  "y = DeformConv(x, w, o, b)\noutput y: float32\n",
              19) == "0 r w w | 1 r w w | 0 - 2 3 | 1");
  CHECK(roles(x + "y = MeanVarianceNormalization(x)\noutput y: float32\n") == "- 1 - -");
  CHECK(roles(x + "input s: int64[1]\ny = CenterCropPad(x, s) {axes=[2]}\noutput y: float32\n",
              18) == "0 1 - 3 | ");
}

TEST_CASE("axes of Softmax and Pad") {
  const std::string x = "input x: float32[2,4,6]\n";
  CHECK(roles(x + "y = Softmax(x) {axis=1}\n") == "0 - 2");
  CHECK(roles(x + "y = LogSoftmax(x) {axis=1}\n", 11) == "0 - -");
  CHECK(roles(x + "initializer p: int64[6] = {0,0,1,0,0,2}\ny = Pad(x, p)\n") == "0 1 - | ");
  CHECK(roles(x + "y = Pad(x) {pads=[0,1,0,0,0,0]}\n", 2) == "0 - 2");
  CHECK(roles(x + "input p: int64[6]\ny = Pad(x, p)\noutput y: float32\n") == "");
}

TEST_CASE("axes of convolutions") {
  const std::string x = "input x: float32[n,4,9,9]\n";
  CHECK(roles(x + "initializer w: float32[8,4,3,3] = zeros\ninitializer b: float32[8] = zeros\ny = "
                  "Conv(x, w, b)\n") == "0 r w w | 1 r w w | 1");
  CHECK(roles(x + "initializer w: float32[4,1,3,3] = zeros\ny = Conv(x, w) {group=4}\n") ==
        "0 1 w w | 1 r w w");
  CHECK(roles(x + "initializer w: float32[8,2,3,3] = zeros\ny = Conv(x, w) {group=2}\n") ==
        "0 - w w | 1 r w w");
  CHECK(roles(x + "initializer w: float32[4,8,3,3] = zeros\ny = ConvTranspose(x, w)\n") ==
        "0 r w w | r 1 w w");
  CHECK(roles(x + "y = GlobalAveragePool(x)\n") == "0 1 w w");
}

TEST_CASE("axes of products and elementwise operators") {
  CHECK(roles("input x: float32[n,4]\ninitializer w: float32[8,4] = zeros\ninitializer b: "
              "float32[8] = zeros\n"
              "y = Gemm(x, w, b) {transB=1}\n") == "0 r | 1 r | 1");
  CHECK(roles("input x: float32[n,5,4]\ninitializer w: float32[4,8] = zeros\ny = MatMul(x, w)\n") ==
        "0 1 r | r 2");
  CHECK(roles("input x: float32[n,4,9]\ninitializer b: float32[4,1] = zeros\ny = Add(x, b)\n") ==
        "0 1 2 | 1 -");
  CHECK(roles("input x: float32[n,4,9]\ny = Transpose(x) {perm=[2,0,1]}\n") == "1 2 0");
  CHECK(roles("input x: float32[n,4,9]\ny = ReduceMean(x) {axes=[1], keepdims=0}\n") == "0 r 1");
  CHECK(roles("input x: float32[n,4]\ninput z: float32[n,2]\ny = Concat(x, z) {axis=1}\n") ==
        "0 - | 0 -");
  CHECK(roles("input x: float32[n,4,9]\ninitializer s: float32[4] = ones\n"
              "y = BatchNormalization(x, s, s, s, s)\n") == "0 1 2 | 1 | 1 | 1 | 1");
  CHECK(roles("input x: int8[8,4]\ninitializer s: float32[8] = ones\ny = DequantizeLinear(x, s) "
              "{axis=0}\n") == "0 1 | 0");
}

// Scalars s (a scale) and z (a zero point), and per-channel S and Z of 8.
const std::string scales =
    "initializer s: float32[] = ones\ninitializer z: uint8[] = zeros\n"
    "initializer S: float32[8] = ones\ninitializer Z: uint8[8] = zeros\n";

TEST_CASE("axes of operators on quantized codes") {
  const std::string x = scales +
                        "input x: uint8[n,4,9,9]\ninitializer w: uint8[8,4,3,3] = zeros\n" +
                        "initializer b: int32[8] = zeros\n";
  CHECK(roles(x + "y = QLinearConv(x, s, z, w, S, Z, s, z, b)\n") ==
        "0 r w w |  |  | 1 r w w | 1 | 1 |  |  | 1");
  CHECK(roles(scales +
              "input x: uint8[n,9,9,4]\ninitializer w: uint8[8,4,3,3] = zeros\n"
              "y = com.microsoft.QLinearConv(x, s, z, w, S, Z, s, z) {channels_last=1}\n") ==
        "0 w w r |  |  | 3 r w w | 3 | 3 |  | ");
  CHECK(roles(x + "y = ConvInteger(x, w, z, z)\n") == "0 r w w | 1 r w w |  | ");
  const std::string a = scales + "input a: uint8[n,4]\ninitializer b: uint8[4,8] = zeros\n";
  CHECK(roles(a + "y = QLinearMatMul(a, s, z, b, S, Z, s, z)\n") ==
        "0 r |  |  | r 1 | 1 | 1 |  | ");
  CHECK(roles(a + "y = MatMulInteger(a, b, z, Z)\n") == "0 r | r 1 |  | 1");
  CHECK(roles(a + "y = com.microsoft.QGemm(a, s, z, b, S, Z)\n") == "0 r |  |  | r 1 | 1 | 1");
  CHECK(roles(x + "y = com.microsoft.QLinearGlobalAveragePool(x, s, z, s, z)\n") ==
        "0 1 w w |  |  |  | ");
  CHECK(roles(x + "y = com.microsoft.NhwcMaxPool(x) {kernel_shape=[2,2]}\n") == "0 w w 3");
  CHECK(roles(x + "y = com.microsoft.QLinearReduceMean(x, s, z, s, z) {axes=[1], keepdims=0}\n") ==
        "0 r 1 2 |  |  |  | ");
  CHECK(roles(x + "y = com.microsoft.QLinearConcat(s, z, x, s, z, x, s, z) {axis=1}\n") ==
        "0 - 2 3 |  |  | 0 - 2 3 |  | ");
  CHECK(roles("input a: float32[n,5,16]\ninitializer w: uint8[8,1,8] = zeros\n"
              "initializer s: float32[8,1] = ones\n"
              "y = com.microsoft.MatMulNBits(a, w, s) {K=16, N=8, block_size=16}\n") ==
        "0 1 r | 2 - - | 2 -");
}

TEST_CASE("multiply-accumulates") {
  const std::string x = "input x: float32[2,4,9,9]\n";
  CHECK(macs(x + "initializer w: float32[8,4,3,3] = zeros\ny = Conv(x, w)\n") == 2 * 8 * 49 * 36);
  CHECK(macs(x + "initializer w: float32[4,1,3,3] = zeros\ny = Conv(x, w) {group=4}\n") ==
        2 * 4 * 49 * 9);
  CHECK(
      macs(x +
           "initializer w: float32[4,8,2,2] = zeros\ny = ConvTranspose(x, w) {strides=[2,2]}\n") ==
      2 * 4 * 81 * 32);
  CHECK(macs("input a: float32[3,5,4]\ninitializer b: float32[4,8] = zeros\ny = MatMul(a, b)\n") ==
        3 * 5 * 4 * 8);
  CHECK(macs("input a: float32[3,4]\ninitializer b: float32[8,4] = zeros\ny = Gemm(a, b) "
             "{transB=1}\n") == 3 * 4 * 8);
  CHECK(macs(scales +
             "input x: uint8[2,9,9,4]\ninitializer w: uint8[8,4,3,3] = zeros\n"
             "y = com.microsoft.QLinearConv(x, s, z, w, S, Z, s, z) {channels_last=1}\n") ==
        2 * 8 * 49 * 36);
  CHECK(macs(scales + "input a: uint8[3,5,4]\ninitializer b: uint8[4,8] = zeros\n"
                      "y = QLinearMatMul(a, s, z, b, S, Z, s, z)\n") == 3 * 5 * 4 * 8);
  CHECK(macs(scales + "input a: uint8[3,4]\ninitializer b: uint8[8,4] = zeros\n"
                      "y = com.microsoft.QGemm(a, s, z, b, S, Z) {transB=1}\n") == 3 * 4 * 8);
  CHECK(macs("input a: float32[2,5,16]\ninitializer w: uint8[8,1,8] = zeros\n"
             "initializer s: float32[8,1] = ones\n"
             "y = com.microsoft.MatMulNBits(a, w, s) {K=16, N=8, block_size=16}\n") ==
        2 * 5 * 16 * 8);
}

TEST_CASE("costs of transformer operators") {
  // Two products of heads * queries * keys * width: 2 * (3 * 5 * 7 * 4) and so on.
  const std::string q = "input q: float32[2,3,5,4]\ninput k: float32[2,3,7,4]\n";
  CHECK(macs(q + "y = Attention(q, k, k)\n", 23) == 2 * 3 * 5 * 7 * (4 + 4));
  CHECK(macs(q + "input p: float32[2,3,1,4]\ny = Attention(q, k, k, _, p, p)\n", 23) ==
        2 * 3 * 5 * 8 * (4 + 4));
  const std::string x = "input x: float32[2,5,6]\ninput w: float32[6,24]\n";
  CHECK(macs(x + "y = com.microsoft.Attention(x, w) {num_heads=2}\n") ==
        2 * 5 * 6 * 24 + 2 * 2 * 5 * 5 * (4 + 4));
  CHECK(macs("input q: float32[2,5,6]\ninput k: float32[2,7,6]\n"
             "y = com.microsoft.MultiHeadAttention(q, k, k) {num_heads=2}\n") ==
        2 * 2 * 5 * 7 * (3 + 3));
  CHECK(macs("input q: float32[2,5,4]\n"
             "y = com.microsoft.FusedMatMul(q, q) {transB=1}\n") == 2 * 5 * 5 * 4);
  // (ab,bc) first: 2 * 9 * 3, then 2 * 3 * 4; the other order takes 9 * 3 * 4 + 2 * 9 * 4.
  CHECK(macs("input a: float32[2,9]\ninput b: float32[9,3]\ninput c: float32[3,4]\n"
             "y = Einsum(a, b, c) {equation=\"ab,bc,cd->ad\"}\n") == 2 * 9 * 3 + 2 * 3 * 4);
  CHECK(macs("input x: float32[2,4,6]\ninput w: float32[4,1,3]\n"
             "y = CausalConvWithState(x, w)\n",
             27) == 2 * 4 * 6 * 3);
}

TEST_CASE("axes of Einsum") {
  CHECK(roles("input a: float32[2,3,4]\ninput b: float32[4,5]\n"
              "y = Einsum(a, b) {equation=\"bij,jk->bik\"}\n") == "0 1 r | r 2");
}

}  // namespace
}  // namespace onnxpress
