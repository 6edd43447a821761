// QLinearConcat: parts with scales of their own, brought to one scale.
#include <algorithm>

#include "graph/ops/concat_split.h"
#include "graph/ops/quantized.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Inputs: y's scale and zero point, then data, scale and zero point of each part.
constexpr std::size_t first_part = 2;
constexpr std::size_t inputs_per_part = 3;

void check_inputs(std::size_t count) {
  require(count >= first_part + inputs_per_part && (count - first_part) % inputs_per_part == 0,
          "expected a scale and a zero point, then data, scale and zero point of each part, found "
          "{} inputs",
          count);
}

Kernel prepare(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    check_inputs(node.input_count());
    const Tensor& first = context.required_input(first_part);
    const auto to = quantization_at(context, 0, first.dtype());
    std::vector<Shape> shapes;
    for (std::size_t i = first_part; i < node.input_count(); i += inputs_per_part)
      shapes.push_back(to_shape(context.required_input(i).dims()));
    std::vector<const Shape*> parts;
    for (const Shape& shape : shapes) parts.push_back(&shape);
    const Dims dims = concrete(concat_shape(parts, concat_axis(node)).value()).value();
    const auto axis = static_cast<std::size_t>(normalize_axis(concat_axis(node), dims.size()));
    const std::int64_t row = element_count(std::span(dims).subspan(axis));
    const std::span<std::uint8_t> out = mutable_codes_of(context.output(0, first.dtype(), dims));
    std::int64_t start = 0;
    for (std::size_t i = first_part; i < node.input_count(); i += inputs_per_part) {
      const Tensor& part = context.required_input(i);
      require(part.dtype() == first.dtype(), "expected parts of one type, found {} and {}",
              name(first.dtype()), name(part.dtype()));
      const CodeTable table(part.dtype(), quantization_at(context, i + 1, part.dtype()), to,
                            [](float value) { return value; });
      const std::span<const std::uint8_t> in = codes_of(part);
      const std::int64_t width = element_count(std::span(part.dims()).subspan(axis));
      for (std::size_t from = 0; from < in.size(); ++from) {
        const auto element = static_cast<std::int64_t>(from);
        out[static_cast<std::size_t>(element / width * row + start + element % width)] =
            table[in[from]];
      }
      start += width;
    }
  };
}

void infer(InferContext& context) {
  const Node& node = context.node();
  check_inputs(node.input_count());
  std::vector<const Shape*> parts;
  for (std::size_t i = first_part; i < node.input_count(); i += inputs_per_part)
    parts.push_back(context.input_shape(i));
  DType type = context.input_dtype(1);
  if (type == DType::undefined) type = context.input_dtype(first_part);
  context.set_output(0, type, concat_shape(parts, concat_axis(node)));
}

OperandAxes axes(const Node& node) {
  OperandAxes roles(node.input_count());
  for (std::size_t i = first_part; i < node.input_count(); i += inputs_per_part) {
    const Value* x = node.input(i);
    if (x != nullptr && x->type.shape) roles[i] = concat_roles(node, x->type.shape->size());
  }
  return roles;
}

}  // namespace

OPERATORS(qlinear_concat) {
  registry.add(OpDef{.name = "QLinearConcat",
                     .domain = "com.microsoft",
                     .infer = infer,
                     .prepare = prepare,
                     .axes = axes});
}

}  // namespace onnxpress
