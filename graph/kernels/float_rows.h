// Operators that work on contiguous rows of float32: which nodes do, and how long their rows are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "graph/ops/kernel.h"

namespace onnxpress {

// Elements from the axis of Softmax or LogSoftmax on, when they are the rows it works on.
std::optional<std::int64_t> softmax_row_size(const PrepareContext& context);
bool has_softmax_rows(const PrepareContext& context);

// The dims that LayerNormalization or RMSNormalization normalizes over.
Dims layer_norm_row(const PrepareContext& context);
// Scale and bias are of these dims. Not where the node gives its mean and inverse deviation.
bool has_layer_norm_rows(const PrepareContext& context);

// Rows of a task.
inline std::int64_t row_block(std::int64_t size) {
  constexpr std::int64_t elements = 8192;
  return std::max<std::int64_t>(1, elements / size);
}

}  // namespace onnxpress
