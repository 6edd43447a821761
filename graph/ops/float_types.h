// Operators that take float16 or bfloat16 where they have float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/ops/call.h"
#include "graph/ops/infer.h"

namespace onnxpress {

// A node's call with narrower floats: which of its float32 inputs and outputs take the new type.
// Others (scales of Resize, a float32 exponent) stay as they are.
struct NarrowFloatForm {
  std::vector<std::size_t> inputs, outputs;
  Attributes attributes;  // all
};

// The form of `node` in `type` (float16 or bfloat16) for the model's opset; nothing, and `reason`
// says why, where ONNX has none or too little is known of the types. A node without a float32
// input or output has none, and `reason` stays empty.
std::optional<NarrowFloatForm> narrow_float_form(const Node& node, DType type,
                                                 const TypeInference& types,
                                                 std::string* reason = nullptr);

// The ai.onnx opset from which the node's operator takes `type`; 0: none does, or the operator is of another domain.
std::int64_t narrow_float_opset(const Node& node, DType type);

// The node's arithmetic is mostly multiplication of matrices: what a narrow type is for.
bool multiplies_matrices(const Node& node);

// To float32, float16 or bfloat16.
OpCall make_cast(std::int64_t opset, DType to);

}  // namespace onnxpress
