// Clip from 0 to a number (Relu6) as Relu, which lets factors of channels through (Nagel et al. 2019,
// arXiv 1906.04721, section 5.1.1): where values seldom reach the bound it costs little, and
// cross-layer equalization then works.
#include <cmath>

#include "graph/ops/clip.h"
#include "graph/rewrite/patch.h"
#include "passes/core/registry.h"
#include "passes/core/selector.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "select", .kind = OptionSpec::Kind::selector, .help = "Clips; default: all from 0 to a number"},
};

class RelaxClips : public Pass {
 public:
  static constexpr PassInfo pass_info{.name = "relax_clips",
                                      .summary = "Clip from 0 to a number (Relu6) becomes Relu, so that equalize can work",
                                      .options = option_specs,
                                      .effect = Effect::lossy};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    const Selector selector(context.options.text("select"));
    std::size_t count = 0;
    model.graph.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes()) {
        if (!node->is("Clip") || !selector.matches(*node)) continue;
        const std::optional<ClipBounds> bounds = ClipBounds::from(*node);
        if (!bounds || bounds->low != 0 || !std::isfinite(bounds->high)) continue;
        Patch patch(graph);
        patch.replace(node->output(), patch.node({.op_type = "Relu", .name = node->name, .inputs = {node->input(0)}}));
        patch.remove(node);
        patch.remove_unread_producers();
        patch.apply();
        ++count;
      }
    });
    Outcome outcome{.changed = count > 0};
    outcome.counts["relaxed"] = count;
    if (count > 0)
      outcome.notes.push_back(fmt::format("{} Clips became Relu: outputs differ where they cut from above", count));
    return outcome;
  }
};

}  // namespace

PASS(relax_clips) { registry.add(std::make_unique<RelaxClips>()); }

}  // namespace onnxpress
