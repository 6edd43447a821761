// The loops of back-propagation through recurrent networks, compiled for every instruction set and
// chosen at run time. Gates have their usual activations: sigmoid, and tanh for what is new.
#pragma once

#include <cstdint>

namespace onnxpress {

// One step of one sequence, `units` floats of each array for every gate. Going forward, what goes into
// the gates becomes what they give; going back, that becomes the gradient of what went into them.
struct RecurrentStep {
  std::int64_t units;
  float* gates;  // RNN: one; GRU: z, r, h; LSTM: i, o, f, c
  const float* h_before;
  float* h_after;
  const float* c_before;  // LSTM
  float* c_after;
  float* tanh_c;  // of c_after
  // GRU: what the reset gate multiplies (linear_before_reset), or the state that it has multiplied.
  float* product;
};

void rnn_forward(const RecurrentStep& step);
void lstm_forward(const RecurrentStep& step);
void gru_forward(const RecurrentStep& step);  // linear_before_reset
// Otherwise: up to `product`, which R then multiplies; and the rest.
void gru_reset_forward(const RecurrentStep& step);
void gru_update_forward(const RecurrentStep& step);

// `dh` and `dc` are the gradients of the states behind the step, and become those parts of the gradients
// of the states before it that do not come through R.
void rnn_backward(const RecurrentStep& step, float* dh);
void lstm_backward(const RecurrentStep& step, float* dh, float* dc);
// linear_before_reset: `product` becomes the gradient of what R gave for the candidate.
void gru_backward(const RecurrentStep& step, float* dh);
// Otherwise: `dproduct` is the gradient of `product`, through R, between the two.
void gru_update_backward(const RecurrentStep& step, float* dh);
void gru_reset_backward(const RecurrentStep& step, const float* dproduct, float* dh);

}  // namespace onnxpress
