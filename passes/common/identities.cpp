#include "passes/common/identities.h"

#include <algorithm>
#include <cmath>

#include "graph/ops/reduce.h"
#include "passes/common/rewriting.h"

namespace onnxpress {

Rule identity_rule(std::string name, std::string_view op_types, Source (*find)(const Match&)) {
  const auto when = [find](const Match& match) -> std::optional<std::string> {
    const Node& node = *match.root;
    if (!node.input(0) || !node.output() || node.output()->is_unused()) return "";
    for (std::size_t i = 1; i < node.output_count(); ++i)
      if (node.output(i) && !node.output(i)->is_unused())
        return fmt::format("its output '{}' is in use", node.output(i)->name());
    if (has_open_attributes(node)) return "its attributes are parameters of the function";
    const Source source = find(match);
    if (!source.value) return source.reason;
    return handing_on_obstacle(*node.output(), *source.value);
  };
  return {.name = std::move(name),
          .pattern = Pattern::op(op_types, "node"),
          .when = when,
          .replace = [find](const Match& match, Patch& patch) {
            patch.replace(match.root->output(), find(match).value);
          }};
}

Source if_same_type(const Match& match, std::size_t index) {
  Value* input = match.root->input(index);
  if (!input) return {};
  const Type& from = match.type(input);
  const Type& to = match.type(match.root->output());
  if (same_type(from, to)) return {input};
  return {nullptr, fmt::format("its input is {}, its result {}", to_string(from), to_string(to))};
}

bool is_all(const Tensor& tensor, double wanted, int sign) {
  if (tensor.size() == 0 || tensor.dtype() == DType::string || is_complex(tensor.dtype()))
    return false;
  const auto fits = [&](double value) {
    return value == wanted && (sign == 0 || std::signbit(value) == (sign < 0));
  };
  if (tensor.dtype() == DType::float32)  // a weight, mostly: no copy
    return std::ranges::all_of(tensor.data<float>(),
                               [&](float value) { return fits(double{value}); });
  const Tensor wide = tensor.cast(DType::float64);
  return std::ranges::all_of(wide.data<double>(), fits);
}

// A first operand keeps its shape beside one element; of the second that is not true where the
// first's shape is the result's whatever the second's (before opset 7).
Source unless_broadcast(const Match& match, std::size_t index, const Tensor& other) {
  Value* input = match.root->input(index);
  const Type& type = match.type(input);
  const bool fits = other.rank() == 0 || (type.shape && type.shape->size() >= other.rank());
  return index == 0 && other.size() == 1 && fits ? Source{input} : if_same_type(match, index);
}

Source if_over_ones(const Match& match) {
  const Node& node = *match.root;
  const ReduceAttrs attrs = ReduceAttrs::from(node);
  const Type& type = match.type(node.input(0));
  if (!attrs.axes || !type.shape)
    return {nullptr, "its axes or the rank of its input are not known"};
  const auto axes =
      ReduceAttrs::effective(*attrs.axes, attrs.noop_with_empty_axes, type.shape->size());
  const bool ones = std::ranges::all_of(axes, [&](std::int64_t axis) {
    return (*type.shape)[static_cast<std::size_t>(axis)].value() == 1;
  });
  if (!ones || (!attrs.keepdims && !axes.empty())) return {};
  return {node.input(0)};
}

bool takes_each_cell(const Window& window) {
  const auto all = [](const std::vector<std::int64_t>& values, std::int64_t wanted) {
    return std::ranges::all_of(values, [&](std::int64_t value) { return value == wanted; });
  };
  return all(window.kernel, 1) && all(window.strides, 1) && all(window.pads, 0);
}

}  // namespace onnxpress
