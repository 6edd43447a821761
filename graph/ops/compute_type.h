// Running a kernel written for a few element types on the others, through conversion.
#pragma once

#include <functional>

#include "graph/ops/kernel.h"

namespace onnxpress {

// float16, bfloat16, float8 and float4 are computed in float32; other types stay.
DType float_compute_type(DType type);
// The same, and integers of at most 32 bits are computed in int64, of which a result keeps the low
// bits: two's complement wrap-around is the same.
DType arithmetic_type(DType type);
// For kernels that only move elements: 4- and 2-bit types in a byte (float4e2m1: float32).
DType movable_type(DType type);

// The elements of `tensor` converted, in memory of its own: what Tensor::cast gives may share the
// input's, which a kernel must not write to.
Tensor copy_as(const Tensor& tensor, DType type);

enum class ConvertedOutputs { all, none };

// Calls `body` with a view of `context` whose inputs of input 0's element type are converted to
// compute_type(that type); outputs the body requests in the computing type are converted back,
// unless `outputs` says that they are what the operator gives (indices, booleans).
void run_as(KernelContext& context, DType (*compute_type)(DType),
            const std::function<void(KernelContext&)>& body,
            ConvertedOutputs outputs = ConvertedOutputs::all);

}  // namespace onnxpress
