// The facts are those of onnx docs/Changelog.md.
#include "graph/ops/upgrade_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "graph/ops/batch_norm.h"
#include "graph/ops/constant.h"

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

using Result = std::optional<std::string>;
using Ints = std::vector<std::int64_t>;

constexpr const char* attribute_by_reference =
    "an attribute refers to one of the function's and cannot become an input";

// Removes an attribute and returns its value, or nothing when it is absent.
template <class T>
std::optional<T> take(const UpgradeContext& c, std::string_view name) {
  const Attribute* attribute = c.node.attribute(name);
  if (!attribute) return std::nullopt;
  const T* value = std::get_if<T>(&attribute->value);
  require(value != nullptr, "attribute '{}' is not of its declared kind", name);
  std::optional<T> taken = *value;
  c.graph.remove_attribute(&c.node, name);
  return taken;
}

bool refers(const UpgradeContext& c, std::string_view name) {
  const Attribute* attribute = c.node.attribute(name);
  return attribute && !attribute->ref.empty();
}

std::int64_t int_attribute(const UpgradeContext& c, std::string_view name, std::int64_t fallback) {
  const Attribute* attribute = c.node.attribute(name);
  if (!attribute) return fallback;
  const std::int64_t* value = std::get_if<std::int64_t>(&attribute->value);
  return value ? *value : fallback;
}

// A constant beside the node: an initializer, or a Constant node inside function bodies, which
// have no initializers.
Value* constant(const UpgradeContext& c, std::string_view hint, Tensor tensor) {
  const std::string name = c.graph.unique_name(hint);
  if (!c.in_function) return c.graph.add_initializer(name, std::move(tensor));
  NodeSpec spec{.op_type = "Constant", .outputs = {name}};
  spec.attributes.emplace("value", std::move(tensor));
  return c.graph.add_node(std::move(spec), &c.node)->output();
}

std::string hint(const UpgradeContext& c, std::string_view what) {
  return fmt::format("{}_{}", c.node.output() ? c.node.output()->name() : c.node.op_type(), what);
}

Value* ints_constant(const UpgradeContext& c, std::string_view what, const Ints& values) {
  return constant(c, hint(c, what),
                  Tensor::of<std::int64_t>({static_cast<std::int64_t>(values.size())}, values));
}

// An attribute of integers becomes input `index`.
Result ints_to_input(const UpgradeContext& c, std::string_view name, std::size_t index) {
  if (refers(c, name)) return attribute_by_reference;
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
  NodeSpec spec{.op_type = "Unsqueeze",
                .inputs = {c.node.input(1)},
                .outputs = {c.graph.unique_name(hint(c, "aligned"))}};
  spec.attributes.emplace("axes", axes);
  c.graph.set_node_input(&c.node, 1, c.graph.add_node(std::move(spec), &c.node)->output());
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
  if (BatchNormAttrs::from(c.node).training) return "BatchNormalization in training mode (is_test=0)";
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
  NodeSpec spec{.op_type = "Unsqueeze",
                .inputs = {c.node.input(1)},
                .outputs = {c.graph.unique_name(hint(c, "slope"))}};
  spec.attributes.emplace("axes", axes);
  c.graph.set_node_input(&c.node, 1, c.graph.add_node(std::move(spec), &c.node)->output());
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

Result upsample_7(const UpgradeContext& c) {
  const std::optional<float> height = take<float>(c, "height_scale");
  const std::optional<float> width = take<float>(c, "width_scale");
  if (!height || !width) return "attributes 'height_scale' and 'width_scale' are missing";
  c.graph.set_attribute(&c.node, "scales", std::vector<float>{1, 1, *height, *width});
  return std::nullopt;
}

Result upsample_9(const UpgradeContext& c) {
  if (refers(c, "scales")) return attribute_by_reference;
  const std::optional<std::vector<float>> scales = take<std::vector<float>>(c, "scales");
  if (!scales) return "attribute 'scales' is missing";
  c.graph.set_node_input(
      &c.node, 1,
      constant(c, hint(c, "scales"),
               Tensor::of<float>({static_cast<std::int64_t>(scales->size())}, *scales)));
  return std::nullopt;
}

Result upsample_to_resize(const UpgradeContext& c) {
  c.graph.set_operator(&c.node, "Resize");
  return std::nullopt;
}

// Resize-10 sampled at output / scale: 'asymmetric'. Nearest took the element before the sample, or
// the one after it along axes that shrink.
Result resize_11(const UpgradeContext& c) {
  const Attribute* mode = c.node.attribute("mode");
  const std::string* text = mode ? std::get_if<std::string>(&mode->value) : nullptr;
  const std::optional<Tensor> scales = constant_contents(c.node.input(1));
  const auto shrinks = [](float scale) { return scale < 1; };
  const std::vector<float> known = scales ? scales->to_floats() : std::vector<float>();
  const bool down = std::ranges::any_of(known, shrinks);
  if (!text || *text == "nearest") {
    if (!scales) return "Resize of mode 'nearest' whose scales are not constant";
    if (down && std::ranges::any_of(known, [](float scale) { return scale > 1; }))
      return "Resize of mode 'nearest' that shrinks some axes and grows others";
  }
  c.graph.set_node_input(&c.node, 2, c.node.input(1));
  c.graph.set_node_input(&c.node, 1, nullptr);
  c.graph.set_attribute(&c.node, "coordinate_transformation_mode", "asymmetric");
  c.graph.set_attribute(&c.node, "nearest_mode", down ? "ceil" : "floor");
  return std::nullopt;
}

Result resize_13(const UpgradeContext& c) {
  const Attribute* mode = c.node.attribute("coordinate_transformation_mode");
  const std::string* text = mode ? std::get_if<std::string>(&mode->value) : nullptr;
  if (text && *text == "tf_half_pixel_for_nn") return "Resize with 'tf_half_pixel_for_nn'";
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
    const bool rest_is_one =
        start >= 0 && start < rank &&
        std::all_of(shape->begin() + start + 1, shape->end(), [](const Dim& d) { return d == Dim(1); });
    if (rest_is_one) {
      set_axis(start);
      return std::nullopt;
    }
  }
  Value* input = c.node.input(0);
  Value* old = c.node.output();
  NodeSpec shape_of{.op_type = "Shape", .inputs = {input}, .outputs = {c.graph.unique_name(hint(c, "shape"))}};
  Value* dims = c.graph.add_node(std::move(shape_of), &c.node)->output();
  NodeSpec flatten{.op_type = "Flatten", .inputs = {input}, .outputs = {c.graph.unique_name(hint(c, "flat"))}};
  flatten.attributes.emplace("axis", axis);
  Value* flat = c.graph.add_node(std::move(flatten), &c.node)->output();
  NodeSpec rows{.op_type = c.node.op_type(), .name = c.node.name, .inputs = {flat},
                .outputs = {c.graph.unique_name(hint(c, "rows"))}};
  rows.attributes.emplace("axis", -1);
  Value* normalized = c.graph.add_node(std::move(rows), &c.node)->output();
  NodeSpec reshape{.op_type = "Reshape", .inputs = {normalized, dims},
                   .outputs = {c.graph.unique_name(hint(c, "restored"))}};
  Value* restored = c.graph.add_node(std::move(reshape), &c.node)->output();
  restored->type = old->type;
  restored->type_in_file = old->type_in_file;
  c.graph.replace_uses(old, restored);
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
  if (at < 0 || at >= static_cast<std::int64_t>(repeats.size())) return "Tile-1 with an axis out of range";
  repeats[static_cast<std::size_t>(at)] = tiles->to_ints().at(0);
  c.graph.set_node_input(&c.node, 2, nullptr);
  c.graph.set_node_input(&c.node, 1, ints_constant(c, "repeats", repeats));
  return std::nullopt;
}

Result grid_sample_20(const UpgradeContext& c) {
  const Attribute* mode = c.node.attribute("mode");
  const std::string* text = mode ? std::get_if<std::string>(&mode->value) : nullptr;
  if (text && *text == "bilinear") c.graph.set_attribute(&c.node, "mode", "linear");
  if (text && *text == "bicubic") c.graph.set_attribute(&c.node, "mode", "cubic");
  return std::nullopt;
}

Result dft_20(const UpgradeContext& c) {
  if (refers(c, "axis")) return attribute_by_reference;
  const std::int64_t axis = take<std::int64_t>(c, "axis").value_or(1);
  c.graph.set_node_input(&c.node, 2, constant(c, hint(c, "axis"), Tensor::scalar<std::int64_t>(axis)));
  return std::nullopt;
}

// Scale and bias went from one per group to one per channel.
Result group_norm_21(const UpgradeContext& c) {
  const Shape* x = c.input_shape(0);
  if (!x || x->size() < 2 || !(*x)[1].is_known()) return "the channel count of its input is not known";
  const std::int64_t channels = (*x)[1].value();
  for (const std::size_t index : {1, 2}) {
    Value* value = c.node.input(index);
    const Tensor* groups = value ? value->constant() : nullptr;
    if (!groups) return "its scale or bias is not a constant";
    if (groups->dtype() != DType::float32) return "its scale or bias is not float32";
    if (groups->size() == 0 || channels % groups->size() != 0) return "channels do not divide into groups";
    std::vector<float> per_channel;
    for (const float v : groups->data<float>())
      per_channel.insert(per_channel.end(), static_cast<std::size_t>(channels / groups->size()), v);
    c.graph.set_node_input(&c.node, index,
                           constant(c, value->name(), Tensor::of<float>({channels}, per_channel)));
  }
  return std::nullopt;
}

Result no_rewrite(const UpgradeContext& c) {
  return fmt::format("{} changed and no rewrite is known", c.node.op_type());
}

constexpr UpgradeRule rules[] = {
    {"Abs", 6, drop_consumed_inputs}, {"Add", 6, drop_consumed_inputs}, {"Add", 7, numpy_broadcast},
    {"And", 7, numpy_broadcast}, {"BatchNormalization", 6, drop_consumed_inputs},
    {"BatchNormalization", 7, batch_norm_7}, {"BatchNormalization", 9, batch_norm_9},
    {"BatchNormalization", 14, batch_norm_14}, {"Cast", 6, cast_6}, {"Ceil", 6, drop_consumed_inputs},
    {"Clip", 6, drop_consumed_inputs}, {"Clip", 11, clip_11}, {"Concat", 4, concat_4},
    {"DFT", 20, dft_20}, {"Div", 6, drop_consumed_inputs}, {"Div", 7, numpy_broadcast},
    {"Dropout", 6, drop_consumed_inputs}, {"Dropout", 7, dropout_7}, {"Dropout", 12, dropout_12},
    {"Elu", 6, drop_consumed_inputs}, {"Equal", 7, numpy_broadcast}, {"Exp", 6, drop_consumed_inputs},
    {"Floor", 6, drop_consumed_inputs}, {"GRU", 7, drop_output_sequence}, {"Gemm", 7, drop_broadcast},
    {"GlobalLpPool", 2, lp_2}, {"Greater", 7, numpy_broadcast}, {"GridSample", 20, grid_sample_20},
    {"GroupNormalization", 21, group_norm_21}, {"HardSigmoid", 6, drop_consumed_inputs},
    {"Hardmax", 13, softmax_13}, {"InstanceNormalization", 6, drop_consumed_inputs},
    {"LSTM", 7, drop_output_sequence}, {"LeakyRelu", 6, drop_consumed_inputs},
    {"Less", 7, numpy_broadcast}, {"Log", 6, drop_consumed_inputs}, {"LogSoftmax", 13, softmax_13},
    {"LpPool", 2, lp_2}, {"Max", 6, drop_consumed_inputs}, {"Mean", 6, drop_consumed_inputs},
    {"Min", 6, drop_consumed_inputs}, {"Mul", 6, drop_consumed_inputs}, {"Mul", 7, numpy_broadcast},
    {"Neg", 6, drop_consumed_inputs}, {"Or", 7, numpy_broadcast}, {"PRelu", 6, drop_consumed_inputs},
    {"PRelu", 7, prelu_7}, {"Pad", 2, pad_2}, {"Pad", 11, pad_11}, {"Pow", 7, numpy_broadcast},
    {"RNN", 7, drop_output_sequence}, {"Reciprocal", 6, drop_consumed_inputs},
    {"ReduceL1", 18, axes_to_input}, {"ReduceL2", 18, axes_to_input},
    {"ReduceLogSum", 18, axes_to_input}, {"ReduceLogSumExp", 18, axes_to_input},
    {"ReduceMax", 18, axes_to_input}, {"ReduceMean", 18, axes_to_input},
    {"ReduceMin", 18, axes_to_input}, {"ReduceProd", 18, axes_to_input},
    {"ReduceSum", 13, axes_to_input}, {"ReduceSumSquare", 18, axes_to_input},
    {"Relu", 6, drop_consumed_inputs}, {"Reshape", 5, reshape_5}, {"Resize", 11, resize_11},
    {"Resize", 13, resize_13}, {"Scan", 9, no_rewrite}, {"Scatter", 11, scatter_11},
    {"Selu", 6, selu_6}, {"Sigmoid", 6, drop_consumed_inputs}, {"Slice", 10, slice_10},
    {"Softmax", 13, softmax_13}, {"Split", 2, split_2}, {"Split", 13, split_to_input},
    {"Split", 18, split_18}, {"Sqrt", 6, drop_consumed_inputs}, {"Squeeze", 13, axes_to_input},
    {"Sub", 6, drop_consumed_inputs}, {"Sub", 7, numpy_broadcast}, {"Sum", 6, drop_consumed_inputs},
    {"Tanh", 6, drop_consumed_inputs}, {"Tile", 6, tile_6}, {"TopK", 10, top_k_10},
    {"Unsqueeze", 13, axes_to_input}, {"Upsample", 7, upsample_7}, {"Upsample", 9, upsample_9},
    {"Upsample", 10, upsample_to_resize}, {"Xor", 7, numpy_broadcast},
};

}  // namespace

const UpgradeRule* find_upgrade_rule(std::string_view op_type, std::int64_t version) {
  const auto found = std::find_if(std::begin(rules), std::end(rules), [&](const UpgradeRule& rule) {
    return rule.op_type == op_type && rule.version == version;
  });
  return found == std::end(rules) ? nullptr : found;
}

}  // namespace onnxpress
