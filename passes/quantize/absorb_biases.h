// High biases, moved from in front of a Relu to the operators behind it.
#pragma once

#include <cstddef>

#include "graph/ir/model.h"
#include "passes/core/selector.h"

namespace onnxpress {

enum class AbsorbWhat { proven, likely };

struct AbsorbedBiases {
  std::size_t channels = 0;
  std::size_t likely = 0;  // of them by statistics, not proof
};

// Where z of Relu(z) is never below c > 0, Relu(z) = Relu(z - c) + c: c leaves the bias of what makes
// z, and W c goes into the biases of the linear operators that read the Relu (Nagel et al. 2019, arXiv
// 1906.04721, section 4.1.3), which makes the range of the value between smaller.
//
// c is proven where z = W x + b, no weight of the channel is negative and x is not (as behind Relu,
// Sigmoid and the like): it is b. What is likely is 3 standard deviations below the mean where a
// BatchNormalization makes z: beta - 3 |gamma|; the result then differs where z is below. Readers that pad x cannot take it. Relus that nothing
// else but selected linear operators read.
AbsorbedBiases absorb_biases(Model& model, const Selector& selector, AbsorbWhat what);

}  // namespace onnxpress
