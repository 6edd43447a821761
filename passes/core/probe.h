// Outputs on probe inputs, and what a declared effect allows of their difference.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/exec/dataset.h"
#include "graph/exec/input_shapes.h"
#include "graph/exec/metrics.h"
#include "passes/core/pass.h"

namespace onnxpress {

// Per probe set, the model's outputs in order.
using ProbeOutputs = std::vector<std::vector<Tensor>>;

enum class ProbeKernels {
  lean,       // fast ones, on large weights as they lie (EngineOptions::lean)
  fast,
  reference,  // the plain ones
};

// Multiplications of a run with open dims of inputs as given, or else 1.
std::int64_t shaped_macs(const Model& model, const InputShapes& shapes);

// Sets of random inputs (probe_inputs): the fewer, the more a run costs. `macs`: shaped_macs.
std::vector<std::vector<Tensor>> generate_probes(const Model& model, std::int64_t macs,
                                                 std::uint64_t seed, const InputRanges& ranges,
                                                 const InputShapes& shapes);

// Runs the model on every set. Throws Error.
ProbeOutputs run_probes(const Model& model, const std::vector<std::vector<Tensor>>& probes,
                        ProbeKernels kernels, int threads);
inline ProbeOutputs run_probes(const Model& model, const std::vector<std::vector<Tensor>>& probes,
                               bool reference, int threads) {
  return run_probes(model, probes, reference ? ProbeKernels::reference : ProbeKernels::fast, threads);
}

// Per output of `model`. Positions that are NaN on both sides, or the same infinity, are equal;
// outputs that changed type or dims are infinitely far, and so are unequal strings.
std::vector<OutputError> measure_errors(const Model& model, const ProbeOutputs& expected,
                                        const ProbeOutputs& found);

// How outputs break the effect, or nothing: `exact` is equality of bits (any NaN equals any),
// `rounding` 1e-5 of the output's range beside a few units in the last place of its largest
// value, or twice what the order of summation makes of the model as it was (`own_rounding`, when
// given: the errors between the plain kernels and the fast ones), `approximate` an SNR of at least `min_snr_db` of every floating-point output. Other than
// for `lossy`, element types and dims stay.
std::optional<std::string> broken_effect(Effect effect, double min_snr_db,
                                         const ProbeOutputs& expected, const ProbeOutputs& found,
                                         const std::vector<OutputError>& errors,
                                         const std::vector<OutputError>& own_rounding = {});

}  // namespace onnxpress
