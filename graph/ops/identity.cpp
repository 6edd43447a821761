// Identity, Dropout (inference), Cast, CastLike.
#include "graph/base/convert.h"
#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"

namespace onnxpress {
namespace {

Kernel prepare_identity(const PrepareContext&) {
  return [](KernelContext& context) { context.forward_output(0, context.required_input(0)); };
}

void infer_identity(InferContext& context) {
  infer_same_as_first(context);
  if (auto contents = context.input_symbolic(0))
    context.set_output_symbolic(0, std::move(*contents));
}

// Dropout hands its input on, unless an input of opset 12 says that this is training.
Kernel prepare_dropout(const PrepareContext& plan) {
  const DType mask = plan.node().opset() < 10 ? DType::undefined : DType::boolean;
  return [mask](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const Tensor* ratio = context.input(1);
    if (const Tensor* training = context.input(2))
      require(!training->data<bool>()[0] || (ratio != nullptr && ratio->to_floats()[0] == 0.0f),
              "Dropout in training mode cannot run");
    context.forward_output(0, x);
    if (!context.wants_output(1)) return;
    Tensor ones = Tensor::uninitialized(DType::boolean, x.dims());
    for (bool& element : ones.mutable_data<bool>()) element = true;
    context.forward_output(1, mask == DType::undefined ? ones.cast(x.dtype()) : ones);
  };
}

void infer_dropout(InferContext& context) {
  infer_same_as_first(context);
  const Shape* shape = context.input_shape(0);
  const DType mask = context.node().opset() < 10 ? context.input_dtype(0) : DType::boolean;
  context.set_output(1, mask, shape != nullptr ? std::optional(*shape) : std::nullopt);
}

void cast(KernelContext& context, DType type, bool saturate) {
  const Tensor& x = context.required_input(0);
  if (x.dtype() == type) return context.forward_output(0, x);
  require(x.dtype() != DType::string && type != DType::string,
          "casts from and to strings are not supported");
  Tensor& y = context.output(0, type, x.dims());
  const std::byte* source = x.bytes().data();
  std::byte* target = y.mutable_bytes().data();
  const DType from = x.dtype();
  if (is_sub_byte(from) || is_sub_byte(type)) {
    convert_elements(from, source, type, target, static_cast<std::size_t>(x.size()), saturate);
    return;
  }
  const std::int64_t step_in = bits(from) / 8;
  const std::int64_t step_out = bits(type) / 8;
  context.pool().parallel_for(x.size(), 16384, [=](std::int64_t begin, std::int64_t end) {
    convert_elements(from, source + begin * step_in, type, target + begin * step_out,
                     static_cast<std::size_t>(end - begin), saturate);
  });
}

// `to` as a number; before opset 6 its name.
DType cast_target(const Node& node) {
  if (node.opset() < 6) {
    const std::string text = get_string(node, "to", "");
    const auto type = dtype_from_name(text);
    require(type.has_value(), "attribute 'to': expected an element type, found '{}'", text);
    return *type;
  }
  const auto type = static_cast<DType>(require_int(node, "to"));
  require(is_known(type), "attribute 'to': expected an element type, found {}",
          require_int(node, "to"));
  return type;
}

Kernel prepare_cast(const PrepareContext& plan) {
  return [type = cast_target(plan.node()), saturate = get_bool(plan.node(), "saturate", true)](
             KernelContext& context) { cast(context, type, saturate); };
}

void infer_cast_to(InferContext& context, DType type) {
  const Shape* shape = context.input_shape(0);
  context.set_output(0, type, shape != nullptr ? std::optional(*shape) : std::nullopt);
  if (auto contents = context.input_symbolic(0); contents && is_integer(type))
    context.set_output_symbolic(0, std::move(*contents));
}

void infer_cast(InferContext& context) { infer_cast_to(context, cast_target(context.node())); }

Kernel prepare_cast_like(const PrepareContext& plan) {
  return [saturate = get_bool(plan.node(), "saturate", true)](KernelContext& context) {
    cast(context, context.required_input(1).dtype(), saturate);
  };
}

void infer_cast_like(InferContext& context) { infer_cast_to(context, context.input_dtype(1)); }

}  // namespace

OPERATORS(identity) {
  registry.add(OpDef{.name = "Identity",
                     .infer = infer_identity,
                     .prepare = prepare_identity,
                     .axes = broadcast_axes});
  registry.add(OpDef{.name = "Dropout",
                     .infer = infer_dropout,
                     .prepare = prepare_dropout,
                     .axes = broadcast_axes});
  registry.add(
      OpDef{.name = "Cast", .infer = infer_cast, .prepare = prepare_cast, .axes = broadcast_axes});
  registry.add(OpDef{.name = "CastLike",
                     .since = 15,
                     .infer = infer_cast_like,
                     .prepare = prepare_cast_like,
                     .axes = broadcast_axes});
}

}  // namespace onnxpress
