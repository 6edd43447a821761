#include "graph/exec/unsupported.h"

#include <fmt/format.h>

#include <map>
#include <set>
#include <tuple>

#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

struct Collector {
  const Model& model;
  std::set<const Function*> visited;
  std::map<std::tuple<std::string, std::string, std::int64_t>, std::string> missing;

  void collect(const Graph& graph, const std::string& where) {
    graph.for_each_graph([&](const Graph& inner) {
      for (const Node* node : inner.nodes()) add(*node, where);
    });
  }

  void add(const Node& node, const std::string& where) {
    if (const Function* function = model.function(node)) {
      if (visited.insert(function).second)
        collect(function->body, fmt::format(" of function '{}'", function->name));
      return;
    }
    const OpDef* op = operators().find(node);
    if (op && op->prepare) return;
    missing.try_emplace(
        {node.domain().empty() ? "ai.onnx" : node.domain(), node.op_type(), node.opset()},
        node.describe() + where);
  }
};

}  // namespace

std::vector<UnsupportedOperator> unsupported_operators(const Model& model) {
  Collector collector{.model = model, .visited = {}, .missing = {}};
  collector.collect(model.graph, "");
  std::vector<UnsupportedOperator> result;
  for (const auto& [key, node] : collector.missing)
    result.push_back({.op_type = std::get<1>(key),
                      .domain = std::get<0>(key),
                      .version = std::get<2>(key),
                      .node = node});
  return result;
}

std::string describe(const std::vector<UnsupportedOperator>& operators) {
  std::string text;
  for (const UnsupportedOperator& op : operators)
    text += fmt::format("{}{} of {} {} ({})", text.empty() ? "" : ", ", op.op_type, op.domain,
                        op.version, op.node);
  return "the engine has no kernel for " + text;
}

void require_supported(const Model& model) {
  const std::vector<UnsupportedOperator> missing = unsupported_operators(model);
  if (!missing.empty()) throw UnsupportedModel(describe(missing));
}

}  // namespace onnxpress
