// Taking factors into constants, and what they do to the ranges of weights.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/ops/batch_norm.h"
#include "passes/quantize/channel_classes.h"

namespace onnxpress {
namespace {

std::vector<double> doubles(const Tensor& tensor) {
  const Tensor wide = tensor.cast(DType::float64);
  const auto values = wide.data<double>();
  return {values.begin(), values.end()};
}

bool is_finite(const Tensor& tensor) {
  const std::vector<float> values = tensor.to_floats();
  return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

// A constant of a node to be replaced.
struct Change {
  Node* node;
  std::size_t input;
  Tensor tensor;
};

// Elements of a tensor of floats where they lie, or widened.
class Elements {
 public:
  explicit Elements(const Tensor& tensor) {
    if (tensor.dtype() == DType::float32)
      bytes_ = tensor.bytes().data();
    else
      wide_ = tensor.to_floats();
  }
  float operator[](std::size_t index) const {
    if (!bytes_) return wide_[index];
    float value;
    std::memcpy(&value, bytes_ + index * sizeof(float), sizeof(float));
    return value;
  }

 private:
  const std::byte* bytes_ = nullptr;
  std::vector<float> wide_;
};

// Multiplies slices of the axis that has `behind` axes behind it; a single value becomes one per
// channel where the factors differ.
Tensor scaled_operand(const Tensor& tensor, std::size_t behind, const std::vector<double>& factor) {
  const auto channels = static_cast<std::int64_t>(factor.size());
  if (tensor.size() == 1 && channels != 1) {
    Dims dims(std::max(tensor.rank(), behind + 1), 1);
    dims[dims.size() - 1 - behind] = channels;
    std::vector<double> values(factor.size(), doubles(tensor)[0]);
    for (std::size_t c = 0; c < values.size(); ++c) values[c] *= factor[c];
    return Tensor::of<double>(std::move(dims), values).cast(tensor.dtype());
  }
  return scale_slices(tensor, static_cast<std::int64_t>(tensor.rank() - 1 - behind), factor);
}

class Scaler {
 public:
  Scaler(const std::vector<double>& scales, std::vector<Change>& changes) : scales_(scales), changes_(changes) {}

  void scale(const ScalingEnd& end) {
    const std::vector<double> out = factors(end.out, true), in = factors(end.in, false);
    if (out.empty() && in.empty()) return;
    switch (end.kind) {
      case ScalingEnd::Kind::linear: return scale_linear(end, out, in);
      case ScalingEnd::Kind::batch_norm: return scale_batch_norm(end, out, in);
      case ScalingEnd::Kind::norm:
        change(*end.node, end.constant, scale_slices(constant(end, end.constant), 0, out));
        if (end.shift) change(*end.node, *end.shift, scale_slices(constant(end, *end.shift), 0, out));
        return;
      case ScalingEnd::Kind::multiply: return scale_multiply(end, out, in);
      case ScalingEnd::Kind::add:
        return change(*end.node, end.constant,
                      scaled_operand(constant(end, end.constant), static_cast<std::size_t>(end.behind), out));
    }
  }

 private:
  static const Tensor& constant(const ScalingEnd& end, std::size_t input) { return *end.node->input(input)->constant(); }

  // 1 / scale (`divided`) or scale of every channel; empty when all are 1.
  std::vector<double> factors(const std::vector<std::size_t>& classes, bool divided) const {
    std::vector<double> factor;
    bool any = false;
    for (const std::size_t number : classes) {
      const double scale = number == ChannelClasses::fixed ? 1.0 : scales_[number];
      factor.push_back(divided ? 1 / scale : scale);
      any |= scale != 1.0;
    }
    return any ? factor : std::vector<double>{};
  }

  void change(Node& node, std::size_t input, Tensor tensor) { changes_.push_back({&node, input, std::move(tensor)}); }

  void scale_linear(const ScalingEnd& end, const std::vector<double>& out, const std::vector<double>& in) {
    LinearOperator linear = *end.linear;
    Tensor weight = *end.node->input(1)->constant();
    linear.weight = &weight;
    if (!out.empty()) weight = linear.scaled_outputs(out);
    if (!in.empty()) weight = linear.scaled_inputs(in);
    change(*end.node, 1, std::move(weight));
    if (out.empty() || end.node->is("MatMul") || !end.node->input(2)) return;
    const Tensor& bias = constant(end, 2);
    // A vector of a convolution, channels last of a Gemm.
    change(*end.node, 2, scaled_operand(bias, 0, out));
  }

  // y = gamma (x - mean) / sqrt(var + eps) + beta of x = s x': mean and deviation go with the input,
  // and gamma makes good what epsilon does not.
  void scale_batch_norm(const ScalingEnd& end, const std::vector<double>& out, const std::vector<double>& in) {
    Node& node = *end.node;
    const double epsilon = static_cast<double>(BatchNormAttrs::from(node).epsilon);
    std::vector<double> gamma = doubles(constant(end, 1)), beta = doubles(constant(end, 2));
    std::vector<double> mean = doubles(constant(end, 3)), variance = doubles(constant(end, 4));
    for (std::size_t c = 0; c < gamma.size(); ++c) {
      if (!in.empty()) {
        const double before = std::sqrt(variance[c] + epsilon);
        mean[c] /= in[c];
        variance[c] /= in[c] * in[c];
        gamma[c] *= in[c] * std::sqrt(variance[c] + epsilon) / before;
      }
      if (!out.empty()) {
        gamma[c] *= out[c];
        beta[c] *= out[c];
      }
    }
    const std::vector<double>* const values[] = {&gamma, &beta, &mean, &variance};
    for (std::size_t i = 1; i < 5; ++i) {
      if (in.empty() && i > 2) break;
      const Tensor& old = constant(end, i);
      change(node, i, Tensor::of<double>(old.dims(), *values[i - 1]).cast(old.dtype()));
    }
  }

  void scale_multiply(const ScalingEnd& end, const std::vector<double>& out, const std::vector<double>& in) {
    std::vector<double> factor(std::max(out.size(), in.size()), 1.0);
    for (std::size_t c = 0; c < factor.size(); ++c) {
      if (!out.empty()) factor[c] *= out[c];
      if (!in.empty()) factor[c] *= in[c];
      if (end.node->is("Div")) factor[c] = 1 / factor[c];
    }
    change(*end.node, end.constant, scaled_operand(constant(end, end.constant), static_cast<std::size_t>(end.behind), factor));
  }

  const std::vector<double>& scales_;
  std::vector<Change>& changes_;
};

}  // namespace

double nearest_power_of_two(double scale) { return std::exp2(std::round(std::log2(scale))); }

bool ChannelClasses::apply(const std::vector<double>& scales) const {
  std::vector<double> used = scales;
  for (std::size_t i = 0; i < used.size(); ++i)
    if (classes_[i].narrow) used[i] = nearest_power_of_two(used[i]);
  std::vector<Change> changes;
  Scaler scaler(used, changes);
  for (const ScalingEnd& end : ends_) scaler.scale(end);
  if (changes.empty()) return false;
  for (const Change& change : changes)
    if (!is_finite(change.tensor) && is_finite(*change.node->input(change.input)->constant())) return false;
  for (Change& change : changes) {
    Value* value = change.node->input(change.input);
    if (is_read_once(*value)) {
      value->graph().set_initializer(value, std::move(change.tensor));
      continue;
    }
    Graph& graph = change.node->graph();
    Value* copy = graph.add_initializer(graph.unique_name(value->name()), std::move(change.tensor));
    graph.set_node_input(change.node, change.input, copy);
    if (value->is_unused()) value->graph().remove_initializer(value);
  }
  return true;
}

ChannelRanges channel_ranges(const LinearOperator& linear, const std::vector<double>& out,
                             const std::vector<double>& in) {
  const Tensor& weight = *linear.weight;
  const auto rows = static_cast<std::size_t>(weight.dim(0)), columns = static_cast<std::size_t>(weight.dim(1));
  const std::size_t inner = static_cast<std::size_t>(weight.size()) / (rows * columns);
  // The channel that an axis of the weight is, in the group that axis 0 is in.
  const auto channel = [&](const LinearOperator::Axis& axis, std::size_t row, std::size_t column) {
    if (axis.axis == 0) return row;
    return column + row / (rows / static_cast<std::size_t>(axis.groups)) * columns;
  };
  ChannelRanges ranges{std::vector<double>(static_cast<std::size_t>(linear.out.count)),
                       std::vector<double>(static_cast<std::size_t>(linear.in.count))};
  const Elements elements(weight);
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = 0; column < columns; ++column) {
      float largest = 0;
      const std::size_t begin = (row * columns + column) * inner;
      for (std::size_t i = begin; i < begin + inner; ++i) largest = std::max(largest, std::fabs(elements[i]));
      const std::size_t o = channel(linear.out, row, column), i = channel(linear.in, row, column);
      const double value = static_cast<double>(largest) * (out.empty() ? 1 : out[o]) * (in.empty() ? 1 : in[i]);
      ranges.out[o] = std::max(ranges.out[o], value);
      ranges.in[i] = std::max(ranges.in[i], value);
    }
  return ranges;
}

}  // namespace onnxpress
