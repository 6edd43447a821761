// Removes what no output depends on.
#include "graph/rewrite/pattern.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

class EliminateDeadCode : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "eliminate_dead_code",
      .summary = "removes nodes, constants and functions that no output depends on",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 90};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext&) const override {
    RemovedCounts removed;
    // A node gone from a nested graph may leave nodes of the graphs around it unread.
    for (bool again = true; again;) {
      again = false;
      model.for_each_graph([&](Graph& graph) {
        const RemovedCounts counts = remove_unused(graph);
        removed.nodes += counts.nodes;
        removed.initializers += counts.initializers;
        again |= counts.nodes > 0;
      });
    }
    const std::int64_t functions = remove_functions(model);
    return {.changed = removed.nodes + removed.initializers + functions > 0,
            .counts = {{"nodes", removed.nodes},
                       {"initializers", removed.initializers},
                       {"functions", functions}}};
  }

 private:
  // Functions reached neither from the main graph nor from a function that is.
  static std::int64_t remove_functions(Model& model) {
    std::vector<const Function*> reached;
    const auto visit = [&](const auto& self, const Graph& root) -> void {
      root.for_each_graph([&](const Graph& graph) {
        for (const Node* node : graph.nodes()) {
          const Function* function = model.function(*node);
          if (!function || std::find(reached.begin(), reached.end(), function) != reached.end())
            continue;
          reached.push_back(function);
          self(self, function->body);
        }
      });
    };
    visit(visit, model.graph);
    return static_cast<std::int64_t>(
        std::erase_if(model.functions, [&](const std::unique_ptr<Function>& function) {
          return std::find(reached.begin(), reached.end(), function.get()) == reached.end();
        }));
  }
};

}  // namespace

PASS(eliminate_dead_code) { registry.add(std::make_unique<EliminateDeadCode>()); }

}  // namespace onnxpress
