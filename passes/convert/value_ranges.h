// How large the values of a model become.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "passes/core/pass.h"

namespace onnxpress {

// Largest finite magnitudes seen of the float32 values of the main graph, by name.
struct ValueRanges {
  std::map<std::string, double, std::less<>> largest;
  std::string source;  // of the data, for people
  std::int64_t samples = 0;
  bool generated = false;  // random inputs: real ones may be larger

  // Nothing is known of a value that is not in `largest`.
  double of(const Value& value) const {
    const auto found = largest.find(value.name());
    return found == largest.end() ? 0.0 : found->second;
  }
};

// Runs the model on the calibration data, or on a few generated inputs when there is none. Throws
// Error when the engine cannot run it.
ValueRanges observe_ranges(const Model& model, PassContext& context);

}  // namespace onnxpress
