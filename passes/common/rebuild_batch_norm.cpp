#include "passes/common/rebuild_batch_norm.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "graph/ops/batch_norm.h"
#include "passes/common/channel_moments.h"
#include "passes/common/linear_operator.h"

namespace onnxpress {
namespace {

constexpr std::int64_t least_opset = 9;  // statistics by channel, and inference unless said otherwise
constexpr std::int64_t measured_samples = 4096;
constexpr double epsilon = 1e-5;

bool can_have_one(const Node& node, const Graph& graph, const std::vector<std::string>& trained) {
  if (!(node.is("Conv") || node.is("ConvTranspose")) || node.input_count() < 3) return false;
  const Value *weight = node.input(1), *bias = node.input(2), *result = node.output();
  const bool has_both =
      weight != nullptr && bias != nullptr && weight->constant() != nullptr && bias->constant() != nullptr;
  if (!has_both || !is_read_once(*weight) || !is_read_once(*bias) || result->is_unused()) return false;
  if (std::ranges::find(trained, weight->name()) == trained.end()) return false;
  const auto outputs = graph.outputs();
  if (std::ranges::find(outputs, result) != outputs.end()) return false;
  return std::ranges::none_of(result->uses(), [](const Use& use) { return use.node->is("BatchNormalization"); });
}

// The convolution of the main graph that reads the weight.
Node& reader(const Model& model, const std::string& weight) { return *model.graph.find(weight)->uses().front().node; }

void insert(Graph& graph, Node& node, const ChannelMoments& moments) {
  const DType type = node.input(2)->constant()->dtype();
  std::vector<double> scale;
  for (const double variance : moments.variance) scale.push_back(std::sqrt(variance + epsilon));
  const std::string& base = node.input(1)->name();
  const auto add = [&](const char* what, const std::vector<double>& values) {
    return graph.add_initializer(graph.unique_name(fmt::format("{}_{}", base, what)),
                                 Tensor::of<double>({std::ssize(values)}, values).cast(type));
  };
  Value* result = node.output();
  NodeSpec spec{.op_type = "BatchNormalization",
                .inputs = {result, add("scale", scale), add("shift", moments.mean), add("mean", moments.mean),
                           add("variance", moments.variance)}};
  spec.attributes["epsilon"] = static_cast<float>(epsilon);
  const std::vector<Use> uses(result->uses().begin(), result->uses().end());
  const auto nodes = graph.nodes();
  const auto next = std::next(std::ranges::find(nodes, &node));
  Node* added = graph.add_node(std::move(spec), next != nodes.end() ? *next : nullptr);
  for (const Use& use : uses) graph.set_node_input(use.node, use.index, added->output());
}

}  // namespace

std::vector<std::string> insert_batch_norm(Model& model, const std::vector<std::string>& trained,
                                           PassContext& context) {
  std::vector<std::string> weights;
  if (model.graph.opset() < least_opset) return weights;
  std::vector<ChannelsOf> results;
  for (const Node* node : model.graph.nodes()) {
    if (!can_have_one(*node, model.graph, trained)) continue;
    weights.push_back(node->input(1)->name());
    results.push_back({node->output()->name(), 1});
  }
  if (weights.empty()) return weights;
  PassContext measuring = context;
  measuring.calibration = context.training;
  const std::vector<ChannelMoments> moments = measure_moments(model, results, measuring, measured_samples);
  for (std::size_t i = 0; i < weights.size(); ++i) insert(model.graph, reader(model, weights[i]), moments[i]);
  return weights;
}

void fold_batch_norm(const Model& trained, const std::vector<std::string>& weights, Model& model) {
  std::map<std::string, Tensor> folded;
  for (const std::string& weight : weights) {
    Node& node = reader(trained, weight);
    const Node& norm = *node.output()->uses().front().node;
    const ChannelAffine affine =
        batch_norm_affine(*norm.input(1)->constant(), *norm.input(2)->constant(), *norm.input(3)->constant(),
                          *norm.input(4)->constant(), double{BatchNormAttrs::from(norm).epsilon});
    folded[weight] = LinearOperator::of(node).scaled_outputs(affine.scale);
    const Tensor& bias = *node.input(2)->constant();
    folded[node.input(2)->name()] = affine_bias(bias, affine, bias.dtype());
  }
  for (Value* value : model.graph.initializers()) {
    const Tensor* now = value->constant();
    if (now == nullptr) continue;
    const auto found = folded.find(value->name());
    const Tensor& wanted = found != folded.end() ? found->second : *trained.graph.find(value->name())->constant();
    if (!wanted.equals(*now)) model.graph.set_initializer(value, wanted);
  }
}

}  // namespace onnxpress
