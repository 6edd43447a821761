// How each weight of a weight-only quantization is stored, and what that asks of the model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/model.h"
#include "passes/common/quantization.h"
#include "passes/common/weights.h"
#include "passes/quantize/request.h"

namespace onnxpress {

// The newest versions that the runtime named in docs/runtime-support.md loads.
inline constexpr std::int64_t loadable_opset = 26;
inline constexpr std::int64_t loadable_ir_version = 13;

// One weight in the form chosen for it.
struct StoredWeight {
  Weight weight;
  Form form = Form::qdq;  // qdq, contrib or codebook
  QuantizedType type;     // of a codebook: `bits` are those of an index, `storage` its type
  Granularity granularity;
  GridOptions grid;
  std::int64_t opset = 10;  // of ai.onnx, that the form needs
};

struct StoragePlan {
  std::vector<StoredWeight> weights;  // in the order given
  std::int64_t opset = 0;             // the highest that they need; 0: none
  std::vector<NearMiss> left;         // weights that stay as they are, and why
  std::vector<std::string> notes;     // what was given up and why
};

// For each weight the smallest form that is asked for and that the model can reach: types by size
// (first_quantize_opset; 16-bit scales from opset 19), stepping up to a larger one where the model
// has no upgrade to the opset or, with `only_loadable`, where the runtime would not run it right
// (docs/runtime-support.md). Blocks become channels, and these whole tensors, where the weight has
// no such axis or the model does not reach them. A weight that would grow is left. Throws Error when
// the type asked for is out of reach, or nothing is within reach of a weight.
StoragePlan plan_storage(const Model& model, const QuantizeRequest& request,
                         const std::vector<Weight>& weights, std::string_view pass);

// Bytes of codes, scales, zero points, palette, and of the nodes and names around them, at most.
std::size_t stored_bytes(const StoredWeight& stored);

// With `only_loadable`: the type for one weight, larger than `type` where the runtime computes wrong
// results with it (docs/runtime-support.md: 2-bit MatMul and untransposed Gemm weights with a column
// count that is not a multiple of 4, and factors of constants).
DType storage_for(const Weight& weight, DType type, bool only_loadable);

}  // namespace onnxpress
