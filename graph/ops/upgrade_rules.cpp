// The facts are those of onnx docs/Changelog.md.
#include "graph/ops/upgrade_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "graph/ir/clone.h"
#include "graph/ops/batch_norm.h"
#include "graph/ops/constant.h"
#include "graph/ops/upgrade_tools.h"

namespace onnxpress {

const Shape* UpgradeContext::input_shape(std::size_t index) const {
  const Value* value = node.input(index);
  return value && value->type.is_tensor() && value->type.shape ? &*value->type.shape : nullptr;
}

DType UpgradeContext::input_dtype(std::size_t index) const {
  const Value* value = node.input(index);
  return value && value->type.is_tensor() ? value->type.elem : DType::undefined;
}

namespace {

using namespace upgrading;

// An attribute of integers becomes input `index`.
Result ints_to_input(const UpgradeContext& c, std::string_view name, std::size_t index) {
  if (refers(c, name)) {
    // Constant has had such an attribute since opset 12.
    if (!c.in_function || c.target < 12) return attribute_by_reference;
    Attributes attributes;
    Attribute& reference = attributes["value_ints"];
    reference.ref = c.node.attribute(name)->ref;
    reference.ref_kind = c.node.attribute(name)->ref_kind;
    c.graph.remove_attribute(&c.node, name);
    c.graph.set_node_input(&c.node, index,
                           add_before(c, "Constant", name, {}, std::move(attributes)));
    return std::nullopt;
  }
  if (std::optional<Ints> values = take<Ints>(c, name))
    c.graph.set_node_input(&c.node, index, ints_constant(c, name, *values));
  return std::nullopt;
}

// A float attribute becomes a scalar input of the data's element type.
Result float_to_input(const UpgradeContext& c, std::string_view name, std::size_t index) {
  if (refers(c, name)) return attribute_by_reference;
  if (std::optional<float> value = take<float>(c, name)) {
    const DType type = c.input_dtype(0);
    if (type == DType::undefined) return "the element type of its input is not known";
    c.graph.set_node_input(&c.node, index,
                           constant(c, hint(c, name), Tensor::scalar(*value).cast(type)));
  }
  return std::nullopt;
}

std::int64_t int_attribute(const UpgradeContext& c, std::string_view name, std::int64_t fallback) {
  const Attribute* attribute = c.node.attribute(name);
  if (!attribute) return fallback;
  const std::int64_t* value = std::get_if<std::int64_t>(&attribute->value);
  return value ? *value : fallback;
}

// Input 1 with axes of size 1 put in.
void unsqueeze_second(const UpgradeContext& c, std::string_view what, Ints axes) {
  Attributes attributes;
  attributes["axes"] = std::move(axes);
  c.graph.set_node_input(
      &c.node, 1, add_before(c, "Unsqueeze", what, {c.node.input(1)}, std::move(attributes)));
}

Result axes_to_input(const UpgradeContext& c) { return ints_to_input(c, "axes", 1); }
Result split_to_input(const UpgradeContext& c) { return ints_to_input(c, "split", 1); }

Result drop_consumed_inputs(const UpgradeContext& c) {
  c.graph.remove_attribute(&c.node, "consumed_inputs");
  return std::nullopt;
}

// Opset 7 replaced `broadcast` and `axis` by numpy's rules: B is lined up from `axis`.
Result numpy_broadcast(const UpgradeContext& c) {
  const std::int64_t enabled = take<std::int64_t>(c, "broadcast").value_or(0);
  const std::optional<std::int64_t> axis = take<std::int64_t>(c, "axis");
  if (!enabled || !axis) return std::nullopt;
  const Shape* a = c.input_shape(0);
  const Shape* b = c.input_shape(1);
  if (!a || !b) return "the ranks of its inputs are not known";
  const std::int64_t rank = static_cast<std::int64_t>(a->size());
  const std::int64_t start = *axis < 0 ? *axis + rank : *axis;
  const std::int64_t trailing = rank - start - static_cast<std::int64_t>(b->size());
  if (trailing < 0) return "its second input does not fit at 'axis'";
  if (trailing == 0) return std::nullopt;
  Ints axes;
  for (std::int64_t i = 0; i < trailing; ++i)
    axes.push_back(static_cast<std::int64_t>(b->size()) + i);
  unsqueeze_second(c, "aligned", std::move(axes));
  return std::nullopt;
}

Result drop_broadcast(const UpgradeContext& c) {
  c.graph.remove_attribute(&c.node, "broadcast");
  return std::nullopt;
}

Result drop_output_sequence(const UpgradeContext& c) {
  c.graph.remove_attribute(&c.node, "output_sequence");
  return std::nullopt;
}

Result batch_norm_7(const UpgradeContext& c) {
  if (BatchNormAttrs::from(c.node).training)
    return "BatchNormalization in training mode (is_test=0)";
  c.graph.remove_attribute(&c.node, "is_test");
  return std::nullopt;
}

Result batch_norm_9(const UpgradeContext& c) {
  if (take<std::int64_t>(c, "spatial").value_or(1) != 1)
    return "BatchNormalization with statistics per activation (spatial=0)";
  return std::nullopt;
}

Result batch_norm_14(const UpgradeContext& c) {
  for (std::size_t i = 1; i < c.node.output_count(); ++i) {
    if (c.node.output(i) && !c.node.output(i)->is_unused())
      return "BatchNormalization in training mode (more than one output)";
    if (c.node.output(i)) c.graph.omit_node_output(&c.node, i);
  }
  return std::nullopt;
}

Result dropout_7(const UpgradeContext& c) {
  c.graph.remove_attribute(&c.node, "is_test");
  return std::nullopt;
}

// The mask became boolean.
Result dropout_10(const UpgradeContext& c) {
  const Value* mask = c.node.output(1);
  if (!mask || mask->is_unused()) return std::nullopt;
  const DType type = c.input_dtype(0);
  if (type == DType::undefined) return "the element type of its mask is not known";
  ValueMap map;
  Node* made = c.graph.add_node(
      {.op_type = "Dropout",
       .name = c.node.name,
       .inputs = {c.node.input(0)},
       .outputs = {c.graph.unique_name(hint(c, "kept")), c.graph.unique_name(hint(c, "mask"))},
       .attributes = clone_attributes(c.node, &c.graph, map)},
      &c.node);
  Attributes cast;
  cast["to"] = static_cast<std::int64_t>(type);
  take_over(c, 0, made->output(0));
  take_over(c, 1, add_before(c, "Cast", "mask_cast", {made->output(1)}, std::move(cast)));
  c.graph.remove(&c.node);
  return std::nullopt;
}

// Without the training_mode input the ratio has no effect.
Result dropout_12(const UpgradeContext& c) {
  c.graph.remove_attribute(&c.node, "ratio");
  return std::nullopt;
}

Result cast_6(const UpgradeContext& c) {
  if (refers(c, "to")) return attribute_by_reference;
  const std::optional<std::string> to = take<std::string>(c, "to");
  const std::optional<DType> type = to ? dtype_from_name(*to) : std::nullopt;
  if (!type) return "attribute 'to' is not the name of a type";
  c.graph.set_attribute(&c.node, "to", static_cast<std::int64_t>(*type));
  return std::nullopt;
}

Result clip_11(const UpgradeContext& c) {
  if (Result obstacle = float_to_input(c, "min", 1)) return obstacle;
  return float_to_input(c, "max", 2);
}

Result concat_4(const UpgradeContext& c) {
  if (!c.node.attribute("axis")) c.graph.set_attribute(&c.node, "axis", 1);
  return std::nullopt;
}

Result reshape_5(const UpgradeContext& c) {
  drop_consumed_inputs(c);
  return ints_to_input(c, "shape", 1);
}

Result selu_6(const UpgradeContext& c) {
  drop_consumed_inputs(c);
  if (!c.node.attribute("alpha")) c.graph.set_attribute(&c.node, "alpha", 1.6732F);
  if (!c.node.attribute("gamma")) c.graph.set_attribute(&c.node, "gamma", 1.0507F);
  return std::nullopt;
}

Result lp_2(const UpgradeContext& c) {
  const std::optional<float> p = take<float>(c, "p");
  if (!p) return std::nullopt;
  const bool whole = *p >= 1 && *p <= 0x1p20f && std::floor(*p) == *p;
  if (!whole) return "an exponent that is not a whole number";
  c.graph.set_attribute(&c.node, "p", static_cast<std::int64_t>(*p));
  return std::nullopt;
}

Result pad_2(const UpgradeContext& c) {
  if (std::optional<Ints> pads = take<Ints>(c, "paddings"))
    c.graph.set_attribute(&c.node, "pads", std::move(*pads));
  return std::nullopt;
}

Result pad_11(const UpgradeContext& c) {
  if (Result obstacle = ints_to_input(c, "pads", 1)) return obstacle;
  return float_to_input(c, "value", 2);
}

// A slope of one axis belongs to the channels; numpy's rules would line it up with the last axis.
Result prelu_7(const UpgradeContext& c) {
  const Shape* x = c.input_shape(0);
  const Shape* slope = c.input_shape(1);
  if (!x || !slope) return "the ranks of its inputs are not known";
  if (slope->size() != 1 || x->size() <= 2 || (*slope)[0] == Dim(1)) return std::nullopt;
  Ints axes;
  for (std::size_t i = 1; i + 1 < x->size(); ++i) axes.push_back(static_cast<std::int64_t>(i));
  unsqueeze_second(c, "slope", std::move(axes));
  return std::nullopt;
}

Result slice_10(const UpgradeContext& c) {
  if (Result obstacle = ints_to_input(c, "starts", 1)) return obstacle;
  if (Result obstacle = ints_to_input(c, "ends", 2)) return obstacle;
  return ints_to_input(c, "axes", 3);
}

Result top_k_10(const UpgradeContext& c) {
  if (refers(c, "k")) return attribute_by_reference;
  const std::optional<std::int64_t> k = take<std::int64_t>(c, "k");
  if (!k) return "attribute 'k' is missing";
  c.graph.set_node_input(&c.node, 1, ints_constant(c, "k", {*k}));
  return std::nullopt;
}

Result scatter_11(const UpgradeContext& c) {
  c.graph.set_operator(&c.node, "ScatterElements");
  return std::nullopt;
}

// Before 13 the input was flattened to two axes at `axis` (default 1); since then only `axis`
// (default -1) is normalized. Both agree when `axis` is the last one.
Result softmax_13(const UpgradeContext& c) {
  if (refers(c, "axis")) return attribute_by_reference;
  const std::int64_t axis = int_attribute(c, "axis", 1);
  const Shape* shape = c.input_shape(0);
  const auto set_axis = [&](std::int64_t value) { c.graph.set_attribute(&c.node, "axis", value); };
  if (axis == -1) {
    set_axis(-1);
    return std::nullopt;
  }
  if (shape) {
    const auto rank = static_cast<std::int64_t>(shape->size());
    const std::int64_t start = axis < 0 ? axis + rank : axis;
    const bool rest_is_one = start >= 0 && start < rank &&
                             std::all_of(shape->begin() + start + 1, shape->end(),
                                         [](const Dim& d) { return d == Dim(1); });
    if (rest_is_one) {
      set_axis(start);
      return std::nullopt;
    }
  }
  Value* input = c.node.input(0);
  Attributes flatten, rows;
  flatten["axis"] = axis;
  rows["axis"] = -1;
  Value* dims = add_before(c, "Shape", "shape", {input});
  Value* flat = add_before(c, "Flatten", "flat", {input}, std::move(flatten));
  Value* normalized = add_before(c, c.node.op_type(), "rows", {flat}, std::move(rows));
  normalized->producer()->name = c.node.name;
  take_over(c, 0, add_before(c, "Reshape", "restored", {normalized, dims}));
  c.graph.remove(&c.node);
  return std::nullopt;
}

Result split_2(const UpgradeContext& c) {
  if (!c.node.attribute("axis")) c.graph.set_attribute(&c.node, "axis", 0);
  if (c.node.input_count() < 2 || !c.node.input(1)) return std::nullopt;
  const Tensor* split = c.node.input(1)->constant();
  if (!split) return "the second input of Split-1 is not a constant";
  c.graph.set_attribute(&c.node, "split", split->to_ints());
  c.graph.set_node_input(&c.node, 1, nullptr);
  return std::nullopt;
}

Result split_18(const UpgradeContext& c) {
  if (!c.node.input(1) && !c.node.attribute("num_outputs"))
    c.graph.set_attribute(&c.node, "num_outputs", static_cast<std::int64_t>(c.node.output_count()));
  return std::nullopt;
}

// Tile-1 took one axis and a count for it.
Result tile_6(const UpgradeContext& c) {
  const Shape* shape = c.input_shape(0);
  const Tensor* tiles = c.node.input(1) ? c.node.input(1)->constant() : nullptr;
  const Tensor* axis = c.node.input(2) ? c.node.input(2)->constant() : nullptr;
  if (!shape || !tiles || !axis) return "Tile-1 with a rank, count or axis that is not known";
  Ints repeats(shape->size(), 1);
  const std::int64_t at = axis->to_ints().at(0);
  if (at < 0 || at >= static_cast<std::int64_t>(repeats.size()))
    return "Tile-1 with an axis out of range";
  repeats[static_cast<std::size_t>(at)] = tiles->to_ints().at(0);
  c.graph.set_node_input(&c.node, 2, nullptr);
  c.graph.set_node_input(&c.node, 1, ints_constant(c, "repeats", repeats));
  return std::nullopt;
}

Result dft_20(const UpgradeContext& c) {
  if (refers(c, "axis")) return attribute_by_reference;
  const std::int64_t axis = take<std::int64_t>(c, "axis").value_or(1);
  c.graph.set_node_input(&c.node, 2,
                         constant(c, hint(c, "axis"), Tensor::scalar<std::int64_t>(axis)));
  return std::nullopt;
}

constexpr UpgradeRule rules[] = {
    {"Abs", 6, drop_consumed_inputs},
    {"Add", 6, drop_consumed_inputs},
    {"Add", 7, numpy_broadcast},
    {"And", 7, numpy_broadcast},
    {"BatchNormalization", 6, drop_consumed_inputs},
    {"BatchNormalization", 7, batch_norm_7},
    {"BatchNormalization", 9, batch_norm_9},
    {"BatchNormalization", 14, batch_norm_14},
    {"Cast", 6, cast_6},
    {"Ceil", 6, drop_consumed_inputs},
    {"Clip", 6, drop_consumed_inputs},
    {"Clip", 11, clip_11},
    {"Concat", 4, concat_4},
    {"DFT", 20, dft_20},
    {"Div", 6, drop_consumed_inputs},
    {"Div", 7, numpy_broadcast},
    {"Dropout", 6, drop_consumed_inputs},
    {"Dropout", 7, dropout_7},
    {"Dropout", 10, dropout_10},
    {"Dropout", 12, dropout_12},
    {"Elu", 6, drop_consumed_inputs},
    {"Equal", 7, numpy_broadcast},
    {"Exp", 6, drop_consumed_inputs},
    {"Floor", 6, drop_consumed_inputs},
    {"GRU", 7, drop_output_sequence},
    {"Gemm", 7, drop_broadcast},
    {"GlobalLpPool", 2, lp_2},
    {"Greater", 7, numpy_broadcast},
    {"GridSample", 20, grid_sample_20},
    {"GroupNormalization", 21, group_norm_21},
    {"HardSigmoid", 6, drop_consumed_inputs},
    {"Hardmax", 13, softmax_13},
    {"InstanceNormalization", 6, drop_consumed_inputs},
    {"LSTM", 7, drop_output_sequence},
    {"LeakyRelu", 6, drop_consumed_inputs},
    {"Less", 7, numpy_broadcast},
    {"Log", 6, drop_consumed_inputs},
    {"LogSoftmax", 13, softmax_13},
    {"LpPool", 2, lp_2},
    {"Max", 6, drop_consumed_inputs},
    {"Mean", 6, drop_consumed_inputs},
    {"Min", 6, drop_consumed_inputs},
    {"Mul", 6, drop_consumed_inputs},
    {"Mul", 7, numpy_broadcast},
    {"Neg", 6, drop_consumed_inputs},
    {"Or", 7, numpy_broadcast},
    {"PRelu", 6, drop_consumed_inputs},
    {"PRelu", 7, prelu_7},
    {"Pad", 2, pad_2},
    {"Pad", 11, pad_11},
    {"Pow", 7, numpy_broadcast},
    {"RNN", 7, drop_output_sequence},
    {"Reciprocal", 6, drop_consumed_inputs},
    {"ReduceL1", 18, axes_to_input},
    {"ReduceL2", 18, axes_to_input},
    {"ReduceLogSum", 18, axes_to_input},
    {"ReduceLogSumExp", 18, axes_to_input},
    {"ReduceMax", 18, axes_to_input},
    {"ReduceMean", 18, axes_to_input},
    {"ReduceMin", 18, axes_to_input},
    {"ReduceProd", 18, axes_to_input},
    {"ReduceSum", 13, axes_to_input},
    {"ReduceSumSquare", 18, axes_to_input},
    {"Relu", 6, drop_consumed_inputs},
    {"Reshape", 5, reshape_5},
    {"Resize", 11, resize_11},
    {"Resize", 13, resize_13},
    {"RoiAlign", 16, roi_align_16},
    {"Scan", 9, scan_9},
    {"Scatter", 11, scatter_11},
    {"Selu", 6, selu_6},
    {"Sigmoid", 6, drop_consumed_inputs},
    {"Slice", 10, slice_10},
    {"Softmax", 13, softmax_13},
    {"Split", 2, split_2},
    {"Split", 13, split_to_input},
    {"Split", 18, split_18},
    {"Sqrt", 6, drop_consumed_inputs},
    {"Squeeze", 13, axes_to_input},
    {"Sub", 6, drop_consumed_inputs},
    {"Sub", 7, numpy_broadcast},
    {"Sum", 6, drop_consumed_inputs},
    {"Tanh", 6, drop_consumed_inputs},
    {"Tile", 6, tile_6},
    {"TopK", 10, top_k_10},
    {"Unsqueeze", 13, axes_to_input},
    {"Upsample", 7, upsample_7},
    {"Upsample", 9, upsample_9},
    {"Upsample", 10, upsample_10},
    {"Upsample", 11, upsample_11},
    {"Xor", 7, numpy_broadcast},
};

}  // namespace

const UpgradeRule* find_upgrade_rule(std::string_view op_type, std::int64_t version) {
  const auto found = std::find_if(std::begin(rules), std::end(rules), [&](const UpgradeRule& rule) {
    return rule.op_type == op_type && rule.version == version;
  });
  return found == std::end(rules) ? nullptr : found;
}

}  // namespace onnxpress
