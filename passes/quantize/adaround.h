// AdaRound (Nagel et al. 2020, arXiv 2004.10568): up or down, for every weight, by gradient descent on
// the layer's output.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/base/threads.h"
#include "graph/kernels/rounding_loops.h"
#include "passes/quantize/following_activation.h"
#include "passes/quantize/layer_inputs.h"
#include "passes/quantize/layer_problem.h"

namespace onnxpress {

// Columns kept for gradient steps: by group the inputs of the model as rounded so far, and the
// outputs that the exact model has (without bias).
class SampledColumns {
 public:
  // `most` columns, spread over the `expected` that come.
  SampledColumns(const WeightMatrix& matrix, std::int64_t most, std::int64_t expected);
  // `weight` [groups, rows, depth] contiguous.
  void add(const ColumnBlock& block, std::span<const float> weight);
  void shuffle(std::uint64_t seed);  // the same order for all groups
  std::int64_t count() const { return count_; }
  const std::vector<float>& inputs(std::int64_t group) const { return inputs_[static_cast<std::size_t>(group)]; }
  const std::vector<float>& outputs(std::int64_t group) const { return outputs_[static_cast<std::size_t>(group)]; }

 private:
  std::int64_t rows_, depth_;
  double share_;
  std::int64_t seen_ = 0, count_ = 0;
  std::vector<std::vector<float>> inputs_, outputs_;  // by group: [count, depth], [count, rows]
};

// Some rows of one group: a variable for each weight says how far it is from the level below w* to the
// one above.
class RoundingDescent {
 public:
  RoundingDescent(LayerProblem& problem, const SampledColumns& columns, const FollowingActivation& activation,
                  std::int64_t group, std::int64_t first, std::int64_t last);

  void run(std::int64_t steps);
  // Ends it: the codes of the problem become those that the variables are nearer to.
  void choose_codes();

  // Over columns [begin, begin + count): the squared errors behind the activation, each row's in units
  // of what rounding to nearest makes of it divided by the depth, and the regularizer.
  double loss(const RoundingStep& step, std::int64_t begin, std::int64_t count);
  // Of the loss by choices().
  std::span<const float> gradient(const RoundingStep& step, std::int64_t begin, std::int64_t count);
  // [rows, depth]; more follow that mean nothing.
  std::span<float> choices() { return choice_; }

 private:
  template <class Fn>
  void for_each_element(const Fn& fn);
  float biased(float product, std::int64_t row) const;
  void find_norms();
  std::vector<float> outputs(std::int64_t begin, std::int64_t count) const;

  LayerProblem& problem_;
  const SampledColumns& columns_;
  const FollowingActivation& activation_;
  std::int64_t group_, first_, rows_, depth_;
  std::vector<float> base_, step_, choice_, weight_, target_, norm_, weight_gradient_, gradient_;
};

// Chooses the codes of a problem whose grid is chosen: each weight becomes one of the two levels
// around w*, by a rectified sigmoid that a regularizer drives to 0 or 1 as the steps go on (equations
// 21 to 25 of the paper). The loss is the output error behind the activation.
void adaround(ThreadPool& pool, LayerProblem& problem, const SampledColumns& columns,
              const FollowingActivation& activation, std::int64_t steps);

}  // namespace onnxpress
