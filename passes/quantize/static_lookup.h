// Embedding tables: rows of codes are looked up, and only those dequantized.
#pragma once

#include "graph/ir/graph.h"
#include "passes/common/quantization.h"

namespace onnxpress {

// Puts DequantizeLinear behind every Gather of the table (its only readers), which then reads codes.
// Rows with scales of their own look these up too, and are dequantized as one block each (opset 21),
// or else by Cast and Mul. Scales are per tensor or by row (axis 0, of a symmetric two-axis table
// that is gathered along axis 0: see lookup_granularity()).
void quantize_lookups(Value& table, const QuantizedTensor& quantized);

// The finest granularity of the scales of a table that quantize_lookups() takes.
Granularity lookup_granularity(const Value& table, bool by_row, bool symmetric);

// Whether nothing but Gather reads the constant, as its data, and Gather takes codes of that type: it
// knows no integers of less than 8 bits and no float8 (opset 26).
bool is_looked_up_as_codes(const Value& table, DType codes);

}  // namespace onnxpress
