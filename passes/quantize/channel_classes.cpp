#include "passes/quantize/channel_classes.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "graph/ops/batch_norm.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/clip.h"
#include "graph/ops/concat_split.h"
#include "graph/ops/group_norm.h"
#include "graph/ops/identity.h"
#include "graph/ops/infer.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/pad.h"
#include "graph/ops/reduce.h"
#include "graph/ops/skip_layer_norm.h"
#include "graph/ops/transpose.h"
#include "passes/quantize/channel_union.h"

namespace onnxpress {
namespace {

bool is_linear(const Node& node) {
  return node.is("Conv") || node.is("ConvTranspose") || node.is("Gemm") || node.is("MatMul");
}

bool is_one_of(const Node& node, std::initializer_list<std::string_view> types) {
  return std::ranges::any_of(types, [&](std::string_view type) { return node.is(type); });
}

// Homogeneous by element, in their first input.
bool is_homogeneous_unary(const Node& node) {
  if (node.is("Dropout")) return is_inference_dropout(node);
  if (node.is("Clip")) {
    const std::optional<ClipBounds> bounds = ClipBounds::from(node);
    return bounds && (bounds->low == 0 || std::isinf(bounds->low)) && (bounds->high == 0 || std::isinf(bounds->high));
  }
  return is_one_of(node, {"Relu", "LeakyRelu", "PRelu", "Identity", "Abs", "Neg"});
}

bool is_pool(const Node& node) {
  return is_one_of(node, {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool"});
}

bool is_sum(const Node& node) { return is_one_of(node, {"Add", "Sub", "Sum", "Max", "Min", "Mean"}); }

// Makes values that are no channels' to scale: the gate of a product.
bool is_gate(const Value& value) {
  const Node* node = value.producer();
  return node && is_one_of(*node, {"Sigmoid", "HardSigmoid", "Softmax", "Tanh"});
}

bool is_narrow(const Tensor& tensor) { return bits(tensor.dtype()) < 32; }

std::optional<std::string> weight_obstacle(const Node& node) {
  const Value* weight = node.input(1);
  if (!weight || !weight->constant()) return "its weight is not a constant initializer";
  const Tensor& tensor = *weight->constant();
  if (!is_float(tensor.dtype()) || bits(tensor.dtype()) < 16)
    return fmt::format("weight '{}' is {}", weight->name(), name(tensor.dtype()));
  const bool product = node.is("Gemm") || node.is("MatMul");
  if (product ? tensor.rank() != 2 : tensor.rank() < 3)
    return fmt::format("weight '{}' has rank {}, expected {}", weight->name(), tensor.rank(), product ? "2" : "at least 3");
  if (tensor.size() == 0) return fmt::format("weight '{}' is empty", weight->name());
  if (!is_read_once(*weight)) return fmt::format("weight '{}' has another reader", weight->name());
  return std::nullopt;
}

class Builder {
 public:
  Builder(Model& model, std::vector<ScalingEnd>& ends) : channels_(model), ends_(ends) {
    model.graph.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes()) {
        order_.emplace(node, order_.size());
        if (!is_linear(*node)) continue;
        linear_.push_back(node);
        if (std::optional<std::string> obstacle = weight_obstacle(*node)) obstacles_.emplace(node, *obstacle);
      }
    });
    for (Node* node : linear_) {
      seed(*node, node->output(), true);
      seed(*node, node->input(0), false);
    }
    while (Value* value = channels_.next()) explore(value);
  }

  std::vector<ChannelClass> classes() {
    std::vector<ChannelClass> classes;
    std::map<std::size_t, std::size_t> numbers;  // root -> class
    std::ranges::sort(found_ends_, {}, [&](const FoundEnd& found) { return order_.at(found.end.node); });
    for (FoundEnd& found : found_ends_) {
      const std::size_t index = ends_.size();
      const auto number = [&](const ChannelSpan& view, std::vector<std::size_t>& into, bool produces) {
        for (std::size_t c = 0; c < view.count; ++c) {
          const std::size_t root = channels_.root(view.first + c);
          if (channels_.blocked(root)) {
            into.push_back(ChannelClasses::fixed);
            continue;
          }
          const auto [at, is_new] = numbers.emplace(root, classes.size());
          if (is_new) classes.emplace_back();
          ChannelClass& into_class = classes[at->second];
          (produces ? into_class.producers : into_class.consumers).push_back({index, static_cast<std::int64_t>(c)});
          into_class.narrow |= is_narrow(*found.end.node->input(found.end.constant)->constant());
          into.push_back(at->second);
        }
      };
      if (found.out) number(*found.out, found.end.out, true);
      if (found.in) number(*found.in, found.end.in, false);
      ends_.push_back(std::move(found.end));
    }
    return classes;
  }

  // Why channels that `node` makes are fixed; empty when none are.
  std::string reason(const Node& node) {
    if (const auto found = obstacles_.find(&node); found != obstacles_.end()) return found->second;
    const ChannelSpan* view = channels_.find(node.output());
    if (!view) return fmt::format("the shape of '{}' is not known", node.output()->name());
    for (std::size_t c = 0; c < view->count; ++c)
      if (const std::string* why = channels_.blocked(channels_.root(view->first + c))) return *why;
    return {};
  }

  const std::vector<Node*>& linear() const { return linear_; }

 private:
  struct FoundEnd {
    ScalingEnd end;
    std::optional<ChannelSpan> out, in;
  };

  // --- ends -------------------------------------------------------------------------------------

  FoundEnd& end_of(Node& node) {
    const auto [at, is_new] = end_index_.emplace(&node, found_ends_.size());
    if (is_new) found_ends_.push_back({.end = {.node = &node}});
    return found_ends_[at->second];
  }

  void seed(Node& node, Value* value, bool is_output) {
    const std::optional<std::size_t> axes = rank(value);
    if (!axes || *axes == 0) return;
    if (const auto axis = linear_axis(node, *axes, is_output)) channels_.visit(value, *axis);
  }

  std::optional<std::size_t> linear_axis(const Node& node, std::size_t axes, bool is_output) const {
    if (obstacles_.contains(&node)) return node.is("MatMul") || node.is("Gemm") ? axes - 1 : std::min<std::size_t>(1, axes - 1);
    const LinearOperator linear = LinearOperator::of(const_cast<Node&>(node));
    const Type type = Type::tensor(DType::float32, Shape(axes));
    const ChannelView view = is_output ? linear.output_view(type) : linear.input_view(type);
    if (view.rank && *view.rank != axes) return std::nullopt;
    if (view.behind >= axes) return std::nullopt;
    return axes - 1 - view.behind;
  }

  void touch_linear(Node& node, const Value& value, const ChannelSpan& view, bool is_output) {
    if (const auto found = obstacles_.find(&node); found != obstacles_.end())
      return block(view, fmt::format("{}: {}", node.describe(), found->second));
    const std::optional<std::size_t> axis = linear_axis(node, *rank(&value), is_output);
    FoundEnd& found = end_of(node);
    if (!found.end.linear) {
      found.end.linear = LinearOperator::of(node);
      found.end.constant = 1;
    }
    const std::int64_t channels = is_output ? found.end.linear->out.count : found.end.linear->in.count;
    if (!axis || *axis != view.axis || static_cast<std::int64_t>(view.count) != channels)
      return block(view, fmt::format("'{}' has other channels than {}", value.name(), node.describe()));
    if (is_output) {
      const Value* bias = node.is("MatMul") ? nullptr : node.input(2);
      if (bias && (!bias->constant() || !fits_last(*bias->constant(), channels, node.is("Gemm"))))
        return block(view, fmt::format("bias '{}' of {} is not one constant per channel", bias->name(), node.describe()));
    }
    if (!is_output) found.end.in_axis = view.axis;
    (is_output ? found.out : found.in) = view;
  }

  // One value, or one per channel along the last axis.
  static bool fits_last(const Tensor& bias, std::int64_t channels, bool channels_last) {
    if (!channels_last) return bias.dims() == Dims{channels};
    return bias.size() == 1 || (bias.rank() > 0 && bias.dims().back() == channels && bias.size() > 0);
  }

  void touch_batch_norm(Node& node, const ChannelSpan& view, bool is_output) {
    const BatchNormAttrs attrs = BatchNormAttrs::from(node);
    if (attrs.training || !attrs.per_channel) return block(view, node.describe() + " is not that of inference");
    for (std::size_t i = 1; i < 5; ++i)
      if (!node.input(i) || !node.input(i)->constant() ||
          node.input(i)->constant()->size() != static_cast<std::int64_t>(view.count))
        return block(view, fmt::format("input {} of {} is not one constant per channel", i, node.describe()));
    if (view.axis != 1) return block(view, node.describe() + " has other channels");
    FoundEnd& found = end_of(node);
    found.end.kind = ScalingEnd::Kind::batch_norm;
    found.end.constant = 1;
    (is_output ? found.out : found.in) = view;
  }

  // Scale and bias of a normalization, whose output has its channels along `axis`.
  void touch_norm(Node& node, const ChannelSpan& view, std::size_t axis, std::size_t scale, std::optional<std::size_t> shift) {
    for (const std::size_t input : {scale, shift.value_or(scale)}) {
      const Value* value = node.input(input);
      if (!value && input != scale) continue;
      if (!value || !value->constant() || value->constant()->dims() != Dims{static_cast<std::int64_t>(view.count)})
        return block(view, fmt::format("input {} of {} is not one constant per channel", input, node.describe()));
    }
    if (view.axis != axis) return block(view, node.describe() + " has other channels");
    FoundEnd& found = end_of(node);
    found.end.kind = ScalingEnd::Kind::norm;
    found.end.constant = scale;
    if (shift && node.input(*shift)) found.end.shift = shift;
    found.out = view;
  }

  // Whether the node is a normalization that makes `value`; then it is taken for an end.
  bool try_norm(Node& node, const Value& value, const ChannelSpan& view) {
    if (value.output_index() != 0) return false;
    const std::size_t axes = *rank(&value);
    if (node.is("LayerNormalization") || node.is("RMSNormalization") || node.is("SimplifiedLayerNormalization")) {
      const std::int64_t axis = LayerNormAttrs::from(node).axis;
      if (axis != -1 && axis != static_cast<std::int64_t>(axes) - 1)
        return block(view, node.describe() + " is over more than one axis"), true;
      return touch_norm(node, view, axes - 1, 1, node.is("LayerNormalization") ? std::optional<std::size_t>(2) : std::nullopt),
             true;
    }
    if (node.is("SkipLayerNormalization", "com.microsoft"))
      return touch_norm(node, view, axes - 1, 2, 3), true;
    if (node.is("SkipSimplifiedLayerNormalization", "com.microsoft"))
      return touch_norm(node, view, axes - 1, 2, std::nullopt), true;
    if (node.is("InstanceNormalization")) return touch_norm(node, view, 1, 1, 2), true;
    // Scales of groups rather than channels (opset 18) do not fit and are refused.
    if (node.is("GroupNormalization")) return touch_norm(node, view, 1, 1, 2), true;
    return false;
  }

  // --- what hands factors on --------------------------------------------------------------------

  // Of Add, Mul and so on with one constant: its index; nothing otherwise.
  static std::optional<std::size_t> constant_operand(const Node& node) {
    if (node.input_count() != 2 || !node.input(0) || !node.input(1)) return std::nullopt;
    for (const std::size_t index : {std::size_t{1}, std::size_t{0}})
      if (node.input(index)->constant() && !node.input(1 - index)->constant()) return index;
    return std::nullopt;
  }

  // Dims of the operand as it lines up with the last axes, when it is float, by channel or one value
  // for all; nothing otherwise.
  static std::optional<Dims> channel_dims(const Node& node, std::size_t index, const ChannelSpan& view, std::size_t axes) {
    const Tensor& constant = *node.input(index)->constant();
    if (!is_float(constant.dtype()) || bits(constant.dtype()) < 16) return std::nullopt;
    const Dims dims = index == 1 ? legacy_broadcast_dims(node, axes, constant.dims()) : constant.dims();
    if (dims.size() > axes || dims != constant.dims()) return std::nullopt;
    const std::size_t behind = axes - 1 - view.axis;
    if (behind >= dims.size()) return dims;
    const std::int64_t channels = dims[dims.size() - 1 - behind];
    if (channels != 1 && channels != static_cast<std::int64_t>(view.count)) return std::nullopt;
    return dims;
  }

  static bool has_channels(const Dims& dims, const ChannelSpan& view, std::size_t axes) {
    const std::size_t behind = axes - 1 - view.axis;
    return behind < dims.size() && dims[dims.size() - 1 - behind] == static_cast<std::int64_t>(view.count);
  }

  // Mul or Div with a constant.
  void touch_scale(Node& node, std::size_t operand, Value& value, const ChannelSpan& view, bool is_output) {
    Value* other = is_output ? node.input(1 - operand) : node.output();
    const std::optional<std::size_t> axes = rank(&value), others = rank(other);
    if (!axes || axes != others || (node.is("Div") && operand == 0))
      return block(view, fmt::format("{} is no scale by channel", node.describe()));
    const std::optional<Dims> dims = channel_dims(node, operand, view, *axes);
    if (!dims) return block(view, fmt::format("'{}' is no scale by channel", node.input(operand)->name()));
    if (!has_channels(*dims, view, *axes)) return channels_.tie(view, other, view.axis);
    FoundEnd& found = end_of(node);
    found.end.kind = ScalingEnd::Kind::multiply;
    found.end.constant = operand;
    found.end.behind = static_cast<std::int64_t>(*axes - 1 - view.axis);
    (is_output ? found.out : found.in) = view;
  }

  // Add or Sub with a constant: it goes with what passes through.
  void touch_shift(Node& node, std::size_t operand, Value& value, const ChannelSpan& view, bool is_output) {
    Value* other = is_output ? node.input(1 - operand) : node.output();
    const std::optional<std::size_t> axes = rank(&value), others = rank(other);
    const std::optional<Dims> dims = axes == others && axes ? channel_dims(node, operand, view, *axes) : std::nullopt;
    const bool is_one_value = dims && element_count(*dims) == 1;
    if (!dims || (!has_channels(*dims, view, *axes) && !is_one_value))
      return block(view, fmt::format("'{}' of {} is not one constant per channel", node.input(operand)->name(), node.describe()));
    FoundEnd& found = end_of(node);
    found.end.kind = ScalingEnd::Kind::add;
    found.end.constant = operand;
    found.end.behind = static_cast<std::int64_t>(*axes - 1 - view.axis);
    if (is_output) found.out = view;
    channels_.tie(view, other, view.axis);
  }

  // Elementwise over operands that have the same channels at the same place from the end.
  void pass_broadcast(Node& node, Value& value, const ChannelSpan& view, bool skip_gates = false) {
    const std::size_t behind = *rank(&value) - 1 - view.axis;
    std::vector<Value*> others{node.output()};
    for (Value* input : node.inputs()) others.push_back(input);
    for (Value* other : others) {
      if (!other || other == &value) continue;
      if (skip_gates && is_gate(*other)) continue;
      const std::optional<std::size_t> axes = rank(other);
      if (!axes || *axes <= behind || other->constant())
        return block(view, fmt::format("'{}' of {} has other channels", other->name(), node.describe()));
      channels_.tie(view, other, *axes - 1 - behind);
      // Operands that are stretched along the channels: every channel of the result is their one.
      if (const ChannelSpan* peer = channels_.find(other); peer && peer->count != view.count)
        block(*peer, fmt::format("{} stretches '{}' over channels", node.describe(), other->name()));
    }
  }

  // x times a gate, which stays as it is.
  void pass_product(Node& node, Value& value, const ChannelSpan& view) {
    const auto gates = std::ranges::count_if(node.inputs(), [](const Value* input) { return input && is_gate(*input); });
    if (gates != 1 || is_gate(value)) return block(view, node.describe() + " multiplies two values");
    pass_broadcast(node, value, view, true);
  }

  void pass_unary(Node& node, Value& value, const ChannelSpan& view) {
    Value* other = &value == node.output() ? node.input(0) : node.output();
    if (rank(other) != rank(&value)) return block(view, node.describe() + " changes the rank");
    channels_.tie(view, other, view.axis);
  }

  void pass_transpose(Node& node, Value& value, const ChannelSpan& view) {
    const std::vector<std::int64_t> permutation = transpose_permutation(node, *rank(&value));
    if (&value == node.output()) return channels_.tie(view, node.input(0), static_cast<std::size_t>(permutation[view.axis]));
    const auto at = std::ranges::find(permutation, static_cast<std::int64_t>(view.axis)) - permutation.begin();
    channels_.tie(view, node.output(), static_cast<std::size_t>(at));
  }

  // `parts` in a row are `whole`, along `axis`; with `side_by_side` along the channels, else each has
  // all of them. Every value of them comes by here: what fails for one fails for all.
  void tie_parts(const ChannelSpan& view, Value* whole, std::span<Value* const> parts, bool side_by_side) {
    const std::optional<ChannelSpan> all = channels_.visit(whole, view.axis);
    if (!all) return block(view, fmt::format("the channels of '{}' are not known", whole->name()));
    std::size_t offset = 0;
    for (Value* part : parts) {
      const std::optional<ChannelSpan> channels = part && !part->constant() ? channels_.visit(part, view.axis) : std::nullopt;
      if (!channels || offset + channels->count > all->count)
        return block(view, fmt::format("the channels of all parts of '{}' are not known", whole->name()));
      for (std::size_t c = 0; c < channels->count; ++c) channels_.unite(channels->first + c, all->first + offset + c);
      if (side_by_side) offset += channels->count;
    }
  }

  void pass_concat(Node& node, Value& value, const ChannelSpan& view) {
    const auto axis = static_cast<std::size_t>(normalize_axis(concat_axis(node), *rank(&value)));
    tie_parts(view, node.output(), node.inputs(), axis == view.axis);
  }

  void pass_split(Node& node, Value& value, const ChannelSpan& view) {
    const auto axis = static_cast<std::size_t>(normalize_axis(SplitAttrs::from(node).axis, *rank(&value)));
    tie_parts(view, node.input(0), node.outputs(), axis == view.axis);
  }

  void pass_reduction(Node& node, Value& value, const ChannelSpan& view) {
    const ReduceAttrs attrs = ReduceAttrs::from(node);
    const std::optional<std::size_t> axes = rank(node.input(0));
    if (!attrs.axes || !axes) return block(view, "the axes of " + node.describe() + " are not known");
    const std::vector<std::int64_t> reduced = ReduceAttrs::effective(*attrs.axes, attrs.noop_with_empty_axes, *axes);
    std::vector<std::size_t> kept;  // input axis of every output axis
    for (std::size_t i = 0; i < *axes; ++i)
      if (attrs.keepdims || !std::ranges::binary_search(reduced, static_cast<std::int64_t>(i))) kept.push_back(i);
    const bool from_output = &value == node.output();
    const std::size_t in_axis = !from_output ? view.axis : view.axis < kept.size() ? kept[view.axis] : *axes;
    const auto at = std::ranges::find(kept, in_axis);
    if (std::ranges::binary_search(reduced, static_cast<std::int64_t>(in_axis)) || at == kept.end())
      return block(view, node.describe() + " reduces the channels");
    channels_.tie(view, from_output ? node.input(0) : node.output(), from_output ? in_axis : static_cast<std::size_t>(at - kept.begin()));
  }

  // Reshape and its kin: one channel of the input may become several in a row of the output.
  void pass_reshape(Node& node, Value& value, const ChannelSpan& view) {
    const Type &in = channels_.type(node.input(0)), &out = channels_.type(node.output());
    if (!in.shape || !out.shape) return block(view, "the shapes around " + node.describe() + " are not known");
    const auto behind = [](const Shape& shape, std::size_t axis) -> std::optional<std::int64_t> {
      std::int64_t product = 1;
      for (std::size_t i = axis + 1; i < shape.size(); ++i) {
        if (!shape[i].is_known()) return std::nullopt;
        product *= shape[i].value();
      }
      return product;
    };
    const bool from_output = &value == node.output();
    const Shape& other = from_output ? *in.shape : *out.shape;
    for (std::size_t axis = 0; axis < other.size(); ++axis) {
      const std::size_t a = from_output ? axis : view.axis, b = from_output ? view.axis : axis;
      const std::optional<std::int64_t> in_behind = behind(*in.shape, a), out_behind = behind(*out.shape, b);
      const Dim &from = (*in.shape)[a], &to = (*out.shape)[b];
      if (!in_behind || !out_behind || *out_behind == 0 || *in_behind % *out_behind != 0) continue;
      const std::int64_t repeat = *in_behind / *out_behind;
      if (!from.is_known() || !to.is_known() || to.value() != from.value() * repeat || repeat == 0) continue;
      const std::optional<ChannelSpan> input = channels_.visit(node.input(0), a);
      if (!input) break;
      if (from_output) {
        for (std::size_t c = 0; c < view.count; ++c)
          channels_.unite(view.first + c, input->first + c / static_cast<std::size_t>(repeat));
        return;
      }
      return channels_.tie(view, node.output(), b, 0, static_cast<std::size_t>(repeat));
    }
    block(view, node.describe() + " takes the channels apart");
  }

  void pass_pad(Node& node, Value& value, const ChannelSpan& view) {
    const PadAttrs attrs = PadAttrs::from(node);
    const bool homogeneous = attrs.mode != PadMode::constant || attrs.value == 0.0;
    const std::size_t axes = *rank(&value);
    if (!homogeneous || !attrs.pads || attrs.pads->size() != 2 * axes || (*attrs.pads)[view.axis] != 0 ||
        (*attrs.pads)[view.axis + axes] != 0)
      return block(view, node.describe() + " pads with other values than zero");
    pass_unary(node, value, view);
  }

  void pass(Node& node, Value& value, const ChannelSpan& view) {
    if (value.producer() == &node && value.output_index() != 0 && !node.is("Split"))
      return block(view, fmt::format("'{}' is not the first result of {}", value.name(), node.describe()));
    if (is_homogeneous_unary(node)) {
      // A slope by channel is a factor for negative values only.
      if (&value != node.output() && &value != node.input(0)) return block(view, node.describe() + " reads it otherwise");
      return pass_unary(node, value, view);
    }
    if (is_pool(node)) {
      if (view.axis != 1) return block(view, node.describe() + " has other channels");
      return pass_unary(node, value, view);
    }
    if (node.is("Mul") || node.is("Div")) return node.is("Mul") ? pass_product(node, value, view) : block(view, node.describe() + " divides two values");
    if (is_sum(node)) return pass_broadcast(node, value, view);
    if (node.is("Transpose")) return pass_transpose(node, value, view);
    if (node.is("Concat")) return pass_concat(node, value, view);
    if (node.is("Split")) return pass_split(node, value, view);
    if (is_one_of(node, {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"}))
      return pass_reduction(node, value, view);
    if (is_one_of(node, {"Reshape", "Flatten", "Squeeze", "Unsqueeze"})) return pass_reshape(node, value, view);
    if (node.is("Pad")) return pass_pad(node, value, view);
    block(view, fmt::format("{} is between, which is not homogeneous", node.describe()));
  }

  void touch(Node& node, Value& value, const ChannelSpan& view, std::optional<std::size_t> index) {
    const bool is_output = !index;
    if (is_linear(node)) {
      if (index.value_or(0) == 0) return touch_linear(node, value, view, is_output);
      return block(view, fmt::format("{} reads '{}' as another operand", node.describe(), value.name()));
    }
    if (node.is("BatchNormalization") && index.value_or(0) == 0 && (index || value.output_index() == 0))
      return touch_batch_norm(node, view, is_output);
    if (is_output && try_norm(node, value, view)) return;
    if (const auto operand = constant_operand(node)) {
      if (node.is("Mul") || node.is("Div")) return touch_scale(node, *operand, value, view, is_output);
      if (node.is("Add") || node.is("Sub")) return touch_shift(node, *operand, value, view, is_output);
    }
    if (index && is_one_of(node, {"Reshape", "Squeeze", "Unsqueeze", "Pad", "ReduceMean", "ReduceSum", "ReduceMax",
                                  "ReduceMin", "ReduceL1", "ReduceL2", "Split", "Clip"}) && *index != 0)
      return block(view, fmt::format("{} reads '{}' as an argument", node.describe(), value.name()));
    // Shapes do not change with a factor.
    if (node.is("Shape") || node.is("Size")) return;
    pass(node, value, view);
  }

  void explore(Value* value) {
    const ChannelSpan view = *channels_.find(value);
    if (value->is_input() || value->initializer() || !value->producer())
      block(view, fmt::format("'{}' is an input", value->name()));
    if (value->is_output()) block(view, fmt::format("'{}' is an output", value->name()));
    if (Node* producer = value->producer()) touch(*producer, *value, view, std::nullopt);
    for (const Use& use : std::vector<Use>(value->uses().begin(), value->uses().end()))
      touch(*use.node, *value, view, use.index);
  }

  void block(const ChannelSpan& span, const std::string& reason) { channels_.block(span, reason); }
  std::optional<std::size_t> rank(const Value* value) const { return channels_.rank(value); }

  ChannelUnion channels_;
  std::vector<ScalingEnd>& ends_;
  std::map<const Node*, std::size_t> order_;
  std::vector<Node*> linear_;
  std::map<const Node*, std::string> obstacles_;
  std::vector<FoundEnd> found_ends_;
  std::map<const Node*, std::size_t> end_index_;
};

}  // namespace

ChannelClasses ChannelClasses::of(Model& model, std::string_view pass, std::vector<NearMiss>* near_misses) {
  ChannelClasses found;
  Builder builder(model, found.ends_);
  found.classes_ = builder.classes();
  if (near_misses)
    for (const Node* node : builder.linear())
      if (std::string reason = builder.reason(*node); !reason.empty())
        near_misses->push_back({std::string(pass), node->describe(), std::move(reason)});
  return found;
}

const ScalingEnd* ChannelClasses::find(const Node& linear) const {
  const auto end = std::ranges::find(ends_, &linear, [](const ScalingEnd& e) -> const Node* { return e.node; });
  return end == ends_.end() || !end->linear ? nullptr : &*end;
}

}  // namespace onnxpress
