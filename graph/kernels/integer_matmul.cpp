// MatMulInteger and com.microsoft's MatMulIntegerToFloat on oneDNN, and DynamicQuantizeLinear in vectors.
//
// The zero point and the scale of A come with the call, so the primitive multiplies the codes as they
// are, in int32; what zero points add is taken away afterwards, with the scaling.
#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <vector>

#include "graph/kernels/quantized_loops.h"
#include "graph/kernels/quantized_primitive.h"
#include "graph/ops/matmul.h"
#include "graph/ops/quantized.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_code_operand;

// Which input is what; `none` is no input of any node.
constexpr std::size_t none = 99;
struct Operands {
  std::size_t a_zero, b_zero, a_scale, b_scale, bias;
};
constexpr Operands integer_operands{2, 3, none, none, none};
constexpr Operands to_float_operands{4, 5, 2, 3, 6};

// One number or one per column.
bool is_column_constant(const PrepareContext& context, std::size_t index, std::int64_t columns) {
  const Tensor* tensor = context.constant_input(index);
  return tensor && (tensor->size() == 1 || (tensor->size() == columns && tensor->dims().back() == columns));
}

bool is_one_number(const PrepareContext& context, std::size_t index) {
  const Type* type = context.input_type(index);
  const auto dims = type && type->shape ? concrete(*type->shape) : std::nullopt;
  return dims && element_count(*dims) == 1;
}

bool supports(const PrepareContext& context, const Operands& operands) {
  if (!onednn::has_exact_sums() || !is_code_operand(context.input_type(0)) || dims_of(context.input_type(0)).empty())
    return false;
  const Tensor* b = context.constant_input(1);
  if (!b || b->rank() != 2 || b->size() == 0 || bits(b->dtype()) != 8 || !is_integer(b->dtype())) return false;
  const std::int64_t columns = b->dim(1);
  if (context.input_type(operands.a_zero) && !is_one_number(context, operands.a_zero)) return false;
  if (context.input_type(operands.b_zero) && !is_column_constant(context, operands.b_zero, columns)) return false;
  if (operands.a_scale == none) return true;
  if (!is_one_number(context, operands.a_scale) || context.input_type(operands.a_scale)->elem != DType::float32 ||
      !is_column_constant(context, operands.b_scale, columns))
    return false;
  return !context.input_type(operands.bias) || is_column_constant(context, operands.bias, columns);
}

// The destination of the sums is that of the floats: both have 4 bytes.
class SumsInPlace final : public KernelContext {
 public:
  SumsInPlace(KernelContext& inner, Tensor& floats) : inner_(inner), floats_(floats) {}

  std::size_t input_count() const override { return inner_.input_count(); }
  const Tensor* input(std::size_t index) const override { return inner_.input(index); }
  bool wants_output(std::size_t index) const override { return inner_.wants_output(index); }
  Tensor& output(std::size_t, DType type, const Dims& dims) override {
    return sums_ = Tensor::over(type, dims, floats_.mutable_bytes(), nullptr);
  }
  void forward_output(std::size_t, Tensor) override {}
  ThreadPool& pool() override { return inner_.pool(); }
  std::vector<RuntimeValue> run_subgraph(std::string_view attribute, std::span<const RuntimeValue> inputs) override {
    return inner_.run_subgraph(attribute, inputs);
  }

 private:
  KernelContext& inner_;
  Tensor& floats_;
  Tensor sums_;
};

template <class T>
std::vector<T> by_column(const Tensor* given, std::int64_t columns, T otherwise) {
  std::vector<T> numbers(static_cast<std::size_t>(columns), otherwise);
  if (given == nullptr) return numbers;
  const std::vector<float> values = given->to_floats();  // 8-bit or float32: exact
  for (std::size_t n = 0; n < numbers.size(); ++n) numbers[n] = static_cast<T>(values[values.size() > 1 ? n : 0]);
  return numbers;
}

// What the scaling needs of B, by column.
struct Columns {
  std::vector<std::int32_t> sums, zeros;  // sums of the codes less their zero points; of int8 codes
  bool has_zeros = false;
  std::vector<float> scales, bias;

  Columns(const PrepareContext& context, const Operands& operands, const Tensor& codes) {
    const std::int64_t depth = codes.dim(0), columns = codes.dim(1);
    zeros = by_column<std::int32_t>(context.constant_input(operands.b_zero), columns, 0);
    if (context.constant_input(1)->dtype() == DType::uint8)
      for (std::int32_t& zero : zeros) zero -= 128;
    has_zeros = std::ranges::any_of(zeros, [](std::int32_t zero) { return zero != 0; });
    for (const std::int32_t zero : zeros) sums.push_back(static_cast<std::int32_t>(-depth * zero));
    const std::span<const std::int8_t> b = codes.data<std::int8_t>();
    for (std::int64_t k = 0; k < depth; ++k)
      for (std::int64_t n = 0; n < columns; ++n)
        sums[static_cast<std::size_t>(n)] += b[static_cast<std::size_t>(k * columns + n)];
    if (operands.a_scale == none) return;
    scales = by_column<float>(context.constant_input(operands.b_scale), columns, 1);
    if (context.input_type(operands.bias)) bias = by_column<float>(context.constant_input(operands.bias), columns, 0);
  }
};

void correct_sums(std::int32_t* sums, std::int64_t count, const SumScaling& scaling) {
  for (std::int64_t n = 0; n < count; ++n) {
    sums[n] -= scaling.zero_point * scaling.column_sums[n];
    if (scaling.column_zeros != nullptr) sums[n] -= scaling.row_sum * scaling.column_zeros[n];
  }
}

std::int32_t row_sum(const Tensor& a, std::int64_t row, std::int64_t depth) {
  const auto sum = [&](auto tag) {
    const auto codes = a.data<decltype(tag)>().subspan(static_cast<std::size_t>(row * depth),
                                                       static_cast<std::size_t>(depth));
    return std::accumulate(codes.begin(), codes.end(), std::int32_t{0});
  };
  return a.dtype() == DType::uint8 ? sum(std::uint8_t{}) : sum(std::int8_t{});
}

Kernel prepare(const PrepareContext& context, const Operands& operands) {
  return onednn::guarded([&]() -> Kernel {
    const Tensor codes = onednn::signed_codes(*context.constant_input(1));
    const auto right = std::make_shared<const Columns>(context, operands, codes);
    const Dims a = dims_of(context.input_type(0));
    const Dims result = MatMulSizes::of(a, codes.dims()).output;
    const std::int64_t depth = a.back(), rows = element_count(a) / depth, columns = codes.dim(1);
    const auto a_data = onednn::data_type(context.input_type(0)->elem);
    const onednn::memory::desc left = onednn::plain({rows, depth}, a_data);
    const onednn::memory::desc destination = onednn::plain({rows, columns}, onednn::DataType::s32);
    const auto descriptor = onednn::matmul(left, onednn::any_layout({depth, columns}, onednn::DataType::s8),
                                           onednn::memory::desc(), destination, onednn::scratchpad_given());
    onednn::PrimitiveKernel product(dnnl::matmul(descriptor), descriptor.scratchpad_desc(), DType::int32, result);
    product.add_input(DNNL_ARG_SRC, 0, left, descriptor.src_desc(), nullptr);
    product.add_constant(DNNL_ARG_WEIGHTS, codes, onednn::plain({depth, columns}, onednn::DataType::s8),
                         descriptor.weights_desc());
    product.set_output(destination, descriptor.dst_desc());
    context.packed(1);
    return [=, type = context.output_type(0)->elem](KernelContext& call) {
      Tensor& y = call.output(0, type, result);
      SumsInPlace sums(call, y);
      product(sums);
      const Tensor& x = call.required_input(0);
      const Tensor* zero = call.input(operands.a_zero);
      const auto zero_point = zero ? static_cast<std::int32_t>(zero->to_ints()[0]) : 0;
      const bool is_float = operands.a_scale != none;
      SumScaling scaling{.zero_point = zero_point, .column_sums = right->sums.data()};
      if (right->has_zeros) scaling.column_zeros = right->zeros.data();
      if (is_float) {
        scaling.scale = call.required_input(operands.a_scale).data<float>()[0];
        scaling.column_scales = right->scales.data();
        if (!right->bias.empty()) scaling.bias = right->bias.data();
      }
      std::byte* const out = y.mutable_bytes().data();
      const std::int64_t block = std::max<std::int64_t>(1, 16384 / columns);
      call.pool().parallel_for(rows, block, [&](std::int64_t begin, std::int64_t end) {
        SumScaling row = scaling;
        for (std::int64_t m = begin; m < end; ++m) {
          auto* const integers = reinterpret_cast<std::int32_t*>(out) + m * columns;
          if (right->has_zeros) row.row_sum = row_sum(x, m, depth);
          if (is_float) scale_sums_loop(integers, reinterpret_cast<float*>(integers), columns, row);
          else correct_sums(integers, columns, row);
        }
      });
    };
  });
}

bool supports_dynamic(const PrepareContext& context) { return onednn::is_float_operand(context.input_type(0)); }

Kernel prepare_dynamic(const PrepareContext&) {
  return [](KernelContext& call) {
    constexpr std::int64_t block = 16384;
    const Tensor& x = call.required_input(0);
    const float* const in = x.data<float>().data();
    std::vector<FloatRange> ranges(static_cast<std::size_t>((x.size() + block - 1) / block));
    call.pool().parallel_for(std::ssize(ranges), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        ranges[static_cast<std::size_t>(i)] = range_loop(in + i * block, std::min(block, x.size() - i * block));
    });
    FloatRange whole;
    for (const FloatRange& range : ranges) whole = {std::min(whole.low, range.low), std::max(whole.high, range.high)};
    const DynamicRange chosen = DynamicRange::of(std::array{whole.low, whole.high});
    const CodeFormat format{.scale = chosen.scale, .zero_point = chosen.zero_point};
    std::uint8_t* const out = call.output(0, DType::uint8, x.dims()).mutable_data<std::uint8_t>().data();
    call.pool().parallel_for(x.size(), block, [&](std::int64_t begin, std::int64_t end) {
      quantize_loop(in + begin, out + begin, end - begin, format);
    });
    if (call.wants_output(1)) call.forward_output(1, Tensor::scalar(chosen.scale));
    if (call.wants_output(2)) call.forward_output(2, Tensor::scalar(chosen.zero_point));
  };
}

}  // namespace

OPERATORS(integer_matmul) {
  registry.add(KernelDef{.name = "MatMulInteger",
                         .backend = "onednn",
                         .supports = [](const PrepareContext& context) { return supports(context, integer_operands); },
                         .prepare = [](const PrepareContext& context) { return prepare(context, integer_operands); }});
  registry.add(KernelDef{.name = "MatMulIntegerToFloat",
                         .domain = "com.microsoft",
                         .backend = "onednn",
                         .supports = [](const PrepareContext& context) { return supports(context, to_float_operands); },
                         .prepare = [](const PrepareContext& context) { return prepare(context, to_float_operands); }});
  registry.add(KernelDef{.name = "DynamicQuantizeLinear",
                         .backend = "vector",
                         .supports = supports_dynamic,
                         .prepare = prepare_dynamic});
}

}  // namespace onnxpress
