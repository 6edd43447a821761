#include "graph/kernels/elementwise_loops.h"

#include <cmath>
#include <cstddef>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/elementwise_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

#include "graph/kernels/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

using Lanes = hn::ScalableTag<float>;
using Vector = hn::Vec<Lanes>;

// fn on whole vectors of `data`, in place, the rest through a padded copy.
template <class Fn>
HWY_INLINE void for_vectors(float* data, const float* operand, std::int64_t count, const Fn& fn) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Vector other = operand ? hn::LoadU(d, operand + i) : hn::Zero(d);
    hn::StoreU(fn(hn::LoadU(d, data + i), other), d, data + i);
  }
  if (i == count) return;
  HWY_ALIGN float rest[HWY_MAX_BYTES / sizeof(float)] = {};
  HWY_ALIGN float more[HWY_MAX_BYTES / sizeof(float)] = {};
  for (std::int64_t k = i; k < count; ++k) {
    rest[k - i] = data[k];
    if (operand) more[k - i] = operand[k];
  }
  hn::Store(fn(hn::Load(d, rest), hn::Load(d, more)), d, rest);
  for (std::int64_t k = i; k < count; ++k) data[k] = rest[k - i];
}

template <class Fn>
void run_binary(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
                float* out, std::int64_t count, const Fn& fn) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto load = [&](const float* from, std::int64_t stride, std::int64_t i) {
    return stride == 0 ? hn::Set(d, *from) : hn::LoadU(d, from + i);
  };
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(fn(load(a, a_stride, i), load(b, b_stride, i)), d, out + i);
  if (i == count) return;
  HWY_ALIGN float x[HWY_MAX_BYTES / sizeof(float)] = {};
  HWY_ALIGN float y[HWY_MAX_BYTES / sizeof(float)] = {};
  for (std::int64_t k = i; k < count; ++k) {
    x[k - i] = a[k * a_stride];
    y[k - i] = b[k * b_stride];
  }
  hn::Store(fn(hn::Load(d, x), hn::Load(d, y)), d, x);
  for (std::int64_t k = i; k < count; ++k) out[k] = x[k - i];
}

// NaN where either is.
HWY_INLINE Vector nan_aware(Vector a, Vector b, Vector value) {
  const auto a_or_value = hn::IfThenElse(hn::Eq(a, a), value, a);
  return hn::IfThenElse(hn::Eq(b, b), a_or_value, b);
}

void binary(BinaryOp op, const float* a, std::int64_t a_stride, const float* b,
            std::int64_t b_stride, float* out, std::int64_t count) {
  const auto run = [&](const auto& fn) { run_binary(a, a_stride, b, b_stride, out, count, fn); };
  switch (op) {
    case BinaryOp::add:
      return run([](Vector x, Vector y) { return hn::Add(x, y); });
    case BinaryOp::subtract:
      return run([](Vector x, Vector y) { return hn::Sub(x, y); });
    case BinaryOp::multiply:
      return run([](Vector x, Vector y) { return hn::Mul(x, y); });
    case BinaryOp::divide:
      return run([](Vector x, Vector y) { return hn::Div(x, y); });
    case BinaryOp::minimum:
      return run([](Vector x, Vector y) { return nan_aware(x, y, hn::Min(x, y)); });
    case BinaryOp::maximum:
      return run([](Vector x, Vector y) { return nan_aware(x, y, hn::Max(x, y)); });
    case BinaryOp::prelu:
      return run([](Vector x, Vector y) {
        return hn::IfThenElse(hn::Lt(x, hn::Zero(Lanes())), hn::Mul(x, y), x);
      });
  }
}

HWY_INLINE Vector clamp(Vector x, float low, float high) {
  const Lanes d;
  return keep_nan(d, x, hn::Min(hn::Max(x, hn::Set(d, low)), hn::Set(d, high)));
}

// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|).
HWY_INLINE Vector softplus(Vector x) {
  const Lanes d;
  const auto rest = hn::Log1p(d, vector_exp(d, hn::Neg(hn::Abs(x))));
  return keep_nan(d, x, hn::Add(hn::Max(x, hn::Zero(d)), rest));
}

void post_op(const PostOp& op, float* data, const float* operand, std::int64_t count) {
  using Kind = PostOp::Kind;
  const Lanes d;
  const auto set = [&](float value) { return hn::Set(d, value); };
  const auto run = [&](const auto& fn) {
    for_vectors(data, nullptr, count, [&](Vector x, Vector) { return fn(x); });
  };
  const Vector zero = hn::Zero(d), half = set(0.5f), one = set(1);
  switch (op.kind) {
    case Kind::relu:
      return run([&](Vector x) { return hn::IfThenElse(hn::Lt(x, zero), zero, x); });
    case Kind::leaky_relu:
      return run(
          [&](Vector x) { return hn::IfThenElse(hn::Lt(x, zero), hn::Mul(x, set(op.alpha)), x); });
    case Kind::clip:
      return run([&](Vector x) { return clamp(x, op.alpha, op.beta); });
    case Kind::elu:
      return run([&](Vector x) {
        // e^x - 1 = tanh(x / 2) * (e^x + 1), which keeps the digits near 0.
        const auto low = hn::Min(x, zero);
        const auto expm1 =
            hn::Mul(vector_tanh(d, hn::Mul(low, half)), hn::Add(vector_exp(d, low), one));
        return hn::IfThenElse(hn::Lt(x, zero), hn::Mul(set(op.alpha), expm1), x);
      });
    case Kind::sigmoid:
      return run([&](Vector x) { return vector_sigmoid(d, x); });
    case Kind::tanh:
      return run([&](Vector x) { return vector_tanh(d, x); });
    case Kind::hard_sigmoid:
      return run(
          [&](Vector x) { return clamp(hn::Add(hn::Mul(x, set(op.alpha)), set(op.beta)), 0, 1); });
    case Kind::hard_swish:
      return run(
          [&](Vector x) { return hn::Mul(x, clamp(hn::Add(hn::Div(x, set(6)), half), 0, 1)); });
    case Kind::swish:
      // Not times vector_sigmoid, whose smallest result is not 0.
      return run([&](Vector x) {
        return hn::Div(x, hn::Add(one, vector_exp(d, hn::Mul(x, set(-op.alpha)))));
      });
    case Kind::mish:
      return run([&](Vector x) { return hn::Mul(x, vector_tanh(d, softplus(x))); });
    case Kind::softplus:
      return run([&](Vector x) { return softplus(x); });
    case Kind::gelu:
      return run([&](Vector x) {
        const auto erf = vector_erf(d, hn::Mul(x, set(0.70710678f)));
        return hn::Mul(hn::Mul(x, half), hn::Add(erf, one));
      });
    case Kind::gelu_tanh:
      return run([&](Vector x) {
        const auto cubic = hn::MulAdd(hn::Mul(hn::Mul(x, x), set(0.044715f)), x, x);
        const auto tanh = vector_tanh(d, hn::Mul(cubic, set(0.79788456f)));
        return hn::Mul(hn::Mul(x, half), hn::Add(tanh, one));
      });
    case Kind::linear:
      return run([&](Vector x) { return hn::Add(hn::Mul(x, set(op.alpha)), set(op.beta)); });
    case Kind::erf:
      return run([&](Vector x) { return vector_erf(d, x); });
    case Kind::exp:
      return run([&](Vector x) { return vector_exp(d, x); });
    case Kind::sqrt:
      return run([&](Vector x) { return hn::Sqrt(x); });
    case Kind::abs:
      return run([&](Vector x) { return hn::Abs(x); });
    case Kind::reciprocal:
      return run([&](Vector x) { return hn::Div(one, x); });
    case Kind::add:
      return for_vectors(data, operand, count, [](Vector x, Vector y) { return hn::Add(x, y); });
    case Kind::multiply:
      return for_vectors(data, operand, count, [](Vector x, Vector y) { return hn::Mul(x, y); });
  }
}

template <class Map>
HWY_INLINE float sum_of(const float* in, std::int64_t size, const Map& map) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  Vector sums = hn::Zero(d), more = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) {
    sums = hn::Add(sums, map(hn::LoadU(d, in + i)));
    more = hn::Add(more, map(hn::LoadU(d, in + i + lanes)));
  }
  HWY_ALIGN float single[HWY_MAX_BYTES / sizeof(float)];
  float rest = 0;
  for (; i < size; ++i) {
    hn::Store(map(hn::Set(d, in[i])), d, single);
    rest += single[0];
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sums, more))) + rest;
}

void softmax(const float* in, float* out, std::int64_t rows, std::int64_t size) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t row = 0; row < rows; ++row, in += size, out += size) {
    Vector most = hn::Set(d, -std::numeric_limits<float>::infinity());
    std::int64_t i = 0;
    for (; i + lanes <= size; i += lanes) {
      const auto x = hn::LoadU(d, in + i);
      most = nan_aware(most, x, hn::Max(most, x));
    }
    float largest = hn::GetLane(hn::MaxOfLanes(d, most));
    if (!hn::AllTrue(d, hn::Eq(most, most))) largest = std::numeric_limits<float>::quiet_NaN();
    for (; i < size; ++i)
      if (in[i] > largest || std::isnan(in[i])) largest = in[i];
    const auto shift = hn::Set(d, largest);
    Vector sums = hn::Zero(d);
    for (i = 0; i + lanes <= size; i += lanes) {
      const auto e = vector_exp(d, hn::Sub(hn::LoadU(d, in + i), shift));
      hn::StoreU(e, d, out + i);
      sums = hn::Add(sums, e);
    }
    float sum = hn::GetLane(hn::SumOfLanes(d, sums));
    if (i < size) {
      HWY_ALIGN float rest[HWY_MAX_BYTES / sizeof(float)] = {};
      for (std::int64_t k = i; k < size; ++k) rest[k - i] = in[k];
      hn::Store(vector_exp(d, hn::Sub(hn::Load(d, rest), shift)), d, rest);
      for (std::int64_t k = i; k < size; ++k) sum += out[k] = rest[k - i];
    }
    const auto scale = hn::Set(d, 1 / sum);
    for_vectors(out, nullptr, size, [&](Vector x, Vector) { return hn::Mul(x, scale); });
  }
}

void layer_norm(const float* in, const float* scale, const float* bias, float* out,
                std::int64_t rows, std::int64_t size, float epsilon, bool is_rms) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto count = static_cast<float>(size);
  for (std::int64_t row = 0; row < rows; ++row, in += size, out += size) {
    const float mean = is_rms ? 0 : sum_of(in, size, [](Vector x) { return x; }) / count;
    const auto middle = hn::Set(d, mean);
    // What the mean lacks in digits, which outweighs small deviations from a large mean.
    const float lack =
        is_rms ? 0 : sum_of(in, size, [&](Vector x) { return hn::Sub(x, middle); }) / count;
    const auto missing = hn::Set(d, lack);
    const auto deviation = [&](Vector x) { return hn::Sub(hn::Sub(x, middle), missing); };
    const float squares = sum_of(in, size, [&](Vector x) {
      const auto away = deviation(x);
      return hn::Mul(away, away);
    });
    const float inverse = 1 / std::sqrt(squares / count + epsilon);
    const auto by = hn::Set(d, inverse);
    std::int64_t i = 0;
    for (; i + lanes <= size; i += lanes) {
      const auto x = hn::Mul(deviation(hn::LoadU(d, in + i)), by);
      const auto scaled = hn::Mul(x, hn::LoadU(d, scale + i));
      hn::StoreU(bias ? hn::Add(scaled, hn::LoadU(d, bias + i)) : scaled, d, out + i);
    }
    for (; i < size; ++i)
      out[i] = (in[i] - mean - lack) * inverse * scale[i] + (bias ? bias[i] : 0);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {

HWY_EXPORT(binary);
HWY_EXPORT(post_op);
HWY_EXPORT(softmax);
HWY_EXPORT(layer_norm);

void binary_loop(BinaryOp op, const float* a, std::int64_t a_stride, const float* b,
                 std::int64_t b_stride, float* out, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(binary)(op, a, a_stride, b, b_stride, out, count);
}

void post_op_loop(const PostOp& op, float* data, const float* operand, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(post_op)(op, data, operand, count);
}

void softmax_loop(const float* in, float* out, std::int64_t rows, std::int64_t size) {
  HWY_DYNAMIC_DISPATCH(softmax)(in, out, rows, size);
}

void layer_norm_loop(const float* in, const float* scale, const float* bias, float* out,
                     std::int64_t rows, std::int64_t size, float epsilon, bool is_rms) {
  HWY_DYNAMIC_DISPATCH(layer_norm)(in, scale, bias, out, rows, size, epsilon, is_rms);
}

}  // namespace onnxpress
#endif
