// Resampling along single axes: what Resize and Upsample are made of.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/ops/compute_type.h"

namespace onnxpress {

// The type that elements are interpolated in: float32 for integers of at most 16 bits, float64 for
// wider ones, float_compute_type() for floats.
DType interpolation_type(DType type);

// Weight of a cell at `distance` from the point in cubic convolution of coefficient a (R. Keys,
// Cubic convolution interpolation for digital image processing, 1981, equation 4).
double cubic_weight(double distance, double a);

// One axis resampled: the elements of the input that each output index is made of. An axis without
// an entry stays as it is.
struct AxisTaps {
  std::size_t axis = 0;
  std::int64_t taps = 1;              // input elements per output index
  std::vector<std::int64_t> indices;  // [output size, taps], all inside the axis and ascending
  std::vector<double> weights;        // as many; not looked at where elements are only moved
  std::vector<std::int64_t> outside;  // output indices that get the fill value instead
};

// Output 0 of `dims`: each element is the one of `x` at the first tap of its indices. `fill`, of
// x's type, is only read where an axis has outside indices. `axes` ascend. Not for sub-byte types:
// see move().
void pick_along(KernelContext& context, const Tensor& x, std::span<const AxisTaps> axes,
                const Dims& dims, const Tensor& fill);

// Weighted sums along each of `axes` (ascending) of x, float32 or float64, into y of the same type.
void interpolate_along(ThreadPool& pool, const Tensor& x, std::span<const AxisTaps> axes,
                       double fill, Tensor& y);

}  // namespace onnxpress
