#include "graph/kernels/recurrent_training_loops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/recurrent_training_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

#include "graph/kernels/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

using Lanes = hn::ScalableTag<float>;
using Vector = hn::Vec<Lanes>;

// Whole vectors, or the first lanes of one.
struct Whole {
  HWY_INLINE Vector load(const float* from) const { return hn::LoadU(Lanes(), from); }
  HWY_INLINE void store(Vector value, float* to) const { hn::StoreU(value, Lanes(), to); }
};
struct Part {
  hn::Mask<Lanes> mask;
  HWY_INLINE Vector load(const float* from) const { return hn::MaskedLoad(mask, Lanes(), from); }
  HWY_INLINE void store(Vector value, float* to) const { hn::BlendedStore(value, mask, Lanes(), to); }
};

// body(access, first unit) for all units.
template <class Body>
HWY_INLINE void for_units(std::int64_t units, const Body& body) {
  const Lanes d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= units; i += lanes) body(Whole(), i);
  if (i < units) body(Part{hn::FirstN(d, static_cast<std::size_t>(units - i))}, i);
}

HWY_INLINE Vector sigmoid_slope(Vector y) { return hn::NegMulAdd(y, y, y); }
HWY_INLINE Vector tanh_slope(Vector y) { return hn::NegMulAdd(y, y, hn::Set(Lanes(), 1.0F)); }

void rnn_forward(const RecurrentStep& s) {
  for_units(s.units, [&](const auto& at, std::int64_t i) {
    at.store(vector_tanh(Lanes(), at.load(s.gates + i)), s.h_after + i);
  });
}

void rnn_backward(const RecurrentStep& s, float* dh) {
  for_units(s.units, [&](const auto& at, std::int64_t i) {
    at.store(hn::Mul(at.load(dh + i), tanh_slope(at.load(s.h_after + i))), s.gates + i);
    at.store(hn::Zero(Lanes()), dh + i);
  });
}

void lstm_forward(const RecurrentStep& s) {
  const Lanes d;
  const std::int64_t n = s.units;
  for_units(n, [&](const auto& at, std::int64_t i) {
    float* const g = s.gates + i;
    const Vector input = vector_sigmoid(d, at.load(g)), output = vector_sigmoid(d, at.load(g + n));
    const Vector forget = vector_sigmoid(d, at.load(g + 2 * n)), candidate = vector_tanh(d, at.load(g + 3 * n));
    const Vector c = hn::MulAdd(forget, at.load(s.c_before + i), hn::Mul(input, candidate));
    const Vector t = vector_tanh(d, c);
    at.store(input, g);
    at.store(output, g + n);
    at.store(forget, g + 2 * n);
    at.store(candidate, g + 3 * n);
    at.store(c, s.c_after + i);
    at.store(t, s.tanh_c + i);
    at.store(hn::Mul(output, t), s.h_after + i);
  });
}

void lstm_backward(const RecurrentStep& s, float* dh, float* dc) {
  const std::int64_t n = s.units;
  for_units(n, [&](const auto& at, std::int64_t i) {
    float* const g = s.gates + i;
    const Vector input = at.load(g), output = at.load(g + n), forget = at.load(g + 2 * n), candidate = at.load(g + 3 * n);
    const Vector t = at.load(s.tanh_c + i), dy = at.load(dh + i);
    const Vector dcell = hn::MulAdd(hn::Mul(dy, output), tanh_slope(t), at.load(dc + i));
    at.store(hn::Mul(hn::Mul(dcell, candidate), sigmoid_slope(input)), g);
    at.store(hn::Mul(hn::Mul(dy, t), sigmoid_slope(output)), g + n);
    at.store(hn::Mul(hn::Mul(dcell, at.load(s.c_before + i)), sigmoid_slope(forget)), g + 2 * n);
    at.store(hn::Mul(hn::Mul(dcell, input), tanh_slope(candidate)), g + 3 * n);
    at.store(hn::Mul(dcell, forget), dc + i);
    at.store(hn::Zero(Lanes()), dh + i);
  });
}

// (1 - z) * candidate + z * h
HWY_INLINE Vector mixed(Vector z, Vector candidate, Vector h) {
  return hn::MulAdd(hn::Sub(hn::Set(Lanes(), 1.0F), z), candidate, hn::Mul(z, h));
}

void gru_forward(const RecurrentStep& s) {
  const Lanes d;
  const std::int64_t n = s.units;
  for_units(n, [&](const auto& at, std::int64_t i) {
    float* const g = s.gates + i;
    const Vector z = vector_sigmoid(d, at.load(g)), r = vector_sigmoid(d, at.load(g + n));
    const Vector candidate = vector_tanh(d, hn::MulAdd(r, at.load(s.product + i), at.load(g + 2 * n)));
    at.store(z, g);
    at.store(r, g + n);
    at.store(candidate, g + 2 * n);
    at.store(mixed(z, candidate, at.load(s.h_before + i)), s.h_after + i);
  });
}

void gru_reset_forward(const RecurrentStep& s) {
  const Lanes d;
  const std::int64_t n = s.units;
  for_units(n, [&](const auto& at, std::int64_t i) {
    const Vector r = vector_sigmoid(d, at.load(s.gates + n + i));
    at.store(vector_sigmoid(d, at.load(s.gates + i)), s.gates + i);
    at.store(r, s.gates + n + i);
    at.store(hn::Mul(r, at.load(s.h_before + i)), s.product + i);
  });
}

void gru_update_forward(const RecurrentStep& s) {
  const Lanes d;
  const std::int64_t n = s.units;
  for_units(n, [&](const auto& at, std::int64_t i) {
    const Vector candidate = vector_tanh(d, at.load(s.gates + 2 * n + i));
    at.store(candidate, s.gates + 2 * n + i);
    at.store(mixed(at.load(s.gates + i), candidate, at.load(s.h_before + i)), s.h_after + i);
  });
}

void gru_backward(const RecurrentStep& s, float* dh) {
  const std::int64_t n = s.units;
  const Vector one = hn::Set(Lanes(), 1.0F);
  for_units(n, [&](const auto& at, std::int64_t i) {
    float* const g = s.gates + i;
    const Vector z = at.load(g), r = at.load(g + n), candidate = at.load(g + 2 * n), dy = at.load(dh + i);
    const Vector dcandidate = hn::Mul(hn::Mul(dy, hn::Sub(one, z)), tanh_slope(candidate));
    at.store(hn::Mul(hn::Mul(dy, hn::Sub(at.load(s.h_before + i), candidate)), sigmoid_slope(z)), g);
    at.store(hn::Mul(hn::Mul(dcandidate, at.load(s.product + i)), sigmoid_slope(r)), g + n);
    at.store(dcandidate, g + 2 * n);
    at.store(hn::Mul(dcandidate, r), s.product + i);
    at.store(hn::Mul(dy, z), dh + i);
  });
}

void gru_update_backward(const RecurrentStep& s, float* dh) {
  const std::int64_t n = s.units;
  const Vector one = hn::Set(Lanes(), 1.0F);
  for_units(n, [&](const auto& at, std::int64_t i) {
    float* const g = s.gates + i;
    const Vector z = at.load(g), candidate = at.load(g + 2 * n), dy = at.load(dh + i);
    at.store(hn::Mul(hn::Mul(dy, hn::Sub(at.load(s.h_before + i), candidate)), sigmoid_slope(z)), g);
    at.store(hn::Mul(hn::Mul(dy, hn::Sub(one, z)), tanh_slope(candidate)), g + 2 * n);
    at.store(hn::Mul(dy, z), dh + i);
  });
}

void gru_reset_backward(const RecurrentStep& s, const float* dproduct, float* dh) {
  const std::int64_t n = s.units;
  for_units(n, [&](const auto& at, std::int64_t i) {
    float* const reset = s.gates + n + i;
    const Vector r = at.load(reset), through = at.load(dproduct + i);
    at.store(hn::Mul(hn::Mul(through, at.load(s.h_before + i)), sigmoid_slope(r)), reset);
    at.store(hn::MulAdd(through, r, at.load(dh + i)), dh + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(rnn_forward);
HWY_EXPORT(rnn_backward);
HWY_EXPORT(lstm_forward);
HWY_EXPORT(lstm_backward);
HWY_EXPORT(gru_forward);
HWY_EXPORT(gru_reset_forward);
HWY_EXPORT(gru_update_forward);
HWY_EXPORT(gru_backward);
HWY_EXPORT(gru_update_backward);
HWY_EXPORT(gru_reset_backward);

}  // namespace

void rnn_forward(const RecurrentStep& step) { HWY_DYNAMIC_DISPATCH(rnn_forward)(step); }
void rnn_backward(const RecurrentStep& step, float* dh) { HWY_DYNAMIC_DISPATCH(rnn_backward)(step, dh); }
void lstm_forward(const RecurrentStep& step) { HWY_DYNAMIC_DISPATCH(lstm_forward)(step); }
void lstm_backward(const RecurrentStep& step, float* dh, float* dc) { HWY_DYNAMIC_DISPATCH(lstm_backward)(step, dh, dc); }
void gru_forward(const RecurrentStep& step) { HWY_DYNAMIC_DISPATCH(gru_forward)(step); }
void gru_reset_forward(const RecurrentStep& step) { HWY_DYNAMIC_DISPATCH(gru_reset_forward)(step); }
void gru_update_forward(const RecurrentStep& step) { HWY_DYNAMIC_DISPATCH(gru_update_forward)(step); }
void gru_backward(const RecurrentStep& step, float* dh) { HWY_DYNAMIC_DISPATCH(gru_backward)(step, dh); }
void gru_update_backward(const RecurrentStep& step, float* dh) { HWY_DYNAMIC_DISPATCH(gru_update_backward)(step, dh); }
void gru_reset_backward(const RecurrentStep& step, const float* dproduct, float* dh) {
  HWY_DYNAMIC_DISPATCH(gru_reset_backward)(step, dproduct, dh);
}

}  // namespace onnxpress
#endif  // HWY_ONCE
