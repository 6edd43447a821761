// Normalizations and their gradients on floats, compiled for every instruction set and chosen at run
// time. Sums are taken in float64, in an order that depends on the instruction set alone.
#pragma once

#include <cstdint>

namespace onnxpress {

// `planes` runs of `cells` elements, each `stride` elements behind the one before: a channel of a
// batch of images.
struct Planes {
  std::int64_t planes = 0, stride = 0, cells = 0;
};

struct SumAndSquares {
  double sum = 0, squares = 0;
};
// Sums of x - shift and of its squares.
SumAndSquares plane_moments(const float* x, const Planes& over, double shift);

struct GradientSums {
  double gradient = 0, product = 0;
};
// Sums of dy and of dy (x - mean).
GradientSums plane_gradients(const float* dy, const float* x, const Planes& over, double mean);

// out = a x + b; `out` may be `x`.
void plane_affine(const float* x, float* out, const Planes& over, float a, float b);
// dx = a dy + b x + c; `dx` may be `dy` or `x`.
void plane_combine(const float* dy, const float* x, float* dx, const Planes& over, float a, float b, float c);

// dx = y (dy - sum dy y) of each of `rows` runs of `size` elements, one after the other: of softmax,
// with `is_logarithm` dx = dy - e^y sum dy. `dx` may be `dy`.
void softmax_gradient_loop(const float* y, const float* dy, float* dx, std::int64_t rows,
                           std::int64_t size, bool is_logarithm);

// Of layer normalization (graph/kernels/elementwise_loops.h) of each of `rows` runs of `size`
// elements: dx, and the sums over the rows of dy times the normalized values and of dy, which are
// added to `dscale` and `dbias`. Each result may be null; `dx` may be `dy`.
void layer_norm_gradient_loop(const float* x, const float* scale, const float* dy, float* dx,
                              double* dscale, double* dbias, std::int64_t rows, std::int64_t size,
                              float epsilon, bool is_rms);

}  // namespace onnxpress
