#include "graph/ops/constant.h"

#include <algorithm>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare_constant(const PrepareContext& prepare) {
  return [tensor = constant_tensor(prepare.node())](KernelContext& context) {
    context.forward_output(0, tensor);
  };
}

void infer_constant(InferContext& context) {
  Tensor tensor = constant_tensor(context.node());
  context.set_output(0, Type::of(tensor));
  context.set_output_value(0, std::move(tensor));
}

Tensor filled(const Tensor& value, const Dims& dims) {
  if (value.dtype() == DType::string)
    return Tensor::of_strings(
        dims, std::vector<std::string>(static_cast<std::size_t>(element_count(dims)),
                                       value.strings()[0]));
  Tensor tensor = Tensor::uninitialized(value.dtype(), dims);
  const std::span<std::byte> bytes = tensor.mutable_bytes();
  const int width = bits(value.dtype());
  if (width < 8) {
    std::byte pattern = value.bytes()[0] & static_cast<std::byte>((1 << width) - 1);
    for (int shift = width; shift < 8; shift *= 2) pattern |= pattern << shift;
    std::ranges::fill(bytes, pattern);
    return tensor;
  }
  const std::span<const std::byte> element = value.bytes();
  for (std::size_t i = 0; i < bytes.size(); i += element.size())
    std::ranges::copy(element, bytes.begin() + static_cast<std::ptrdiff_t>(i));
  return tensor;
}

Kernel prepare_constant_of_shape(const PrepareContext& prepare) {
  return [value = fill_element(prepare.node())](KernelContext& context) {
    const auto shape = context.required_input(0).data<std::int64_t>();
    const Dims dims(shape.begin(), shape.end());
    if (value.dtype() == DType::string) return context.forward_output(0, filled(value, dims));
    Tensor& out = context.output(0, value.dtype(), dims);
    std::ranges::copy(filled(value, dims).bytes(), out.mutable_bytes().begin());
  };
}

void infer_constant_of_shape(InferContext& context) {
  const DType type = fill_element(context.node()).dtype();
  std::optional<Shape> shape = context.input_symbolic(0);
  if (!shape)
    if (const Shape* input = context.input_shape(0);
        input != nullptr && input->size() == 1 && (*input)[0].is_known())
      shape = Shape(static_cast<std::size_t>((*input)[0].value()));
  context.set_output(0, type, std::move(shape));
}

// max(ceil((limit - start) / delta), 0): exact for integers, in float64 for others.
template <class T>
std::int64_t range_count(T start, T limit, T delta) {
  require(delta != 0, "expected a step that is not 0");
  if constexpr (std::is_integral_v<T>) {
    if (delta > 0 ? limit <= start : limit >= start) return 0;
    const auto bits_of = [](T value) { return static_cast<std::uint64_t>(value); };
    const std::uint64_t length =
        delta > 0 ? bits_of(limit) - bits_of(start) : bits_of(start) - bits_of(limit);
    const std::uint64_t step = delta > 0 ? bits_of(delta) : -bits_of(delta);
    const std::uint64_t steps = (length - 1) / step + 1;
    require(steps < std::uint64_t{1} << 53, "a range of {} elements is too long", steps);
    return static_cast<std::int64_t>(steps);
  }
  const double count = std::ceil((static_cast<double>(limit) - static_cast<double>(start)) /
                                 static_cast<double>(delta));
  require(count < 9e15, "a range of {} elements is too long", count);
  return count > 0 ? static_cast<std::int64_t>(count) : 0;
}

Kernel prepare_range(const PrepareContext&) {
  return [](KernelContext& context) {
    run_as(context, arithmetic_type, [](KernelContext& inner) {
      const DType type = inner.required_input(0).dtype();
      dispatch_numbers(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const auto scalar = [&](std::size_t index) {
          const Tensor& tensor = inner.required_input(index);
          require(tensor.size() == 1, "expected a scalar, found {}", to_string(tensor.dims()));
          return tensor.data<T>()[0];
        };
        const T start = scalar(0);
        const T delta = scalar(2);
        const auto out = inner.output(0, type, {range_count(start, scalar(1), delta)})
                             .template mutable_data<T>();
        // The last product may overflow an integer where the sum does not: both wrap around.
        using Wide = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                                                 std::type_identity<T>>::type;
        for (std::size_t i = 0; i < out.size(); ++i)
          out[i] = static_cast<T>(static_cast<Wide>(start) +
                                  static_cast<Wide>(i) * static_cast<Wide>(delta));
      });
    });
  };
}

void infer_range(InferContext& context) {
  Dim count;
  const Tensor* parts[] = {context.input_value(0), context.input_value(1), context.input_value(2)};
  const bool all = std::ranges::all_of(
      parts, [](const Tensor* part) { return part != nullptr && part->size() == 1; });
  if (all) {
    const auto count_as = [&]<class T>(std::type_identity<T>, DType type) {
      T values[3];
      for (std::size_t i = 0; i < 3; ++i) values[i] = parts[i]->cast(type).data<T>()[0];
      return range_count(values[0], values[1], values[2]);
    };
    count = is_integer(context.input_dtype(0))
                ? count_as(std::type_identity<std::int64_t>(), DType::int64)
                : count_as(std::type_identity<double>(), DType::float64);
  } else if (parts[0] != nullptr && parts[2] != nullptr && is_integer(parts[0]->dtype()) &&
             parts[0]->size() == 1 && parts[0]->to_ints()[0] == 0 && parts[2]->size() == 1 &&
             parts[2]->to_ints()[0] == 1) {
    const auto limit = context.input_symbolic(1);  // 0, 1, ..., n - 1
    if (limit && limit->size() == 1) count = (*limit)[0];
  }
  context.set_output(0, context.input_dtype(0), Shape{count});
}

}  // namespace

Tensor constant_tensor(const Node& constant) {
  if (const Attribute* sparse = constant.attribute("sparse_value"))
    if (const auto* value = std::get_if<SparseTensor>(&sparse->value)) return value->dense();
  if (const Tensor* value = find_tensor(constant, "value")) return *value;
  if (const auto value = find_float(constant, "value_float")) return Tensor::scalar(*value);
  if (const auto value = find_int(constant, "value_int")) return Tensor::scalar(*value);
  const auto length = [](const auto& values) {
    return Dims{static_cast<std::int64_t>(values.size())};
  };
  if (constant.attribute("value_floats") != nullptr) {
    const auto values = get_floats(constant, "value_floats");
    return Tensor::of<float>(length(values), values);
  }
  if (const auto values = find_ints(constant, "value_ints"))
    return Tensor::of<std::int64_t>(length(*values), *values);
  if (constant.attribute("value_string") != nullptr)
    return Tensor::of_strings({}, {get_string(constant, "value_string", "")});
  if (constant.attribute("value_strings") != nullptr) {
    auto values = get_strings(constant, "value_strings");
    Dims dims = length(values);
    return Tensor::of_strings(std::move(dims), std::move(values));
  }
  fail("{}: no value attribute", constant.describe());
}

Tensor fill_element(const Node& constant_of_shape) {
  const Tensor* value = find_tensor(constant_of_shape, "value");
  if (value == nullptr) return Tensor(DType::float32, {1});
  require(value->size() == 1, "attribute 'value': expected one element, found {}", value->size());
  return *value;
}

std::optional<Tensor> constant_contents(const Value* value) {
  if (value == nullptr) return std::nullopt;
  if (const Tensor* tensor = value->constant()) return *tensor;
  if (value->producer() != nullptr && value->producer()->is("Constant"))
    return constant_tensor(*value->producer());
  return std::nullopt;
}

std::optional<std::vector<std::int64_t>> constant_ints(const Value* value) {
  const auto tensor = constant_contents(value);
  if (!tensor || !is_integer(tensor->dtype())) return std::nullopt;
  return tensor->to_ints();
}

OPERATORS(constant) {
  registry.add(OpDef{.name = "Constant", .infer = infer_constant, .prepare = prepare_constant});
  registry.add(OpDef{.name = "ConstantOfShape",
                     .since = 9,
                     .infer = infer_constant_of_shape,
                     .prepare = prepare_constant_of_shape});
  registry.add(OpDef{.name = "Range", .since = 11, .infer = infer_range, .prepare = prepare_range});
}

}  // namespace onnxpress
