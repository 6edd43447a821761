// Numbers the nodes of a model by operator: conv_0, conv_1, gemm_0, ...
#include <algorithm>
#include <cctype>
#include <map>

#include "passes/core/plugin.h"

namespace onnxpress {
namespace {

constexpr OptionSpec options[] = {
    {.name = "prefix",
     .kind = OptionSpec::Kind::text,
     .default_value = "",
     .help = "goes before every name"},
};

class RenameNodes final : public Pass {
 public:
  const PassInfo& info() const override {
    static constexpr PassInfo info{.name = "rename_nodes",
                                   .summary = "number the nodes of a model by operator",
                                   .options = options};
    return info;
  }

  Outcome run(Model& model, PassContext& context) const override {
    Outcome outcome;
    std::map<std::string, std::int64_t> seen;
    std::int64_t renamed = 0;
    model.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes()) {
        std::string type = node->op_type();
        std::transform(type.begin(), type.end(), type.begin(),
                       [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        const std::string name =
            fmt::format("{}{}_{}", context.options.text("prefix"), type, seen[type]++);
        if (node->name == name) continue;
        node->name = name;
        ++renamed;
      }
    });
    outcome.changed = renamed > 0;
    outcome.counts["renamed"] = renamed;
    return outcome;
  }
};

}  // namespace

PASS(rename_nodes) { registry.add(std::make_unique<RenameNodes>()); }

}  // namespace onnxpress

ONNXPRESS_PLUGIN(onnxpress::register_pass_rename_nodes)
