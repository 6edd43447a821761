// Which element type stores quantized weights, and what it asks of the model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/base/dtype.h"
#include "graph/ir/model.h"
#include "passes/common/weights.h"

namespace onnxpress {

// What the user asked of a weight-only quantization.
struct StorageRequest {
  int bits = 8;                 // levels: 2^bits
  bool symmetric = true;        // signed storage, no zero point
  bool per_channel = true;
  bool only_loadable = true;    // nothing that the reference runtime does not run
};

// The newest versions that the runtime named in docs/runtime-support.md loads.
inline constexpr std::int64_t loadable_opset = 26;
inline constexpr std::int64_t loadable_ir_version = 13;

struct StoragePlan {
  DType type = DType::int8;
  bool per_channel = true;
  std::int64_t opset = 10;             // that DequantizeLinear needs for the weights in this form
  std::vector<std::string> notes;      // what was given up and why
};

// The smallest form that holds the levels and that the model can reach: types by size (2-bit from
// opset 25, 4-bit from 21, 8-bit from 10, per channel from 13, 16-bit scales from 19), stepping up
// to a larger one where the model has no upgrade to the opset or, with `only_loadable`, where the
// runtime would not run it. Throws Error when the model reaches none of them.
StoragePlan plan_storage(const Model& model, const StorageRequest& request,
                         const std::vector<Weight>& weights);

// With `only_loadable`: the type for one weight, larger than `type` where the runtime computes wrong
// results with it (docs/runtime-support.md: 2-bit MatMul and untransposed Gemm weights with a column count that is not a
// multiple of 4).
DType storage_for(const Weight& weight, DType type, bool only_loadable);

}  // namespace onnxpress
