// Loops of rounding by gradient descent, compiled per instruction set.
#pragma once

#include <cstdint>

namespace onnxpress {

// Arrays of these loops have a multiple of so many elements.
inline constexpr std::int64_t rounding_lanes = 64;

// The rectified sigmoid h(v) = clamp(1.2 / (1 + e^-v) - 0.1, 0, 1).
inline constexpr float rectified_low = -0.1F, rectified_high = 1.1F;

// weight = step * (base + h(choice)).
void soften_rounding(const float* base, const float* step, const float* choice, float* weight, std::int64_t count);

// One step of Adam (Kingma and Ba 2015, arXiv 1412.6980).
struct RoundingStep {
  float regularization = 0;  // factor of 1 - |2 h - 1|^exponent in the loss
  float exponent = 2;
  float rate = 0;
  float first_correction = 1, second_correction = 1;  // 1 / (1 - decay^steps)
  static constexpr float first_decay = 0.9F, second_decay = 0.999F;
};

// The gradient of the loss by `choice`, from that by the weights; 0 where h is.
void rounding_gradient(const RoundingStep& step, const float* weight_gradient, const float* steps, const float* choice,
                       float* gradient, std::int64_t count);
// Moves `choice` against its gradient where that is not 0.
void descend_rounding(const RoundingStep& step, const float* gradient, float* choice, float* first_moment,
                      float* second_moment, std::int64_t count);

}  // namespace onnxpress
