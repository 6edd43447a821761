// RNN, GRU and LSTM in float32 with their usual activations, on vector loops.
//
// Units (rows of a gate's weights) are taken in tiles of a vector, all gates of a tile together:
// weights are packed in panels [depth, gates, vector], the product of a step with a panel is all
// that the activations of its units need. The products of X with W are taken for many steps at a
// time.
#include <algorithm>
#include <array>
#include <memory>

#include "graph/kernels/phases.h"
#include "graph/kernels/recurrent_loops.h"
#include "graph/kernels/recurrent_support.h"
#include "graph/kernels/recurrent_weights.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

namespace in = recurrent_input;

// One call: its memory and its phases, which are a projection for every few steps and then one or
// two for each of these steps. Sequences of all directions go on together; position s of a sequence
// is the sth from its end in reverse. Rows are sequences.
class RecurrentRun {
 public:
  RecurrentRun(const RecurrentWeights& weights, const RecurrentCall& call, KernelContext& context)
      : weights_(weights),
        attrs_(weights.attrs()),
        layout_(weights.layout()),
        call_(call),
        rows_(call.batch),
        lanes_(weights.lanes()),
        h_stride_(weights.direction_tiles() * weights.units()),
        longest_(call.lengths.empty() ? 0 : *std::ranges::max_element(call.lengths)),
        block_(std::clamp<std::int64_t>(rows_of_projection / std::max<std::int64_t>(rows_, 1), 1,
                                        std::max<std::int64_t>(longest_, 1))) {
    y_ = wanted(context, 0, call.y_dims(attrs_));
    y_h_ = wanted(context, 1, call.state_dims(attrs_));
    if (is_lstm()) y_c_ = wanted(context, 2, call.state_dims(attrs_));
    lay_out();
    point_to_rows(context.required_input(in::x).data<float>().data());
    load_states(context.input(in::initial_h), is_lstm() ? context.input(in::initial_c) : nullptr);
  }

  void run(ThreadPool& pool) {
    const std::int64_t tiles = weights_.tiles(), directions = attrs_.directions();
    const std::int64_t macs_of_step =
        tiles * weights_.stride() * rows_ * (weights_.input() + weights_.hidden());
    const std::int64_t threads = std::clamp<std::int64_t>(
        macs_of_step / macs_worth_a_thread, 1, std::min<std::int64_t>(pool.size(), tiles));
    // Directions, and sequences, are independent; few of them share the work of every step.
    const std::int64_t groups = std::clamp<std::int64_t>(
        (threads + directions - 1) / directions, 1, std::max<std::int64_t>(rows_ / fewest_rows, 1));
    if (directions * groups >= threads) {
      pool.parallel_for(directions * groups, 1, [&](std::int64_t i, std::int64_t) {
        const std::int64_t d = i / groups, group = i % groups;
        const Part part{.tile = d * weights_.direction_tiles(),
                        .end_tile = (d + 1) * weights_.direction_tiles(),
                        .row = group * rows_ / groups,
                        .end_row = (group + 1) * rows_ / groups};
        for (std::int64_t phase = 0; phase < phases(); ++phase) run_phase(phase, part);
      });
    } else {
      const std::int64_t chunks = std::min(tiles, 2 * threads);
      run_phases(pool, threads, phases(), chunks, [&](std::int64_t phase, std::int64_t chunk) {
        run_phase(phase, {.tile = chunk * tiles / chunks,
                          .end_tile = (chunk + 1) * tiles / chunks,
                          .row = 0,
                          .end_row = rows_});
      });
    }
    if (y_ != nullptr) pad_outputs();
    store_states();
  }

 private:
  static constexpr std::int64_t rows_of_projection = 192;
  static constexpr std::int64_t macs_worth_a_thread = 32768;
  static constexpr std::int64_t fewest_rows = 8;  // for which a thread reads all weights

  // Tiles and rows that are computed together.
  struct Part {
    std::int64_t tile, end_tile, row, end_row;
    std::int64_t rows() const { return end_row - row; }
  };

  static float* wanted(KernelContext& context, std::size_t index, const Dims& dims) {
    if (!context.wants_output(index)) return nullptr;
    return context.output(index, DType::float32, dims).mutable_data<float>().data();
  }

  bool is_lstm() const { return attrs_.cell == RecurrentCell::lstm; }
  bool has_reset_phase() const { return layout_.reset.vectors > 0; }
  std::int64_t direction(std::int64_t tile) const { return tile / weights_.direction_tiles(); }
  std::int64_t first_unit(std::int64_t tile) const {
    return tile % weights_.direction_tiles() * weights_.units();
  }
  std::int64_t length(std::int64_t row) const {
    return call_.lengths[static_cast<std::size_t>(row)];
  }

  void lay_out() {
    const std::int64_t directions = attrs_.directions();
    const std::int64_t gates = weights_.tiles() * block_ * rows_ * weights_.stride();
    const std::int64_t state = directions * rows_ * h_stride_;
    const std::int64_t cells = is_lstm() ? weights_.tiles() * rows_ * lanes_ : 0;
    const std::int64_t reset = has_reset_phase() ? state : 0;
    const std::int64_t x_rows = directions * longest_ * rows_, state_rows = directions * rows_;
    const auto floats = (static_cast<std::size_t>(gates + 2 * state + reset + cells) + 1) / 2 * 2;
    const auto pointers = static_cast<std::size_t>(x_rows + 3 * state_rows);
    std::byte* const memory =
        scratch_memory(floats * sizeof(float) + pointers * sizeof(const float*));
    gates_ = reinterpret_cast<float*>(memory);
    h_ = {gates_ + gates, gates_ + gates + state};
    reset_ = h_[1] + state;
    cells_ = reset_ + reset;
    x_rows_ = reinterpret_cast<const float**>(memory + floats * sizeof(float));
    h_rows_ = {x_rows_ + x_rows, x_rows_ + x_rows + state_rows};
    reset_rows_ = h_rows_[1] + state_rows;
  }

  void point_to_rows(const float* x) {
    for (std::int64_t d = 0; d < attrs_.directions(); ++d) {
      const float** out = x_rows_ + d * longest_ * rows_;
      for (std::int64_t s = 0; s < longest_; ++s)
        for (std::int64_t row = 0; row < rows_; ++row) {
          const std::int64_t t =
              s < length(row) ? call_.time(row, s, attrs_.is_reverse(d)) : 0;  // ended: any row
          *out++ = x + call_.x_row(attrs_, t, row) * weights_.input();
        }
    }
    for (std::int64_t i = 0; i < attrs_.directions() * rows_; ++i) {
      h_rows_[0][i] = h_[0] + i * h_stride_;
      h_rows_[1][i] = h_[1] + i * h_stride_;
      reset_rows_[i] = reset_ + i * h_stride_;
    }
  }

  // body(direction, row, position of the state in Y_h and the like)
  template <class Body>
  void each_state(Body&& body) const {
    for (std::int64_t d = 0; d < attrs_.directions(); ++d)
      for (std::int64_t row = 0; row < rows_; ++row)
        body(d, row, call_.state_row(attrs_, d, row) * weights_.hidden());
  }

  // body(tile, units in it, float of the cell states) for the tiles of a direction.
  template <class Body>
  void each_cell(std::int64_t d, std::int64_t row, Body&& body) const {
    for (std::int64_t tile = d * weights_.direction_tiles(); direction(tile) == d; ++tile)
      body(first_unit(tile), units_in(tile), cells_ + (tile * rows_ + row) * lanes_);
  }

  std::int64_t units_in(std::int64_t tile) const {
    return std::min(weights_.units(), weights_.hidden() - first_unit(tile));
  }

  void load_states(const Tensor* initial_h, const Tensor* initial_c) {
    std::fill_n(h_[0], attrs_.directions() * rows_ * h_stride_, 0.0f);
    if (initial_h != nullptr) {
      const float* const from = initial_h->data<float>().data();
      each_state([&](std::int64_t d, std::int64_t row, std::int64_t at) {
        std::copy_n(from + at, weights_.hidden(), h_[0] + (d * rows_ + row) * h_stride_);
      });
    }
    if (!is_lstm()) return;
    std::fill_n(cells_, weights_.tiles() * rows_ * lanes_, 0.0f);
    if (initial_c == nullptr) return;
    const float* const from = initial_c->data<float>().data();
    each_state([&](std::int64_t d, std::int64_t row, std::int64_t at) {
      each_cell(d, row, [&](std::int64_t unit, std::int64_t count, float* cell) {
        std::copy_n(from + at + unit, count, cell);
      });
    });
  }

  // Zeros for empty sequences, as the reference kernel has it.
  void store_states() const {
    each_state([&](std::int64_t d, std::int64_t row, std::int64_t at) {
      const bool is_empty = length(row) == 0;
      const float* const h = h_[longest_ % 2] + (d * rows_ + row) * h_stride_;
      if (y_h_ != nullptr && is_empty) std::fill_n(y_h_ + at, weights_.hidden(), 0.0f);
      if (y_h_ != nullptr && !is_empty) std::copy_n(h, weights_.hidden(), y_h_ + at);
      if (y_c_ == nullptr) return;
      each_cell(d, row, [&](std::int64_t unit, std::int64_t count, const float* cell) {
        if (is_empty)
          std::fill_n(y_c_ + at + unit, count, 0.0f);
        else
          std::copy_n(cell, count, y_c_ + at + unit);
      });
    });
  }

  void pad_outputs() const {
    for (std::int64_t row = 0; row < rows_; ++row)
      for (std::int64_t t = length(row); t < call_.steps; ++t)
        for (std::int64_t d = 0; d < attrs_.directions(); ++d)
          std::fill_n(y_ + call_.y_row(attrs_, t, d, row) * weights_.hidden(), weights_.hidden(),
                      0.0f);
  }

  float* gates(std::int64_t tile, std::int64_t i) const {
    return gates_ + (tile * block_ + i) * rows_ * weights_.stride();
  }

  std::int64_t step_phases() const { return has_reset_phase() ? 2 : 1; }
  // Of a projection and its steps.
  std::int64_t group_phases() const { return 1 + block_ * step_phases(); }
  std::int64_t phases() const {
    const std::int64_t rest = longest_ % block_;
    return longest_ / block_ * group_phases() + (rest > 0 ? 1 + rest * step_phases() : 0);
  }

  // Tiles go there and back, so that a step begins with the weights that the one before has left
  // in the cache.
  void run_phase(std::int64_t phase, const Part& part) const {
    const std::int64_t first = phase / group_phases() * block_, in_group = phase % group_phases();
    const std::int64_t i = (in_group - 1) / step_phases();
    for (std::int64_t n = part.tile; n < part.end_tile; ++n) {
      const std::int64_t tile = i % 2 == 0 ? n : part.tile + part.end_tile - 1 - n;
      if (in_group == 0)
        project(tile, part, first);
      else if ((in_group - 1) % step_phases() == 0)
        step(tile, part, first, i);
      else
        finish_step(tile, part, first, i);
    }
  }

  // X W^T + bias of the steps from `first` on.
  void project(std::int64_t tile, const Part& part, std::int64_t first) const {
    const std::int64_t steps = std::min(block_, longest_ - first);
    const bool all = part.rows() == rows_;  // then the rows of all steps follow one another
    for (std::int64_t i = 0; i < (all ? 1 : steps); ++i) {
      const std::int64_t rows = all ? steps * rows_ : part.rows();
      const float* const bias = weights_.bias(tile);
      float* const out = gates(tile, i) + part.row * weights_.stride();
      panel_product({.vectors = layout_.input.vectors,
                     .depth = weights_.input(),
                     .panel = weights_.w(tile),
                     .a = x_rows_ + (direction(tile) * longest_ + first + i) * rows_ + part.row,
                     .rows = rows,
                     .start = bias,
                     .start_stride = 0,
                     .out = out,
                     .out_stride = weights_.stride()});
      const std::int64_t written = layout_.input.vectors * lanes_;
      const std::int64_t left = weights_.stride() - written;
      for (std::int64_t row = 0; left > 0 && row < rows; ++row)
        std::copy_n(bias + written, left, out + row * weights_.stride() + written);
    }
  }

  void add_product(const RecurrentPanel& panel, const float* weights, const float* const* a,
                   const GateTile& t) const {
    float* const out = t.gates + panel.slot * lanes_;
    panel_product({.vectors = panel.vectors,
                   .depth = weights_.hidden(),
                   .panel = weights,
                   .a = a,
                   .rows = t.rows,
                   .start = out,
                   .start_stride = weights_.stride(),
                   .out = out,
                   .out_stride = weights_.stride()});
  }

  GateTile gate_tile(std::int64_t tile, const Part& part, std::int64_t first,
                     std::int64_t i) const {
    const std::int64_t s = first + i;
    const std::int64_t offset = state_row(tile, part) * h_stride_ + first_unit(tile);
    return {.rows = part.rows(),
            .lengths = call_.lengths.data() + part.row,
            .step = s,
            .gates = gates(tile, i) + part.row * weights_.stride(),
            .gate_stride = weights_.stride(),
            .h_before = h_[s % 2] + offset,
            .h_after = h_[(s + 1) % 2] + offset,
            .reset = reset_ + offset,
            .h_stride = h_stride_,
            .c = cells_ + (tile * rows_ + part.row) * lanes_};
  }

  // Of the part's first sequence.
  std::int64_t state_row(std::int64_t tile, const Part& part) const {
    return direction(tile) * rows_ + part.row;
  }

  // Step first + i; of a GRU without linear_before_reset up to r * h.
  void step(std::int64_t tile, const Part& part, std::int64_t first, std::int64_t i) const {
    const GateTile t = gate_tile(tile, part, first, i);
    add_product(layout_.recurrent, weights_.r(tile), h_rows_[t.step % 2] + state_row(tile, part),
                t);
    if (has_reset_phase()) return gru_reset_gates(t);
    switch (attrs_.cell) {
      case RecurrentCell::rnn:
        rnn_gates(t, attrs_.activations[0].kind == GateActivation::Kind::relu);
        break;
      case RecurrentCell::gru:
        gru_gates(t);
        break;
      case RecurrentCell::lstm:
        lstm_gates(t);
        break;
    }
    write_output(tile, part, t);
  }

  void finish_step(std::int64_t tile, const Part& part, std::int64_t first, std::int64_t i) const {
    const GateTile t = gate_tile(tile, part, first, i);
    add_product(layout_.reset, weights_.reset(tile), reset_rows_ + state_row(tile, part), t);
    gru_update_gates(t);
    write_output(tile, part, t);
  }

  void write_output(std::int64_t tile, const Part& part, const GateTile& t) const {
    if (y_ == nullptr) return;
    const std::int64_t d = direction(tile), count = units_in(tile);
    for (std::int64_t row = part.row; row < part.end_row; ++row) {
      if (t.step >= length(row)) continue;
      const std::int64_t time = call_.time(row, t.step, attrs_.is_reverse(d));
      std::copy_n(t.h_after + (row - part.row) * h_stride_, count,
                  y_ + call_.y_row(attrs_, time, d, row) * weights_.hidden() + first_unit(tile));
    }
  }

  const RecurrentWeights& weights_;
  const RecurrentAttrs& attrs_;
  const RecurrentLayout& layout_;
  const RecurrentCall& call_;
  const std::int64_t rows_, lanes_, h_stride_;
  const std::int64_t longest_;  // sequence
  const std::int64_t block_;    // steps of a projection
  float *y_ = nullptr, *y_h_ = nullptr, *y_c_ = nullptr;
  float* gates_ = nullptr;          // [tiles, block, rows, stride]
  std::array<float*, 2> h_{};       // [directions, rows, h_stride]: before and after even steps
  float* reset_ = nullptr;          // the same: r * h
  float* cells_ = nullptr;          // [tiles, rows, lanes]
  const float** x_rows_ = nullptr;  // [directions, longest, rows]
  std::array<const float**, 2> h_rows_{};  // [directions, rows]
  const float** reset_rows_ = nullptr;
};

bool is_float(const Type* type) {
  return type != nullptr && type->is_tensor() && type->elem == DType::float32;
}

bool has_usual_activations(const RecurrentAttrs& attrs) {
  using Kind = GateActivation::Kind;
  for (std::int64_t d = 0; d < attrs.directions(); ++d) {
    const auto given = attrs.of_direction(d);
    if (attrs.cell == RecurrentCell::rnn) {
      const bool same = given[0] == attrs.activations[0];
      if (!same || (given[0].kind != Kind::tanh && given[0].kind != Kind::relu)) return false;
      continue;
    }
    if (given[0].kind != Kind::sigmoid) return false;
    for (const GateActivation& activation : given.subspan(1))
      if (activation.kind != Kind::tanh) return false;
  }
  return true;
}

bool supports_recurrent(const PrepareContext& context) {
  return has_vector_kernel(RecurrentAttrs::from(context.node()), context);
}

// Throws Error for weights that do not fit together.
void check_weights(const RecurrentAttrs& attrs, const PrepareContext& context) {
  std::array<Shape, in::b + 1> shapes;
  std::vector<const Shape*> given(in::b + 1, nullptr);
  for (const std::size_t i : {in::w, in::r, in::b}) {
    const Tensor* tensor = context.constant_input(i);
    if (tensor == nullptr) continue;
    require(tensor->dtype() == DType::float32, "expected float32 for input {}, found {}", i,
            name(tensor->dtype()));
    shapes[i] = to_shape(tensor->dims());
    given[i] = &shapes[i];
  }
  RecurrentSizes::of(attrs, given);
}

// Weights that are computed, or trained, are packed in every call.
Kernel prepare_recurrent_vectors(const PrepareContext& context) {
  const RecurrentAttrs attrs = RecurrentAttrs::from(context.node());
  check_weights(attrs, context);
  const bool has_weights = context.constant_input(in::w) != nullptr && context.constant_input(in::r) != nullptr &&
                           (context.input_type(in::b) == nullptr || context.constant_input(in::b) != nullptr);
  std::shared_ptr<const RecurrentWeights> packed;
  if (has_weights)
    packed = std::make_shared<const RecurrentWeights>(attrs, *context.constant_input(in::w), *context.constant_input(in::r),
                                                      context.constant_input(in::b));
  return [attrs, packed](KernelContext& call_context) {
    const RecurrentCall call = RecurrentCall::of(attrs, call_context);
    if (packed) return RecurrentRun(*packed, call, call_context).run(call_context.pool());
    const RecurrentWeights weights(attrs, call_context.required_input(in::w), call_context.required_input(in::r),
                                   call_context.input(in::b));
    RecurrentRun(weights, call, call_context).run(call_context.pool());
  };
}

}  // namespace

bool has_vector_kernel(const RecurrentAttrs& attrs, const PrepareContext& context) {
  const auto is_given = [&](std::size_t index) { return context.input_type(index) != nullptr; };
  const bool are_floats = is_float(context.input_type(in::x)) && is_float(context.input_type(in::w)) && is_float(context.input_type(in::r)) &&
                          (!is_given(in::b) || is_float(context.input_type(in::b)));
  return are_floats && has_usual_activations(attrs) && attrs.clip == 0 && !attrs.input_forget && !attrs.rounds_state &&
         (attrs.cell != RecurrentCell::lstm || !is_given(in::peepholes));
}

OPERATORS(vector_recurrent) {
  for (const char* name : {"RNN", "GRU", "LSTM"})
    registry.add(KernelDef{.name = name,
                           .backend = "vector",
                           .supports = supports_recurrent,
                           .prepare = prepare_recurrent_vectors});
}

}  // namespace onnxpress
