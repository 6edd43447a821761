// Scales and zero points of activations.
#pragma once

#include <optional>
#include <vector>

#include "passes/common/calibration.h"
#include "passes/common/rounding_error.h"
#include "passes/quantize/static_plan.h"

namespace onnxpress {

// The grid of one group of values.
struct ActivationGrid {
  ActivationType type;
  QuantizationParameters parameters;
  float low = 0, high = 0;  // range it was chosen for
  DType scale_type = DType::float32;
  bool is_unmasked = false;  // the range leaves out what a mask makes (softmax_range.h)

  Tensor scale() const;
  Tensor zero_point() const;  // of the codes' type
  // Codes that QuantizeLinear makes of all values from `low` on downwards, and from `high` on
  // upwards, are the same: clipping to these bounds first changes nothing. Infinite: no bound.
  bool saturates_at(double low, double high) const;
};

// One grid for a range, which is widened to hold zero.
ActivationGrid make_activation_grid(float low, float high, const ActivationType& type, bool power_of_two,
                                    DType scale_type = DType::float32);

// That of a constant which arithmetic on codes reads: of its own range, without what is masked.
ActivationGrid operand_grid(const StaticPlan& plan, const Value& constant, const ActivationType& type);

// One grid per group of the plan. Values that nothing is known of, or that held NaN or infinity, are
// added to `refused`: the plan is then to be made anew.
std::vector<ActivationGrid> choose_activation_grids(const StaticPlan& plan, const Calibration& calibration,
                                                    const StaticTypes& kinds, const QuantizeRequest& request,
                                                    const TypeInference& types, Exclusions& refused);

// What an integer grid does to values with these statistics; nothing for others, and without a
// histogram.
std::optional<RoundingError> expected_error(const ValueStatistics& statistics, const ActivationGrid& grid);

}  // namespace onnxpress
