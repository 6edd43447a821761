// The options that all passes that train have in common, and what they mean.
#pragma once

#include <initializer_list>
#include <vector>

#include "graph/exec/augmentation.h"
#include "graph/exec/fit.h"
#include "passes/common/loss_text.h"
#include "passes/common/selected_number.h"
#include "passes/core/pass.h"

namespace onnxpress {

// A pass's own options, and behind them those of training; own ones replace those of the same name
// (other defaults).
std::vector<OptionSpec> training_options(std::initializer_list<OptionSpec> own = {});

// What they say.
struct TrainingSettings {
  std::vector<LossSpec> losses;
  double label_smoothing = 0;
  FitOptions fit;                // without hooks and targets
  OptimizerOptions optimizer;
  Schedule schedule;             // periods in epochs still
  double step_epochs = 1, warmup_epochs = 0;
  double clip_norm = 0, clip_value = 0;
  SelectedNumber rate_factors, weight_decay, l1, l2, max_norm, dropout;
  AugmentationOptions augmentation;
  bool batch_statistics = true;
  bool keeps_dropout = true;
  bool keeps_zeros = true;
  Selector trained, frozen;      // of parameters; `frozen` is nothing where it was not said
  bool names_tensors = false;    // `trained` does: numbers by themselves, too
  bool freezes = false;

  // Throws Error for values that contradict each other, and for options that do nothing beside the others.
  static TrainingSettings from(const Options& options);
  // Throws Error for selectors that match nothing.
  void check_model(const Model& model) const;
  // With lengths in updates, of which an epoch has `updates`.
  Schedule schedule_of(std::int64_t updates) const;
};

}  // namespace onnxpress
