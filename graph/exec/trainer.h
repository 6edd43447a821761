// Training a model by gradient descent, step by step. What goes round in epochs, reads data and
// writes logs is built on it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "graph/exec/engine.h"
#include "graph/exec/losses.h"
#include "graph/exec/optimizer.h"
#include "graph/exec/schedule.h"
#include "graph/exec/training_mode.h"

namespace onnxpress {

// The initializers of the main graph that are trained unless something else is asked for: float
// weights, biases, scales and tables, in order. Running statistics of BatchNormalization, bounds,
// constants of one element that are no parameter of their reader, quantization scales, masks (what is added
// and holds -9999 or less), what is not finite and what only shape computations read are not among them.
std::vector<std::string> trainable_parameters(const Model& model);
// Those, and constants of one element: an exported 0.5 looks like a learned factor of 0.5.
std::vector<std::string> selectable_parameters(const Model& model);

// Constant nodes of the main graph that make weights of operators: nothing trains them.
std::size_t constant_node_weights(const Model& model);

// Names of the initializers that the values (of the main graph, by name) are computed from.
std::set<std::string> initializers_before(const Model& model, const std::vector<std::string>& values);

struct TrainerOptions {
  OptimizerOptions optimizer;
  Schedule schedule;
  TrainingMode mode;
  double clip_norm = 0;   // of all gradients together; 0: none
  double clip_value = 0;  // of every element; 0: none
  std::uint64_t seed = 0;  // of dropout and sampling
  // What regularizes a parameter; nothing: none is.
  std::function<Regularization(const std::string& name, const Tensor& value)> regularize;
  // By parameter: elements that are 0 stay 0, as pruning left them. Of the parameter's dims.
  std::map<std::string, Tensor> masks;
  int threads = 0;         // 0: available_cpus()
  bool reference = false;  // plain kernels only (tests)
  bool recompute = false;  // less memory, more time: DifferentiationOptions
  std::function<void(const StepTiming&)> on_step = {};
};

// A loss, gradients or parameters that are NaN or infinite: of all errors of a training the one that is its own.
class NotFinite : public Error {
 public:
  using Error::Error;
};

class Trainer {
 public:
  // Clones the model. `trained` are initializers of the main graph. float16 and bfloat16 parameters
  // are trained in float32. Throws Error for names that are not there, losses that do not fit, and
  // (in the first step) operators without a gradient.
  Trainer(const Model& model, std::vector<std::string> trained, std::span<const LossTerm> losses,
          TrainerOptions options);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  struct Step {
    double loss = 0;
    std::vector<double> terms;    // when there are several
    std::vector<Tensor> outputs;  // the model's, as in training
    double rate = 0;              // the learning rate
    double norm = 0;              // of the gradients before clipping; 0 unless clipped by norm
  };
  // One batch and one update. `inputs` are the model's required inputs, `targets` what the losses
  // ask for, in their order. Throws Error, with the step and the node, for a loss that is not finite (and, with
  // clip_norm, gradients that are not): parameters are then as before.
  Step step(std::span<const Tensor> inputs, std::span<const Tensor> targets);
  // The same in several parts: gradients of batches are summed, each times `share`, until the
  // update.
  Step accumulate(std::span<const Tensor> inputs, std::span<const Tensor> targets,
                  double share = 1);
  void update(Step& step);

  std::int64_t steps() const;                          // updates done
  const std::vector<std::string>& parameters() const;  // the trained ones
  const std::vector<std::string>& targets() const;     // names of the inputs for targets
  const std::vector<std::string>& notes() const;
  // Parameter by number; behind them are the running statistics that training moves, up to
  // value_count().
  const Tensor& value(std::size_t number) const;
  void set_value(std::size_t number, Tensor value);
  std::size_t value_count() const;

  // Writes parameters and running statistics into the model, in its own element types: the model
  // given, or one with the same initializers.
  void store(Model& model) const;
  // Everything that a later step depends on, by name; steps() besides.
  std::map<std::string, Tensor> state() const;
  // Throws Error when the tensors are not those of this trainer.
  void restore(const std::map<std::string, Tensor>& state);
  // Bytes of values and gradients that the runs have taken.
  std::size_t reserved_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace onnxpress
