// Biases corrected by what quantization does to the mean of every channel.
#pragma once

#include "graph/ir/model.h"
#include "passes/core/pass.h"
#include "passes/quantize/request.h"

namespace onnxpress {

// Rounded weights shift the mean of what a linear operator makes: E[y'] - E[y], by channel, which the
// bias of the operator in `quantized` is lowered by (Nagel et al. 2019, arXiv 1906.04721, section 4.2).
//
// - empirical: both means are measured on context.calibration (at most a few hundred samples), operator
//   after operator, those before being corrected already (appendix D).
// - analytic: (W' - W) E[x], with E[x] from AssumedMoments: no data.
//
// `original` is the model before; operators go together by the names of their results, or their own.
// Biases are float constants, int32 constants behind DequantizeLinear (moved by whole quanta), or the
// constant that an Add behind a product adds; a convolution or Gemm without one gets one, int32 where
// its operands are quantized. What cannot be corrected is told to context.near_misses and counted.
// Adds counts ("biases_corrected") and notes to `outcome`. Throws Error for empirical without data.
void correct_biases(Model& quantized, const Model& original, BiasCorrection how, PassContext& context,
                    Outcome& outcome);

}  // namespace onnxpress
