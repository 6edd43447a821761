// Gradients of RNN, GRU and LSTM: back-propagation through time. The gates are computed again.
#include <algorithm>
#include <cmath>
#include <vector>

#include "graph/ops/gradient_tools.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/recurrent.h"

namespace onnxpress {
namespace {

namespace in = recurrent_input;
using Kind = GateActivation::Kind;

// dy/dx of a gate's activation; 0 where x was clipped.
template <class T>
T slope(const GateActivation& activation, T x, float clip) {
  if (clip > 0 && std::fabs(x) > static_cast<T>(clip)) return T(0);
  const T alpha = static_cast<T>(activation.alpha), beta = static_cast<T>(activation.beta);
  switch (activation.kind) {
    case Kind::relu:
      return x < 0 ? T(0) : T(1);
    case Kind::tanh: {
      const T y = std::tanh(x);
      return 1 - y * y;
    }
    case Kind::sigmoid: {
      const T y = 1 / (1 + std::exp(-x));
      return y * (1 - y);
    }
    case Kind::affine:
      return alpha;
    case Kind::leaky_relu:
      return x < 0 ? alpha : T(1);
    case Kind::thresholded_relu:
      return x < alpha ? T(0) : T(1);
    case Kind::scaled_tanh: {
      const T y = std::tanh(beta * x);
      return alpha * beta * (1 - y * y);
    }
    case Kind::hard_sigmoid: {
      const T y = alpha * x + beta;
      return y < 0 || y > 1 ? T(0) : alpha;
    }
    case Kind::elu:
      return x < 0 ? alpha * std::exp(x) : T(1);
    case Kind::softsign: {
      const T d = 1 + std::fabs(x);
      return 1 / (d * d);
    }
    case Kind::softplus:
      break;
  }
  return 1 / (1 + std::exp(-x));
}

template <class T>
struct Operands {
  const T *x, *w, *r, *b, *initial_h, *initial_c, *peepholes;
  const T *dy, *dy_h, *dy_c;  // nullptr: nothing depends on them
  T *dx, *dw, *dr, *db, *dinitial_h, *dinitial_c, *dpeepholes;  // nullptr: not wanted
};

// One direction, all sequences.
template <class T>
class DirectionGradient {
 public:
  DirectionGradient(ThreadPool& pool, const RecurrentAttrs& attrs, const RecurrentCall& call,
                    const Operands<T>& ops, std::int64_t direction)
      : pool_(pool),
        attrs_(attrs),
        call_(call),
        ops_(ops),
        d_(direction),
        batch_(call.batch),
        hidden_(call.hidden),
        width_(attrs.gates() * call.hidden),
        steps_(call.batch == 0 ? 0 : *std::ranges::max_element(call.lengths)),
        f_(attrs.of_direction(direction)[0]),
        g_(attrs.cell == RecurrentCell::lstm ? attrs.of_direction(direction)[1]
                                             : attrs.of_direction(direction).back()),
        w_(ops.w + direction * width_ * call.input),
        r_(ops.r + direction * width_ * hidden_),
        inputs_(size(steps_ * batch_ * call.input)),
        gates_(size(steps_ * batch_ * width_)),
        h_(size((steps_ + 1) * batch_ * hidden_)),
        c_(is_lstm() ? size((steps_ + 1) * batch_ * hidden_) : 0),
        product_(is_gru() ? size(steps_ * batch_ * hidden_) : 0) {}

  void run() {
    recompute();
    dgates_.assign(gates_.size(), T(0));
    drecurrent_.assign(is_gru() ? gates_.size() : 0, T(0));
    dh_.assign(size(batch_ * hidden_), T(0));
    dc_.assign(is_lstm() ? dh_.size() : 0, T(0));
    load_final(ops_.dy_h, dh_);
    if (is_lstm()) load_final(ops_.dy_c, dc_);
    dpeepholes_.assign(size(3 * hidden_), T(0));
    for (std::int64_t s = steps_; s-- > 0;) step_back(s);
    put_inputs();
    put_weights();
    store_state(dh_, ops_.dinitial_h);
    if (is_lstm()) store_state(dc_, ops_.dinitial_c);
    if (ops_.dpeepholes != nullptr)
      std::ranges::copy(dpeepholes_, ops_.dpeepholes + d_ * 3 * hidden_);
  }

 private:
  static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }
  bool is_lstm() const { return attrs_.cell == RecurrentCell::lstm; }
  bool is_gru() const { return attrs_.cell == RecurrentCell::gru; }
  bool is_active(std::int64_t b, std::int64_t s) const { return s < call_.lengths[size(b)]; }
  std::int64_t time(std::int64_t b, std::int64_t s) const {
    return call_.time(b, s, attrs_.is_reverse(d_));
  }
  T* gates(std::int64_t s) { return gates_.data() + s * batch_ * width_; }
  T* h(std::int64_t s) { return h_.data() + s * batch_ * hidden_; }
  T* c(std::int64_t s) { return c_.data() + s * batch_ * hidden_; }
  T* product(std::int64_t s) { return product_.data() + s * batch_ * hidden_; }
  T* dgates(std::int64_t s) { return dgates_.data() + s * batch_ * width_; }
  T* drecurrent(std::int64_t s) { return drecurrent_.data() + s * batch_ * width_; }
  T activate(const GateActivation& kind, T x) const { return activate_gate(kind, x, attrs_.clip); }
  T slope_of(const GateActivation& kind, T x) const { return slope(kind, x, attrs_.clip); }

  // body(element of the state, unit, gates' offset) for sequences that have not ended.
  template <class Body>
  void each(std::int64_t s, Body&& body) const {
    for (std::int64_t b = 0; b < batch_; ++b) {
      if (!is_active(b, s)) continue;
      for (std::int64_t j = 0; j < hidden_; ++j)
        body(size(b * hidden_ + j), j, b * width_);
    }
  }

  // --- forward, keeping what goes into every gate ---

  void load_initial(const T* given, T* state) const {
    for (std::int64_t b = 0; b < batch_; ++b)
      if (given != nullptr)
        std::copy_n(given + call_.state_row(attrs_, d_, b) * hidden_, hidden_, state + b * hidden_);
  }

  void recompute() {
    load_initial(ops_.initial_h, h(0));
    if (is_lstm()) load_initial(ops_.initial_c, c(0));
    const T* const bias = ops_.b != nullptr ? ops_.b + d_ * 2 * width_ : nullptr;
    const bool apart = is_gru() && attrs_.linear_before_reset;
    for (std::int64_t s = 0; s < steps_; ++s)
      for (std::int64_t b = 0; b < batch_; ++b) {
        const std::int64_t row = s * batch_ + b;
        if (is_active(b, s))
          std::copy_n(ops_.x + call_.x_row(attrs_, time(b, s), b) * call_.input, call_.input,
                      inputs_.data() + row * call_.input);
        if (bias == nullptr) continue;
        for (std::int64_t j = 0; j < width_; ++j)
          gates_[size(row * width_ + j)] =
              bias[j] + (apart && j >= 2 * hidden_ ? T(0) : bias[width_ + j]);
      }
    add_product<T>(pool_, steps_ * batch_, width_, call_.input, {inputs_.data(), call_.input},
                   {w_, call_.input, true}, {gates_.data(), width_});
    for (std::int64_t s = 0; s < steps_; ++s) step(s);
  }

  void add_recurrence(const T* values, std::int64_t first, std::int64_t count, T* out,
                      std::int64_t stride) {
    add_product<T>(pool_, batch_, count, hidden_, {values, hidden_},
                   {r_ + first * hidden_, hidden_, true}, {out, stride});
  }

  void step(std::int64_t s) {
    std::copy_n(h(s), batch_ * hidden_, h(s + 1));
    if (is_lstm()) std::copy_n(c(s), batch_ * hidden_, c(s + 1));
    T* const gate = gates(s);
    T* const next = h(s + 1);
    const T* const before = h(s);
    if (is_gru()) return step_gru(s);
    add_recurrence(before, 0, width_, gate, width_);
    if (!is_lstm())
      return each(s, [&](std::size_t at, std::int64_t j, std::int64_t g) {
        next[at] = activate(f_, gate[g + j]);
      });
    const std::int64_t n = hidden_;
    const T* const old = c(s);
    T* const cell = c(s + 1);
    const GateActivation& last = attrs_.of_direction(d_)[2];
    const T* const p = ops_.peepholes != nullptr ? ops_.peepholes + d_ * 3 * n : nullptr;
    each(s, [&](std::size_t at, std::int64_t j, std::int64_t offset) {
      T* const g = gate + offset;
      if (p != nullptr) {
        g[j] += p[j] * old[at];
        g[2 * n + j] += p[2 * n + j] * old[at];
      }
      const T i = activate(f_, g[j]);
      const T f = attrs_.input_forget ? 1 - i : activate(f_, g[2 * n + j]);
      cell[at] = f * old[at] + i * activate(g_, g[3 * n + j]);
      if (p != nullptr) g[n + j] += p[n + j] * cell[at];
      next[at] = activate(f_, g[n + j]) * activate_gate(last, cell[at], 0);
    });
  }

  // `product` is what the reset gate multiplies (linear_before_reset), or the reset state.
  void step_gru(std::int64_t s) {
    const std::int64_t n = hidden_;
    T* const gate = gates(s);
    T* const q = product(s);
    const T* const before = h(s);
    add_recurrence(before, 0, 2 * n, gate, width_);
    if (attrs_.linear_before_reset) {
      const T* const bias = ops_.b != nullptr ? ops_.b + d_ * 2 * width_ + width_ + 2 * n : nullptr;
      for (std::int64_t i = 0; i < batch_ * n; ++i) q[i] = bias != nullptr ? bias[i % n] : T(0);
      add_recurrence(before, 2 * n, n, q, n);
      each(s, [&](std::size_t at, std::int64_t j, std::int64_t g) {
        gate[g + 2 * n + j] += activate(f_, gate[g + n + j]) * q[at];
      });
    } else {
      each(s, [&](std::size_t at, std::int64_t j, std::int64_t g) {
        q[at] = activate(f_, gate[g + n + j]) * before[at];
      });
      add_recurrence(q, 2 * n, n, gate + 2 * n, width_);
    }
    T* const next = h(s + 1);
    each(s, [&](std::size_t at, std::int64_t j, std::int64_t g) {
      const T z = activate(f_, gate[g + j]);
      next[at] = (1 - z) * activate(g_, gate[g + 2 * n + j]) + z * before[at];
    });
  }

  // --- backward ---

  // Empty sequences give zeros whatever their state.
  void load_final(const T* given, std::vector<T>& state) const {
    if (given == nullptr) return;
    for (std::int64_t b = 0; b < batch_; ++b)
      if (call_.lengths[size(b)] > 0)
        std::copy_n(given + call_.state_row(attrs_, d_, b) * hidden_, hidden_,
                    state.data() + b * hidden_);
  }

  void store_state(const std::vector<T>& state, T* target) const {
    if (target == nullptr) return;
    for (std::int64_t b = 0; b < batch_; ++b)
      std::copy_n(state.data() + b * hidden_, hidden_,
                  target + call_.state_row(attrs_, d_, b) * hidden_);
  }

  // dh += values R[first..first + count).
  void add_through_recurrence(const T* values, std::int64_t first, std::int64_t count,
                              std::vector<T>& target) {
    add_product<T>(pool_, batch_, hidden_, count, {values, width_}, {r_ + first * hidden_, hidden_},
                   {target.data(), hidden_});
  }

  void step_back(std::int64_t s) {
    if (ops_.dy != nullptr)
      for (std::int64_t b = 0; b < batch_; ++b) {
        if (!is_active(b, s)) continue;
        const T* const from = ops_.dy + call_.y_row(attrs_, time(b, s), d_, b) * hidden_;
        for (std::int64_t j = 0; j < hidden_; ++j) dh_[size(b * hidden_ + j)] += from[j];
      }
    if (is_gru()) return step_gru_back(s);
    if (is_lstm())
      step_lstm_back(s);
    else
      each(s, [&](std::size_t at, std::int64_t j, std::int64_t g) {
        dgates(s)[g + j] = dh_[at] * slope_of(f_, gates(s)[g + j]);
        dh_[at] = 0;
      });
    add_through_recurrence(dgates(s), 0, width_, dh_);
  }

  void step_lstm_back(std::int64_t s) {
    const std::int64_t n = hidden_;
    const GateActivation& last = attrs_.of_direction(d_)[2];
    const T* const p = ops_.peepholes != nullptr ? ops_.peepholes + d_ * 3 * n : nullptr;
    const T* const old = c(s);
    const T* const cell = c(s + 1);
    each(s, [&](std::size_t at, std::int64_t j, std::int64_t offset) {
      const T* const g = gates(s) + offset;
      T* const dg = dgates(s) + offset;
      const T i = activate(f_, g[j]);
      const T f = attrs_.input_forget ? 1 - i : activate(f_, g[2 * n + j]);
      const T candidate = activate(g_, g[3 * n + j]);
      dg[n + j] = dh_[at] * activate_gate(last, cell[at], 0) * slope_of(f_, g[n + j]);
      T dc = dc_[at] + dh_[at] * activate(f_, g[n + j]) * slope(last, cell[at], 0);
      if (p != nullptr) dc += dg[n + j] * p[n + j];
      T di = dc * candidate;
      if (attrs_.input_forget)
        di -= dc * old[at];
      else
        dg[2 * n + j] = dc * old[at] * slope_of(f_, g[2 * n + j]);
      dg[j] = di * slope_of(f_, g[j]);
      dg[3 * n + j] = dc * i * slope_of(g_, g[3 * n + j]);
      dc_[at] = dc * f;
      if (p != nullptr) {
        dc_[at] += dg[j] * p[j] + dg[2 * n + j] * p[2 * n + j];
        dpeepholes_[size(j)] += dg[j] * old[at];
        dpeepholes_[size(n + j)] += dg[n + j] * cell[at];
        dpeepholes_[size(2 * n + j)] += dg[2 * n + j] * old[at];
      }
      dh_[at] = 0;
    });
  }

  void step_gru_back(std::int64_t s) {
    const std::int64_t n = hidden_;
    const T* const before = h(s);
    const T* const q = product(s);
    std::vector<T> through(dh_.size(), T(0));  // the gradient of the reset state
    each(s, [&](std::size_t at, std::int64_t j, std::int64_t offset) {
      const T* const g = gates(s) + offset;
      T* const dg = dgates(s) + offset;
      T* const dr = drecurrent(s) + offset;
      const T z = activate(f_, g[j]);
      const T candidate = activate(g_, g[2 * n + j]);
      dg[j] = dr[j] = dh_[at] * (before[at] - candidate) * slope_of(f_, g[j]);
      dg[2 * n + j] = dr[2 * n + j] = dh_[at] * (1 - z) * slope_of(g_, g[2 * n + j]);
      dh_[at] *= z;
      if (!attrs_.linear_before_reset) return;
      dg[n + j] = dr[n + j] = dg[2 * n + j] * q[at] * slope_of(f_, g[n + j]);
      dr[2 * n + j] *= activate(f_, g[n + j]);
    });
    if (attrs_.linear_before_reset) {
      add_through_recurrence(drecurrent(s), 0, width_, dh_);
      return;
    }
    add_through_recurrence(drecurrent(s) + 2 * n, 2 * n, n, through);
    each(s, [&](std::size_t at, std::int64_t j, std::int64_t offset) {
      const T reset = gates(s)[offset + n + j];
      dgates(s)[offset + n + j] = drecurrent(s)[offset + n + j] =
          through[at] * before[at] * slope_of(f_, reset);
      dh_[at] += through[at] * activate(f_, reset);
    });
    add_through_recurrence(drecurrent(s), 0, 2 * n, dh_);
  }

  void put_inputs() {
    if (ops_.dx == nullptr) return;
    std::vector<T> rows(inputs_.size(), T(0));
    add_product<T>(pool_, steps_ * batch_, call_.input, width_, {dgates_.data(), width_},
                   {w_, call_.input}, {rows.data(), call_.input});
    for (std::int64_t s = 0; s < steps_; ++s)
      for (std::int64_t b = 0; b < batch_; ++b) {
        if (!is_active(b, s)) continue;
        T* const to = ops_.dx + call_.x_row(attrs_, time(b, s), b) * call_.input;
        const T* const from = rows.data() + (s * batch_ + b) * call_.input;
        for (std::int64_t j = 0; j < call_.input; ++j) to[j] += from[j];
      }
  }

  void put_weights() {
    const std::int64_t rows = steps_ * batch_, n = hidden_;
    const std::vector<T>& recurrent = is_gru() ? drecurrent_ : dgates_;
    if (ops_.dw != nullptr)
      add_product<T>(pool_, width_, call_.input, rows, {dgates_.data(), width_, true},
                     {inputs_.data(), call_.input},
                     {ops_.dw + d_ * width_ * call_.input, call_.input});
    if (ops_.dr != nullptr) {
      T* const target = ops_.dr + d_ * width_ * n;
      const bool from_product = is_gru() && !attrs_.linear_before_reset;
      add_product<T>(pool_, from_product ? 2 * n : width_, n, rows, {recurrent.data(), width_, true},
                     {h_.data(), n}, {target, n});
      if (from_product)
        add_product<T>(pool_, n, n, rows, {recurrent.data() + 2 * n, width_, true},
                       {product_.data(), n}, {target + 2 * n * n, n});
    }
    if (ops_.db == nullptr) return;
    T* const target = ops_.db + d_ * 2 * width_;
    sum_around<T>(pool_, dgates_.data(), rows, width_, 1, target);
    sum_around<T>(pool_, recurrent.data(), rows, width_, 1, target + width_);
  }

  ThreadPool& pool_;
  const RecurrentAttrs& attrs_;
  const RecurrentCall& call_;
  const Operands<T>& ops_;
  const std::int64_t d_, batch_, hidden_, width_, steps_;
  GateActivation f_, g_;
  const T *const w_, *const r_;
  std::vector<T> inputs_, gates_;  // by step and sequence; what goes into the gates
  std::vector<T> h_, c_;           // states before each step, and behind the last
  std::vector<T> product_;
  std::vector<T> dgates_, drecurrent_, dh_, dc_, dpeepholes_;
};

BackwardKernel prepare_recurrent_gradient(const PrepareContext& plan) {
  return [attrs = RecurrentAttrs::from(plan.node())](BackwardContext& context) {
    const auto input = [&](std::size_t index) {
      return index < context.input_count() ? context.input(index) : nullptr;
    };
    const RecurrentCall call = RecurrentCall::of(attrs, input);
    dispatch_floats(context.input_dtype(in::x), [&]<class T>(std::type_identity<T>) {
      const auto data = [](const Tensor* tensor) {
        return tensor != nullptr ? tensor->data<T>().data() : nullptr;
      };
      const auto wanted = [&](std::size_t index) -> T* {
        if (!context.wants_gradient(index)) return nullptr;
        const auto values = context.gradient(index).mutable_data<T>();
        std::ranges::fill(values, T(0));
        return values.data();
      };
      const Operands<T> ops{data(input(in::x)),
                            data(input(in::w)),
                            data(input(in::r)),
                            data(input(in::b)),
                            data(input(in::initial_h)),
                            data(input(in::initial_c)),
                            data(input(in::peepholes)),
                            data(context.output_gradient(0)),
                            data(context.output_gradient(1)),
                            attrs.cell == RecurrentCell::lstm ? data(context.output_gradient(2))
                                                              : nullptr,
                            wanted(in::x),
                            wanted(in::w),
                            wanted(in::r),
                            wanted(in::b),
                            wanted(in::initial_h),
                            wanted(in::initial_c),
                            wanted(in::peepholes)};
      for (std::int64_t d = 0; d < attrs.directions(); ++d)
        DirectionGradient<T>(context.pool(), attrs, call, ops, d).run();
    });
  };
}

}  // namespace

OPERATORS(recurrent_gradient) {
  for (const char* op : {"RNN", "GRU", "LSTM"})
    registry.add(GradientDef{
        .name = op, .prepare = prepare_recurrent_gradient, .reads_outputs = 0});
}

}  // namespace onnxpress
