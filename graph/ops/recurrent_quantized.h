// com.microsoft's DynamicQuantizeLSTM: LSTM with 8-bit weights whose operands are quantized when it runs.
//
// Inputs: those of LSTM, W and R as codes [directions, input (hidden), 4 * hidden], then scale and
// zero point of W and of R: [directions] or [directions, 4 * hidden], zero points of the codes' type.
#pragma once

#include "graph/ir/graph.h"

namespace onnxpress {

// The attributes of a DynamicQuantizeLSTM that computes what the LSTM does, whose layout is 0.
Attributes dynamic_lstm_attributes(const Node& lstm);

}  // namespace onnxpress
