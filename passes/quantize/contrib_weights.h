// Weights as com.microsoft stores them: MatMulNBits and GatherBlockQuantized.
#pragma once

#include <optional>
#include <string>

#include "passes/quantize/storage.h"

namespace onnxpress {

// Why the operators that read the weight have no such form, or nothing when all of them have: MatMul
// and Gemm that multiply with it from the right, and Gather of its rows; float32 or float16 matrices.
std::optional<std::string> contrib_obstacle(const Weight& weight, std::int64_t block);

// Puts the quantized weight (in blocks along its inputs) in the place of the float one, and its
// operators' counterparts in theirs. `accuracy_level` is that of MatMulNBits; 0: not said.
void replace_by_contrib(Model& model, const StoredWeight& stored, const QuantizedTensor& quantized,
                        std::int64_t accuracy_level);

}  // namespace onnxpress
