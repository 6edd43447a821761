// Gradients of a model's loss: the model runs forward keeping what its gradients read, then the
// nodes are gone through in reverse. No gradient nodes are added to the graph.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "graph/ir/model.h"

namespace onnxpress {

// An operator without a gradient on the way from a parameter to the loss: says which node and what
// to freeze.
class NoGradient : public Error {
 public:
  using Error::Error;
};

// A value of the main graph, an initializer or required input, that is given at every run.
struct GivenValue {
  std::string name;
  bool is_differentiated = true;  // its gradient is wanted
};

struct DifferentiationOptions {
  int threads = 0;         // 0: available_cpus()
  bool reference = false;  // plain kernels only (tests)
  bool recompute = false;  // activations and normalizations are computed again instead of being kept
  std::size_t plans = 4;   // LRU of plans by input shapes
  // Called on the thread that runs, after every step forward and, as backend "backward NAME", after
  // every step back; must not throw.
  std::function<void(const StepTiming&)> on_step = {};
};

// Where values of a run are not finite first: "'w'" of what is given, else "node 'exp' (Exp)"; empty:
// nowhere.
struct NonFinitePlaces {
  std::string nan, infinite;
};

// Runs one model forward and back.
class Differentiator {
 public:
  // Clones the model (weights shared) and inlines its functions. `parameters` name initializers,
  // whose contents are given anew at every run, or required inputs; `loss` an output of one
  // element, or nothing when outputs are all that is wanted. Throws Error for names that are not
  // there and operators without a kernel.
  Differentiator(const Model& model, std::vector<GivenValue> parameters, std::string loss,
                 DifferentiationOptions options = {});
  ~Differentiator();
  Differentiator(const Differentiator&) = delete;
  Differentiator& operator=(const Differentiator&) = delete;

  struct Result {
    std::vector<Tensor> outputs;    // of the graph, in order
    std::vector<Tensor> gradients;  // by parameter; undefined: not wanted, or without effect
  };
  // `inputs`: the required inputs that are no parameters, in order. The gradient is that of the
  // loss times `scale`. Throws Error with the node's context; an operator on the way from a
  // differentiated parameter to the loss that has no gradient is a NoGradient.
  Result run(std::span<const Tensor> inputs, std::span<const Tensor> parameters, double scale = 1);
  // The outputs only: nothing is kept for gradients.
  std::vector<Tensor> forward(std::span<const Tensor> inputs, std::span<const Tensor> parameters);

  // Runs forward and says where the first NaN and the first infinity come up.
  NonFinitePlaces non_finite_places(std::span<const Tensor> inputs, std::span<const Tensor> parameters);

  // The required inputs that are no parameters.
  const std::vector<std::string>& input_names() const;
  const Model& model() const;  // the clone; parameters are inputs of it
  // Bytes that runs have taken from and kept for the allocator (values and gradients).
  std::size_t reserved_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace onnxpress
