#include "graph/ops/permuted_form.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "graph/ops/attributes.h"
#include "graph/ops/batch_norm.h"
#include "graph/ops/concat_split.h"
#include "graph/ops/constant.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/permuted_question.h"
#include "graph/ops/reduce.h"
#include "graph/ops/reshape.h"
#include "graph/ops/reshape_segments.h"
#include "graph/ops/slice.h"
#include "graph/ops/softmax.h"

namespace onnxpress {
namespace {

using Question = PermutedQuestion;
using Ints = Question::Axes;

Tensor int_vector(const Ints& values) {
  return Tensor::of<std::int64_t>({std::ssize(values)}, values);
}

using Result = std::optional<PermutedForm>;

// The first input goes through, element by element; others say how.
Result elementwise(Question& q) {
  if (!q.operand.is_output && q.operand.index != 0) return std::nullopt;
  return q.input_and_outputs();
}

// All inputs broadcast.
Result broadcasting(Question& q) {
  const bool legacy = q.node.opset() < 7;
  if (legacy && q.node.attribute("axis")) return std::nullopt;
  std::size_t highest = 0;
  for (std::size_t i = 0; i < q.node.input_count(); ++i) {
    const Shape* shape = q.shape(i);
    if (shape == nullptr || shape->size() > q.rank()) return std::nullopt;
    highest = std::max(highest, shape->size());
    const bool ones = std::ranges::all_of(*shape, [](const Dim& dim) { return dim == Dim(1); });
    if (q.is_input(i) || (shape->size() == q.rank() && !ones))
      q.answer.inputs[i] = q.p;
    else if (legacy)
      return std::nullopt;
    else if (ones)
      continue;
    else if (q.node.input(i)->constant())
      q.answer.inputs[i] = q.p;
    else
      return std::nullopt;
  }
  if (highest != q.rank()) return std::nullopt;
  return q.all_outputs();
}

// Before opset 7 a slope of one axis belongs to the channels.
Result p_relu(Question& q) { return q.node.opset() < 7 ? std::nullopt : broadcasting(q); }

Result reduction(Question& q) {
  const ReduceAttrs attrs = ReduceAttrs::from(q.node);
  if (!attrs.axes || (q.operand.is_output && !attrs.keepdims) ||
      (!q.operand.is_output && q.operand.index != 0))
    return std::nullopt;
  const Ints axes = ReduceAttrs::effective(*attrs.axes, attrs.noop_with_empty_axes, q.rank());
  Ints moved = q.positions(axes);
  const bool any_order = q.node.is("ReduceMax") || q.node.is("ReduceMin");
  // Sums are rounded in the order in which they are made.
  if (!any_order && !std::ranges::is_sorted(moved)) return std::nullopt;
  q.answer.inputs[0] = q.p;
  q.answer.outputs[0] = attrs.keepdims ? q.p : q.without(axes);
  if (axes.empty() || attrs.axes->empty()) return std::move(q.answer);
  std::ranges::sort(moved);
  OpCall call = make_reduce(q.node.op_type(), q.node.opset(), std::move(moved), attrs.keepdims);
  if (!call.constants.empty())
    q.argument(1, call.constants[0]);
  else
    q.answer.attributes["axes"] = std::move(call.attributes["axes"]);
  return std::move(q.answer);
}

Result arg_extreme(Question& q) {
  const bool keepdims = get_bool(q.node, "keepdims", true);
  if (q.operand.is_output && !keepdims) return std::nullopt;
  const std::int64_t axis = get_int(q.node, "axis", 0);
  q.answer.inputs[0] = q.p;
  q.answer.outputs[0] = keepdims ? q.p : q.without({axis});
  q.answer.attributes["axis"] = q.position(axis);
  return std::move(q.answer);
}

Result concat(Question& q) {
  std::ranges::fill(q.answer.inputs, q.p);
  q.answer.attributes["axis"] = q.position(concat_axis(q.node));
  return q.all_outputs();
}

Result split(Question& q) {
  if (!q.operand.is_output && q.operand.index != 0) return std::nullopt;
  q.answer.attributes["axis"] = q.position(SplitAttrs::from(q.node).axis);
  return q.input_and_outputs();
}

Result softmax(Question& q) {
  const SoftmaxAttrs attrs = SoftmaxAttrs::from(q.node);
  const std::int64_t last = std::ssize(q.p) - 1;
  if (attrs.flattens &&
      (normalize_axis(attrs.axis, q.rank()) != last || q.position(attrs.axis) != last))
    return std::nullopt;
  q.answer.attributes["axis"] = q.position(attrs.axis);
  return q.input_and_outputs();
}

void set_axes(Question& q, OpCall call) {
  if (!call.constants.empty())
    q.argument(1, call.constants[0]);
  else
    q.answer.attributes["axes"] = std::move(call.attributes["axes"]);
}

Result squeeze(Question& q) {
  const auto axes = axes_argument(q.node);
  if (!axes || !q.is_input(0)) return std::nullopt;
  q.answer.inputs[0] = q.p;
  q.answer.outputs[0] = q.without(*axes);
  Ints moved = q.positions(*axes);
  std::ranges::sort(moved);
  set_axes(q, make_squeeze(q.node.opset(), std::move(moved)));
  return std::move(q.answer);
}

Result unsqueeze(Question& q) {
  const auto axes = axes_argument(q.node);
  if (!axes || !q.operand.is_output) return std::nullopt;
  q.answer.inputs[0] = q.without(*axes);
  q.answer.outputs[0] = q.p;
  Ints moved = q.positions(*axes);
  std::ranges::sort(moved);
  set_axes(q, make_unsqueeze(q.node.opset(), std::move(moved)));
  return std::move(q.answer);
}

// All of a Slice's bounds have one type.
DType bounds_type(const Question& q) {
  const std::optional<Tensor> axes = constant_contents(q.node.input(3));
  return axes ? axes->dtype() : constant_contents(q.node.input(1)).value().dtype();
}

// Each group of axes that goes into another moves as one.
Result reshape(Question& q) {
  const Shape* in = q.shape(0);
  const Type& made = q.types.type(q.node.output());
  if (in == nullptr || !made.is_tensor() || !made.shape || q.node.opset() < 5 ||
      !constant_ints(q.node.input(1)) || (!q.operand.is_output && q.operand.index != 0))
    return std::nullopt;
  const Shape& out = *made.shape;
  if (std::ranges::any_of(out, [](const Dim& dim) { return dim == Dim(0); })) return std::nullopt;
  const auto segments = reshape_segments(*in, out);
  if (!segments) return std::nullopt;
  const auto order = segment_order(
      *segments, q.operand.is_output ? &ReshapeSegment::outputs : &ReshapeSegment::inputs, q.p);
  if (!order) return std::nullopt;
  q.answer.inputs[0] = axes_in_order(*segments, &ReshapeSegment::inputs, *order);
  q.answer.outputs[0] = axes_in_order(*segments, &ReshapeSegment::outputs, *order);
  Ints target;
  for (const std::int64_t axis : q.answer.outputs[0]) {
    const Dim& dim = out[static_cast<std::size_t>(axis)];
    target.push_back(dim.is_known() ? dim.value() : -1);
  }
  if (std::ranges::count(target, -1) > 1) return std::nullopt;
  q.argument(1, int_vector(target));
  return std::move(q.answer);
}

// Two groups of axes, which may not mix: only axes of size 1 change places.
Result flatten(Question& q) {
  const Shape* shape = q.shape(0);
  if (!q.is_input(0) || shape == nullptr) return std::nullopt;
  std::int64_t axis = get_int(q.node, "axis", 1);
  if (axis != std::ssize(q.p)) axis = normalize_axis(axis, q.rank());
  std::int64_t last = -1, moved_axis = 0;
  for (std::size_t i = 0; i < q.p.size(); ++i) {
    if ((*shape)[static_cast<std::size_t>(q.p[i])] == Dim(1)) continue;
    if (q.p[i] < last) return std::nullopt;
    last = q.p[i];
    if (last < axis) moved_axis = static_cast<std::int64_t>(i) + 1;
  }
  q.answer.inputs[0] = q.p;
  q.answer.attributes["axis"] = moved_axis;
  return std::move(q.answer);
}

Result slice(Question& q) {
  if (!q.operand.is_output && q.operand.index != 0) return std::nullopt;
  std::optional<Ints> axes = constant_ints(q.node.input(3));
  if (!axes) {
    const std::optional<SliceAttrs> attrs = SliceAttrs::from(q.node);
    if (!attrs) return std::nullopt;
    axes = attrs->axes;
  }
  if (q.node.opset() < 10)
    q.answer.attributes["axes"] = q.positions(*axes);
  else
    q.argument(3, int_vector(q.positions(*axes)).cast(bounds_type(q)));
  return q.input_and_outputs();
}

// One number per axis, at the beginning and at the end.
Ints both_ends(const Question& q, const Ints& pads) {
  const auto middle = pads.begin() + std::ssize(q.p);
  Ints result = q.reordered(Ints(pads.begin(), middle));
  const Ints ends = q.reordered(Ints(middle, pads.end()));
  result.insert(result.end(), ends.begin(), ends.end());
  return result;
}

Result pad(Question& q) {
  if (!q.operand.is_output && q.operand.index != 0) return std::nullopt;
  if (q.node.input(3)) {
    const auto axes = constant_ints(q.node.input(3));
    if (!axes) return std::nullopt;
    q.argument(3, int_vector(q.positions(*axes)));
    return q.input_and_outputs();
  }
  const bool by_attribute = q.node.opset() < 11;
  const std::string_view name = q.node.opset() < 2 ? "paddings" : "pads";
  const auto pads = by_attribute ? find_ints(q.node, name) : constant_ints(q.node.input(1));
  if (!pads || pads->size() != 2 * q.rank()) return std::nullopt;
  if (by_attribute)
    q.answer.attributes[std::string(name)] = both_ends(q, *pads);
  else
    q.argument(1, int_vector(both_ends(q, *pads)));
  return q.input_and_outputs();
}

// Input 1 has one number per axis: Expand, Tile.
Result per_axis(Question& q) {
  const auto numbers = constant_ints(q.node.input(1));
  if (!numbers || numbers->size() != q.rank() || !q.has_rank(0, q.rank()) ||
      (!q.operand.is_output && q.operand.index != 0) || q.node.opset() < 6)
    return std::nullopt;
  q.argument(1, int_vector(q.reordered(*numbers)));
  return q.input_and_outputs();
}

// Nearest picks elements one by one. Sums of neighbours are rounded axis by axis, and are written
// for images whose last axes are resampled.
bool may_resample(const Question& q, const std::vector<bool>& resized) {
  if (get_string(q.node, "mode", "nearest") == "nearest") return true;
  Ints moved;
  for (std::size_t i = 0; i < resized.size(); ++i)
    if (resized[i]) moved.push_back(q.position(static_cast<std::int64_t>(i)));
  if (!std::ranges::is_sorted(moved)) return false;
  const std::int64_t first = std::ssize(q.p) - std::max<std::int64_t>(2, std::ssize(moved));
  return moved.empty() || moved.front() >= first;
}

Result resize(Question& q) {
  if (!q.operand.is_output && q.operand.index != 0) return std::nullopt;
  if (get_string(q.node, "coordinate_transformation_mode", "") == "tf_crop_and_resize")
    return std::nullopt;
  const bool upsample = q.node.is("Upsample");
  if (find_ints(q.node, "axes")) return std::nullopt;
  std::vector<bool> resized(q.rank(), true);
  if (upsample && q.node.opset() < 9) {
    const std::vector<float> scales = get_floats(q.node, "scales");
    if (scales.size() != q.rank()) return std::nullopt;
    for (std::size_t i = 0; i < scales.size(); ++i) resized[i] = scales[i] != 1.0F;
    if (!may_resample(q, resized)) return std::nullopt;
    q.answer.attributes["scales"] = q.reordered(scales);
    return q.input_and_outputs();
  }
  const bool old_form = upsample || q.node.opset() < 11;
  std::size_t given = old_form ? 1 : 2;
  std::optional<Tensor> numbers = constant_contents(q.node.input(given));
  if (!old_form && q.node.input(3)) {
    if (numbers && numbers->size() > 0) return std::nullopt;
    given = 3;
    numbers = constant_contents(q.node.input(given));
  }
  if (!numbers || numbers->rank() != 1 || numbers->size() != std::ssize(q.p)) return std::nullopt;
  const std::vector<float> values = numbers->to_floats();
  const Shape* shape = q.shape(0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (given != 3)
      resized[i] = values[i] != 1.0F;
    else if (shape != nullptr && (*shape)[i].is_known())
      resized[i] = numbers->to_ints()[i] != (*shape)[i].value();
  }
  if (!may_resample(q, resized)) return std::nullopt;
  if (given == 3)
    q.argument(given, int_vector(q.reordered(numbers->to_ints())));
  else
    q.argument(given, Tensor::of<float>({std::ssize(values)}, q.reordered(values)));
  return q.input_and_outputs();
}

Result cum_sum(Question& q) {
  const std::optional<Tensor> axis = constant_contents(q.node.input(1));
  if (!axis || axis->size() != 1 || (!q.operand.is_output && q.operand.index != 0))
    return std::nullopt;
  q.argument(1, Tensor::of<std::int64_t>(axis->dims(), Ints{q.position(axis->to_ints()[0])})
                    .cast(axis->dtype()));
  return q.input_and_outputs();
}

Result gather(Question& q) {
  const Shape* indices = q.shape(1);
  if (indices == nullptr || indices->size() > 1 || (!q.operand.is_output && q.operand.index != 0))
    return std::nullopt;
  const bool drops = indices->empty();
  if (drops && q.operand.is_output) return std::nullopt;
  const std::int64_t axis = get_int(q.node, "axis", 0);
  q.answer.inputs[0] = q.p;
  q.answer.outputs[0] = drops ? q.without({axis}) : q.p;
  q.answer.attributes["axis"] = q.position(axis);
  return std::move(q.answer);
}

// Scales of one axis, or one scale.
Result quantization(Question& q) {
  const Shape* scale = q.shape(1);
  if (scale == nullptr || scale->size() > 1 || (!q.operand.is_output && q.operand.index != 0))
    return std::nullopt;
  if (!scale->empty() && q.node.opset() >= 13) {
    const std::int64_t axis = get_int(q.node, "axis", 1);
    const std::int64_t rank = std::ssize(q.p);
    if (axis < -rank || axis >= rank) return std::nullopt;
    q.answer.attributes["axis"] = q.position(axis);
  }
  return q.input_and_outputs();
}

// Scale and zero point are of all elements.
Result dynamic_quantization(Question& q) {
  if (q.operand.is_output && q.operand.index != 0) return std::nullopt;
  q.answer.inputs[0] = q.answer.outputs[0] = q.p;
  return std::move(q.answer);
}

bool fixes(const Permutation& p, std::int64_t axis) {
  return p[static_cast<std::size_t>(axis)] == axis;
}

Result batch_norm(Question& q) {
  const BatchNormAttrs attrs = BatchNormAttrs::from(q.node);
  const bool plain = !attrs.training && attrs.per_channel && q.node.output_count() == 1;
  if (!plain || q.rank() < 2 || !fixes(q.p, 1) || (!q.operand.is_output && q.operand.index != 0))
    return std::nullopt;
  return q.input_and_outputs();
}

Result layer_norm(Question& q) {
  if (q.node.output_count() != 1 || (!q.operand.is_output && q.operand.index != 0))
    return std::nullopt;
  for (std::int64_t i = normalize_axis(LayerNormAttrs::from(q.node).axis, q.rank());
       i < std::ssize(q.p); ++i)
    if (!fixes(q.p, i)) return std::nullopt;
  return q.input_and_outputs();
}

// Rows may change places, and so may whole products.
Result matmul(Question& q) {
  const std::int64_t last = std::ssize(q.p) - 1;
  if (q.rank() < 3 || !q.has_rank(0, q.rank()) || !fixes(q.p, last)) return std::nullopt;
  q.answer.inputs[0] = q.p;
  if (q.has_rank(1, q.rank()) && fixes(q.p, last - 1))
    q.answer.inputs[1] = q.p;
  else if (!q.has_rank(1, 2) || q.is_input(1))
    return std::nullopt;
  return q.all_outputs();
}

using Former = Result (*)(Question&);

const std::map<std::string_view, Former>& formers() {
  static const std::map<std::string_view, Former> table = [] {
    std::map<std::string_view, Former> all;
    for (const char* op : {"Abs",         "Acos",
                           "Acosh",       "Asin",
                           "Asinh",       "Atan",
                           "Atanh",       "BitwiseNot",
                           "Cast",        "CastLike",
                           "Ceil",        "Celu",
                           "Clip",        "Cos",
                           "Cosh",        "Elu",
                           "Erf",         "Exp",
                           "Floor",       "Gelu",
                           "HardSigmoid", "HardSwish",
                           "Identity",    "IsInf",
                           "IsNaN",       "LeakyRelu",
                           "Log",         "Mish",
                           "Neg",         "Not",
                           "Reciprocal",  "Relu",
                           "Round",       "Selu",
                           "Shrink",      "Sigmoid",
                           "Sign",        "Sin",
                           "Sinh",        "Softplus",
                           "Softsign",    "Sqrt",
                           "Swish",       "Tan",
                           "Tanh",        "ThresholdedRelu"})
      all.emplace(op, elementwise);
    for (const char* op : {"Add",        "And",         "BitShift", "BitwiseAnd", "BitwiseOr",
                           "BitwiseXor", "Div",         "Equal",    "Greater",    "GreaterOrEqual",
                           "Less",       "LessOrEqual", "Max",      "Mean",       "Min",
                           "Mod",        "Mul",         "Or",       "Pow",        "Sub",
                           "Sum",        "Where",       "Xor"})
      all.emplace(op, broadcasting);
    for (const char* op : {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
                           "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"})
      all.emplace(op, reduction);
    for (const char* op : {"Softmax", "LogSoftmax", "Hardmax"}) all.emplace(op, softmax);
    for (const char* op : {"ArgMax", "ArgMin"}) all.emplace(op, arg_extreme);
    for (const char* op : {"Expand", "Tile"}) all.emplace(op, per_axis);
    for (const char* op : {"Resize", "Upsample"}) all.emplace(op, resize);
    for (const char* op : {"QuantizeLinear", "DequantizeLinear"}) all.emplace(op, quantization);
    all.insert({{"PRelu", p_relu},
                {"Concat", concat},
                {"Split", split},
                {"Squeeze", squeeze},
                {"Unsqueeze", unsqueeze},
                {"Slice", slice},
                {"Reshape", reshape},
                {"Flatten", flatten},
                {"Pad", pad},
                {"CumSum", cum_sum},
                {"Gather", gather},
                {"DynamicQuantizeLinear", dynamic_quantization},
                {"BatchNormalization", batch_norm},
                {"LayerNormalization", layer_norm},
                {"MatMul", matmul}});
    return all;
  }();
  return table;
}

}  // namespace

std::optional<PermutedForm> permuted_form(const Node& node, const PermutedOperand& operand,
                                          const TypeInference& types) {
  if (!node.domain().empty() || operand.permutation.empty()) return std::nullopt;
  const auto former = formers().find(node.op_type());
  if (former == formers().end() || node.input(0) == nullptr) return std::nullopt;
  for (const auto& [name, attribute] : node.attributes())
    if (!attribute.ref.empty()) return std::nullopt;
  for (std::size_t i = 0; i < node.output_count(); ++i)
    if (node.output(i) == nullptr) return std::nullopt;
  Question question(node, operand, types);
  return former->second(question);
}

}  // namespace onnxpress
