// The loops of recurrent networks, compiled for every instruction set and chosen at run time.
#pragma once

#include <cstdint>

namespace onnxpress {

// Floats in a vector of this processor: L below.
std::int64_t vector_lanes();

// out[row, 0..vectors*L) = start[row, ...] + sum over k < depth of a[row][k] * panel[k, ...].
// `vectors` from 1 to 4. The panel and rows of `start` and `out`, which may be the same, are
// aligned to vectors; strides in floats, 0 for a start that all rows share.
struct PanelProduct {
  std::int64_t vectors, depth;
  const float* panel;
  const float* const* a;
  std::int64_t rows;
  const float* start;
  std::int64_t start_stride;
  float* out;
  std::int64_t out_stride;
};
void panel_product(const PanelProduct& product);

// One step of the L (RNN: 4 L) units of a tile, for some sequences. What goes into the activations
// is in `gates`; sequences that have ended keep their state.
struct GateTile {
  std::int64_t rows;
  const std::int64_t* lengths;  // of the sequences
  std::int64_t step;
  float* gates;
  std::int64_t gate_stride;
  const float* h_before;  // [rows, h_stride] from the first unit of the tile on
  float* h_after;
  float* reset;  // laid out as h: GRU without linear_before_reset
  std::int64_t h_stride;
  float* c;  // [rows, L]: LSTM
};
void rnn_gates(const GateTile& tile, bool relu);  // 4 vectors
void lstm_gates(const GateTile& tile);            // i, o, f, c
// h of X, z, r, h of the recurrence (linear_before_reset).
void gru_gates(const GateTile& tile);
// h, z, r: `reset` = r * h, z replaced by its activation; then, h being complete, the new state.
void gru_reset_gates(const GateTile& tile);
void gru_update_gates(const GateTile& tile);

}  // namespace onnxpress
