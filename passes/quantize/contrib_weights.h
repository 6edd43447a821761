// Weights as com.microsoft stores them: MatMulNBits and GatherBlockQuantized.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "graph/base/threads.h"
#include "passes/quantize/storage.h"

namespace onnxpress {

// Why the operators that read the weight have no such form, or nothing when all of them have: MatMul
// and Gemm that multiply with it from the right, and Gather of its rows; float32 or float16 matrices.
std::optional<std::string> contrib_obstacle(const Weight& weight, std::int64_t block);

// A quantized weight (in blocks along its inputs) as the operators read it, one row for each output.
struct ContribWeight {
  std::int64_t rows = 0, depth = 0, blocks = 0, bits = 0;
  Tensor codes;        // uint8 [rows, blocks * block * bits / 8]
  Tensor scales;       // [rows, blocks]
  Tensor zero_points;  // uint8 [rows, bytes]; undefined: the middle

  ContribWeight(const StoredWeight& stored, const QuantizedTensor& quantized, ThreadPool& pool);
};

// Puts the weight in the place of the float one, and its operators' counterparts in theirs.
// `accuracy_level` is that of MatMulNBits; 0: not said.
void replace_by_contrib(Model& model, const StoredWeight& stored, const ContribWeight& packed,
                        std::int64_t accuracy_level);

}  // namespace onnxpress
