// Gradients of RNN, GRU and LSTM in float32 with their usual activations: back-propagation through
// time, the gates computed again, products by oneDNN and the rest on vector loops.
#include <algorithm>
#include <array>
#include <vector>

#include "graph/kernels/recurrent_support.h"
#include "graph/kernels/recurrent_training_loops.h"
#include "graph/kernels/scratch_memory.h"
#include "graph/kernels/sgemm.h"
#include "graph/ops/gradient.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

namespace in = recurrent_input;

struct Operands {
  const float *x, *w, *r, *b, *initial_h, *initial_c;
  const float *dy, *dy_h, *dy_c;                  // nullptr: nothing depends on them
  float *dx, *dw, *dr, *db, *dinitial_h, *dinitial_c;  // nullptr: not wanted; else zeros
};

// One direction. Arrays are by step and sequence, so that rows of a step follow one another; position s
// of a sequence is the sth from its end in reverse.
class DirectionGradient {
 public:
  DirectionGradient(const RecurrentAttrs& attrs, const RecurrentCall& call, const Operands& ops, std::int64_t direction)
      : attrs_(attrs),
        call_(call),
        ops_(ops),
        d_(direction),
        batch_(call.batch),
        input_(call.input),
        n_(call.hidden),
        width_(attrs.gates() * call.hidden),
        steps_(call.batch == 0 ? 0 : *std::ranges::max_element(call.lengths)),
        rows_(steps_ * batch_),
        w_(ops.w + direction * width_ * input_),
        r_(ops.r + direction * width_ * n_) {
    // Rows of X as they lie are those of the steps.
    is_direct_ = !attrs.batch_first && !attrs.is_reverse(direction) &&
                 std::ranges::all_of(call.lengths, [&](std::int64_t length) { return length == steps_; });
  }

  void run(ThreadPool& pool) {
    if (rows_ == 0) return;
    lay_out();
    project();
    const std::int64_t groups = std::clamp<std::int64_t>(batch_ / fewest_sequences, 1, pool.size());
    pool.parallel_for(groups, 1, [&](std::int64_t i, std::int64_t) {
      const std::int64_t first = i * batch_ / groups, count = (i + 1) * batch_ / groups - first;
      for (std::int64_t s = 0; s < steps_; ++s) go_forward(s, first, count);
      for (std::int64_t s = steps_; s-- > 0;) go_back(s, first, count);
    });
    put_inputs();
    put_weights();
    store_state(dh_, ops_.dinitial_h);
    if (is_lstm()) store_state(dc_, ops_.dinitial_c);
  }

 private:
  static constexpr std::int64_t fewest_sequences = 8;  // worth a thread, which reads all of R

  bool is_lstm() const { return attrs_.cell == RecurrentCell::lstm; }
  bool is_gru() const { return attrs_.cell == RecurrentCell::gru; }
  bool is_linear() const { return attrs_.linear_before_reset; }
  bool is_active(std::int64_t b, std::int64_t s) const { return s < call_.lengths[static_cast<std::size_t>(b)]; }
  std::int64_t time(std::int64_t b, std::int64_t s) const { return call_.time(b, s, attrs_.is_reverse(d_)); }
  float* gates(std::int64_t s, std::int64_t b = 0) const { return gates_ + (s * batch_ + b) * width_; }
  float* state(float* all, std::int64_t s, std::int64_t b = 0) const { return all + (s * batch_ + b) * n_; }

  void lay_out() {
    const std::int64_t states = (steps_ + 1) * batch_ * n_, values = rows_ * n_, now = batch_ * n_;
    const std::int64_t given = is_direct_ ? 0 : rows_ * input_;
    const std::int64_t cells = is_lstm() ? states + values + now : 0, products = is_gru() ? values + now : 0;
    const std::int64_t floats = given + rows_ * width_ + states + now + cells + products;
    float* next = reinterpret_cast<float*>(scratch_memory(static_cast<std::size_t>(floats) * sizeof(float)));
    const auto take = [&](std::int64_t count) {
      float* const taken = next;
      next += count;
      return taken;
    };
    gates_ = take(rows_ * width_);
    h_ = take(states);
    dh_ = take(now);
    if (is_lstm()) c_ = take(states), tanh_c_ = take(values), dc_ = take(now);
    if (is_gru()) product_ = take(values), dproduct_ = take(now);
    copied_ = take(given);
    load_state(ops_.initial_h, h_, false);
    load_state(ops_.dy_h, dh_, true);
    if (!is_lstm()) return;
    load_state(ops_.initial_c, c_, false);
    load_state(ops_.dy_c, dc_, true);
  }

  // Zeros where nothing is given; the final states of empty sequences are zeros whatever the first are.
  void load_state(const float* given, float* target, bool is_final) const {
    for (std::int64_t b = 0; b < batch_; ++b) {
      const bool is_zero = given == nullptr || (is_final && !is_active(b, 0));
      if (is_zero) std::fill_n(target + b * n_, n_, 0.0F);
      else std::copy_n(given + call_.state_row(attrs_, d_, b) * n_, n_, target + b * n_);
    }
  }

  void store_state(const float* values, float* target) const {
    if (target == nullptr) return;
    for (std::int64_t b = 0; b < batch_; ++b)
      std::copy_n(values + b * n_, n_, target + call_.state_row(attrs_, d_, b) * n_);
  }

  const float* inputs() const { return is_direct_ ? ops_.x : copied_; }

  // body(row of X, row of the step) for steps that sequences have.
  template <class Body>
  void each_input(Body&& body) const {
    for (std::int64_t s = 0; s < steps_; ++s)
      for (std::int64_t b = 0; b < batch_; ++b)
        if (is_active(b, s)) body(call_.x_row(attrs_, time(b, s), b), s * batch_ + b);
  }

  // X W' and biases into the gates.
  void project() {
    if (!is_direct_) {
      std::fill_n(copied_, rows_ * input_, 0.0F);
      each_input([&](std::int64_t from, std::int64_t to) { std::copy_n(ops_.x + from * input_, input_, copied_ + to * input_); });
    }
    std::vector<float> bias(static_cast<std::size_t>(width_), 0.0F);
    if (ops_.b != nullptr) {
      const float* const of_w = ops_.b + d_ * 2 * width_;
      for (std::int64_t j = 0; j < width_; ++j)
        bias[static_cast<std::size_t>(j)] = of_w[j] + (is_gru() && is_linear() && j >= 2 * n_ ? 0.0F : of_w[width_ + j]);
    }
    for (std::int64_t row = 0; row < rows_; ++row) std::ranges::copy(bias, gates_ + row * width_);
    sgemm(rows_, width_, input_, 1, {inputs(), input_}, {w_, input_, true}, 1, {gates_, width_});
  }

  RecurrentStep step(std::int64_t s, std::int64_t b) const {
    return {.units = n_,
            .gates = gates(s, b),
            .h_before = state(h_, s, b),
            .h_after = state(h_, s + 1, b),
            .c_before = is_lstm() ? state(c_, s, b) : nullptr,
            .c_after = is_lstm() ? state(c_, s + 1, b) : nullptr,
            .tanh_c = is_lstm() ? state(tanh_c_, s, b) : nullptr,
            .product = is_gru() ? state(product_, s, b) : nullptr};
  }

  // fn(step, sequence) for sequences of the group that have not ended.
  template <class Fn>
  void each(std::int64_t s, std::int64_t first, std::int64_t count, const Fn& fn) const {
    for (std::int64_t b = first; b < first + count; ++b)
      if (is_active(b, s)) fn(step(s, b), b);
  }

  // out += values R[gate..]', and target += values R[gate..]: R of `many` gates from `gate` on.
  void through(const float* values, std::int64_t gate, std::int64_t many, float* out, std::int64_t stride, std::int64_t count) const {
    sgemm(count, many * n_, n_, 1, {values, n_}, {r_ + gate * n_ * n_, n_, true}, 1, {out, stride});
  }
  void back_through(const float* values, std::int64_t stride, std::int64_t gate, std::int64_t many, float beta, float* target,
                    std::int64_t count) const {
    sgemm(count, n_, many * n_, 1, {values, stride}, {r_ + gate * n_ * n_, n_}, beta, {target, n_});
  }

  void go_forward(std::int64_t s, std::int64_t first, std::int64_t count) const {
    for (std::int64_t b = first; b < first + count; ++b) {
      if (is_active(b, s)) continue;
      std::copy_n(state(h_, s, b), n_, state(h_, s + 1, b));
      if (is_lstm()) std::copy_n(state(c_, s, b), n_, state(c_, s + 1, b));
    }
    const float* const before = state(h_, s, first);
    float* const gate = gates(s, first);
    if (!is_gru()) {
      through(before, 0, attrs_.gates(), gate, width_, count);
      return each(s, first, count, [&](const RecurrentStep& now, std::int64_t) { is_lstm() ? lstm_forward(now) : rnn_forward(now); });
    }
    through(before, 0, 2, gate, width_, count);
    float* const product = state(product_, s, first);
    if (is_linear()) {
      const float* const bias = ops_.b != nullptr ? ops_.b + d_ * 2 * width_ + width_ + 2 * n_ : nullptr;
      for (std::int64_t b = 0; b < count; ++b)
        if (bias != nullptr) std::copy_n(bias, n_, product + b * n_);
        else std::fill_n(product + b * n_, n_, 0.0F);
      through(before, 2, 1, product, n_, count);
      return each(s, first, count, [&](const RecurrentStep& now, std::int64_t) { gru_forward(now); });
    }
    std::fill_n(product, count * n_, 0.0F);
    each(s, first, count, [&](const RecurrentStep& now, std::int64_t) { gru_reset_forward(now); });
    through(product, 2, 1, gate + 2 * n_, width_, count);
    each(s, first, count, [&](const RecurrentStep& now, std::int64_t) { gru_update_forward(now); });
  }

  void go_back(std::int64_t s, std::int64_t first, std::int64_t count) const {
    for (std::int64_t b = first; b < first + count; ++b) {
      if (!is_active(b, s)) {
        std::fill_n(gates(s, b), width_, 0.0F);
        if (is_gru()) std::fill_n(state(product_, s, b), n_, 0.0F);
        continue;
      }
      if (ops_.dy == nullptr) continue;
      const float* const from = ops_.dy + call_.y_row(attrs_, time(b, s), d_, b) * n_;
      float* const to = dh_ + b * n_;
      for (std::int64_t j = 0; j < n_; ++j) to[j] += from[j];
    }
    float *const gate = gates(s, first), *const dh = dh_ + first * n_;
    if (!is_gru()) {
      each(s, first, count, [&](const RecurrentStep& now, std::int64_t b) {
        is_lstm() ? lstm_backward(now, dh_ + b * n_, dc_ + b * n_) : rnn_backward(now, dh_ + b * n_);
      });
      return back_through(gate, width_, 0, attrs_.gates(), 1, dh, count);
    }
    if (is_linear()) {
      each(s, first, count, [&](const RecurrentStep& now, std::int64_t b) { gru_backward(now, dh_ + b * n_); });
      back_through(state(product_, s, first), n_, 2, 1, 1, dh, count);
    } else {
      each(s, first, count, [&](const RecurrentStep& now, std::int64_t b) { gru_update_backward(now, dh_ + b * n_); });
      back_through(gate + 2 * n_, width_, 2, 1, 0, dproduct_ + first * n_, count);
      each(s, first, count, [&](const RecurrentStep& now, std::int64_t b) {
        gru_reset_backward(now, dproduct_ + b * n_, dh_ + b * n_);
      });
    }
    back_through(gate, width_, 0, 2, 1, dh, count);
  }

  void put_inputs() {
    if (ops_.dx == nullptr) return;
    if (is_direct_) return sgemm(rows_, input_, width_, 1, {gates_, width_}, {w_, input_}, 1, {ops_.dx, input_});
    std::vector<float> rows(static_cast<std::size_t>(rows_ * input_));
    sgemm(rows_, input_, width_, 1, {gates_, width_}, {w_, input_}, 0, {rows.data(), input_});
    each_input([&](std::int64_t to, std::int64_t from) {
      for (std::int64_t j = 0; j < input_; ++j) ops_.dx[to * input_ + j] += rows[static_cast<std::size_t>(from * input_ + j)];
    });
  }

  static void add_rows(const float* values, std::int64_t rows, std::int64_t stride, std::int64_t columns, float* target) {
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t j = 0; j < columns; ++j) target[j] += values[row * stride + j];
  }

  void put_weights() const {
    if (ops_.dw != nullptr)
      sgemm(width_, input_, rows_, 1, {gates_, width_, true}, {inputs(), input_}, 0, {ops_.dw + d_ * width_ * input_, input_});
    // What R of a GRU's candidate multiplied, and the gradient of what it gave.
    const float* const given = is_linear() ? product_ : gates_ + 2 * n_;
    const std::int64_t given_stride = is_linear() ? n_ : width_;
    const std::int64_t alike = is_gru() ? 2 * n_ : width_;
    if (ops_.dr != nullptr) {
      float* const target = ops_.dr + d_ * width_ * n_;
      sgemm(alike, n_, rows_, 1, {gates_, width_, true}, {h_, n_}, 0, {target, n_});
      if (is_gru())
        sgemm(n_, n_, rows_, 1, {given, given_stride, true}, {is_linear() ? h_ : product_, n_}, 0, {target + 2 * n_ * n_, n_});
    }
    if (ops_.db == nullptr) return;
    float* const target = ops_.db + d_ * 2 * width_;
    add_rows(gates_, rows_, width_, width_, target);
    std::copy_n(target, alike, target + width_);
    if (is_gru()) add_rows(given, rows_, given_stride, n_, target + width_ + 2 * n_);
  }

  const RecurrentAttrs& attrs_;
  const RecurrentCall& call_;
  const Operands& ops_;
  const std::int64_t d_, batch_, input_, n_, width_, steps_, rows_;
  const float *const w_, *const r_;
  bool is_direct_ = false;
  float *gates_ = nullptr, *h_ = nullptr, *c_ = nullptr, *tanh_c_ = nullptr, *product_ = nullptr;
  float *dh_ = nullptr, *dc_ = nullptr, *dproduct_ = nullptr, *copied_ = nullptr;
};

bool supports_recurrent_backward(const PrepareContext& context) {
  const RecurrentAttrs attrs = RecurrentAttrs::from(context.node());
  const bool is_tanh = attrs.cell != RecurrentCell::rnn || attrs.activations[0].kind == GateActivation::Kind::tanh;
  return is_tanh && has_vector_kernel(attrs, context);
}

BackwardKernel prepare_recurrent_backward(const PrepareContext& plan) {
  return [attrs = RecurrentAttrs::from(plan.node())](BackwardContext& context) {
    const auto input = [&](std::size_t index) { return index < context.input_count() ? context.input(index) : nullptr; };
    const RecurrentCall call = RecurrentCall::of(attrs, input);
    const auto data = [](const Tensor* tensor) { return tensor != nullptr ? tensor->data<float>().data() : nullptr; };
    const auto wanted = [&](std::size_t index) -> float* {
      if (!context.wants_gradient(index)) return nullptr;
      const auto values = context.gradient(index).mutable_data<float>();
      std::ranges::fill(values, 0.0F);
      return values.data();
    };
    const bool is_lstm = attrs.cell == RecurrentCell::lstm;
    const Operands ops{.x = data(input(in::x)),
                       .w = data(input(in::w)),
                       .r = data(input(in::r)),
                       .b = data(input(in::b)),
                       .initial_h = data(input(in::initial_h)),
                       .initial_c = is_lstm ? data(input(in::initial_c)) : nullptr,
                       .dy = data(context.output_gradient(0)),
                       .dy_h = data(context.output_gradient(1)),
                       .dy_c = is_lstm ? data(context.output_gradient(2)) : nullptr,
                       .dx = wanted(in::x),
                       .dw = wanted(in::w),
                       .dr = wanted(in::r),
                       .db = wanted(in::b),
                       .dinitial_h = wanted(in::initial_h),
                       .dinitial_c = is_lstm ? wanted(in::initial_c) : nullptr};
    for (std::int64_t d = 0; d < attrs.directions(); ++d) DirectionGradient(attrs, call, ops, d).run(context.pool());
  };
}

}  // namespace

OPERATORS(vector_recurrent_backward) {
  for (const char* name : {"RNN", "GRU", "LSTM"})
    registry.add(GradientDef{.name = name,
                             .backend = "vector",
                             .supports = supports_recurrent_backward,
                             .prepare = prepare_recurrent_backward,
                             .reads_outputs = 0});
}

}  // namespace onnxpress
