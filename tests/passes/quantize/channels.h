// Channels made unlike each other on purpose.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graph/base/random.h"
#include "graph/ops/channel_affine.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {

inline Value& initializer(const Model& model, std::string_view name) {
  Value* value = model.graph.find(name);
  REQUIRE(value != nullptr);
  REQUIRE(value->constant() != nullptr);
  return *value;
}

// 10^U(-decades, decades) for every channel.
inline std::vector<double> unlike_factors(std::size_t channels, std::uint64_t seed, double decades = 2) {
  Random random(seed);
  std::vector<double> factors;
  for (std::size_t c = 0; c < channels; ++c) factors.push_back(std::pow(10, decades * (2 * random.uniform() - 1)));
  return factors;
}

// Multiplies slices of a constant along an axis.
inline void scale_constant(Model& model, std::string_view name, std::int64_t axis, const std::vector<double>& factors, std::int64_t groups = 1) {
  Value& value = initializer(model, name);
  model.graph.set_initializer(&value, scale_slices(*value.constant(), axis, factors, groups));
}

// Largest over smallest magnitude among the slices of a constant along an axis.
inline double spread(const Model& model, std::string_view name, std::int64_t axis) {
  const Tensor& tensor = *initializer(model, name).constant();
  const std::vector<float> values = tensor.to_floats();
  std::vector<double> largest(static_cast<std::size_t>(tensor.dim(static_cast<std::size_t>(axis))));
  for_each_channel_run(tensor.dims(), axis, [&](std::int64_t c, std::int64_t begin, std::int64_t count) {
    for (std::int64_t i = begin; i < begin + count; ++i)
      largest[static_cast<std::size_t>(c)] =
          std::max(largest[static_cast<std::size_t>(c)], static_cast<double>(std::fabs(values[static_cast<std::size_t>(i)])));
  });
  return *std::ranges::max_element(largest) / *std::ranges::min_element(largest);
}

}  // namespace onnxpress
