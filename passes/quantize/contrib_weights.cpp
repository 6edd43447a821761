#include "passes/quantize/contrib_weights.h"

#include <algorithm>
#include <bit>

#include "graph/ops/gather.h"
#include "graph/ops/gather_block_quantized.h"
#include "graph/ops/gemm.h"
#include "graph/ops/matmul_nbits.h"
#include "graph/ops/reshape.h"
#include "graph/rewrite/patch.h"
#include "passes/quantize/contrib_codes.h"

namespace onnxpress {
namespace {

bool is_lookup(const Node& node) { return node.is("Gather"); }

// Why the node that reads a [rows, columns] weight as input `index` has no counterpart.
std::optional<std::string> obstacle(const Node& node, std::size_t index) {
  if (node.is("Gather"))
    return index == 0 && gather_axis(node) == 0 ? std::nullopt : std::optional<std::string>("Gather along columns");
  if (node.is("MatMul")) return index == 1 ? std::nullopt : std::optional<std::string>("MatMul with it on the left");
  if (!node.is("Gemm")) return node.op_type();
  const GemmAttrs attrs = GemmAttrs::from(node);
  const Value* bias = node.input(2);
  if (index != 1 || attrs.transpose_a || attrs.alpha != 1) return "Gemm of other than A * B";
  const std::int64_t columns = node.input(1)->constant()->dim(attrs.transpose_b ? 0 : 1);
  const bool adds_row = bias == nullptr || (attrs.beta == 1 && bias->type.shape && concrete(*bias->type.shape) == Dims{columns});
  if (!adds_row) return "Gemm with a bias that is no row";
  return std::nullopt;
}

// The axis of the weight that the node sums over, or looks up whole rows along.
std::int64_t inputs_of(const Node& node) {
  return node.is("Gather") || (node.is("Gemm") && GemmAttrs::from(node).transpose_b) ? 1 : 0;
}

// [rows, columns] to [columns, rows].
Tensor turned(const Tensor& matrix) {
  const std::size_t width = static_cast<std::size_t>(bits(matrix.dtype()) / 8);
  const auto rows = static_cast<std::size_t>(matrix.dim(0)), columns = static_cast<std::size_t>(matrix.dim(1));
  Tensor result = Tensor::uninitialized(matrix.dtype(), {matrix.dim(1), matrix.dim(0)});
  const std::byte* const from = matrix.bytes().data();
  std::byte* const to = result.mutable_bytes().data();
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c)
      std::copy_n(from + (r * columns + c) * width, width, to + (c * rows + r) * width);
  return result;
}

}  // namespace

ContribWeight::ContribWeight(const StoredWeight& stored, const QuantizedTensor& quantized, ThreadPool& pool) {
  const Dims& dims = quantized.codes.dims();
  const bool transposed = stored.granularity.axis == 0;
  rows = dims[transposed ? 1 : 0];
  depth = dims[transposed ? 0 : 1];
  blocks = (depth + stored.granularity.block - 1) / stored.granularity.block;
  bits = onnxpress::bits(quantized.codes.dtype());
  const auto middle = static_cast<std::uint8_t>(1U << static_cast<unsigned>(bits - 1));
  codes = contrib_codes(quantized.codes, {transposed, stored.granularity.block, middle}, &pool);
  scales = transposed ? turned(quantized.scale) : quantized.scale;
  if (quantized.zero_point.defined()) zero_points = contrib_codes(quantized.zero_point, {.turned = transposed}, &pool);
}

std::optional<std::string> contrib_obstacle(const Weight& weight, std::int64_t block) {
  const Tensor& tensor = *weight.value->constant();
  if (tensor.rank() != 2 || tensor.size() == 0) return "weights that are no matrix";
  if (tensor.dtype() != DType::float32 && tensor.dtype() != DType::float16)
    return fmt::format("weights of {}", name(tensor.dtype()));
  if (!weight.input_axis) return "operators without inputs along an axis";
  for (const Use& use : weight.value->uses()) {
    if (auto reason = obstacle(*use.node, use.index)) return reason;
    if (inputs_of(*use.node) != *weight.input_axis) return "operators that do not agree on the weight's rows";
  }
  const bool in_lookup = std::ranges::any_of(weight.value->uses(), [](const Use& use) { return is_lookup(*use.node); });
  if (in_lookup && tensor.dim(1) % block != 0)
    return fmt::format("tables whose rows are no whole number of blocks of {}", block);
  return std::nullopt;
}

void replace_by_contrib(Model& model, const StoredWeight& stored, const ContribWeight& packed,
                        std::int64_t accuracy_level) {
  const Value* const weight = stored.weight.value;
  model.opsets.emplace("com.microsoft", 1);
  const std::string& base = weight->name();
  const std::int64_t block = stored.granularity.block;
  // Operators of subgraphs read what the graph of the weight defines.
  Graph& home = weight->graph();
  const auto define = [&](const char* suffix, const Tensor& tensor) -> Value* {
    return tensor.defined() ? home.add_initializer(home.unique_name(base + suffix), tensor) : nullptr;
  };
  const std::vector<Use> uses(weight->uses().begin(), weight->uses().end());
  const auto looks_up = [](const Use& use) { return is_lookup(*use.node); };
  const bool has_lookups = std::ranges::any_of(uses, looks_up);
  const Dims rows_of_blocks{packed.rows, packed.blocks, block * packed.bits / 8};
  Value* const codes = define("_quantized", has_lookups ? packed.codes : packed.codes.reshaped(rows_of_blocks));
  Value* const scales = define("_scale", packed.scales);
  Value* const zero_points = define("_zero_point", packed.zero_points);
  for (const Use& use : uses) {
    Node& node = *use.node;
    Patch patch(node.graph());
    Patch::NodeTemplate made{.op_type = "MatMulNBits", .domain = "com.microsoft"};
    if (is_lookup(node)) {
      made.op_type = "GatherBlockQuantized";
      made.inputs = {codes, node.input(1), scales, zero_points};
      made.attributes = GatherBlockQuantizedAttrs{.block_size = block, .bits = packed.bits}.to_attributes();
    } else {
      Patch::Ref blocks = codes;
      if (has_lookups) {
        OpCall reshape = make_reshape(node.opset(), rows_of_blocks);
        blocks = patch.node({.op_type = reshape.op_type,
                             .name = base + "_Reshape",
                             .inputs = {codes, patch.constant(base + "_blocks", std::move(reshape.constants.at(0)))},
                             .attributes = std::move(reshape.attributes)});
      }
      made.inputs = {node.input(0), blocks, scales, zero_points};
      if (node.is("Gemm") && node.input(2) != nullptr) {
        made.inputs.resize(5);
        made.inputs.push_back(node.input(2));
      }
      made.attributes = MatMulNBitsAttrs{.depth = packed.depth, .columns = packed.rows, .bits = packed.bits,
                                         .block_size = block, .accuracy_level = accuracy_level}
                            .to_attributes();
    }
    patch.replace(node.output(), patch.node(std::move(made)));
    patch.remove(&node);
    patch.apply();
  }
}

}  // namespace onnxpress
