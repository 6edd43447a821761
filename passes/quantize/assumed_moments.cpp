#include "passes/quantize/assumed_moments.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "graph/ops/activations.h"
#include "graph/ops/batch_norm.h"
#include "graph/ops/clip.h"
#include "graph/ops/concat_split.h"
#include "graph/ops/identity.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/transpose.h"
#include "passes/common/linear_operator.h"

namespace onnxpress {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

double density(double z) { return std::isinf(z) ? 0 : std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi); }
double cumulative(double z) { return std::erfc(-z / std::numbers::sqrt2) / 2; }
// z * density(z), whose limit is 0.
double weighted_density(double z) { return std::isinf(z) ? 0 : z * density(z); }

std::vector<double> doubles(const Tensor& tensor) {
  const Tensor wide = tensor.cast(DType::float64);
  const auto values = wide.data<double>();
  return {values.begin(), values.end()};
}

const Tensor* vector_constant(const Node& node, std::size_t index) {
  const Value* value = node.input(index);
  const Tensor* tensor = value ? value->constant() : nullptr;
  return tensor && tensor->rank() == 1 && is_float(tensor->dtype()) ? tensor : nullptr;
}

double at(const std::vector<double>& values, std::size_t channel) { return values.size() == 1 ? values[0] : values[channel]; }

// Mean and variance of f(x), summed over 160 points within 5 standard deviations.
Normal mapped(const Normal& x, const std::function<double(double)>& f) {
  constexpr int steps = 160;
  constexpr double reach = 5;
  double weights = 0, sum = 0, squares = 0;
  for (int i = 0; i < steps; ++i) {
    const double z = -reach + 2 * reach * (i + 0.5) / steps, weight = density(z);
    const double y = f(x.mean + z * std::sqrt(x.variance));
    weights += weight;
    sum += weight * y;
    squares += weight * y * y;
  }
  const double mean = sum / weights;
  return {mean, std::max(0.0, squares / weights - mean * mean)};
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// What an activation makes of a normally distributed value; nothing when it is not known here.
std::function<Normal(const Normal&)> activation(const Node& node) {
  const auto by = [](double (*f)(double)) { return [f](const Normal& x) { return mapped(x, f); }; };
  if (node.is("Relu")) return [](const Normal& x) { return clipped_normal(x, 0, infinity); };
  if (node.is("Clip")) {
    const std::optional<ClipBounds> bounds = ClipBounds::from(node);
    if (!bounds || !(bounds->low <= bounds->high)) return {};
    return [b = *bounds](const Normal& x) { return clipped_normal(x, b.low, b.high); };
  }
  if (node.is("LeakyRelu")) {
    const double slope = static_cast<double>(LeakyReluAttrs::from(node).alpha);
    return [slope](const Normal& x) { return mapped(x, [slope](double v) { return v < 0 ? slope * v : v; }); };
  }
  if (node.is("HardSigmoid")) {
    const HardSigmoidAttrs attrs = HardSigmoidAttrs::from(node);
    const double alpha = static_cast<double>(attrs.alpha), beta = static_cast<double>(attrs.beta);
    return [=](const Normal& x) { return clipped_normal({alpha * x.mean + beta, alpha * alpha * x.variance}, 0, 1); };
  }
  if (node.is("Sigmoid")) return by(sigmoid);
  if (node.is("Tanh")) return by([](double x) { return std::tanh(x); });
  if (node.is("HardSwish")) return by([](double x) { return x * std::clamp(x / 6 + 0.5, 0.0, 1.0); });
  if (node.is("Softplus")) return by([](double x) { return x > 30 ? x : std::log1p(std::exp(x)); });
  if (node.is("Gelu") || node.is("Gelu", "com.microsoft")) return by([](double x) { return x * cumulative(x); });
  if (node.is("Abs")) return by([](double x) { return std::fabs(x); });
  return {};
}

}  // namespace

Normal clipped_normal(const Normal& x, double low, double high) {
  const double deviation = std::sqrt(std::max(x.variance, 1e-300));
  const double a = (low - x.mean) / deviation, b = (high - x.mean) / deviation;
  const double inside = cumulative(b) - cumulative(a), below = cumulative(a), above = cumulative(-b);
  double mean = x.mean * inside + deviation * (density(a) - density(b));
  double squares = (x.mean * x.mean + x.variance) * inside + 2 * x.mean * deviation * (density(a) - density(b)) +
                   x.variance * (weighted_density(a) - weighted_density(b));
  if (std::isfinite(low)) {
    mean += low * below;
    squares += low * low * below;
  }
  if (std::isfinite(high)) {
    mean += high * above;
    squares += high * high * above;
  }
  return {mean, std::max(0.0, squares - mean * mean)};
}

AssumedMoments::AssumedMoments(const Model& model) : types_(model) {
  types_.run();
  for (const Value* input : model.graph.inputs())
    if (input->type.is_tensor() && is_float(input->type.elem)) known_[input] = {{0}, {1}, 0, false};
  for (const Node* node : model.graph.nodes()) propagate(*node);
}

const NormalChannels* AssumedMoments::find(const Value& value) const {
  const auto found = known_.find(&value);
  return found == known_.end() ? nullptr : &found->second;
}

std::optional<std::size_t> AssumedMoments::rank(const Value* value) const {
  const Type& type = types_.type(value);
  return type.shape ? std::optional(type.shape->size()) : std::nullopt;
}

void AssumedMoments::propagate(const Node& node) {
  if (!node.output()) return;
  std::optional<NormalChannels> found = result(node);
  if (!found) return;
  const auto finite = [](double value) { return std::isfinite(value); };
  if (std::ranges::all_of(found->mean, finite) && std::ranges::all_of(found->variance, finite))
    known_.emplace(node.output(), std::move(*found));
}

std::optional<NormalChannels> AssumedMoments::result(const Node& node) const {
  for (const auto rule : {&AssumedMoments::normalized, &AssumedMoments::linear, &AssumedMoments::elementwise,
                          &AssumedMoments::combined, &AssumedMoments::moved})
    if (std::optional<NormalChannels> found = (this->*rule)(node)) return found;
  return std::nullopt;
}

std::optional<NormalChannels> AssumedMoments::normalized(const Node& node) const {
  const bool by_batch = node.is("BatchNormalization") && !BatchNormAttrs::from(node).training;
  const bool by_channel = by_batch || node.is("InstanceNormalization") || node.is("GroupNormalization");
  const bool by_row = node.is("LayerNormalization");
  if (!by_channel && !by_row) return std::nullopt;
  const std::optional<std::size_t> axes = rank(node.output());
  const Tensor* gamma = vector_constant(node, 1);
  const Tensor* beta = vector_constant(node, 2);
  if (!axes || *axes < 2 || !gamma || (!beta && node.input(2))) return std::nullopt;
  NormalChannels found{.mean = beta ? doubles(*beta) : std::vector<double>(static_cast<std::size_t>(gamma->size())),
                       .variance = doubles(*gamma),
                       .axis = by_row ? *axes - 1 : 1,
                       .from_statistics = true};
  if (found.mean.size() != found.variance.size()) return std::nullopt;
  for (double& value : found.variance) value *= value;
  return found;
}

std::optional<NormalChannels> AssumedMoments::linear(const Node& node) const {
  if (!node.is("Conv") && !node.is("Gemm") && !node.is("MatMul")) return std::nullopt;
  const Value* weight = node.input(1);
  const NormalChannels* data = find(*node.input(0));
  const std::optional<std::size_t> axes = rank(node.output()), data_axes = rank(node.input(0));
  if (!data || !weight || !weight->constant() || LinearOperator::obstacle(node) || !axes || !data_axes) return std::nullopt;
  LinearOperator of = LinearOperator::of(const_cast<Node&>(node));
  const ChannelView in = of.input_view(types_.type(node.input(0))), out = of.output_view(types_.type(node.output()));
  if (in.behind >= *data_axes || out.behind >= *axes) return std::nullopt;
  const auto channels = static_cast<std::size_t>(of.in.count);
  if (data->mean.size() != 1 && (data->axis != *data_axes - 1 - in.behind || data->mean.size() != channels)) return std::nullopt;
  std::vector<double> mean, variance;
  for (std::size_t c = 0; c < channels; ++c) {
    mean.push_back(at(data->mean, c));
    variance.push_back(at(data->variance, c));
  }
  NormalChannels found{.mean = of.response(mean), .axis = *axes - 1 - out.behind, .from_statistics = data->from_statistics};
  std::vector<double> squares = doubles(*of.weight);
  for (double& w : squares) w *= w;
  const Tensor squared = Tensor::of<double>(of.weight->dims(), squares);
  of.weight = &squared;
  found.variance = of.response(variance);
  const Value* bias = node.is("MatMul") ? nullptr : node.input(2);
  if (bias && !bias->constant()) return std::nullopt;
  const std::vector<double> biases = bias ? doubles(*bias->constant()) : std::vector<double>{0};
  if (biases.size() != 1 && biases.size() != found.mean.size()) return std::nullopt;
  for (std::size_t c = 0; c < found.mean.size(); ++c) {
    found.mean[c] = of.alpha * found.mean[c] + of.beta * at(biases, c);
    found.variance[c] *= of.alpha * of.alpha;
  }
  return found;
}

std::optional<NormalChannels> AssumedMoments::elementwise(const Node& node) const {
  const std::function<Normal(const Normal&)> function = activation(node);
  if (!function) return std::nullopt;
  const NormalChannels* data = find(*node.input(0));
  if (!data) return std::nullopt;
  NormalChannels found = *data;
  for (std::size_t c = 0; c < found.mean.size(); ++c) {
    const Normal y = function({found.mean[c], found.variance[c]});
    found.mean[c] = y.mean;
    found.variance[c] = y.variance;
  }
  return found;
}

// Sums and scales.
std::optional<NormalChannels> AssumedMoments::combined(const Node& node) const {
  const bool sum = node.is("Add") || node.is("Sub"), scale = node.is("Mul") || node.is("Div");
  if ((!sum && !scale) || !node.input(0) || !node.input(1)) return std::nullopt;
  const NormalChannels *a = find(*node.input(0)), *b = find(*node.input(1));
  const std::optional<std::size_t> axes = rank(node.output());
  if (!axes) return std::nullopt;
  if (a && b) {
    if (!sum || rank(node.input(0)) != axes || rank(node.input(1)) != axes) return std::nullopt;
    const NormalChannels& wide = a->mean.size() >= b->mean.size() ? *a : *b;
    const NormalChannels& other = &wide == a ? *b : *a;
    if (other.mean.size() != 1 && (other.mean.size() != wide.mean.size() || other.axis != wide.axis)) return std::nullopt;
    NormalChannels found = wide;
    found.from_statistics = a->from_statistics && b->from_statistics;
    const double sign = node.is("Sub") ? -1 : 1;
    for (std::size_t c = 0; c < found.mean.size(); ++c) {
      found.mean[c] = at(a->mean, c) + sign * at(b->mean, c);
      found.variance[c] = at(a->variance, c) + at(b->variance, c);
    }
    return found;
  }
  const NormalChannels* data = a ? a : b;
  if (!data) return std::nullopt;
  const std::size_t index = a ? 0 : 1;
  const Value* operand = node.input(1 - index);
  if (!operand->constant() || rank(node.input(index)) != axes) return std::nullopt;
  // With one entry the channel axis is the operand's to say: the last, or the one before two of size 1.
  NormalChannels found = *data;
  const Dims& dims = operand->constant()->dims();
  if (found.mean.size() == 1 && operand->constant()->size() > 1) {
    const auto longest = std::ranges::max_element(dims) - dims.begin();
    found.axis = *axes - dims.size() + static_cast<std::size_t>(longest);
    found.mean.resize(static_cast<std::size_t>(dims[static_cast<std::size_t>(longest)]), found.mean[0]);
    found.variance.resize(found.mean.size(), found.variance[0]);
  }
  std::string reason;
  const ChannelView view{std::ssize(found.mean), *axes - 1 - found.axis, *axes};
  const std::optional<AffineNode> affine = read_affine(node, index, view, reason);
  if (!affine) return std::nullopt;
  for (std::size_t c = 0; c < found.mean.size(); ++c) {
    found.mean[c] = found.mean[c] * affine->affine.scale[c] + affine->affine.shift[c];
    found.variance[c] *= affine->affine.scale[c] * affine->affine.scale[c];
  }
  return found;
}

// What moves elements or averages neighbours.
std::optional<NormalChannels> AssumedMoments::moved(const Node& node) const {
  const auto is_any = [&](std::initializer_list<std::string_view> types) {
    return std::ranges::any_of(types, [&](std::string_view type) { return node.is(type); });
  };
  const bool keeps = is_any({"AveragePool", "GlobalAveragePool", "Identity", "Pad"}) || (node.is("Dropout") && is_inference_dropout(node));
  const std::optional<std::size_t> axes = rank(node.output());
  if (node.is("Concat")) {
    if (!axes) return std::nullopt;
    NormalChannels found{.axis = static_cast<std::size_t>(normalize_axis(concat_axis(node), *axes)), .from_statistics = true};
    for (const Value* input : node.inputs()) {
      const NormalChannels* part = find(*input);
      const Type& type = types_.type(input);
      if (!part || !type.shape || !(*type.shape)[found.axis].is_known()) return std::nullopt;
      if (part->mean.size() != 1 && part->axis != found.axis) return std::nullopt;
      found.from_statistics &= part->from_statistics;
      for (std::int64_t c = 0; c < (*type.shape)[found.axis].value(); ++c) {
        found.mean.push_back(at(part->mean, static_cast<std::size_t>(c)));
        found.variance.push_back(at(part->variance, static_cast<std::size_t>(c)));
      }
    }
    return found;
  }
  const NormalChannels* data = node.input(0) ? find(*node.input(0)) : nullptr;
  if (!data || !axes) return std::nullopt;
  NormalChannels found = *data;
  if (keeps) return found;
  if (node.is("Transpose")) {
    const std::vector<std::int64_t> permutation = transpose_permutation(node, *axes);
    found.axis = static_cast<std::size_t>(std::ranges::find(permutation, static_cast<std::int64_t>(data->axis)) - permutation.begin());
    return found;
  }
  if (!is_any({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})) return std::nullopt;
  if (data->mean.size() == 1) return found;
  // Channels in front of other axes become neighbours in a row.
  const Type& type = types_.type(node.output());
  if (data->axis != 1 || *axes < 2 || !(*type.shape)[1].is_known()) return std::nullopt;
  const std::int64_t to = (*type.shape)[1].value(), from = std::ssize(data->mean);
  if (to % from != 0 || (to != from && *axes != 2)) return std::nullopt;
  found.mean.clear();
  found.variance.clear();
  for (std::int64_t c = 0; c < to; ++c) {
    found.mean.push_back(data->mean[static_cast<std::size_t>(c / (to / from))]);
    found.variance.push_back(data->variance[static_cast<std::size_t>(c / (to / from))]);
  }
  return found;
}

}  // namespace onnxpress
