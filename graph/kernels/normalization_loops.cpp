#include "graph/kernels/normalization_loops.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/normalization_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

#include "graph/kernels/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

using Lanes = hn::ScalableTag<float>;
using Wide = hn::ScalableTag<double>;
using Narrow = hn::Rebind<float, Wide>;  // as many floats
using Doubles = hn::Vec<Wide>;

HWY_INLINE Doubles load_wide(const float* from) {
  return hn::PromoteTo(Wide(), hn::LoadU(Narrow(), from));
}

// Two accumulators, so that additions do not wait for one another.
struct Total {
  Doubles even, odd;
  double rest = 0;

  HWY_INLINE Total() : even(hn::Zero(Wide())), odd(hn::Zero(Wide())) {}
  HWY_INLINE double sum() const {
    return hn::GetLane(hn::SumOfLanes(Wide(), hn::Add(even, odd))) + rest;
  }
};

// take(offset, which): whole vectors of doubles, alternately for either accumulator; then
// take_one(offset).
template <class Take, class TakeOne>
HWY_INLINE void for_wide(std::int64_t count, const Take& take, const TakeOne& take_one) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Wide()));
  std::int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    take(i, true);
    take(i + lanes, false);
  }
  for (; i < count; ++i) take_one(i);
}

SumAndSquares moments(const float* x, const Planes& over, double shift) {
  const auto middle = hn::Set(Wide(), shift);
  Total sum, squares;
  for (std::int64_t plane = 0; plane < over.planes; ++plane) {
    const float* const run = x + plane * over.stride;
    for_wide(
        over.cells,
        [&](std::int64_t i, bool is_even) {
          const auto away = hn::Sub(load_wide(run + i), middle);
          auto& to = is_even ? sum.even : sum.odd;
          to = hn::Add(to, away);
          auto& square = is_even ? squares.even : squares.odd;
          square = hn::MulAdd(away, away, square);
        },
        [&](std::int64_t i) {
          const double away = static_cast<double>(run[i]) - shift;
          sum.rest += away;
          squares.rest += away * away;
        });
  }
  return {sum.sum(), squares.sum()};
}

GradientSums gradients(const float* dy, const float* x, const Planes& over, double mean) {
  const auto middle = hn::Set(Wide(), mean);
  Total gradient, product;
  for (std::int64_t plane = 0; plane < over.planes; ++plane) {
    const float* const g = dy + plane * over.stride;
    const float* const run = x + plane * over.stride;
    for_wide(
        over.cells,
        [&](std::int64_t i, bool is_even) {
          const auto slope = load_wide(g + i);
          auto& to = is_even ? gradient.even : gradient.odd;
          to = hn::Add(to, slope);
          auto& with = is_even ? product.even : product.odd;
          with = hn::MulAdd(slope, hn::Sub(load_wide(run + i), middle), with);
        },
        [&](std::int64_t i) {
          gradient.rest += static_cast<double>(g[i]);
          product.rest += static_cast<double>(g[i]) * (static_cast<double>(run[i]) - mean);
        });
  }
  return {gradient.sum(), product.sum()};
}

void affine(const float* x, float* out, const Planes& over, float a, float b) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto slope = hn::Set(d, a), shift = hn::Set(d, b);
  for (std::int64_t plane = 0; plane < over.planes; ++plane) {
    const float* const from = x + plane * over.stride;
    float* const to = out + plane * over.stride;
    std::int64_t i = 0;
    for (; i + lanes <= over.cells; i += lanes)
      hn::StoreU(hn::MulAdd(hn::LoadU(d, from + i), slope, shift), d, to + i);
    for (; i < over.cells; ++i) to[i] = from[i] * a + b;
  }
}

void combine(const float* dy, const float* x, float* dx, const Planes& over, float a, float b, float c) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto slope = hn::Set(d, a), tilt = hn::Set(d, b), shift = hn::Set(d, c);
  for (std::int64_t plane = 0; plane < over.planes; ++plane) {
    const float* const g = dy + plane * over.stride;
    const float* const from = x + plane * over.stride;
    float* const to = dx + plane * over.stride;
    std::int64_t i = 0;
    for (; i + lanes <= over.cells; i += lanes) {
      const auto rest = hn::MulAdd(hn::LoadU(d, from + i), tilt, shift);
      hn::StoreU(hn::MulAdd(hn::LoadU(d, g + i), slope, rest), d, to + i);
    }
    for (; i < over.cells; ++i) to[i] = a * g[i] + (b * from[i] + c);
  }
}

void softmax_gradient(const float* y, const float* dy, float* dx, std::int64_t rows, std::int64_t size,
                      bool is_logarithm) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t row = 0; row < rows; ++row, y += size, dy += size, dx += size) {
    Total total;
    for_wide(
        size,
        [&](std::int64_t i, bool is_even) {
          auto& to = is_even ? total.even : total.odd;
          const auto g = load_wide(dy + i);
          to = is_logarithm ? hn::Add(to, g) : hn::MulAdd(g, load_wide(y + i), to);
        },
        [&](std::int64_t i) {
          total.rest += static_cast<double>(dy[i]) * (is_logarithm ? 1.0 : static_cast<double>(y[i]));
        });
    const auto sum = static_cast<float>(total.sum());
    const auto shift = hn::Set(d, sum);
    std::int64_t i = 0;
    for (; i + lanes <= size; i += lanes) {
      const auto value = hn::LoadU(d, y + i), g = hn::LoadU(d, dy + i);
      hn::StoreU(is_logarithm ? hn::NegMulAdd(vector_exp(d, value), shift, g)
                              : hn::Mul(value, hn::Sub(g, shift)),
                 d, dx + i);
    }
    for (; i < size; ++i)
      dx[i] = is_logarithm ? dy[i] - std::exp(y[i]) * sum : y[i] * (dy[i] - sum);
  }
}

// With n = (x - mean) inverse and h = dy scale: dx = (h - mean(h) - n mean(h n)) inverse, without
// mean(h) where rows are not centered.
void layer_norm_gradient(const float* x, const float* scale, const float* dy, float* dx, double* dscale,
                         double* dbias, std::int64_t rows, std::int64_t size, float epsilon, bool is_rms) {
  const Wide d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto count = static_cast<double>(size);
  const Planes row_of{.planes = 1, .stride = 0, .cells = size};
  for (std::int64_t row = 0; row < rows; ++row, x += size, dy += size) {
    double mean = 0;
    SumAndSquares found = moments(x, row_of, is_rms ? 0 : static_cast<double>(x[0]));
    if (!is_rms) {
      const double away = found.sum / count;
      mean = static_cast<double>(x[0]) + away;
      found.squares -= away * found.sum;
    }
    const double inverse = 1 / std::sqrt(found.squares / count + static_cast<double>(epsilon));
    Total sum, product;
    for_wide(
        size,
        [&](std::int64_t i, bool is_even) {
          const auto h = hn::Mul(load_wide(dy + i), load_wide(scale + i));
          auto& to = is_even ? sum.even : sum.odd;
          to = hn::Add(to, h);
          auto& with = is_even ? product.even : product.odd;
          with = hn::MulAdd(h, hn::Sub(load_wide(x + i), hn::Set(d, mean)), with);
        },
        [&](std::int64_t i) {
          const double h = static_cast<double>(dy[i]) * static_cast<double>(scale[i]);
          sum.rest += h;
          product.rest += h * (static_cast<double>(x[i]) - mean);
        });
    // dx = inverse h - slope (x - mean) - shift.
    const double slope = product.sum() * inverse * inverse * inverse / count;
    const double shift = is_rms ? 0 : sum.sum() * inverse / count;
    std::int64_t i = 0;
    for (; i + lanes <= size; i += lanes) {
      const auto g = load_wide(dy + i), away = hn::Sub(load_wide(x + i), hn::Set(d, mean));
      if (dscale != nullptr)
        hn::StoreU(hn::MulAdd(hn::Mul(g, hn::Set(d, inverse)), away, hn::LoadU(d, dscale + i)), d, dscale + i);
      if (dbias != nullptr) hn::StoreU(hn::Add(g, hn::LoadU(d, dbias + i)), d, dbias + i);
      if (dx == nullptr) continue;
      const auto h = hn::Mul(hn::Mul(g, load_wide(scale + i)), hn::Set(d, inverse));
      const auto value = hn::Sub(hn::NegMulAdd(away, hn::Set(d, slope), h), hn::Set(d, shift));
      hn::StoreU(hn::DemoteTo(Narrow(), value), Narrow(), dx + i);
    }
    for (; i < size; ++i) {
      const double g = static_cast<double>(dy[i]), away = static_cast<double>(x[i]) - mean;
      if (dscale != nullptr) dscale[i] += g * inverse * away;
      if (dbias != nullptr) dbias[i] += g;
      if (dx != nullptr)
        dx[i] = static_cast<float>(g * static_cast<double>(scale[i]) * inverse - away * slope - shift);
    }
    if (dx != nullptr) dx += size;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {

HWY_EXPORT(moments);
HWY_EXPORT(gradients);
HWY_EXPORT(affine);
HWY_EXPORT(combine);
HWY_EXPORT(softmax_gradient);
HWY_EXPORT(layer_norm_gradient);

SumAndSquares plane_moments(const float* x, const Planes& over, double shift) {
  return HWY_DYNAMIC_DISPATCH(moments)(x, over, shift);
}

GradientSums plane_gradients(const float* dy, const float* x, const Planes& over, double mean) {
  return HWY_DYNAMIC_DISPATCH(gradients)(dy, x, over, mean);
}

void plane_affine(const float* x, float* out, const Planes& over, float a, float b) {
  HWY_DYNAMIC_DISPATCH(affine)(x, out, over, a, b);
}

void plane_combine(const float* dy, const float* x, float* dx, const Planes& over, float a, float b, float c) {
  HWY_DYNAMIC_DISPATCH(combine)(dy, x, dx, over, a, b, c);
}

void softmax_gradient_loop(const float* y, const float* dy, float* dx, std::int64_t rows,
                           std::int64_t size, bool is_logarithm) {
  HWY_DYNAMIC_DISPATCH(softmax_gradient)(y, dy, dx, rows, size, is_logarithm);
}

void layer_norm_gradient_loop(const float* x, const float* scale, const float* dy, float* dx,
                              double* dscale, double* dbias, std::int64_t rows, std::int64_t size,
                              float epsilon, bool is_rms) {
  HWY_DYNAMIC_DISPATCH(layer_norm_gradient)(x, scale, dy, dx, dscale, dbias, rows, size, epsilon, is_rms);
}

}  // namespace onnxpress
#endif
