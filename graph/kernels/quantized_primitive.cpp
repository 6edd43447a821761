#include "graph/kernels/quantized_primitive.h"

#include <algorithm>
#include <string_view>

namespace onnxpress::onednn {

bool has_exact_sums() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41:
    case dnnl::cpu_isa::avx:
    case dnnl::cpu_isa::avx2:
    case dnnl::cpu_isa::avx512_core:
      return false;
    default:
      return true;
  }
}

SuitsName suited_implementations(std::int64_t multiplications) {
  constexpr std::int64_t least_for_tiles = 8'000'000;
  return [has_tiles = multiplications >= least_for_tiles](std::string_view name) {
    if (name.find("amx") != name.npos) return has_tiles && name != "jit_1x1:avx512_core_amx_int8";
    return name.find("vnni") != name.npos && !name.starts_with("brdgmm_dw");
  };
}

Requantization Requantization::of(const Tensor& x_scale, const Tensor& w_scale,
                                  const Tensor& y_scale) {
  Requantization result;
  const float x = x_scale.data<float>()[0], y = y_scale.data<float>()[0];
  for (const float w : w_scale.data<float>()) result.scales.push_back(x * w / y);
  return result;
}

Tensor signed_codes(const Tensor& codes) {
  if (codes.dtype() == DType::int8) return codes;
  Tensor flipped = Tensor::uninitialized(DType::int8, codes.dims());
  std::ranges::transform(codes.bytes(), flipped.mutable_bytes().begin(),
                         [](std::byte code) { return code ^ std::byte{0x80}; });
  return flipped;
}

#if DNNL_VERSION_MAJOR >= 3

dnnl::primitive_attr attributes_with_source_zero_point() {
  dnnl::primitive_attr result = attributes({});
  result.set_zero_points_mask(DNNL_ARG_SRC, 0);
  return result;
}

dnnl::primitive_attr attributes(const Requantization& requantization,
                                std::span<const PostOp> post_ops, ChannelMasks masks) {
  dnnl::primitive_attr result = attributes(post_ops);
  result.set_scales_mask(DNNL_ARG_WEIGHTS, requantization.scales.size() > 1 ? masks.weights : 0);
  if (requantization.source_zero_point != 0) result.set_zero_points_mask(DNNL_ARG_SRC, 0);
  if (requantization.zero_point != 0) result.set_zero_points_mask(DNNL_ARG_DST, 0);
  return result;
}

DataType quantized_bias_type() { return DataType::f32; }

void add_arguments(PrimitiveKernel& kernel, const Requantization& requantization) {
  const auto count = static_cast<std::int64_t>(requantization.scales.size());
  kernel.add_argument(DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS,
                      Tensor::of<float>({count}, requantization.scales),
                      plain({count}, DataType::f32));
  const auto add_zero_point = [&](int argument, std::int32_t value) {
    if (value != 0)
      kernel.add_argument(DNNL_ARG_ATTR_ZERO_POINTS | argument,
                          Tensor::of<std::int32_t>({1}, std::vector{value}),
                          plain({1}, DataType::s32));
  };
  add_zero_point(DNNL_ARG_SRC, requantization.source_zero_point);
  add_zero_point(DNNL_ARG_DST, requantization.zero_point);
}

void add_bias(PrimitiveKernel& kernel, const Requantization& requantization, const Tensor& bias,
              const Dims& dims) {
  Tensor scaled = Tensor::uninitialized(DType::float32, bias.dims());
  const auto in = bias.data<std::int32_t>();
  for (std::size_t c = 0; c < in.size(); ++c)
    scaled.mutable_data<float>()[c] =
        static_cast<float>(in[c]) * requantization.scales[requantization.scales.size() > 1 ? c : 0];
  kernel.add_argument(DNNL_ARG_BIAS, scaled, plain(dims, DataType::f32));
}

#else

dnnl::primitive_attr attributes_with_source_zero_point() {
  dnnl::primitive_attr result = attributes({});
  result.set_zero_points(DNNL_ARG_SRC, 0, {DNNL_RUNTIME_S32_VAL});
  return result;
}

dnnl::primitive_attr attributes(const Requantization& requantization,
                                std::span<const PostOp> post_ops, ChannelMasks masks) {
  dnnl::primitive_attr result = attributes(post_ops);
  result.set_output_scales(requantization.scales.size() > 1 ? masks.destination : 0,
                           requantization.scales);
  if (requantization.source_zero_point != 0)
    result.set_zero_points(DNNL_ARG_SRC, 0, {requantization.source_zero_point});
  if (requantization.zero_point != 0)
    result.set_zero_points(DNNL_ARG_DST, 0, {requantization.zero_point});
  return result;
}

DataType quantized_bias_type() { return DataType::s32; }

void add_arguments(PrimitiveKernel&, const Requantization&) {}

void add_bias(PrimitiveKernel& kernel, const Requantization&, const Tensor& bias,
              const Dims& dims) {
  kernel.add_argument(DNNL_ARG_BIAS, bias, plain(dims, DataType::s32));
}

#endif

std::int32_t zero_point(const Tensor* tensor) {
  return tensor ? static_cast<std::int32_t>(tensor->to_ints().at(0)) : 0;
}

bool is_all_zero(const Tensor* tensor) {
  return !tensor || std::ranges::all_of(tensor->to_ints(), [](auto value) { return value == 0; });
}

}  // namespace onnxpress::onednn
