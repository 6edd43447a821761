// oneDNN primitives on 8-bit integers: scales, zero points and bias, whose form differs between
// releases.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/kernels/primitive_kernel.h"

namespace onnxpress::onednn {

// What becomes of the integer sums of (source - source_zero_point) * weights: scales[c] * (sum +
// bias), the post-ops, rounded to even, plus zero_point, saturated. `scales` has one element or one
// for each channel.
struct Requantization {
  std::vector<float> scales;
  std::int32_t source_zero_point = 0;
  std::int32_t zero_point = 0;

  // The factor between sums and codes of a product of tensors with these scales: x * w[c] / y.
  static Requantization of(const Tensor& x_scale, const Tensor& w_scale, const Tensor& y_scale);
};

// Whether products of 8-bit codes are summed exactly. Instruction sets older than VNNI add pairs of
// them in 16 bits, saturated, and oneDNN halves weights where that would be worse.
bool has_exact_sums();

// Which of oneDNN's implementations of a convolution of 8-bit codes to take for so many
// multiplications a thread. Those on AMX are named first, whose tiles cost about 10 us to set up:
// longer than VNNI takes for all of a small convolution; and of AMX's two, the one for filters of one
// position takes up to twice the time of the general one. The named one for depthwise filters takes a
// tenth more than the next. All measured with 2.6 on Sapphire Rapids.
SuitsName suited_implementations(std::int64_t multiplications);

// Bits of the channel axis in the weights and in the destination.
struct ChannelMasks {
  int weights = 0, destination = 0;
};

dnnl::primitive_attr attributes(const Requantization& requantization,
                                std::span<const PostOp> post_ops, ChannelMasks masks);
// For a primitive that takes the zero point of its source as an argument (PrimitiveKernel::add_number
// with source_zero_point_argument).
dnnl::primitive_attr attributes_with_source_zero_point();
inline constexpr int source_zero_point_argument = DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_SRC;
// B or filters as int8: of uint8 codes, less 128.
Tensor signed_codes(const Tensor& codes);
// The element type in which such a primitive takes its bias.
DataType quantized_bias_type();
// Adds the scales and zero points that the primitive takes as arguments.
void add_arguments(PrimitiveKernel& kernel, const Requantization& requantization);
// Adds an int32 bias, in units of the sums, of layout `dims`.
void add_bias(PrimitiveKernel& kernel, const Requantization& requantization, const Tensor& bias,
              const Dims& dims);

// The one element of a constant 8-bit zero point, 0 when it is omitted.
std::int32_t zero_point(const Tensor* tensor);
// A constant tensor of zeros, or none.
bool is_all_zero(const Tensor* tensor);

}  // namespace onnxpress::onednn
