// Judging class scores against labels: internal to graph/exec.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "graph/exec/metrics.h"
#include "graph/ir/model.h"

namespace onnxpress {

// Where the classes of an output are: element (sample, position, class) lies at
// (sample * positions + position) * classes + class, or with `class_major` at
// (sample * classes + class) * positions + position.
struct ClassLayout {
  std::int64_t classes = 0;
  std::int64_t positions = 1;  // labels per sample
  bool class_major = false;
  // Of one class: its score says how likely label 1 is, as a probability or (false) a logit; 0 is all else.
  bool is_probability = false;
  std::optional<std::int64_t> ignored = std::nullopt;  // a label that is not judged, beside `unlabelled`

  // The layout of an output for labels of the given dims, or nothing when they do not fit.
  static std::optional<ClassLayout> fit(const Dims& output, Dims labels);
};

// Labels that are not judged anywhere: what PyTorch and others put where there is no label (its ignore_index).
inline constexpr std::int64_t unlabelled = -100;

// Whether the output is a Sigmoid's, reshaped or in codes perhaps.
bool is_sigmoid_output(const Value& output);

// Sums over judged positions; adding them in a fixed order keeps figures equal on any thread count.
struct ClassificationSums {
  struct Counts {
    std::int64_t true_positives = 0, false_positives = 0, false_negatives = 0;
  };
  std::int64_t samples = 0, positions = 0, top1 = 0, top5 = 0, with_nan = 0;
  double from_logits = 0, from_probabilities = 0;  // summed cross-entropy, read as either
  bool all_distributions = true;
  std::map<std::int64_t, Counts> classes;  // those in labels or predictions

  // Judges the first `count` samples; `first_sample` numbers them in messages.
  void judge(const Tensor& scores, const ClassLayout& layout, const Tensor& labels,
             std::int64_t count, std::int64_t first_sample);
  void add(const ClassificationSums& other);
  MetricValue value(Metric metric) const;
};

}  // namespace onnxpress
