// What fitting asks of batches: targets for the losses, and how good a model is on samples held
// out. Internal to graph/exec.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graph/exec/fit.h"
#include "graph/exec/gradients.h"
#include "graph/exec/samples.h"

namespace onnxpress {

// The tensors that the losses ask for, of one batch. Throws Error for what the data does not hold.
std::vector<Tensor> targets_of(const Batch& batch, const BatchPlace& place, std::size_t count,
                               const FitOptions& options);

// The loss of the model as it is in inference.
class HeldOutJudge {
 public:
  HeldOutJudge(const Model& model, std::span<const LossTerm> losses, const FitOptions& options);

  std::size_t targets() const { return loss_.targets.size(); }
  // Mean loss and, where labels are classes, accuracy.
  std::pair<double, std::optional<double>> judge(const Trainer& trainer, const Samples& samples,
                                                 std::int64_t batch) const;

 private:
  std::vector<Tensor> in_order(const Differentiator& run, const Batch& batch,
                               const BatchPlace& place) const;

  const FitOptions& options_;
  std::unique_ptr<Model> model_;
  AppendedLoss loss_;
  std::optional<std::size_t> classified_;  // the output that labels are compared with
  bool is_binary_ = false;                 // by binary_cross_entropy: one score is two classes
  bool is_probability_ = false;            // of one score: not a logit
  std::optional<std::int64_t> ignored_;    // a label that counts nowhere
  bool is_fixed_;                          // the batch
};

}  // namespace onnxpress
