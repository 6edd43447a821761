// Weights and biases of a statically quantized model.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "passes/common/weights.h"
#include "passes/quantize/rounding.h"
#include "passes/quantize/static_grids.h"
#include "passes/quantize/static_plan.h"

namespace onnxpress {

// One constant that becomes codes.
struct StaticWeight {
  Weight weight;
  QuantizedType type;
  Granularity granularity;
  std::vector<std::size_t> readers;  // places in StaticPlan::nodes
  RoundingResult rounded;
};

// The weights that the plan quantizes, each once, with what their scales belong to.
std::vector<StaticWeight> static_weights(const Model& model, const StaticPlan& plan, const StaticTypes& kinds,
                                         const QuantizeRequest& request);

// A bias as int32 in units of its product: the scales of input and weight multiplied (Jacob et al.
// 2018, arXiv 1712.05877, section 2.4).
struct StaticBias {
  std::size_t place = 0;  // of its node in the plan
  Value* value = nullptr;
  Tensor codes, scale;
  double snr_db = 0;
};

// Nodes on codes, by place, whose float16 bias ONNX Runtime would get wrong: it makes int32 of it by itself,
// with a scale and codes that are float16 in between, and that scale is too small by more than raising
// the weight's makes up for.
std::map<std::size_t, std::string> half_bias_obstacles(const StaticPlan& plan, const std::vector<StaticWeight>& weights,
                                                       const std::vector<ActivationGrid>& grids, const StaticTypes& kinds);

// Biases of nodes on codes. Where a bias does not fit into int32 (or float16) the scale of that channel
// of the weight is raised, and the weight rounded anew: `notes` say so.
std::vector<StaticBias> static_biases(const StaticPlan& plan, std::vector<StaticWeight>& weights,
                                      const std::vector<ActivationGrid>& grids, const StaticTypes& kinds,
                                      std::vector<std::string>& notes);

}  // namespace onnxpress
