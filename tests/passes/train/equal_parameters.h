// What exporters write of a network that was not trained: parameters that are equal are one.
#pragma once

namespace onnxpress {

inline constexpr const char* equal_parameters = R"(model ir=8 opset=17
input x: float32[n,2]
initializer w1: float32[2,4] = random(1)
initializer w2: float32[4,4] = random(2)
initializer ones: float32[4] = ones
initializer zeros: float32[4] = zeros
scale2 = Identity(ones)
mean2 = Identity(zeros)
a = MatMul(x, w1)
b = BatchNormalization(a, ones, zeros, zeros, ones)
r = Tanh(b)
c = MatMul(r, w2)
y: float32[n,4] = BatchNormalization(c, scale2, zeros, mean2, ones)
output y: float32[n,4]
)";

}  // namespace onnxpress
