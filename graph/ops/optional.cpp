// Optional, OptionalHasElement, OptionalGetElement.
#include <utility>
#include <variant>

#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare_optional(const PrepareContext&) {
  return [](KernelContext& context) {
    RuntimeValue element = context.input_value(0);
    context.forward_value(0, element.defined() ? RuntimeValue::filled_optional(std::move(element))
                                               : RuntimeValue::empty_optional());
  };
}

void infer_optional(InferContext& context) {
  Type element;
  if (const Type* type = context.input_type(0)) {
    element = *type;
    element.denotation.clear();
  } else if (const Type* declared = find_type(context.node(), "type")) {
    element = *declared;
  } else {
    fail("expected an input or attribute 'type', found neither");
  }
  context.set_output(0, Type{.kind = Type::Kind::optional,
                             .inner = std::make_shared<const Type>(std::move(element))});
}

// A tensor or a sequence stands for an optional that holds it (opset 18).
Kernel prepare_has_element(const PrepareContext&) {
  return [](KernelContext& context) {
    const RuntimeValue value = context.input_value(0);
    const bool is_filled =
        value.kind() == Type::Kind::optional ? value.content() != nullptr : value.defined();
    context.output(0, DType::boolean, {}).mutable_data<bool>()[0] = is_filled;
  };
}

void infer_has_element(InferContext& context) { context.set_output(0, DType::boolean, Shape{}); }

Kernel prepare_get_element(const PrepareContext&) {
  return [](KernelContext& context) {
    const RuntimeValue value = context.required_input_value(0);
    if (value.kind() != Type::Kind::optional) return context.forward_value(0, value);
    require(value.content() != nullptr, "expected an optional with an element, found an empty one");
    context.forward_value(0, *value.content());
  };
}

void infer_get_element(InferContext& context) {
  const Type* type = context.input_type(0);
  if (type == nullptr) return;
  if (type->kind != Type::Kind::optional) return infer_same_as_first(context);
  if (type->inner) context.set_output(0, *type->inner);
}

}  // namespace

OPERATORS(optional) {
  registry.add(
      OpDef{.name = "Optional", .since = 15, .infer = infer_optional, .prepare = prepare_optional});
  registry.add(OpDef{.name = "OptionalHasElement",
                     .since = 15,
                     .infer = infer_has_element,
                     .prepare = prepare_has_element});
  registry.add(OpDef{.name = "OptionalGetElement",
                     .since = 15,
                     .infer = infer_get_element,
                     .prepare = prepare_get_element});
}

}  // namespace onnxpress
