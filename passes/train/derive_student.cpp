// A smaller model of a larger one's weights, to be trained further (knowledge distillation): residual
// blocks left out, evenly, and layers made narrower by whole channels, those of the smallest norm.
//
// Every second layer: Sanh et al. 2019, "DistilBERT". Channels by norm: Li et al. 2017, "Pruning
// Filters for Efficient ConvNets"; by what is tied together: Fang et al. 2023, "DepGraph".
#include <algorithm>
#include <cmath>
#include <numeric>

#include "graph/rewrite/inline.h"
#include "passes/common/dependency_groups.h"
#include "passes/common/residual_blocks.h"
#include "passes/core/prepared_pass.h"
#include "passes/core/registry.h"
#include "passes/core/selector.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "width",
     .kind = OptionSpec::Kind::number,
     .default_value = "1",
     .help = "share of the channels that stay, of every layer",
     .min = 0,
     .max = 1},
    {.name = "depth",
     .kind = OptionSpec::Kind::number,
     .default_value = "1",
     .help = "share of the residual blocks that stay, of every run of equal ones",
     .min = 0,
     .max = 1},
    {.name = "select",
     .kind = OptionSpec::Kind::selector,
     .help = "operators whose results may become narrower; default: all"},
};

class DeriveStudent : public Pass, public PreparedPass {
 public:
  const PassInfo& info() const override {
    static constexpr PassInfo info{.name = "derive_student",
                                   .summary = "Leaves out residual blocks and channels, to be trained further.",
                                   .options = option_specs,
                                   .effect = Effect::lossy,
                                   .min_opset = 7};
    return info;
  }

  void check(const Options& options) const override {
    const double width = options.number("width"), depth = options.number("depth");
    require(width > 0 && depth > 0, "expected width and depth above 0, found {} and {}", width, depth);
    require(width < 1 || depth < 1, "expected width or depth below 1, found 1 and 1: nothing would be left out");
  }

  // Weights that are computed from constants are no weights yet.
  std::vector<std::string> preparations(const Model&, const Options&) const override { return {"simplify"}; }

  Outcome run(Model& model, PassContext& context) const override {
    Outcome outcome;
    const Hash128 before = structural_hash(model, true);
    inline_functions(model);
    const double width = context.options.number("width"), depth = context.options.number("depth");
    if (depth < 1) drop(model, depth, outcome);
    if (width < 1) narrow(model, width, context, outcome);
    outcome.changed = structural_hash(model, true) != before;
    return outcome;
  }

 private:
  static void drop(Model& model, double depth, Outcome& outcome) {
    std::vector<ResidualBlock> dropped;
    std::size_t count = 0;
    for (const ResidualChain& chain : residual_chains(model)) {
      const std::vector<std::size_t> kept = evenly_kept(chain.blocks.size(), depth);
      count += chain.blocks.size();
      for (std::size_t i = 0; i < chain.blocks.size(); ++i)
        if (!std::ranges::binary_search(kept, i)) dropped.push_back(chain.blocks[i]);
    }
    if (dropped.empty())
      throw Unsuitable(fmt::format(
          "depth={}: expected residual blocks that can be left out (of the same dims before and after, at "
          "least one of a run stays), found {}",
          depth, count == 0 ? "none" : fmt::format("{} that must all stay", count)));
    for (const ResidualBlock& block : dropped)
      outcome.notes.push_back(fmt::format("left out the block of {}", block.name));
    drop_blocks(model, dropped);
    outcome.counts["blocks"] = count;
    outcome.counts["blocks left out"] = dropped.size();
  }

  static void narrow(Model& model, double width, PassContext& context, Outcome& outcome) {
    const DependencyGroups groups = DependencyGroups::of(model);
    const Selector selector(context.options.text("select"));
    std::vector<std::vector<std::size_t>> removed;
    std::int64_t channels = 0, gone = 0;
    for (const DependencyGroup& group : groups.groups()) {
      removed.push_back(is_selected(groups, group, selector) ? least_important(groups, group, width)
                                                             : std::vector<std::size_t>{});
      const std::size_t count = group.sets.size();
      channels += static_cast<std::int64_t>(count);
      gone += std::ssize(removed.back());
      outcome.layers.push_back({{"tensor", name_of(groups, group)},
                                {"channels", count},
                                {"kept", count - removed.back().size()},
                                {"normalized", group.is_normalized}});
    }
    if (gone == 0)
      throw Unsuitable(fmt::format("width={}: expected channels that can be left out, found none{}", width,
                                   reasons(groups, ": ")));
    for (const auto& [value, reason] : groups.obstacles()) {
      outcome.notes.push_back(fmt::format("'{}' stays as wide as it is: {}", value->name(), reason));
      if (context.near_misses)
        context.near_misses->push_back({"derive_student", value->producer()->describe(), reason});
    }
    remove_channels(model, groups, removed);
    outcome.counts["channels"] = channels;
    outcome.counts["channels left out"] = gone;
  }

  static std::string reasons(const DependencyGroups& groups, std::string_view before) {
    std::string text;
    for (const auto& [value, reason] : groups.obstacles())
      text += fmt::format("{}'{}': {}", text.empty() ? before : "; ", value->name(), reason);
    return text;
  }

  // Whether every operator with a weight that makes channels of the group may be narrowed.
  static bool is_selected(const DependencyGroups& groups, const DependencyGroup& group, const Selector& selector) {
    return std::ranges::all_of(group.slots, [&](std::size_t slot) {
      const Node* node = groups.slots()[slot].value->producer();
      return node == nullptr || !has_weight(*node) || selector.matches(*node);
    });
  }

  static std::vector<std::size_t> least_important(const DependencyGroups& groups, const DependencyGroup& group,
                                                  double width) {
    const std::vector<double> importance = channel_importance(groups, group);
    const auto wanted = static_cast<std::size_t>(std::lround(width * static_cast<double>(importance.size())));
    const std::size_t kept = std::max<std::size_t>(wanted, 1);
    std::vector<std::size_t> order(importance.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t set) { return importance[set]; });
    order.resize(order.size() - kept);
    std::ranges::sort(order);
    return order;
  }

  // The first result that has the channels, or the first constant.
  static std::string name_of(const DependencyGroups& groups, const DependencyGroup& group) {
    for (const std::size_t slot : group.slots)
      if (groups.slots()[slot].value->producer() != nullptr) return groups.slots()[slot].value->name();
    return groups.slots()[group.slots.front()].value->name();
  }
};

}  // namespace

PASS(derive_student) { registry.add(std::make_unique<DeriveStudent>()); }

}  // namespace onnxpress
