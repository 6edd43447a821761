// Gradient descent: how parameters follow their gradients.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/threads.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

struct OptimizerOptions {
  enum class Kind {
    sgd,
    momentum,  // v = momentum v + g; w -= rate v (Polyak 1964)
    nesterov,  // v = momentum v + g; w -= rate (g + momentum v) (Sutskever et al. 2013)
    adam,      // Kingma and Ba 2015, algorithm 1
    adamw,     // the same, weight decay apart from the gradient: Loshchilov and Hutter 2019
    rmsprop,   // Tieleman and Hinton 2012: w -= rate g / (sqrt(v) + epsilon)
  };
  Kind kind = Kind::sgd;
  double momentum = 0.9;    // momentum, nesterov
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double smoothing = 0.99;  // rmsprop: of the squares
};

std::string_view name(OptimizerOptions::Kind kind);
std::optional<OptimizerOptions::Kind> optimizer_from_name(std::string_view text);

// What pulls one parameter towards zero.
struct Regularization {
  double l1 = 0, l2 = 0;    // added to the gradient: l1 sign(w) + l2 w
  double decay = 0;         // apart from it: w -= rate decay w
  double max_norm = 0;      // 0: none; of every row of outputs (a neuron's incoming weights)
  std::size_t norm_axis = 0;  // the axis of the outputs
  double rate = 1;          // factor of the learning rate
};

// What one step does with the gradients it is given.
struct GradientStep {
  double rate = 0;    // the learning rate
  double factor = 1;  // first, gradients are multiplied by it (clipping by norm, mean of several)
  double limit = 0;   // then their elements are bounded to [-limit, limit]; 0: not
};

// Keeps what the method remembers of each parameter. float32 and float64.
class Optimizer {
 public:
  Optimizer(OptimizerOptions options, std::vector<Regularization> regularization);

  // One step; parameter i follows gradients[i], which may be undefined: then it stays. Parameters
  // are written in place.
  void step(ThreadPool& pool, std::vector<Tensor>& parameters, const std::vector<Tensor>& gradients,
            const GradientStep& step);

  std::int64_t steps() const { return steps_; }
  // By kind ("first", "second") and parameter number, for checkpoints.
  std::map<std::string, Tensor> state() const;
  // Throws Error when tensors are missing.
  void restore(const std::map<std::string, Tensor>& state, std::int64_t steps);

 private:
  OptimizerOptions options_;
  std::vector<Regularization> regularization_;
  std::vector<Tensor> first_, second_;  // by parameter; undefined before their first gradient
  std::int64_t steps_ = 0;
};

// The square root of the sum of all squares.
double global_norm(ThreadPool& pool, const std::vector<Tensor>& gradients);

}  // namespace onnxpress
