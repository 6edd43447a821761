// QuantizeLinear, DequantizeLinear, QLinearAdd and QLinearGlobalAveragePool on 8-bit codes.
#include <algorithm>
#include <cmath>
#include <vector>

#include "graph/kernels/conv_layouts.h"
#include "graph/kernels/quantized_loops.h"
#include "graph/kernels/quantized_primitive.h"
#include "graph/ops/attributes.h"
#include "graph/ops/quantize_linear.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_code_operand;
using onednn::is_float_operand;

constexpr std::int64_t block = 16384;  // elements of one task

// The constant scalar scale and zero point at inputs `scale` and `scale` + 1.
std::optional<CodeFormat> format_at(const PrepareContext& context, std::size_t scale, DType type) {
  const Tensor* factor = context.constant_input(scale);
  const Tensor* zero = context.constant_input(scale + 1);
  if (!factor || factor->dtype() != DType::float32 || factor->size() != 1 ||
      !(factor->data<float>()[0] > 0) || (context.input_type(scale + 1) && !zero) ||
      (zero && (zero->size() != 1 || zero->dtype() != type)))
    return std::nullopt;
  const bool is_signed = type == DType::int8;
  return CodeFormat{.scale = factor->data<float>()[0],
                    .zero_point = onednn::zero_point(zero) + (is_signed ? 128 : 0),
                    .flip = static_cast<std::uint8_t>(is_signed ? 0x80 : 0)};
}

const std::uint8_t* codes(const Tensor& tensor) {
  return reinterpret_cast<const std::uint8_t*>(tensor.aligned_bytes());
}
std::uint8_t* mutable_codes(Tensor& tensor) {
  return reinterpret_cast<std::uint8_t*>(tensor.mutable_bytes().data());
}

bool supports_quantize(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && is_code_operand(context.output_type(0)) &&
         QuantizeAttrs::from(context.node()).block_size == 0 &&
         format_at(context, 1, context.output_type(0)->elem);
}

Kernel prepare_quantize(const PrepareContext& context) {
  const DType type = context.output_type(0)->elem;
  return [type, format = *format_at(context, 1, type)](KernelContext& call) {
    const Tensor& x = call.required_input(0);
    const float* in = x.data<float>().data();
    std::uint8_t* out = mutable_codes(call.output(0, type, x.dims()));
    call.pool().parallel_for(x.size(), block, [&](std::int64_t begin, std::int64_t end) {
      quantize_loop(in + begin, out + begin, end - begin, format);
    });
  };
}

bool supports_dequantize(const PrepareContext& context) {
  return is_code_operand(context.input_type(0)) && is_float_operand(context.output_type(0)) &&
         QuantizeAttrs::from(context.node()).block_size == 0 &&
         format_at(context, 1, context.input_type(0)->elem);
}

Kernel prepare_dequantize(const PrepareContext& context) {
  return [format = *format_at(context, 1, context.input_type(0)->elem)](KernelContext& call) {
    const Tensor& x = call.required_input(0);
    const std::uint8_t* in = codes(x);
    float* out = call.output(0, DType::float32, x.dims()).mutable_data<float>().data();
    call.pool().parallel_for(x.size(), block, [&](std::int64_t begin, std::int64_t end) {
      dequantize_loop(in + begin, out + begin, end - begin, format);
    });
  };
}

bool supports_add(const PrepareContext& context) {
  if (!is_code_operand(context.input_type(0)) || !is_code_operand(context.input_type(3)) ||
      !is_code_operand(context.output_type(0)))
    return false;
  const DType type = context.input_type(0)->elem;
  return context.input_type(3)->elem == type && context.output_type(0)->elem == type &&
         dims_of(context.input_type(0)) == dims_of(context.input_type(3)) &&
         format_at(context, 1, type) && format_at(context, 4, type) && format_at(context, 6, type);
}

Kernel prepare_add(const PrepareContext& context) {
  const DType type = context.input_type(0)->elem;
  return [type, a_format = *format_at(context, 1, type), b_format = *format_at(context, 4, type),
          y_format = *format_at(context, 6, type)](KernelContext& call) {
    const Tensor& x = call.required_input(0);
    const std::uint8_t* a = codes(x);
    const std::uint8_t* b = codes(call.required_input(3));
    std::uint8_t* out = mutable_codes(call.output(0, type, x.dims()));
    call.pool().parallel_for(x.size(), block, [&](std::int64_t begin, std::int64_t end) {
      add_codes_loop(a + begin, a_format, b + begin, b_format, out + begin, y_format, end - begin);
    });
  };
}

bool supports_global_average(const PrepareContext& context) {
  if (!is_code_operand(context.input_type(0)) || !is_code_operand(context.output_type(0)) ||
      get_bool(context.node(), "channels_last", false))
    return false;
  const std::size_t rank = dims_of(context.input_type(0)).size();
  const DType type = context.input_type(0)->elem;
  return rank >= 3 && rank <= 5 && format_at(context, 1, type) && format_at(context, 3, type);
}

// Sums of the codes of each channel, in integers.
Kernel prepare_global_average(const PrepareContext& context) {
  const Dims x = dims_of(context.input_type(0)), y = dims_of(context.output_type(0));
  const DType type = context.input_type(0)->elem;
  const std::int64_t channels = x[1], cells = element_count(std::span(x).subspan(2));
  const bool is_last = context.input_layout(0) == Layout::channels_last;
  return [=, dims = onednn::stored(y, context.output_layout()),
          x_format = *format_at(context, 1, type),
          y_format = *format_at(context, 3, type)](KernelContext& call) {
    const std::uint8_t* in = codes(call.required_input(0));
    std::uint8_t* out = mutable_codes(call.output(0, type, dims));
    CodeFormat result = y_format;
    result.scale = y_format.scale / x_format.scale;
    call.pool().parallel_for(x[0], 1, [&](std::int64_t n, std::int64_t) {
      std::vector<std::int64_t> sums(static_cast<std::size_t>(channels), 0);
      const std::uint8_t* image = in + n * channels * cells;
      for (std::int64_t i = 0; i < channels * cells; ++i)
        sums[static_cast<std::size_t>(is_last ? i % channels : i / cells)] +=
            image[i] ^ x_format.flip;
      std::vector<float> means;
      for (const std::int64_t sum : sums)
        means.push_back(static_cast<float>(static_cast<double>(sum - cells * x_format.zero_point) /
                                           static_cast<double>(cells)));
      quantize_loop(means.data(), out + n * channels, channels, result);
    });
  };
}

}  // namespace

OPERATORS(quantized_rows) {
  for (const char* domain : {"", "com.microsoft"}) {
    registry.add(KernelDef{.name = "QuantizeLinear",
                           .domain = domain,
                           .backend = "vector",
                           .supports = supports_quantize,
                           .prepare = prepare_quantize});
    registry.add(KernelDef{.name = "DequantizeLinear",
                           .domain = domain,
                           .backend = "vector",
                           .supports = supports_dequantize,
                           .prepare = prepare_dequantize});
  }
  registry.add(KernelDef{.name = "QLinearAdd",
                         .domain = "com.microsoft",
                         .backend = "vector",
                         .supports = supports_add,
                         .prepare = prepare_add});
  registry.add(KernelDef{.name = "QLinearGlobalAveragePool",
                         .domain = "com.microsoft",
                         .backend = "vector",
                         .supports = supports_global_average,
                         .prepare = prepare_global_average,
                         .channels_last = true});
}

}  // namespace onnxpress
