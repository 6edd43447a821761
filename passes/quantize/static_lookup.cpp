#include "passes/quantize/static_lookup.h"

#include <algorithm>

#include "graph/ops/float_types.h"
#include "graph/ops/gather.h"
#include "graph/ops/quantize_linear.h"
#include "graph/rewrite/patch.h"
#include "passes/common/rewriting.h"

namespace onnxpress {
namespace {

constexpr std::int64_t opset_of_blocks = 21;

bool is_along_rows(const Node& gather, std::size_t rank) {
  const std::int64_t axis = gather_axis(gather);
  return axis == 0 || axis == -static_cast<std::int64_t>(rank);
}

}  // namespace

bool is_looked_up_as_codes(const Value& table, DType codes) {
  return is_integer(codes) && bits(codes) >= 8 && !table.is_output() && std::ranges::all_of(table.uses(), [](const Use& use) {
    return use.node->is("Gather") && use.index == 0;
  });
}

Granularity lookup_granularity(const Value& table, bool by_row, bool symmetric) {
  const std::size_t rank = table.constant()->rank();
  const bool along_rows = std::ranges::all_of(table.uses(), [&](const Use& use) { return is_along_rows(*use.node, rank); });
  return by_row && symmetric && rank == 2 && along_rows ? Granularity::per_channel(0) : Granularity::per_tensor();
}

void quantize_lookups(Value& table, const QuantizedTensor& quantized) {
  const std::string base = table.name();
  const DType type = table.constant()->dtype();
  const bool by_row = quantized.granularity.kind == Granularity::Kind::channel;
  Graph& home = table.graph();
  Value* codes = home.add_initializer(home.unique_name(base + "_quantized"), quantized.codes);
  const Tensor scales = by_row ? quantized.scale.reshaped({quantized.scale.size(), 1}) : quantized.scale;
  Value* scale = home.add_initializer(home.unique_name(base + "_scale"), scales);
  // Without one ONNX Runtime takes codes for uint8 when it moves QuantizeLinear over what is behind.
  const Tensor zeros = quantized.zero_point.defined() ? quantized.zero_point : Tensor(quantized.codes.dtype(), scales.dims());
  Value* zero = by_row ? nullptr : home.add_initializer(home.unique_name(base + "_zero_point"), zeros);
  std::vector<Node*> gathers;
  for (const Use& use : table.uses()) gathers.push_back(use.node);
  for (Node* gather : gathers) {
    Graph& graph = gather->graph();
    Patch patch(graph);
    const auto look_up = [&](Value* data) {
      return patch.node({.op_type = "Gather",
                         .name = gather->name,
                         .inputs = {data, gather->input(1)},
                         .attributes = copy_attributes(*gather)});
    };
    const Patch::Ref rows = look_up(codes);
    const std::string name = base + "_DequantizeLinear";
    Patch::Ref floats;
    if (!by_row) {
      floats = patch.node({.op_type = "DequantizeLinear", .name = name, .inputs = {rows, scale, zero}, .attributes = {}});
    } else if (graph.opset() >= opset_of_blocks) {
      const QuantizeAttrs attrs{.axis = -1, .block_size = quantized.codes.dim(1)};
      floats = patch.node({.op_type = "DequantizeLinear", .name = name, .inputs = {rows, look_up(scale)}, .attributes = attrs.to_attributes()});
    } else {
      const Patch::Ref wide = add_call(patch, graph, make_cast(graph.opset(), type), {rows}, name + "_Cast");
      floats = patch.node({.op_type = "Mul", .name = name, .inputs = {wide, look_up(scale)}, .attributes = {}});
    }
    patch.replace(gather->output(0), floats);
    patch.remove_if_unread(gather);
    patch.apply();
  }
}

}  // namespace onnxpress
