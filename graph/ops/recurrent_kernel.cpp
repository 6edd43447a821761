// The reference kernel of RNN, GRU and LSTM.
#include <algorithm>
#include <cmath>

#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/quantized.h"
#include "graph/ops/recurrent.h"

namespace onnxpress {
namespace {

namespace in = recurrent_input;
using Kind = GateActivation::Kind;

template <class T>
T activate(const GateActivation& activation, T x) {
  const T alpha = static_cast<T>(activation.alpha), beta = static_cast<T>(activation.beta);
  switch (activation.kind) {
    case Kind::relu:
      return x < 0 ? T(0) : x;
    case Kind::tanh:
      return std::tanh(x);
    case Kind::sigmoid:
      return T(1) / (T(1) + std::exp(-x));
    case Kind::affine:
      return alpha * x + beta;
    case Kind::leaky_relu:
      return x < 0 ? alpha * x : x;
    case Kind::thresholded_relu:
      return x < alpha ? T(0) : x;
    case Kind::scaled_tanh:
      return alpha * std::tanh(beta * x);
    case Kind::hard_sigmoid: {
      const T y = alpha * x + beta;
      return y < 0 ? T(0) : y > 1 ? T(1) : y;
    }
    case Kind::elu:
      return x < 0 ? alpha * std::expm1(x) : x;
    case Kind::softsign:
      return x / (T(1) + std::abs(x));
    case Kind::softplus:
      break;
  }
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}

template <class T>
T clipped(T x, float clip) {
  const T limit = static_cast<T>(clip);
  if (limit <= 0) return x;
  return x < -limit ? -limit : x > limit ? limit : x;
}

template <class T>
const T* data_or_null(const Tensor* tensor) {
  return tensor != nullptr ? tensor->data<T>().data() : nullptr;
}

template <class T>
struct Operands {
  const T *x, *w, *r, *b, *initial_h, *initial_c, *peepholes;
  T *y, *y_h, *y_c;  // nullptr: not wanted
};

// Sequences [begin, end) in one direction, all steps.
template <class T>
class RecurrentBlock {
 public:
  RecurrentBlock(const RecurrentAttrs& attrs, const RecurrentCall& call, const Operands<T>& ops,
                 std::int64_t direction, std::int64_t begin, std::int64_t end)
      : attrs_(attrs),
        call_(call),
        ops_(ops),
        d_(direction),
        begin_(begin),
        rows_(end - begin),
        hidden_(call.hidden),
        width_(attrs.gates() * call.hidden),
        f_(attrs.of_direction(direction)[0]),
        g_(attrs.of_direction(direction).back()),
        r_(ops.r + direction * width_ * hidden_),
        h_(size(rows_ * hidden_)),
        c_(attrs.cell == RecurrentCell::lstm ? size(rows_ * hidden_) : 0),
        product_(attrs.cell == RecurrentCell::gru ? size(rows_ * hidden_) : 0) {
    if (attrs.cell == RecurrentCell::lstm) g_ = attrs.of_direction(direction)[1];
  }

  void run() {
    load(ops_.initial_h, h_);
    if (!c_.empty()) load(ops_.initial_c, c_);
    const std::int64_t longest = *std::ranges::max_element(lengths());
    // Projections of a few steps at a time: one product, bounded memory.
    const std::int64_t steps = std::max<std::int64_t>(1, 256 / rows_);
    for (std::int64_t s = 0; s < longest; s += steps) {
      const std::int64_t count = std::min(steps, longest - s);
      project(s, count);
      for (std::int64_t i = 0; i < count; ++i) step(s + i, gates_.data() + i * rows_ * width_);
    }
    if (ops_.y != nullptr) pad_outputs();
    if (ops_.y_h != nullptr) store(h_, ops_.y_h);
    if (ops_.y_c != nullptr) store(c_, ops_.y_c);
  }

 private:
  static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

  std::span<const std::int64_t> lengths() const {
    return std::span(call_.lengths).subspan(size(begin_), size(rows_));
  }
  bool is_active(std::int64_t row, std::int64_t s) const { return s < lengths()[size(row)]; }
  std::int64_t time(std::int64_t row, std::int64_t s) const {
    return call_.time(begin_ + row, s, attrs_.is_reverse(d_));
  }

  void load(const T* given, std::vector<T>& state) const {
    if (given == nullptr) return;
    for (std::int64_t row = 0; row < rows_; ++row)
      std::copy_n(given + call_.state_row(attrs_, d_, begin_ + row) * hidden_, hidden_,
                  state.data() + row * hidden_);
  }

  // ONNX Runtime gives zeros, not the initial state, for an empty sequence; ONNX leaves it open.
  void store(const std::vector<T>& state, T* target) const {
    for (std::int64_t row = 0; row < rows_; ++row) {
      T* out = target + call_.state_row(attrs_, d_, begin_ + row) * hidden_;
      if (lengths()[size(row)] == 0)
        std::fill_n(out, hidden_, T(0));
      else
        std::copy_n(state.data() + row * hidden_, hidden_, out);
    }
  }

  T* output(std::int64_t row, std::int64_t t) const {
    return ops_.y + call_.y_row(attrs_, t, d_, begin_ + row) * hidden_;
  }

  // Zeros behind the end of a sequence.
  void pad_outputs() const {
    for (std::int64_t row = 0; row < rows_; ++row)
      for (std::int64_t t = lengths()[size(row)]; t < call_.steps; ++t)
        std::fill_n(output(row, t), hidden_, T(0));
  }

  // gates_[count * rows, width] = X W^T + Wb + Rb, but Rb of the GRU's last gate where the reset
  // gate applies to it.
  void project(std::int64_t s, std::int64_t count) {
    inputs_.assign(size(count * rows_ * call_.input), T(0));
    gates_.assign(size(count * rows_ * width_), T(0));
    const T* const bias = ops_.b != nullptr ? ops_.b + d_ * 2 * width_ : nullptr;
    const std::int64_t summed =
        attrs_.linear_before_reset ? width_ - hidden_ : width_;  // biases added here
    for (std::int64_t i = 0; i < count * rows_; ++i) {
      const std::int64_t row = i % rows_;
      if (is_active(row, s + i / rows_))
        std::copy_n(
            ops_.x + call_.x_row(attrs_, time(row, s + i / rows_), begin_ + row) * call_.input,
            call_.input, inputs_.data() + i * call_.input);
      if (bias == nullptr) continue;
      T* out = gates_.data() + i * width_;
      for (std::int64_t j = 0; j < width_; ++j)
        out[j] = bias[j] + (j < summed ? bias[width_ + j] : T(0));
    }
    add_product<T>(count * rows_, width_, call_.input, {inputs_.data(), call_.input},
                   {ops_.w + d_ * width_ * call_.input, call_.input, true},
                   {gates_.data(), width_});
  }

  // out[rows, count] += values[rows, hidden] * R[first..first+count)^T
  void add_recurrence(const std::vector<T>& values, std::int64_t first, std::int64_t count, T* out,
                      std::int64_t stride) {
    if (attrs_.rounds_state) return add_rounded_recurrence(values, first, count, out, stride);
    add_product<T>(rows_, count, hidden_, {values.data(), hidden_},
                   {r_ + first * hidden_, hidden_, true}, {out, stride});
  }

  void add_rounded_recurrence(const std::vector<T>& values, std::int64_t first, std::int64_t count,
                              T* out, std::int64_t stride) {
    std::vector<float> narrow(values.begin(), values.end());
    const DynamicRange range = DynamicRange::of(narrow);
    const IntegerGrid grid(DType::uint8, range.zero_point);
    rounded_.resize(values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      rounded_[i] = static_cast<T>((grid.code(narrow[i] / range.scale) - grid.zero) * range.scale);
    add_product<T>(rows_, count, hidden_, {rounded_.data(), hidden_},
                   {r_ + first * hidden_, hidden_, true}, {out, stride});
  }

  // body(row, unit, gates of the row) for the sequences that have not ended.
  template <class Body>
  void each(std::int64_t s, T* gates, Body&& body) const {
    for (std::int64_t row = 0; row < rows_; ++row) {
      if (!is_active(row, s)) continue;
      for (std::int64_t j = 0; j < hidden_; ++j)
        body(size(row * hidden_ + j), j, gates + row * width_);
    }
  }

  void step(std::int64_t s, T* gates) {
    switch (attrs_.cell) {
      case RecurrentCell::rnn:
        add_recurrence(h_, 0, width_, gates, width_);
        each(s, gates, [&](std::size_t at, std::int64_t j, const T* gate) {
          h_[at] = activate(f_, clipped(gate[j], attrs_.clip));
        });
        break;
      case RecurrentCell::gru:
        step_gru(s, gates);
        break;
      case RecurrentCell::lstm:
        step_lstm(s, gates);
        break;
    }
    if (ops_.y == nullptr) return;
    for (std::int64_t row = 0; row < rows_; ++row)
      if (is_active(row, s))
        std::copy_n(h_.data() + row * hidden_, hidden_, output(row, time(row, s)));
  }

  void step_gru(std::int64_t s, T* gates) {
    const std::int64_t n = hidden_;
    add_recurrence(h_, 0, 2 * n, gates, width_);
    if (attrs_.linear_before_reset) {
      const T* const bias = ops_.b != nullptr ? ops_.b + d_ * 2 * width_ + width_ + 2 * n : nullptr;
      for (std::size_t i = 0; i < product_.size(); ++i)
        product_[i] = bias != nullptr ? bias[i % size(n)] : T(0);
      add_recurrence(h_, 2 * n, n, product_.data(), n);
      each(s, gates, [&](std::size_t at, std::int64_t j, T* gate) {
        gate[2 * n + j] += activate(f_, clipped(gate[n + j], attrs_.clip)) * product_[at];
      });
    } else {
      each(s, gates, [&](std::size_t at, std::int64_t j, const T* gate) {
        product_[at] = activate(f_, clipped(gate[n + j], attrs_.clip)) * h_[at];
      });
      add_recurrence(product_, 2 * n, n, gates + 2 * n, width_);
    }
    each(s, gates, [&](std::size_t at, std::int64_t j, const T* gate) {
      const T z = activate(f_, clipped(gate[j], attrs_.clip));
      h_[at] = (T(1) - z) * activate(g_, clipped(gate[2 * n + j], attrs_.clip)) + z * h_[at];
    });
  }

  // `clip` bounds what goes into f and g, not the cell state that goes into h, as in ONNX Runtime.
  void step_lstm(std::int64_t s, T* gates) {
    const std::int64_t n = hidden_;
    const GateActivation& last = attrs_.of_direction(d_)[2];
    const T* const p = ops_.peepholes != nullptr ? ops_.peepholes + d_ * 3 * n : nullptr;
    add_recurrence(h_, 0, width_, gates, width_);
    each(s, gates, [&](std::size_t at, std::int64_t j, const T* gate) {
      const auto peep = [&](std::int64_t k) { return p != nullptr ? p[k * n + j] * c_[at] : T(0); };
      const T i = activate(f_, clipped(gate[j] + peep(0), attrs_.clip));
      const T f = attrs_.input_forget
                      ? T(1) - i
                      : activate(f_, clipped(gate[2 * n + j] + peep(2), attrs_.clip));
      c_[at] = f * c_[at] + i * activate(g_, clipped(gate[3 * n + j], attrs_.clip));
      const T o = activate(f_, clipped(gate[n + j] + peep(1), attrs_.clip));
      h_[at] = o * activate(last, c_[at]);
    });
  }

  const RecurrentAttrs& attrs_;
  const RecurrentCall& call_;
  const Operands<T>& ops_;
  const std::int64_t d_, begin_, rows_, hidden_, width_;
  GateActivation f_, g_;
  const T* const r_;
  std::vector<T> h_, c_, product_, inputs_, gates_, rounded_;
};

template <class T>
void compute(KernelContext& context, const RecurrentAttrs& attrs, const RecurrentCall& call,
             const Operands<T>& ops) {
  // Sequences at a time: all, where they are rounded together.
  const std::int64_t block = attrs.rounds_state ? std::max<std::int64_t>(call.batch, 1) : 8;
  const std::int64_t blocks = (call.batch + block - 1) / block;
  context.pool().parallel_for(attrs.directions() * blocks, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t begin = task % blocks * block;
    RecurrentBlock<T>(attrs, call, ops, task / blocks, begin, std::min(call.batch, begin + block))
        .run();
  });
}

}  // namespace

template <class T>
T activate_gate(const GateActivation& activation, T x, float clip) {
  return activate(activation, clipped(x, clip));
}

template float activate_gate<float>(const GateActivation&, float, float);
template double activate_gate<double>(const GateActivation&, double, float);

void run_recurrent(KernelContext& context, const RecurrentAttrs& attrs) {
  run_as(context, float_compute_type, [&](KernelContext& inner) {
    const RecurrentCall call = RecurrentCall::of(attrs, inner);
    const DType type = inner.required_input(in::x).dtype();
    const auto wanted = [&](std::size_t index, const Dims& dims) -> Tensor* {
      return inner.wants_output(index) ? &inner.output(index, type, dims) : nullptr;
    };
    Tensor* const y = wanted(0, call.y_dims(attrs));
    Tensor* const y_h = wanted(1, call.state_dims(attrs));
    Tensor* const y_c =
        attrs.cell == RecurrentCell::lstm ? wanted(2, call.state_dims(attrs)) : nullptr;
    dispatch_floats(type, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const auto data = [&](std::size_t index) { return data_or_null<T>(inner.input(index)); };
      const auto target = [](Tensor* tensor) {
        return tensor != nullptr ? tensor->mutable_data<T>().data() : nullptr;
      };
      compute<T>(inner, attrs, call,
                 {data(in::x), data(in::w), data(in::r), data(in::b), data(in::initial_h),
                  data(in::initial_c), data(in::peepholes), target(y), target(y_h), target(y_c)});
    });
  });
}

Kernel prepare_recurrent(const PrepareContext& prepare) {
  return [attrs = RecurrentAttrs::from(prepare.node())](KernelContext& context) {
    run_recurrent(context, attrs);
  };
}

}  // namespace onnxpress
