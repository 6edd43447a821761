// What brings a student's values to the width of a teacher's while it is trained.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// The axis of a value's channels: 1 behind convolutions, pooling and what follows them, else the last
// (products, embeddings, normalizations over rows).
std::size_t channel_axis(const Value& value);

struct Regressor {
  Value* value = nullptr;               // what was regressed
  std::vector<std::string> parameters;  // initializers that were added
};

// Adds a learned linear map of the channels from `value` to `channels` of them: a convolution of one
// position, or a product (Romero et al. 2015, "FitNets"). Weights are drawn by `seed`.
// Throws Error where the value's channels are not known.
Regressor add_regressor(Model& model, Value* value, std::int64_t channels, std::uint64_t seed);

}  // namespace onnxpress
