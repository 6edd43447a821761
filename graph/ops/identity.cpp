// Identity, Dropout (inference), Cast, CastLike.
#include "graph/ops/identity.h"

#include <charconv>
#include <cstdlib>

#include "graph/base/convert.h"
#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/constant.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare_identity(const PrepareContext&) {
  return [](KernelContext& context) { context.forward_value(0, context.required_input_value(0)); };
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
              "Dropout drops values at random (its input training_mode is true): export the model for "
              "inference (PyTorch: training=TrainingMode.EVAL)");
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

// Integers in full, floats with the fewest digits that read back the same.
Tensor to_strings(const Tensor& x) {
  std::vector<std::string> strings;
  if (is_integer(x.dtype()) || x.dtype() == DType::boolean) {
    for (const std::int64_t value : x.to_ints()) strings.push_back(fmt::format("{}", value));
  } else if (x.dtype() == DType::float64) {
    for (const double value : x.data<double>()) strings.push_back(fmt::format("{}", value));
  } else {
    for (const float value : x.to_floats()) strings.push_back(fmt::format("{}", value));
  }
  return Tensor::of_strings(x.dims(), std::move(strings));
}

// As numbers of 64 bits: integers where all are, so that none is rounded.
Tensor from_strings(const Tensor& x) {
  std::vector<std::int64_t> integers;
  std::vector<double> floats;
  for (const std::string& text : x.strings()) {
    std::int64_t integer = 0;
    const char* end = text.data() + text.size();
    if (const auto read = std::from_chars(text.data(), end, integer);
        read.ec == std::errc() && read.ptr == end)
      integers.push_back(integer);
    char* stop = nullptr;
    floats.push_back(std::strtod(text.c_str(), &stop));
    require(!text.empty() && *stop == '\0', "'{}' is not a number", text);
  }
  if (integers.size() == floats.size()) return Tensor::of<std::int64_t>(x.dims(), integers);
  return Tensor::of<double>(x.dims(), floats);
}

void cast(KernelContext& context, DType type, bool saturate) {
  const Tensor& x = context.required_input(0);
  if (x.dtype() == type) return context.forward_output(0, x);
  if (type == DType::string) return context.forward_output(0, to_strings(x));
  if (x.dtype() == DType::string) return context.forward_output(0, from_strings(x).cast(type));
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

Kernel prepare_cast(const PrepareContext& plan) {
  return [type = cast_target(plan.node()), saturate = cast_saturates(plan.node())](
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
  return [saturate = cast_saturates(plan.node())](KernelContext& context) {
    cast(context, context.required_input(1).dtype(), saturate);
  };
}

void infer_cast_like(InferContext& context) { infer_cast_to(context, context.input_dtype(1)); }

}  // namespace

bool is_inference_dropout(const Node& node) {
  if (node.input(2) == nullptr) return true;
  const auto is_zero = [](const Value* value) {
    const auto contents = constant_contents(value);
    return contents && contents->size() == 1 && contents->to_floats()[0] == 0.0f;
  };
  return is_zero(node.input(2)) || (node.input(1) != nullptr && is_zero(node.input(1)));
}

OpCall make_cast(DType to) {
  OpCall call{.op_type = "Cast"};
  call.attributes["to"] = static_cast<std::int64_t>(to);
  return call;
}

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

bool cast_saturates(const Node& node) { return get_bool(node, "saturate", true); }

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
