// What every gradient row is tried on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onnxpress {

// One node whose float64 initializers are differentiated, but those named k_...
struct GradientCase {
  std::string body;  // model text
  std::int64_t opset = 17;
  double low = -1, high = 1;  // range of the float64 initializers
};

std::vector<GradientCase> unary_gradient_cases();
std::vector<GradientCase> arithmetic_gradient_cases();
std::vector<GradientCase> neural_gradient_cases();
std::vector<GradientCase> movement_gradient_cases();
std::vector<GradientCase> reduce_gradient_cases();
std::vector<GradientCase> recurrent_gradient_cases();
std::vector<GradientCase> loss_gradient_cases();

}  // namespace onnxpress
