#include "graph/kernels/recurrent_loops.h"

#include <array>
#include <cstddef>
#include <utility>

// Accumulators are arrays of vectors: lengths must be known when compiling.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/kernels/recurrent_loops.cpp"
#include <hwy/foreach_target.h>
// Behind foreach_target.h.
#include <hwy/highway.h>

#include "graph/kernels/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

using Lanes = hn::ScalableTag<float>;
using Vector = hn::Vec<Lanes>;
constexpr std::size_t lanes = hn::MaxLanes(Lanes());

std::int64_t vector_lanes() { return lanes; }

// Rows at a time that keep the accumulators in registers: of 32, or of 16.
constexpr std::size_t most_rows(std::size_t vectors) {
  constexpr bool many = HWY_MAX_BYTES >= 64 || HWY_ARCH_ARM_A64;
  constexpr std::array<std::size_t, 5> of_32{0, 12, 12, 8, 6}, of_16{0, 8, 6, 4, 3};
  return many ? of_32[vectors] : of_16[vectors];
}

// Accumulator I is vector I % V of row I / V.
template <std::size_t V, std::size_t... I>
HWY_INLINE void multiply_add(const float* panel, const float* const* a, std::int64_t k,
                             Vector* sums, std::index_sequence<I...>) {
  const Lanes d;
  ((sums[I] = hn::MulAdd(hn::Set(d, a[I / V][k]), hn::Load(d, panel + I % V * lanes), sums[I])),
   ...);
}

template <std::size_t V, std::size_t R, std::size_t... I>
HWY_INLINE void product_rows(const PanelProduct& p, std::int64_t row,
                             std::index_sequence<I...> all) {
  const Lanes d;
  const float* const start = p.start + row * p.start_stride;
  float* const out = p.out + row * p.out_stride;
  const float* a[R];
  for (std::size_t r = 0; r < R; ++r) a[r] = p.a[row + static_cast<std::int64_t>(r)];
  Vector sums[V * R] = {
      hn::Load(d, start + static_cast<std::int64_t>(I / V) * p.start_stride + I % V * lanes)...};
  const float* panel = p.panel;
  for (std::int64_t k = 0; k < p.depth; ++k, panel += V * lanes)
    multiply_add<V>(panel, a, k, sums, all);
  (hn::Store(sums[I], d, out + static_cast<std::int64_t>(I / V) * p.out_stride + I % V * lanes),
   ...);
}

// One row: U elements of the depth at a time, each with accumulators of its own, since additions
// take longer than loads.
template <std::size_t V, std::size_t U, std::size_t... I>
HWY_INLINE void product_row(const PanelProduct& p, std::index_sequence<I...>) {
  const Lanes d;
  const float* const a = p.a[0];
  Vector sums[V * U] = {(I < V ? hn::Load(d, p.start + I % V * lanes) : hn::Zero(d))...};
  const float* panel = p.panel;
  std::int64_t k = 0;
  for (; k + static_cast<std::int64_t>(U) <= p.depth; k += U, panel += V * U * lanes)
    ((sums[I] = hn::MulAdd(hn::Set(d, a[k + static_cast<std::int64_t>(I / V)]),
                           hn::Load(d, panel + I * lanes), sums[I])),
     ...);
  for (; k < p.depth; ++k, panel += V * lanes)
    multiply_add<V>(panel, &a, k, sums, std::make_index_sequence<V>());
  for (std::size_t v = 0; v < V; ++v) {
    Vector sum = sums[v];
    for (std::size_t u = 1; u < U; ++u) sum = hn::Add(sum, sums[u * V + v]);
    hn::Store(sum, d, p.out + v * lanes);
  }
}

template <std::size_t V, std::size_t R>
HWY_INLINE void product_blocks(const PanelProduct& p, std::int64_t& row) {
  for (; row + static_cast<std::int64_t>(R) <= p.rows; row += R)
    product_rows<V, R>(p, row, std::make_index_sequence<V * R>());
}

// A row's sums do not depend on the rows beside it, unless it is the only one.
template <std::size_t V>
void product_of(const PanelProduct& p) {
  constexpr std::size_t unrolled = V == 1 ? 8 : V == 2 ? 4 : 2;
  if (p.rows == 1) return product_row<V, unrolled>(p, std::make_index_sequence<V * unrolled>());
  std::int64_t row = 0;
  product_blocks<V, most_rows(V)>(p, row);
  if constexpr (most_rows(V) > 4) product_blocks<V, 4>(p, row);
  product_blocks<V, 2>(p, row);
  product_blocks<V, 1>(p, row);
}

void panel_product(const PanelProduct& p) {
  switch (p.vectors) {
    case 1:
      return product_of<1>(p);
    case 2:
      return product_of<2>(p);
    case 3:
      return product_of<3>(p);
    default:
      return product_of<4>(p);
  }
}

HWY_INLINE Vector gate(const float* gates, std::size_t index) {
  return hn::Load(Lanes(), gates + index * lanes);
}

// Whether the sequence of `row` goes on; copies the state of one that has ended.
HWY_INLINE bool goes_on(const GateTile& t, std::int64_t row, std::size_t vectors) {
  if (t.step < t.lengths[row]) return true;
  const Lanes d;
  for (std::size_t v = 0; v < vectors; ++v)
    hn::Store(hn::Load(d, t.h_before + row * t.h_stride + v * lanes), d,
              t.h_after + row * t.h_stride + v * lanes);
  return false;
}

void rnn_gates(const GateTile& t, bool relu) {
  const Lanes d;
  for (std::int64_t row = 0; row < t.rows; ++row) {
    if (!goes_on(t, row, 4)) continue;
    for (std::size_t v = 0; v < 4; ++v) {
      const Vector x = gate(t.gates + row * t.gate_stride, v);
      const Vector y = relu ? keep_nan(d, x, hn::Max(x, hn::Zero(d))) : vector_tanh(d, x);
      hn::Store(y, d, t.h_after + row * t.h_stride + v * lanes);
    }
  }
}

void lstm_gates(const GateTile& t) {
  const Lanes d;
  for (std::int64_t row = 0; row < t.rows; ++row) {
    if (!goes_on(t, row, 1)) continue;
    const float* const gates = t.gates + row * t.gate_stride;
    float* const cell = t.c + row * static_cast<std::int64_t>(lanes);
    const Vector i = vector_sigmoid(d, gate(gates, 0));
    const Vector f = vector_sigmoid(d, gate(gates, 2));
    const Vector candidate = vector_tanh(d, gate(gates, 3));
    const Vector c = hn::MulAdd(f, hn::Load(d, cell), hn::Mul(i, candidate));
    hn::Store(c, d, cell);
    const Vector o = vector_sigmoid(d, gate(gates, 1));
    hn::Store(hn::Mul(o, vector_tanh(d, c)), d, t.h_after + row * t.h_stride);
  }
}

// (1 - z) * candidate + z * h
HWY_INLINE void update(const GateTile& t, std::int64_t row, Vector z, Vector candidate) {
  const Lanes d;
  const Vector h = hn::Load(d, t.h_before + row * t.h_stride);
  const Vector rest = hn::Sub(hn::Set(d, 1.0f), z);
  hn::Store(hn::MulAdd(rest, candidate, hn::Mul(z, h)), d, t.h_after + row * t.h_stride);
}

void gru_gates(const GateTile& t) {
  const Lanes d;
  for (std::int64_t row = 0; row < t.rows; ++row) {
    if (!goes_on(t, row, 1)) continue;
    const float* const gates = t.gates + row * t.gate_stride;
    const Vector z = vector_sigmoid(d, gate(gates, 1));
    const Vector r = vector_sigmoid(d, gate(gates, 2));
    update(t, row, z, vector_tanh(d, hn::MulAdd(r, gate(gates, 3), gate(gates, 0))));
  }
}

void gru_reset_gates(const GateTile& t) {
  const Lanes d;
  for (std::int64_t row = 0; row < t.rows; ++row) {
    float* const gates = t.gates + row * t.gate_stride;
    const Vector r = vector_sigmoid(d, gate(gates, 2));
    const Vector h = hn::Load(d, t.h_before + row * t.h_stride);
    hn::Store(hn::Mul(r, h), d, t.reset + row * t.h_stride);
    hn::Store(vector_sigmoid(d, gate(gates, 1)), d, gates + lanes);
  }
}

void gru_update_gates(const GateTile& t) {
  const Lanes d;
  for (std::int64_t row = 0; row < t.rows; ++row) {
    if (!goes_on(t, row, 1)) continue;
    const float* const gates = t.gates + row * t.gate_stride;
    update(t, row, gate(gates, 1), vector_tanh(d, gate(gates, 0)));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(vector_lanes);
HWY_EXPORT(panel_product);
HWY_EXPORT(rnn_gates);
HWY_EXPORT(lstm_gates);
HWY_EXPORT(gru_gates);
HWY_EXPORT(gru_reset_gates);
HWY_EXPORT(gru_update_gates);

}  // namespace

std::int64_t vector_lanes() { return HWY_DYNAMIC_DISPATCH(vector_lanes)(); }
void panel_product(const PanelProduct& product) { HWY_DYNAMIC_DISPATCH(panel_product)(product); }
void rnn_gates(const GateTile& tile, bool relu) { HWY_DYNAMIC_DISPATCH(rnn_gates)(tile, relu); }
void lstm_gates(const GateTile& tile) { HWY_DYNAMIC_DISPATCH(lstm_gates)(tile); }
void gru_gates(const GateTile& tile) { HWY_DYNAMIC_DISPATCH(gru_gates)(tile); }
void gru_reset_gates(const GateTile& tile) { HWY_DYNAMIC_DISPATCH(gru_reset_gates)(tile); }
void gru_update_gates(const GateTile& tile) { HWY_DYNAMIC_DISPATCH(gru_update_gates)(tile); }

}  // namespace onnxpress
#endif  // HWY_ONCE
