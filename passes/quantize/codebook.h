// Weights as a palette of floats and indices into it (Han, Mao and Dally, "Deep Compression", arXiv
// 1510.00149, section 3).
#pragma once

#include <cstdint>
#include <optional>

#include "passes/quantize/storage.h"

namespace onnxpress {

// A weight's indices, of the weight's dims, and palettes [palettes * 2^bits] one behind the other, in
// the weight's type. Palettes in ascending order; what is not needed repeats the last number.
struct Codebook {
  Tensor indices, palette;
  double snr_db = 0;       // inf when exact
  std::int64_t zeros = 0;  // elements that are exactly zero
};

// That Cast from the indices' type needs.
std::int64_t codebook_opset(DType indices);
// Which elements share a palette: all; or (a block of) the channels. Per channel there are as few
// channels to a palette as keep the palettes within an eighth of the indices' bytes.
Granularity palette_groups(const Weight& weight, const QuantizeRequest& request, int bits);
// Of palettes, and of what leads from a channel to its own.
std::size_t palette_bytes(const StoredWeight& stored);

// k-means of the elements that share a palette. Where as many elements are zero as a palette's number
// stands for on average, zero is one of its numbers. Nothing when the weight holds NaN or infinity.
std::optional<Codebook> make_codebook(const StoredWeight& stored, ThreadPool& pool);

// Cast of the indices, plus the palette's place by channel where there are several, and Gather.
void replace_by_codebook(const StoredWeight& stored, const Codebook& codebook);

}  // namespace onnxpress
