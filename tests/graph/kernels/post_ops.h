// What operations behind a node give, by their formulas in float64.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {

// One of each kind; those with an operand read input `operand`.
inline std::vector<PostOp> all_post_ops(std::size_t operand) {
  using Kind = PostOp::Kind;
  return {{.kind = Kind::relu},
          {.kind = Kind::leaky_relu, .alpha = 0.3f},
          {.kind = Kind::clip, .alpha = -0.5f, .beta = 0.75f},
          {.kind = Kind::elu, .alpha = 1.5f},
          {.kind = Kind::sigmoid},
          {.kind = Kind::tanh},
          {.kind = Kind::hard_sigmoid, .alpha = 0.25f, .beta = 0.4f},
          {.kind = Kind::hard_swish},
          {.kind = Kind::swish, .alpha = 1.7f},
          {.kind = Kind::mish},
          {.kind = Kind::gelu},
          {.kind = Kind::gelu_tanh},
          {.kind = Kind::linear, .alpha = -0.5f, .beta = 2},
          {.kind = Kind::softplus},
          {.kind = Kind::erf},
          {.kind = Kind::exp},
          {.kind = Kind::sqrt},
          {.kind = Kind::abs},
          {.kind = Kind::reciprocal},
          {.kind = Kind::add, .operand = operand},
          {.kind = Kind::multiply, .operand = operand}};
}

inline double post_op_value(const PostOp& op, double x, double operand) {
  using Kind = PostOp::Kind;
  const double alpha = static_cast<double>(op.alpha), beta = static_cast<double>(op.beta);
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  switch (op.kind) {
    case Kind::relu:
      return x < 0 ? 0 : x;
    case Kind::leaky_relu:
      return x < 0 ? alpha * x : x;
    case Kind::clip:
      return std::clamp(x, alpha, beta);
    case Kind::elu:
      return x < 0 ? alpha * std::expm1(x) : x;
    case Kind::sigmoid:
      return sigmoid(x);
    case Kind::tanh:
      return std::tanh(x);
    case Kind::hard_sigmoid:
      return std::clamp(alpha * x + beta, 0.0, 1.0);
    case Kind::hard_swish:
      return x * std::clamp(x / 6 + 0.5, 0.0, 1.0);
    case Kind::swish:
      return x * sigmoid(alpha * x);
    case Kind::mish:
      return x * std::tanh(std::log1p(std::exp(x)));
    case Kind::gelu:
      return x / 2 * (1 + std::erf(x / std::numbers::sqrt2));
    case Kind::gelu_tanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Kind::linear:
      return alpha * x + beta;
    case Kind::softplus:
      return std::log1p(std::exp(x));
    case Kind::erf:
      return std::erf(x);
    case Kind::exp:
      return std::exp(x);
    case Kind::sqrt:
      return std::sqrt(x);
    case Kind::abs:
      return std::abs(x);
    case Kind::reciprocal:
      return 1 / x;
    case Kind::add:
      return x + operand;
    case Kind::multiply:
      return x * operand;
  }
  return 0;
}

// `values` behind `ops`; operands are among the inputs of `test`.
inline Tensor with_post_ops(const Case& test, const Tensor& values,
                            const std::vector<PostOp>& ops) {
  Tensor result(DType::float32, values.dims());
  const auto in = values.data<float>();
  const auto out = result.mutable_data<float>();
  for (std::size_t i = 0; i < in.size(); ++i) {
    double value = static_cast<double>(in[i]);
    for (const PostOp& op : ops) {
      const bool has_operand = op.kind == PostOp::Kind::add || op.kind == PostOp::Kind::multiply;
      const float other = has_operand ? test.inputs().at(op.operand).data<float>()[i] : 0.0f;
      value = post_op_value(op, value, static_cast<double>(other));
    }
    out[i] = static_cast<float>(value);
  }
  return result;
}

// The fast row with options.post_ops gives what the formulas make of the reference row's output.
inline void check_post_ops(const std::string& text, double tolerance, const RowOptions& options,
                           int opset = 17) {
  CAPTURE(text);
  const Case test(text, opset, options);
  REQUIRE(test.is_supported());
  check_floats(test.run_fast(), with_post_ops(test, test.run_reference(), options.post_ops),
               tolerance);
}

}  // namespace onnxpress::rows
