// Statistics of BatchNormalization measured again on calibration data (Sun et al. 2019, "Hybrid 8-bit
// Floating Point Training and Inference for Deep Neural Networks", section 3.2: after quantization the
// statistics of training no longer fit).
//
// In the order of the graph: what comes first is right before what reads it is measured. Independent
// ones are measured together.
#include <algorithm>
#include <cmath>
#include <map>

#include "graph/ops/batch_norm.h"
#include "passes/common/linear_operator.h"
#include "passes/core/registry.h"
#include "passes/core/selector.h"
#include "passes/common/channel_moments.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "samples",
     .kind = OptionSpec::Kind::integer,
     .default_value = "0",
     .help = "of the calibration data, at most; 0: all",
     .min = 0,
     .max = 1e9},
    {.name = "momentum",
     .kind = OptionSpec::Kind::number,
     .default_value = "0",
     .help = "share of the old statistics that is kept",
     .min = 0,
     .max = 1},
    {.name = "select", .kind = OptionSpec::Kind::selector, .help = "BatchNormalizations; default: all"},
};

// Why the statistics cannot be set; nothing when they can.
std::optional<std::string> obstacle(const Node& node, const Graph& main) {
  if (&node.graph() != &main) return "it is in a subgraph";
  const BatchNormAttrs attrs = BatchNormAttrs::from(node);
  if (attrs.training) return "it computes statistics itself";
  if (!attrs.per_channel) return "its statistics are not by channel (spatial=0)";
  for (const std::size_t index : {std::size_t{3}, std::size_t{4}})
    if (!node.input(index) || !node.input(index)->constant())
      return fmt::format("its input {} is not a constant initializer", index);
  return std::nullopt;
}

// How many BatchNormalizations of `nodes` are on the longest way to each.
std::map<Node*, std::size_t> levels(const Graph& graph, const std::vector<Node*>& nodes) {
  std::map<const Value*, std::size_t> level_of;
  std::map<Node*, std::size_t> levels;
  for (Node* node : graph.nodes()) {
    std::size_t level = 0;
    const auto read = [&](const Value* value) {
      if (const auto found = level_of.find(value); found != level_of.end()) level = std::max(level, found->second);
    };
    for (const Value* input : node->inputs()) read(input);
    for (const Value* captured : node->captured()) read(captured);
    if (std::ranges::find(nodes, node) != nodes.end()) levels[node] = level++;
    for (const Value* output : node->outputs())
      if (output) level_of[output] = level;
  }
  return levels;
}

void set_statistics(Node& node, std::size_t index, const std::vector<double>& measured, double momentum) {
  Value* value = node.input(index);
  const Tensor& old = *value->constant();
  const Tensor wide = old.cast(DType::float64);
  std::vector<double> values(measured);
  for (std::size_t c = 0; c < values.size(); ++c) values[c] = momentum * wide.data<double>()[c] + (1 - momentum) * values[c];
  Tensor tensor = Tensor::of<double>(old.dims(), values).cast(old.dtype());
  if (tensor.equals(old)) return;
  if (is_read_once(*value)) return value->graph().set_initializer(value, std::move(tensor));
  Graph& graph = node.graph();
  graph.set_node_input(&node, index, graph.add_initializer(graph.unique_name(value->name()), std::move(tensor)));
  if (value->is_unused()) value->graph().remove_initializer(value);
}

class ReestimateBatchNorm : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "reestimate_batch_norm",
      .summary = "measures the means and variances of BatchNormalizations again on calibration data",
      .options = option_specs,
      .effect = Effect::lossy,
      .needs = Needs::calibration};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    const Selector selector(context.options.text("select"));
    const double momentum = context.options.number("momentum");
    Outcome outcome;
    std::vector<Node*> nodes;
    std::size_t found = 0;
    model.graph.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes()) {
        if (!node->is("BatchNormalization") || !selector.matches(*node)) continue;
        ++found;
        if (const std::optional<std::string> reason = obstacle(*node, model.graph)) {
          if (context.near_misses) context.near_misses->push_back({std::string(pass_info.name), node->describe(), *reason});
          continue;
        }
        nodes.push_back(node);
      }
    });
    std::map<std::size_t, std::vector<Node*>> by_level;
    for (const auto& [node, level] : levels(model.graph, nodes)) by_level[level].push_back(node);
    std::size_t done = 0;
    for (auto& [level, at_level] : by_level) {
      std::ranges::sort(at_level, {}, [&](Node* node) { return std::ranges::find(nodes, node) - nodes.begin(); });
      if (context.progress) context.progress("re-estimating", done, nodes.size());
      std::vector<ChannelsOf> values;
      for (const Node* node : at_level) values.push_back({node->input(0)->name(), 1});
      const std::vector<ChannelMoments> moments = measure_moments(model, values, context, context.options.integer("samples"));
      for (std::size_t i = 0; i < at_level.size(); ++i) {
        update(*at_level[i], moments[i], momentum, outcome);
        ++done;
      }
    }
    outcome.counts["reestimated"] = done;
    if (found == 0) outcome.notes.emplace_back("there is no BatchNormalization (folded already?)");
    if (done > 0) outcome.notes.push_back(fmt::format("statistics of {} BatchNormalizations from {}", done, context.calibration->description()));
    return outcome;
  }

 private:
  static void update(Node& node, const ChannelMoments& moments, double momentum, Outcome& outcome) {
    const std::size_t channels = moments.mean.size();
    const Tensor mean = node.input(3)->constant()->cast(DType::float64), variance = node.input(4)->constant()->cast(DType::float64);
    require(mean.size() == std::ssize(moments.mean), "{}: expected {} channels, found {}", node.describe(), mean.size(), channels);
    for (const auto* values : {&moments.mean, &moments.variance})
      require(std::ranges::all_of(*values, [](double v) { return std::isfinite(v); }), "{}: its input has NaN or infinity",
              node.describe());
    const double epsilon = static_cast<double>(BatchNormAttrs::from(node).epsilon);
    double shift = 0, ratio = 0;
    for (std::size_t c = 0; c < channels; ++c) {
      const double deviation = std::sqrt(variance.data<double>()[c] + epsilon);
      shift += std::fabs(moments.mean[c] - mean.data<double>()[c]) / deviation;
      ratio += std::sqrt(moments.variance[c] + epsilon) / deviation;
    }
    outcome.layers.push_back({{"node", node.name},
                              {"channels", channels},
                              {"elements_per_channel", moments.count},
                              {"mean_shift_in_deviations", shift / static_cast<double>(channels)},
                              {"deviation_ratio", ratio / static_cast<double>(channels)}});
    const Tensor before[] = {*node.input(3)->constant(), *node.input(4)->constant()};
    set_statistics(node, 3, moments.mean, momentum);
    set_statistics(node, 4, moments.variance, momentum);
    outcome.changed |= !before[0].equals(*node.input(3)->constant()) || !before[1].equals(*node.input(4)->constant());
  }
};

}  // namespace

PASS(reestimate_batch_norm) { registry.add(std::make_unique<ReestimateBatchNorm>()); }

}  // namespace onnxpress
