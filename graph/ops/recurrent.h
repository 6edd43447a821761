// RNN, GRU and LSTM: what the operators share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "graph/ops/infer.h"
#include "graph/ops/kernel.h"

namespace onnxpress {

enum class RecurrentCell { rnn, gru, lstm };

// An activation function of a gate, with its parameters.
struct GateActivation {
  enum class Kind {
    relu,
    tanh,
    sigmoid,
    affine,
    leaky_relu,
    thresholded_relu,
    scaled_tanh,
    hard_sigmoid,
    elu,
    softsign,
    softplus
  };
  Kind kind = Kind::tanh;
  float alpha = 0, beta = 0;

  bool operator==(const GateActivation&) const = default;
};

struct RecurrentAttrs {
  RecurrentCell cell = RecurrentCell::rnn;
  std::int64_t hidden_size = 0;  // 0: not given
  bool reverse = false;          // the only direction, unless bidirectional
  bool bidirectional = false;
  // Of each direction: f (RNN), f and g (GRU), f, g and h (LSTM).
  std::vector<GateActivation> activations;
  float clip = 0;                    // of what goes into f and g; 0: none
  bool input_forget = false;         // LSTM: the forget gate is 1 - the input gate
  bool linear_before_reset = false;  // GRU
  bool batch_first = false;          // layout 1: axis 0 of X, Y and the states is the batch
  // What R multiplies is rounded as DynamicQuantizeLinear rounds it, over the batch, at every step:
  // set by com.microsoft's DynamicQuantizeLSTM. The reference kernel only.
  bool rounds_state = false;

  // Throws Error for unknown activations, directions and values out of range. output_sequence of
  // opset 1 has no effect: Y is computed when it has a name.
  static RecurrentAttrs from(const Node& node);

  std::int64_t directions() const { return bidirectional ? 2 : 1; }
  std::int64_t gates() const;  // weight matrices: 1 (RNN), 3 in the order zrh (GRU), 4: iofc (LSTM)
  // Activations of direction 0 or 1.
  std::span<const GateActivation> of_direction(std::int64_t direction) const;
  bool is_reverse(std::int64_t direction) const { return reverse || direction == 1; }
};

// Inputs by position; initial_c and peepholes are of LSTM only.
namespace recurrent_input {
inline constexpr std::size_t x = 0, w = 1, r = 2, b = 3, sequence_lens = 4, initial_h = 5,
                             initial_c = 6, peepholes = 7, count = 8;
}

struct RecurrentSizes {
  Dim steps, batch, input, hidden;

  // What the inputs' shapes say together (nullptr: omitted or not known), by position. Throws Error
  // when they contradict one another.
  static RecurrentSizes of(const RecurrentAttrs& attrs,
                           const std::vector<const Shape*>& input_shapes);

  Shape sequence_output(const RecurrentAttrs& attrs) const;  // Y
  Shape state(const RecurrentAttrs& attrs) const;            // Y_h, Y_c, initial_h, initial_c
};

// The sizes of a call, and its sequences' lengths.
struct RecurrentCall {
  std::int64_t steps = 0, batch = 0, input = 0, hidden = 0;
  std::vector<std::int64_t> lengths;  // of each sequence, at most `steps`

  // Throws Error for inputs that do not fit together.
  static RecurrentCall of(const RecurrentAttrs& attrs, const KernelContext& context);
  static RecurrentCall of(const RecurrentAttrs& attrs,
                          const std::function<const Tensor*(std::size_t)>& input);

  // The step of X and Y that sequence `b` is at in its `s`th step (s < lengths[b]).
  std::int64_t time(std::int64_t b, std::int64_t s, bool reverse) const {
    return reverse ? lengths[static_cast<std::size_t>(b)] - 1 - s : s;
  }
  // Positions, in rows: of X [steps, batch]; of Y [steps, directions, batch]; of states
  // [directions, batch].
  std::int64_t x_row(const RecurrentAttrs& attrs, std::int64_t t, std::int64_t b) const;
  std::int64_t y_row(const RecurrentAttrs& attrs, std::int64_t t, std::int64_t d,
                     std::int64_t b) const;
  std::int64_t state_row(const RecurrentAttrs& attrs, std::int64_t d, std::int64_t b) const;
  Dims y_dims(const RecurrentAttrs& attrs) const;
  Dims state_dims(const RecurrentAttrs& attrs) const;
};

// A gate's activation of what goes into it, bounded to [-clip, clip] unless that is 0.
template <class T>
T activate_gate(const GateActivation& activation, T x, float clip);

// The reference kernel.
void run_recurrent(KernelContext& context, const RecurrentAttrs& attrs);
Kernel prepare_recurrent(const PrepareContext& prepare);

}  // namespace onnxpress
