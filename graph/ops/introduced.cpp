#include "graph/ops/introduced.h"

#include <algorithm>

#include "graph/ops/registry.h"

namespace onnxpress {

std::optional<std::int64_t> introduced_in(std::string_view op_type) {
  // Those that the rows of the registry do not tell: ONNX Runtime has LayerNormalization and
  // SimplifiedLayerNormalization in all opsets; operators before opset 6 had attributes
  // (consumed_inputs) that are not written; Softmax flattened its input before 13.
  if (op_type == "LayerNormalization") return 17;
  if (op_type == "SimplifiedLayerNormalization") return std::nullopt;
  std::optional<std::int64_t> first;
  for (const OpDef* def : operators().all()) {
    if (!def->domain.empty() || def->name != op_type) continue;
    first = std::min(first.value_or(def->since), def->since);
  }
  constexpr std::int64_t without_consumed_inputs = 6;
  if (first && *first < without_consumed_inputs) first = without_consumed_inputs;
  return first;
}

std::optional<std::string> missing_operator(const Graph& graph, std::string_view op_type) {
  const auto first = introduced_in(op_type);
  if (!first) return fmt::format("ONNX has no {}", op_type);
  if (graph.opset() >= *first) return std::nullopt;
  return fmt::format("{} needs opset {}, the model has {}", op_type, *first, graph.opset());
}

}  // namespace onnxpress
