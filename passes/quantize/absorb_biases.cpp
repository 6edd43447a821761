#include "passes/quantize/absorb_biases.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "graph/ops/batch_norm.h"
#include "graph/ops/clip.h"
#include "passes/common/linear_operator.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

bool is_linear(const Node& node) {
  return (node.is("Conv") || node.is("Gemm")) && node.input(1) && node.input(1)->constant() &&
         !LinearOperator::obstacle(node);
}

bool is_one_of(const Node& node, std::initializer_list<std::string_view> types) {
  return std::ranges::any_of(types, [&](std::string_view type) { return node.is(type); });
}

// Whether no element of the value can be negative, as far as the operators around show.
bool is_nonnegative(const Value& value, int depth = 32) {
  const Node* node = value.producer();
  if (!node || depth == 0) return false;
  if (is_one_of(*node, {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt"})) return true;
  if (node->is("Clip")) {
    const std::optional<ClipBounds> bounds = ClipBounds::from(*node);
    return bounds && bounds->low >= 0;
  }
  const bool hands_on = is_one_of(*node, {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Flatten",
                                          "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"});
  if (hands_on) return is_nonnegative(*node->input(0), depth - 1);
  if (!is_one_of(*node, {"Add", "Sum", "Concat", "Max"})) return false;
  return std::ranges::all_of(node->inputs(), [&](const Value* input) { return input && is_nonnegative(*input, depth - 1); });
}

// The constant vector of a node that may be replaced; nothing when it has other dims or is not one.
std::optional<std::vector<double>> vector_input(const Node& node, std::size_t index, std::int64_t channels) {
  const Value* value = node.input(index);
  if (!value || !value->constant() || value->constant()->dims() != Dims{channels}) return std::nullopt;
  const Tensor wide = value->constant()->cast(DType::float64);
  return std::vector<double>(wide.data<double>().begin(), wide.data<double>().end());
}

void set_vector(Node& node, std::size_t index, const std::vector<double>& values) {
  Value* old = node.input(index);
  const DType type = old ? old->constant()->dtype() : node.input(1)->constant()->dtype();
  Tensor tensor = Tensor::of<double>({std::ssize(values)}, values).cast(type);
  if (old && is_read_once(*old)) return old->graph().set_initializer(old, std::move(tensor));
  Graph& graph = node.graph();
  const std::string name = old ? old->name() : node.output()->name() + "_bias";
  graph.set_node_input(&node, index, graph.add_initializer(graph.unique_name(name), std::move(tensor)));
  if (old && old->is_unused()) old->graph().remove_initializer(old);
}

// What makes z: which input its bias is, and what of it can go.
struct Source {
  Node* node = nullptr;
  std::size_t bias = 0;
  double beta = 1;             // factor of the bias
  std::vector<double> biases;
  std::vector<double> excess;  // c, by channel
  bool likely = false;
};

// c as far as it is worth moving: what rounding left of an earlier move is not.
double worth_moving(double excess, double bias) { return excess > 1e-4 * std::fabs(bias) ? excess : 0.0; }

std::optional<Source> proven_source(Node& node) {
  if (!is_linear(node) || !is_nonnegative(*node.input(0))) return std::nullopt;
  const LinearOperator linear = LinearOperator::of(node);
  const std::optional<std::vector<double>> biases = vector_input(node, 2, linear.out.count);
  if (!biases || linear.beta <= 0 || linear.alpha < 0) return std::nullopt;
  // The sum of the negative weights of a channel is nothing when there are none.
  const Tensor weights = linear.weight->cast(DType::float64);
  std::vector<bool> negative(static_cast<std::size_t>(linear.out.count));
  for_each_channel_run(weights.dims(), static_cast<std::int64_t>(linear.out.axis),
                       [&](std::int64_t channel, std::int64_t begin, std::int64_t count) {
                         const auto run = weights.data<double>().subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
                         if (!std::ranges::all_of(run, [](double w) { return w >= 0; })) negative[static_cast<std::size_t>(channel)] = true;
                       });
  Source source{.node = &node, .bias = 2, .beta = linear.beta, .biases = *biases};
  for (std::size_t c = 0; c < biases->size(); ++c)
    source.excess.push_back(negative[c] ? 0 : std::max(0.0, (*biases)[c] * linear.beta));
  return source;
}

std::optional<Source> likely_source(Node& node) {
  if (!node.is("BatchNormalization") || BatchNormAttrs::from(node).training) return std::nullopt;
  const Value* scale = node.input(1);
  if (!scale || !scale->constant() || scale->constant()->rank() != 1) return std::nullopt;
  const std::int64_t channels = scale->constant()->dim(0);
  const auto gamma = vector_input(node, 1, channels), beta = vector_input(node, 2, channels);
  if (!gamma || !beta) return std::nullopt;
  Source source{.node = &node, .bias = 2, .biases = *beta, .likely = true};
  for (std::size_t c = 0; c < beta->size(); ++c) 
    source.excess.push_back(worth_moving((*beta)[c] - 3 * std::fabs((*gamma)[c]), (*beta)[c]));
  return source;
}

bool takes(const Node& node, std::size_t index, std::int64_t channels, const Selector& selector) {
  if (index != 0 || !is_linear(node) || !selector.matches(node)) return false;
  const LinearOperator linear = LinearOperator::of(const_cast<Node&>(node));
  if (linear.in.count != channels || linear.data_transposed || linear.beta == 0) return false;
  if (node.is("Conv") && has_padding(node, linear.weight->dims())) return false;
  return !node.input(2) || vector_input(node, 2, linear.out.count);
}

void move(const Source& source, const Value& between) {
  std::vector<double> lowered = source.biases;
  for (std::size_t c = 0; c < lowered.size(); ++c) lowered[c] -= source.excess[c] / source.beta;
  set_vector(*source.node, source.bias, lowered);
  std::set<Node*> readers;
  for (const Use& use : between.uses()) readers.insert(use.node);
  for (Node* reader : readers) {
    const LinearOperator linear = LinearOperator::of(*reader);
    const std::vector<double> raise = linear.response(source.excess);
    std::vector<double> biases =
        vector_input(*reader, 2, linear.out.count).value_or(std::vector<double>(static_cast<std::size_t>(linear.out.count)));
    for (std::size_t c = 0; c < biases.size(); ++c) biases[c] += raise[c] * linear.alpha / linear.beta;
    set_vector(*reader, 2, biases);
  }
}

}  // namespace

AbsorbedBiases absorb_biases(Model& model, const Selector& selector, AbsorbWhat what) {
  AbsorbedBiases absorbed;
  model.graph.for_each_graph([&](Graph& graph) {
    for (Node* relu : graph.nodes()) {
      if (!relu->is("Relu") || !relu->input(0)->producer() || !is_read_once(*relu->input(0))) continue;
      Node& maker = *relu->input(0)->producer();
      if (!selector.matches(maker) || relu->input(0) != maker.output()) continue;
      std::optional<Source> source = proven_source(maker);
      if (!source && what == AbsorbWhat::likely) source = likely_source(maker);
      if (!source) continue;
      const auto channels = std::ranges::count_if(source->excess, [](double c) { return c > 0; });
      const Value& between = *relu->output();
      if (channels == 0 || between.is_output() || between.is_unused()) continue;
      const bool all_take = std::ranges::all_of(between.uses(), [&](const Use& use) {
        return takes(*use.node, use.index, std::ssize(source->excess), selector);
      });
      if (!all_take) continue;
      move(*source, between);
      absorbed.channels += static_cast<std::size_t>(channels);
      if (source->likely) absorbed.likely += static_cast<std::size_t>(channels);
    }
  });
  return absorbed;
}

namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "select", .kind = OptionSpec::Kind::selector, .help = "operators around the Relu; default: all"},
};

class AbsorbBiases : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "absorb_biases",
      .summary = "moves high biases from in front of a Relu into the next layer, as far as BatchNormalization makes likely",
      .options = option_specs,
      .effect = Effect::lossy};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    const AbsorbedBiases absorbed = absorb_biases(model, Selector(context.options.text("select")), AbsorbWhat::likely);
    Outcome outcome{.changed = absorbed.channels > 0};
    outcome.counts = {{"channels", absorbed.channels}, {"likely", absorbed.likely}};
    if (!outcome.changed) outcome.notes.emplace_back("no Relu is read by linear operators without padding only");
    return outcome;
  }
};

}  // namespace

PASS(absorb_biases) { registry.add(std::make_unique<AbsorbBiases>()); }

}  // namespace onnxpress
