#include "passes/quantize/operator_roles.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "graph/ops/gemm.h"
#include "graph/ops/pad.h"
#include "graph/ops/resize.h"

namespace onnxpress {
namespace {

// Targets as bits. `ort` is both targets of ONNX Runtime's CPU provider: what its QDQ transformations
// turn into integer kernels (onnxruntime/core/optimizer/qdq_transformer). `most` are those that say
// what they fuse by themselves: a pair around an operator that they run on floats costs little.
constexpr unsigned ort = 1, openvino = 2, tensorrt = 4, qnn = 8, generic = 16;
constexpr unsigned all = ort | openvino | tensorrt | qnn | generic;

unsigned bit_of(const Target& target) {
  switch (target.id) {
    case Target::Id::ort_cpu:
    case Target::Id::ort_cpu_avx2: return ort;
    case Target::Id::openvino: return openvino;
    case Target::Id::tensorrt: return tensorrt;
    case Target::Id::qnn: return qnn;
    case Target::Id::generic: return generic;
  }
  return 0;
}

struct Row {
  std::string_view op;
  Role role;
  unsigned targets;   // that run it on codes
  std::size_t data = 1;  // first inputs that are activations; 0: all
};

constexpr std::array rows{
    Row{"Conv", Role::linear, all},
    Row{"ConvTranspose", Role::linear, openvino | tensorrt | qnn | generic},
    Row{"Gemm", Role::linear, all},
    Row{"MatMul", Role::linear, all},
    Row{"Gather", Role::movement, all},
    Row{"LSTM", Role::recurrent, 0},
    Row{"GRU", Role::recurrent, 0},
    Row{"RNN", Role::recurrent, 0},

    Row{"Add", Role::arithmetic, all, 2},
    Row{"Mul", Role::arithmetic, ort | openvino | qnn | generic, 2},
    Row{"Sub", Role::arithmetic, openvino | qnn, 2},
    Row{"Div", Role::arithmetic, qnn, 2},
    Row{"Min", Role::arithmetic, qnn, 0},
    Row{"Max", Role::arithmetic, qnn, 0},
    Row{"PRelu", Role::arithmetic, openvino | qnn, 2},
    Row{"Concat", Role::arithmetic, all, 0},
    Row{"AveragePool", Role::arithmetic, all},
    Row{"GlobalAveragePool", Role::arithmetic, all},
    Row{"LeakyRelu", Role::arithmetic, ort | openvino | qnn | generic},
    Row{"Sigmoid", Role::arithmetic, ort | qnn | generic},
    Row{"HardSigmoid", Role::arithmetic, qnn},
    Row{"HardSwish", Role::arithmetic, qnn},
    Row{"Tanh", Role::arithmetic, qnn},
    Row{"Elu", Role::arithmetic, qnn},
    Row{"Gelu", Role::arithmetic, qnn},
    Row{"Softmax", Role::arithmetic, qnn},
    Row{"LogSoftmax", Role::arithmetic, qnn},
    Row{"Abs", Role::arithmetic, qnn},
    Row{"Neg", Role::arithmetic, qnn},
    Row{"Sqrt", Role::arithmetic, qnn},
    Row{"ReduceMean", Role::arithmetic, openvino | qnn},
    Row{"ReduceSum", Role::arithmetic, openvino | qnn},

    Row{"MaxPool", Role::movement, all},
    Row{"ReduceMax", Role::movement, ort | openvino | qnn | generic},
    Row{"ReduceMin", Role::movement, ort | openvino | qnn | generic},
    Row{"Reshape", Role::movement, all},
    Row{"Flatten", Role::movement, all},
    Row{"Squeeze", Role::movement, all},
    Row{"Unsqueeze", Role::movement, all},
    Row{"Transpose", Role::movement, all},
    Row{"Slice", Role::movement, all},
    Row{"Split", Role::movement, all},
    Row{"GatherElements", Role::movement, all},
    Row{"GatherND", Role::movement, all},
    Row{"Expand", Role::movement, all},
    Row{"Tile", Role::movement, all},
    Row{"Identity", Role::movement, all},
    Row{"Resize", Role::movement, all},
    Row{"Upsample", Role::movement, all},
    Row{"Pad", Role::movement, all},
    Row{"DepthToSpace", Role::movement, all},
    Row{"SpaceToDepth", Role::movement, all},

    Row{"Relu", Role::bounds, all},
    Row{"Clip", Role::bounds, all},
};

bool is_constant(const Node& node, std::size_t index) {
  return node.input(index) && node.input(index)->is_constant();
}

// Conv and ConvTranspose whose weight is computed run on floats.
void use_convolution(const Node& node, OperatorUse& use) {
  if (!is_constant(node, 1)) {
    const Node* maker = node.input(1) ? node.input(1)->producer() : nullptr;
    const bool has_codes = maker && maker->is("DequantizeLinear") && is_constant(*maker, 0);
    use = {.role = Role::none, .reason = has_codes ? "it is quantized already" : "its weight is not a constant"};
    return;
  }
  use.weights = {1};
  if (node.input(2)) use.bias = 2;
}

void use_product(const Node& node, OperatorUse& use) {
  const bool constant[] = {is_constant(node, 0), is_constant(node, 1)};
  if (constant[0] && constant[1]) {
    use = {.role = Role::none, .reason = "both factors are constants; run simplify first"};
    return;
  }
  use.data.clear();
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) (constant[i] ? use.weights : use.data).push_back(i);
  if (use.weights.empty()) use.role = Role::product;
  if (!node.is("Gemm") || !node.input(2)) return;
  use.bias = 2;
  if (GemmAttrs::from(node).beta != 1) {
    use.on_integers = false;
    use.reason = "its bias has a factor (beta)";
  }
}

// Of a movement: whether results are elements of input 0 (or zeros) indeed.
std::string movement_obstacle(const Node& node) {
  if ((node.is("Resize") || node.is("Upsample")) && !resizes_by_picking(node))
    return "it interpolates between elements";
  if (node.is("Pad")) {
    const PadAttrs attrs = PadAttrs::from(node);
    if (attrs.mode == PadMode::constant && attrs.value != 0.0) return "it does not pad with zeros";
  }
  if (node.is("MaxPool") && node.output(1) && !node.output(1)->is_unused()) return "its indices are read";
  return {};
}

}  // namespace

OperatorUse operator_use(const Node& node, const Target& target) {
  OperatorUse use;
  const auto row = std::ranges::find_if(rows, [&](const Row& r) { return node.is(r.op); });
  if (row == rows.end() || !node.input(0) || !node.output(0)) {
    use.reason = "runs on floats";
    return use;
  }
  use.role = row->role;
  use.on_integers = (row->targets & bit_of(target)) != 0;
  if (!use.on_integers) use.reason = "target " + std::string(target.name()) + " runs it on floats";
  const std::size_t count = row->data == 0 ? node.input_count() : row->data;
  for (std::size_t i = 0; i < count; ++i)
    if (node.input(i)) use.data.push_back(i);
  if (node.is("Conv") || node.is("ConvTranspose")) use_convolution(node, use);
  if (node.is("Gemm") || node.is("MatMul")) use_product(node, use);
  if (node.is("Gather") && is_constant(node, 0)) {
    use.role = Role::lookup;
    use.data.clear();
    use.weights = {0};
  }
  if (use.role == Role::recurrent) {
    use.data.clear();
    use.weights = {1, 2};
    use.reason = "its activations stay floats: ONNX has no recurrent operator on codes but com.microsoft's dynamic one";
  }
  if (use.role == Role::movement) {
    if (const std::string obstacle = movement_obstacle(node); !obstacle.empty())
      use = {.role = Role::none, .reason = obstacle};
  }
  return use;
}

}  // namespace onnxpress
