#include "passes/common/linear_operator.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "graph/ops/batch_norm.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/conv.h"
#include "graph/ops/conv_transpose.h"
#include "graph/ops/gemm.h"

namespace onnxpress {
namespace {

// Stands for a rank that is not known: more axes than any value has, so that an operand that older
// opsets place by its first axis is not taken for one at the last.
constexpr std::size_t many_axes = 64;

bool is_foldable(DType type) { return type == DType::float32 || type == DType::float64; }

bool is_finite(const ChannelAffine& affine) {
  const auto finite = [](double value) { return std::isfinite(value); };
  return std::ranges::all_of(affine.scale, finite) && std::ranges::all_of(affine.shift, finite);
}

bool all_equal(const std::vector<double>& values) {
  return std::ranges::adjacent_find(values, std::not_equal_to<>()) == values.end();
}

std::vector<double> doubles(const Tensor& tensor) {
  const Tensor wide = tensor.cast(DType::float64);
  const auto values = wide.data<double>();
  return {values.begin(), values.end()};
}

// Of a tensor of any floating-point type; not finite if one value is not. An empty one's is 0.
double largest_magnitude(const Tensor& tensor) {
  // On the bytes as they lie: weights are large, and slices of files need not be aligned.
  // Magnitudes have the order of their bits, NaN above infinity.
  const bool is_float = tensor.dtype() == DType::float32;
  const Tensor wide = is_float ? tensor : tensor.cast(DType::float64);
  const std::byte* bytes = wide.bytes().data();
  const auto largest = [&]<class Bits, class Float>(Bits, Float) {
    Bits most = 0;
    for (std::int64_t i = 0; i < wide.size(); ++i) {
      Bits element;
      std::memcpy(&element, bytes + static_cast<std::size_t>(i) * sizeof element, sizeof element);
      most = std::max<Bits>(most, element & (std::numeric_limits<Bits>::max() >> 1));
    }
    return static_cast<double>(std::bit_cast<Float>(most));
  };
  return is_float ? largest(std::uint32_t{}, float{}) : largest(std::uint64_t{}, double{});
}

std::vector<double> per_channel(const Tensor& constant, std::int64_t channels) {
  std::vector<double> values = doubles(constant);
  if (values.size() == 1) values.resize(static_cast<std::size_t>(channels), values[0]);
  return values;
}

std::optional<AffineNode> read_batch_norm(const Node& node, std::size_t data,
                                          const ChannelView& view, std::string& reason) {
  const auto miss = [&](std::string why) {
    reason = std::move(why);
    return std::nullopt;
  };
  const BatchNormAttrs attrs = BatchNormAttrs::from(node);
  if (data != 0) return miss("it computes statistics of BatchNormalization");
  if (attrs.training) return miss("BatchNormalization is in training mode");
  if (!attrs.per_channel)
    return miss("BatchNormalization has statistics per activation (spatial=0)");
  for (std::size_t i = 1; i < node.output_count(); ++i)
    if (node.output(i) && !node.output(i)->is_unused())
      return miss("BatchNormalization has more than one output in use");
  if (!view.rank) return miss("the rank of its input is not known");
  if (*view.rank < 2 || view.behind != *view.rank - 2)
    return miss(fmt::format("its input has rank {}: axis 1 is not the channel axis", *view.rank));
  AffineNode found{.scales = true, .shifts = true};
  for (std::size_t i = 1; i < 5; ++i) {
    Value* value = node.input(i);
    if (!value || !value->constant())
      return miss(fmt::format("input {} of BatchNormalization is not a constant", i));
    if (value->constant()->size() != view.count)
      return miss(fmt::format("'{}' has {} values, expected {} (the channels)", value->name(),
                              value->constant()->size(), view.count));
    found.constants.push_back(value);
  }
  const auto& c = found.constants;
  found.affine = batch_norm_affine(*c[0]->constant(), *c[1]->constant(), *c[2]->constant(),
                                   *c[3]->constant(), static_cast<double>(attrs.epsilon));
  if (!is_finite(found.affine)) return miss("its scale or shift is not finite");
  return found;
}

}  // namespace

bool ChannelView::fits(const Dims& dims) const {
  if (rank ? dims.size() > *rank : dims.size() > 1) return false;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const bool channel_axis = i + behind + 1 == dims.size();
    if (dims[i] != 1 && !(channel_axis && dims[i] == count)) return false;
  }
  return true;
}

std::optional<std::string> LinearOperator::obstacle(const Node& node) {
  const Value& weight = *node.input(1);
  if (!is_foldable(weight.constant()->dtype()))
    return fmt::format("weight '{}' is {}: folding would round it more than float32 does",
                       weight.name(), name(weight.constant()->dtype()));
  const std::size_t rank = weight.constant()->rank();
  const bool product = node.is("Gemm") || node.is("MatMul");
  if (product ? rank != 2 : rank < 3)
    return fmt::format("weight '{}' has rank {}, expected {}", weight.name(), rank,
                       product ? "2" : "at least 3");
  if (weight.constant()->size() == 0) return fmt::format("weight '{}' is empty", weight.name());
  return std::nullopt;
}

LinearOperator LinearOperator::of(Node& node) {
  LinearOperator found{.node = &node, .weight = node.input(1)->constant()};
  const Dims& dims = found.weight->dims();
  if (node.is("ConvTranspose")) {
    const std::int64_t groups =
        ConvTransposeAttrs::from(node, Dims(dims.begin() + 2, dims.end())).group;
    found.out = {1, groups, dims[1] * groups};
    found.in = {0, 1, dims[0]};
  } else if (node.is("Conv")) {
    const std::int64_t groups = ConvAttrs::of(node, dims).group;
    found.out = {0, 1, dims[0]};
    found.in = {1, groups, dims[1] * groups};
  } else {
    const GemmAttrs attrs = node.is("Gemm") ? GemmAttrs::from(node) : GemmAttrs();
    found.out = {attrs.transpose_b ? 0U : 1U, 1, dims[attrs.transpose_b ? 0 : 1]};
    found.in = {attrs.transpose_b ? 1U : 0U, 1, dims[attrs.transpose_b ? 1 : 0]};
    found.alpha = static_cast<double>(attrs.alpha);
    found.beta = static_cast<double>(attrs.beta);
    found.data_transposed = attrs.transpose_a;
  }
  return found;
}

bool LinearOperator::same_channels(const LinearOperator& other) const {
  return out == other.out && in == other.in && alpha == other.alpha && beta == other.beta;
}

ChannelView LinearOperator::output_view(const Type& result) const {
  if (node->is("MatMul")) {
    ChannelView view{.count = out.count};
    if (result.shape) view.rank = result.shape->size();
    return view;
  }
  return {out.count, weight->rank() - 2, weight->rank()};
}

ChannelView LinearOperator::input_view(const Type& data) const {
  ChannelView view = output_view(data);
  view.count = in.count;
  if (data_transposed) view.behind = 1;
  return view;
}

Tensor LinearOperator::scaled_outputs(const std::vector<double>& factor) const {
  return scale_slices(*weight, static_cast<std::int64_t>(out.axis), factor, out.groups);
}

Tensor LinearOperator::scaled_inputs(const std::vector<double>& factor) const {
  return scale_slices(*weight, static_cast<std::int64_t>(in.axis), factor, in.groups);
}

std::optional<std::string> LinearOperator::scale_obstacle(const Tensor& scaled,
                                                          const ChannelAffine& affine) const {
  std::optional<std::string> obstacle = range_obstacle(scaled, false);
  if (!obstacle) return std::nullopt;  // as good as always: the weight need not be read again
  const auto is_zero = [](double value) { return value == 0; };
  const bool vanishes = all_zero(*weight) || std::ranges::all_of(affine.scale, is_zero);
  return vanishes ? range_obstacle(scaled, true) : obstacle;
}

std::vector<double> LinearOperator::response(const std::vector<double>& shift) const {
  const std::vector<double> values = doubles(*weight);
  const std::vector<std::int64_t> strides = row_strides(weight->dims());
  std::vector<double> sums(static_cast<std::size_t>(out.count));
  const std::int64_t group_outputs = out.count / in.groups;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto at = [&](const Axis& of) {
      return static_cast<std::int64_t>(i) / strides[of.axis] % weight->dim(of.axis);
    };
    const std::int64_t channel = at(in) + at(out) / group_outputs * weight->dim(in.axis);
    sums[static_cast<std::size_t>(at(out))] += values[i] * shift[static_cast<std::size_t>(channel)];
  }
  return sums;
}

bool has_padding(const Node& conv, const Dims& weight) {
  const Window window = ConvAttrs::of(conv, weight).window;
  const bool same =
      window.auto_pad == AutoPad::same_upper || window.auto_pad == AutoPad::same_lower;
  return same || std::ranges::any_of(window.pads, [](std::int64_t pad) { return pad != 0; });
}

bool is_pointwise(const Node& conv, const Dims& weight) {
  const ConvAttrs attrs = ConvAttrs::of(conv, weight);
  const auto is_one = [](std::int64_t size) { return size == 1; };
  return attrs.group == 1 && std::ranges::all_of(attrs.window.kernel, is_one) &&
         std::ranges::all_of(attrs.window.strides, is_one) && !has_padding(conv, weight);
}

bool is_channel_bias(const Tensor& bias, std::int64_t channels, bool channels_last) {
  if (!is_foldable(bias.dtype()) || bias.size() == 0) return false;
  if (!channels_last) return bias.dims() == Dims{channels};
  return bias.size() == 1 || (bias.rank() > 0 && bias.dims().back() == channels);
}

Tensor affine_bias(const Tensor& bias, const ChannelAffine& affine, DType type) {
  const bool uniform = all_equal(affine.scale) && all_equal(affine.shift);
  std::vector<double> before = bias.defined() ? doubles(bias) : std::vector<double>{0};
  Dims dims = bias.defined() ? bias.dims() : Dims{};
  if (before.size() == 1 && !uniform) {
    before.resize(affine.scale.size(), before[0]);
    if (dims.empty()) dims.push_back(1);
    dims.back() = std::ssize(before);
  }
  for (std::size_t i = 0; i < before.size(); ++i) {
    const std::size_t c = i % affine.scale.size();
    before[i] = before[i] * affine.scale[c] + affine.shift[c];
  }
  return Tensor::of<double>(std::move(dims), before).cast(type);
}

std::optional<AffineNode> read_affine(const Node& node, std::size_t data, const ChannelView& view,
                                      std::string& reason) {
  if (node.is("BatchNormalization")) return read_batch_norm(node, data, view, reason);
  const auto miss = [&](std::string why) {
    reason = std::move(why);
    return std::nullopt;
  };
  Value* operand = node.input(1 - data);
  if (!operand || !operand->constant())
    return miss(fmt::format("input {} is not a constant", 1 - data));
  const Tensor& constant = *operand->constant();
  if (!is_foldable(constant.dtype()))
    return miss(fmt::format("'{}' is {}", operand->name(), name(constant.dtype())));
  const Dims dims =
      data == 0 ? legacy_broadcast_dims(node, view.rank.value_or(many_axes), constant.dims())
                : constant.dims();
  if (!view.fits(dims))
    return miss(fmt::format("'{}' has shape {}, expected one value or one per channel ({})",
                            operand->name(), to_string(dims), view.count));
  const std::vector<double> values = per_channel(constant, view.count);
  const auto count = static_cast<std::size_t>(view.count);
  AffineNode found{.affine = {std::vector<double>(count, 1), std::vector<double>(count, 0)},
                   .data = data,
                   .constants = {operand}};
  auto& [scale, shift] = found.affine;
  if (node.is("Mul") || node.is("Div")) {
    if (node.is("Div") && data == 1) return miss("it divides a constant by its input");
    for (std::size_t c = 0; c < count; ++c) scale[c] = node.is("Mul") ? values[c] : 1 / values[c];
    found.scales = true;
  } else {
    if (std::ranges::any_of(values, [](double v) { return std::abs(v) >= rounding_shift; }))
      return miss(fmt::format("'{}' has values so large that adding them rounds", operand->name()));
    const bool negated = node.is("Sub") && data == 0;
    for (std::size_t c = 0; c < count; ++c) shift[c] = negated ? -values[c] : values[c];
    found.shifts = true;
    found.scales = node.is("Sub") && data == 1;
    if (found.scales) scale.assign(count, -1);
  }
  if (!is_finite(found.affine))
    return miss(fmt::format("'{}' has values that are {}not finite", operand->name(),
                            node.is("Div") ? "zero or " : ""));
  return found;
}

bool is_aligned_last(const Node& node, std::size_t index, std::optional<std::size_t> rank,
                     std::size_t operand_rank) {
  const Dims ones(operand_rank, 1);
  return index == 0 || legacy_broadcast_dims(node, rank.value_or(many_axes), ones) == ones;
}

bool is_read_once(const Value& value) { return value.uses().size() == 1 && !value.is_output(); }

bool all_finite(const Tensor& tensor) { return std::isfinite(largest_magnitude(tensor)); }

std::optional<std::string> range_obstacle(const Tensor& product, bool is_zero) {
  const double largest = largest_magnitude(product);
  if (!std::isfinite(largest)) return "the merged constant is not finite";
  // As far from the least normal number as a value of the type has bits and two more: what is lost
  // of smaller values is less than the type rounds of the largest.
  const bool is_double = product.dtype() == DType::float64;
  const double least = is_double ? std::ldexp(1, -1022 + 55) : std::ldexp(1, -126 + 26);
  if (is_zero || product.size() == 0 || largest >= least) return std::nullopt;
  return fmt::format("the merged constant, of at most {:.3g}, is too small for {}", largest,
                     name(product.dtype()));
}

bool all_zero(const Tensor& tensor) { return largest_magnitude(tensor) == 0; }

std::size_t constant_bytes_only_for(const Node& node) {
  std::set<const Value*> constants;
  for (const Value* input : node.inputs()) {
    const bool only =
        input && input->constant() && !input->is_output() &&
        std::ranges::all_of(input->uses(), [&](const Use& use) { return use.node == &node; });
    if (only) constants.insert(input);
  }
  std::size_t bytes = 0;
  for (const Value* constant : constants) bytes += constant->constant()->byte_size();
  return bytes;
}

}  // namespace onnxpress
