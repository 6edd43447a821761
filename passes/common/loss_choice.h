// Losses for a model and its training data: as said, or recognized from outputs and labels.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/exec/fit.h"
#include "graph/exec/losses.h"
#include "passes/common/loss_text.h"
#include "passes/core/pass.h"

namespace onnxpress {

// The first samples of training data, and the dims of what the model makes of them.
struct FirstBatch {
  Batch batch;
  std::map<std::string, Dims> outputs;  // of the graph, by name
};

// Runs the model, and rewinds the data. Throws Error when there are no samples or it cannot be run.
FirstBatch look_at_first_batch(const Model& model, Dataset& data, int threads);

struct ChosenLosses {
  std::vector<LossTerm> terms;
  std::vector<TargetSource> targets;           // in the order that append_loss asks for them
  std::map<std::string, std::string> samples;  // TrainingMode::samples: means and their log variances
  std::string text;                            // as --loss would say it
  std::vector<std::string> notes;              // what was recognized, and by what
};

// The losses of `specs`, where "auto" is
// - `elbo` for outputs called mean and log variance beside reconstructions of the input alone, unless
//   the labels have the size of one,
// - `ctc` for class sequences with lengths (data arrays y_len or x_len),
// - `cross_entropy` for class numbers that fit an output's class axis, and for targets of a Softmax,
// - `cross_entropy` for rows of floats that are 1 for one class and 0 for the others,
// - `binary_cross_entropy` for a Sigmoid's output, and for labels that are 0 or 1 of one score,
// - `mse` for other labels of an output's size,
// - without labels: `elbo` where there are outputs called mean and log variance, else the reconstruction of the
//   input by an output of its shape.
// Throws Unsuitable for outputs and data that fit no loss, naming both shapes, and for names that
// are neither.
ChosenLosses choose_losses(const Model& model, const std::vector<LossSpec>& specs, const FirstBatch& first,
                           double label_smoothing = 0);

// Throws Unsuitable for samples with a NaN in an input or a target, and for those whose labels are no class of their output
// (cross_entropy, ctc) or outside 0 to 1 (binary_cross_entropy) or no probabilities (cross_entropy of floats, kl); names
// sample and value. Infinities are left: masks that are added to scores have them; so are NaN in inputs of models that
// ask for them.
class SampleCheck {
 public:
  SampleCheck(const Model& model, const ChosenLosses& losses, const FirstBatch& first);
  void operator()(const Batch& batch, const BatchPlace& place) const;

 private:
  struct Rule {
    LossTerm term;
    TargetSource source;
    std::optional<TargetSource> steps;    // of ctc: how many of the output's steps count
    std::optional<TargetSource> lengths;  // of ctc: of the targets
    Dims dims;                            // of the output
  };
  static void check_numbers(const Rule& rule, const Tensor& labels, const BatchPlace& place);
  static void check_probabilities(const Rule& rule, const Tensor& labels, const BatchPlace& place);
  static void check_classes(const Rule& rule, const Tensor& labels, const Tensor& lengths, const BatchPlace& place);
  static void check_alignments(const Rule& rule, const Tensor& labels, const Tensor& lengths, const Tensor& steps,
                               const BatchPlace& place);

  std::vector<Rule> rules_;
  std::vector<std::string> inputs_;  // names, in the order of a batch's; none where NaN are left
  std::vector<TargetSource> targets_;
};

}  // namespace onnxpress
