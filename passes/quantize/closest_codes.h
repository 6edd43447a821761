// The codes of a short row that err least, by exhaustive search within bounds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "passes/common/quantization.h"

namespace onnxpress {

// A row w* of `depth` elements whose codes are to minimize (w* - w') H (w* - w')^T, H = L L^T.
struct CodeSearch {
  std::span<const float> factor;  // [depth, depth]: L, lower triangle
  std::span<const float> target;  // [depth]: w*
  std::span<const QuantizationParameters> parameters;  // [depth]
  QuantizedType type;
};

// Lowers the error of `codes` [depth] as far as it goes: depth-first from the last element to the first,
// the nearest levels first, cut where the error so far is not below the best (Schnorr and Euchner 1994;
// Agrell, Eriksson, Vardy and Zeger 2002, "Closest point search in lattices"). Ends after `most` levels
// tried with the best so far. Whether `codes` changed.
bool find_closest_codes(const CodeSearch& search, std::int64_t most, std::span<std::int32_t> codes);

}  // namespace onnxpress
