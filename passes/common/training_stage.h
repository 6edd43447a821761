// What passes that train have in common: from options and data to trained initializers and a record
// of how it went.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "graph/exec/fit.h"
#include "passes/common/training_options.h"
#include "passes/core/pass.h"

namespace onnxpress {

// What is trained, and towards what.
struct TrainingTask {
  // Of the model: outputs or any of its values. Empty: what the option `loss` says (choose_losses).
  std::vector<LossTerm> losses = {};
  std::vector<TargetSource> targets = {};
  std::string loss_text = {};                         // for the record, when `losses` are given
  std::map<std::string, std::string> samples = {};    // TrainingMode::samples
  // Initializers to train. Empty: trainable_parameters, by the options `select` and `freeze`.
  std::vector<std::string> parameters = {};
  // Trained beside them, whatever the options say: what only training needs.
  std::vector<std::string> further_parameters = {};
  // Changes what the options say of one parameter (learned scales do not decay).
  std::function<void(const std::string& name, const Tensor& value, Regularization&)> adjust = {};
  // What keep_zeros keeps beside the zeros of weights that operators of the model read themselves.
  std::map<std::string, Tensor> masks = {};
  std::function<void(Batch&, const BatchPlace&)> transform = {};  // FitOptions::transform
  std::function<std::vector<Tensor>(const Batch&, const BatchPlace&)> compute_targets = {};
  // What else the result depends on (a teacher's hash): a checkpoint of another value is refused.
  std::map<std::string, std::string> about = {};
};

struct TrainingReport {
  bool changed = false;            // some initializer did
  Json record;                     // Outcome::training
  std::vector<std::string> notes;
};

// Zeros that pruning left: of the `trained` weights that are not 0 everywhere, by name.
std::map<std::string, Tensor> zero_masks(const Model& model, const std::vector<std::string>& trained);

// Trains `model` in place by the options of training_options() and the context's data, with the
// context's checkpoint and observer. The model may hold what only training needs (fake quantization,
// regressors): the caller takes from it what it wants. Throws NotFinite for a training that diverges,
// of which the checkpoint holds the last good state, and Unsuitable for whatever else ends it: data
// that does not fit, operators without a gradient, logs and checkpoints that cannot be written.
TrainingReport train_stage(Model& model, const TrainingTask& task, const Options& options, PassContext& context);

}  // namespace onnxpress
