// Accuracy, loss and agreement, measured in one pass over the data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/exec/dataset.h"
#include "graph/exec/engine.h"

namespace onnxpress {

enum class Metric { top1, top5, precision, recall, f1, cross_entropy, mse };

std::string_view name(Metric metric);  // "top1", ..., "cross_entropy", "mse"
std::optional<Metric> metric_from_name(std::string_view text);  // also "accuracy" for top1
bool higher_is_better(Metric metric);
bool is_proportion(Metric metric);  // top1, top5: has a Wilson interval

struct MetricValue {
  Metric metric;
  double value = 0;          // proportions in [0, 1]
  double low = 0, high = 0;  // 95 % Wilson score interval (Wilson 1927); equal to value where none
};

// How many elements of an output are no numbers.
struct NonFinite {
  std::int64_t elements = 0, nan = 0, infinite = 0;

  void count(double value);
  void add(const NonFinite& other);
  bool any() const { return nan + infinite > 0; }
  // Nothing that a result could be judged by.
  bool all() const { return elements > 0 && nan + infinite == elements; }
};
// "output 'y': 12 of 500 elements are NaN, 3 infinite"; nothing to say when all are finite: empty.
std::string to_string(const std::string& output, const NonFinite& found);

struct Evaluation {
  std::int64_t samples = 0;
  std::int64_t positions = 0;       // judged: samples times labels per sample
  std::int64_t correct = 0;         // positions right by top-1; 0 when not a classification
  std::string output;               // the output that was judged
  std::vector<MetricValue> values;  // in the order asked for
  std::vector<std::string> notes;   // "3 positions have NaN scores: counted as wrong"
  NonFinite non_finite;             // of the judged output
  double seconds = 0;
  const MetricValue* find(Metric metric) const;
};

struct EvaluationOptions {
  std::vector<Metric>
      metrics;         // empty: what the labels allow (class numbers: all but mse; else mse)
  std::string output;  // empty: the only output, or the first whose shape fits the labels
  int threads = 0;     // batches are spread over this many engines
};

// Labels are class numbers when they are integers, or whole floating-point numbers that fit class
// scores and no output of their own shape.
//
// Streaming; memory does not grow with samples. Class scores are the last axis ([N,C]) or axis 1 of
// [N,C,1,1]; more positions per sample ([N,C,...] with labels [N,...], or else [N,...,C]) count
// each position. Equal scores rank by class number.
//
// Cross-entropy takes logits unless every row of the output is a distribution (sums to 1 within
// 1e-3, no negatives): then the log of it, no probability taken below 2^-23 (float32's epsilon, as
// scikit-learn's log_loss has it). Macro precision, recall and F1 average over classes present in
// labels or predictions, 0 where one is not defined (scikit-learn's zero_division=0). Mean squared
// error is over all elements. Rows with NaN are wrong, predict no class, are left out of
// cross-entropy and squared error, and are counted in `notes`.
//
// The figures do not depend on the thread count: engines run one thread each, sums go by batch.
// Throws Error: no labels, no samples, a label out of range (value, sample and class count named),
// outputs that do not fit the labels.
Evaluation evaluate(const Model& model, Dataset& data, const EvaluationOptions& options = {});

// Difference of one output between two models over the same data.
struct OutputError {
  std::string output;
  std::int64_t samples = 0;
  double max_abs = 0;  // largest absolute difference; inf when NaN appears on one side only
  double range = 0;    // max - min of the reference output
  double snr_db = 0;   // 10 log10(sum ref^2 / sum diff^2); +inf when equal, -inf with NaN
  // Share of samples with equal argmax over the class axis; scores with NaN agree with nothing.
  std::optional<double> top1_agreement;
  NonFinite before, after;  // of numeric outputs; NaN on both sides, or the same infinity, is no
                            // difference
};
// Whether no output of the reference has a finite element: then agreement says nothing.
bool is_unjudgeable(const std::vector<OutputError>& errors);

// The 95 % Wilson score interval of a proportion of `total` > 0 (Wilson 1927, "Probable
// inference").
std::pair<double, double> wilson_interval(std::int64_t successes, std::int64_t total);

// Runs both on every batch of `data`: inputs and outputs by position; both models must have the
// same number of required inputs, of equal element types, and of outputs. Classes are axis 1 of
// [N,C] and [N,C,1,1] (C > 1); other outputs have no agreement. Throws Error when output shapes
// differ.
std::vector<OutputError> compare_outputs(const Model& reference, const Model& other, Dataset& data,
                                         int threads = 0);
// The same on given inputs.
std::vector<OutputError> compare_outputs(const Model& reference, const Model& other,
                                         const std::vector<std::vector<Tensor>>& inputs,
                                         int threads = 0);

}  // namespace onnxpress
