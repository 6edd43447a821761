#include "graph/exec/class_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <tuple>

#include "graph/base/error.h"

namespace onnxpress {
namespace {

constexpr double distribution_tolerance = 1e-3;
constexpr double least_probability = std::numeric_limits<float>::epsilon();

// Class scores of one position.
class Row {
 public:
  Row(const float* first, std::int64_t stride, std::int64_t classes)
      : first_(first), stride_(stride), classes_(classes) {}

  double operator[](std::int64_t index) const { return first_[index * stride_]; }

  bool has_nan() const {
    for (std::int64_t i = 0; i < classes_; ++i)
      if (std::isnan((*this)[i])) return true;
    return false;
  }

  std::int64_t best() const {
    std::int64_t best = 0;
    for (std::int64_t i = 1; i < classes_; ++i)
      if ((*this)[i] > (*this)[best]) best = i;
    return best;
  }

  // Classes that come before `label`.
  std::int64_t rank(std::int64_t label) const {
    const double score = (*this)[label];
    std::int64_t rank = 0;
    for (std::int64_t i = 0; i < classes_; ++i)
      rank += (*this)[i] > score || ((*this)[i] == score && i < label);
    return rank;
  }

  bool is_distribution() const {
    double sum = 0;
    for (std::int64_t i = 0; i < classes_; ++i) {
      if ((*this)[i] < 0) return false;
      sum += (*this)[i];
    }
    return std::abs(sum - 1) <= distribution_tolerance;
  }

  double log_sum_exp() const {
    const double largest = (*this)[best()];
    double sum = 0;
    for (std::int64_t i = 0; i < classes_; ++i) sum += std::exp((*this)[i] - largest);
    return largest + std::log(sum);
  }

 private:
  const float* first_;
  std::int64_t stride_, classes_;
};

// The one score of every position as scores of the classes 0 and 1.
Tensor both_classes(const Tensor& scores, bool is_probability) {
  const Tensor floats = scores.cast(DType::float32);
  Tensor both = Tensor::uninitialized(DType::float32, {scores.size(), 2});
  const auto to = both.mutable_data<float>();
  std::size_t next = 0;
  for (const float score : floats.data<float>()) {
    to[next++] = is_probability ? 1 - score : 0;
    to[next++] = score;
  }
  return both;
}

double ratio(std::int64_t part, std::int64_t whole) {
  return whole ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

}  // namespace

std::optional<ClassLayout> ClassLayout::fit(const Dims& output, Dims labels) {
  while (labels.size() > 1 && labels.back() == 1) labels.pop_back();
  if (output.size() < 2 || labels.empty()) return std::nullopt;
  const Dims wanted(labels.begin() + 1, labels.end());
  const Dims after_class(output.begin() + 2, output.end());
  const Dims before_class(output.begin() + 1, output.end() - 1);
  const std::int64_t positions = element_count(wanted);
  const bool is_single = wanted.empty() && element_count(after_class) == 1;
  if (is_single || (!wanted.empty() && after_class == wanted))
    return ClassLayout{.classes = output[1], .positions = positions, .class_major = true};
  if (before_class == wanted)
    return ClassLayout{.classes = output.back(), .positions = positions, .class_major = false};
  return std::nullopt;
}

bool is_sigmoid_output(const Value& output) {
  constexpr std::string_view passing[] = {"Identity", "Reshape",   "Squeeze", "Unsqueeze",      "Flatten",
                                          "Transpose", "Cast",     "Slice",   "QuantizeLinear", "DequantizeLinear"};
  const Value* value = &output;
  while (value != nullptr && value->producer() != nullptr) {
    const Node& node = *value->producer();
    if (node.op_type() == "Sigmoid" || node.op_type() == "QLinearSigmoid") return true;
    if (std::ranges::find(passing, node.op_type()) == std::end(passing)) return false;
    value = node.input(0);
  }
  return false;
}

void ClassificationSums::judge(const Tensor& scores, const ClassLayout& layout,
                               const Tensor& labels, std::int64_t count,
                               std::int64_t first_sample) {
  if (layout.classes == 1)
    return judge(both_classes(scores, layout.is_probability),
                 {.classes = 2, .positions = layout.positions, .ignored = layout.ignored}, labels, count, first_sample);
  const Tensor floats = scores.cast(DType::float32);
  const float* data = floats.data<float>().data();
  if (is_float(labels.dtype())) {
    const std::vector<float> values = labels.to_floats();
    for (std::size_t i = 0; i < values.size(); ++i)
      require(std::trunc(values[i]) == values[i],
              "label {} of sample {}: expected a class number, all before it are whole", values[i],
              first_sample + static_cast<std::int64_t>(i) / layout.positions);
  }
  if (labels.dtype() == DType::uint64) {
    const auto values = labels.data<std::uint64_t>();
    for (std::size_t i = 0; i < values.size(); ++i)
      require(values[i] < static_cast<std::uint64_t>(layout.classes),
              "label {} of sample {}: expected 0 to {}, the output has {} classes", values[i],
              first_sample + static_cast<std::int64_t>(i) / layout.positions, layout.classes - 1,
              layout.classes);
  }
  const Tensor wide = labels.cast(DType::int64);
  const auto truth = wide.data<std::int64_t>();
  samples += count;
  for (std::int64_t i = 0; i < count * layout.positions; ++i) {
    const std::int64_t sample = i / layout.positions, position = i % layout.positions;
    const std::int64_t label = truth[static_cast<std::size_t>(i)];
    if (label == unlabelled || label == layout.ignored) continue;
    require(label >= 0 && label < layout.classes,
            "label {} of sample {}: expected 0 to {}, the output has {} classes", label,
            first_sample + sample, layout.classes - 1, layout.classes);
    const float* first = layout.class_major
                             ? data + sample * layout.classes * layout.positions + position
                             : data + i * layout.classes;
    const Row row(first, layout.class_major ? layout.positions : 1, layout.classes);
    ++positions;
    if (row.has_nan()) {
      ++with_nan;
      ++classes[label].false_negatives;
      continue;
    }
    const std::int64_t rank = row.rank(label);
    top1 += rank == 0;
    top5 += rank < 5;
    const std::int64_t predicted = row.best();
    if (predicted == label) {
      ++classes[label].true_positives;
    } else {
      ++classes[label].false_negatives;
      ++classes[predicted].false_positives;
    }
    all_distributions = all_distributions && row.is_distribution();
    from_logits += row.log_sum_exp() - row[label];
    if (all_distributions) from_probabilities -= std::log(std::max(row[label], least_probability));
  }
}

void ClassificationSums::add(const ClassificationSums& other) {
  samples += other.samples;
  positions += other.positions;
  top1 += other.top1;
  top5 += other.top5;
  with_nan += other.with_nan;
  from_logits += other.from_logits;
  from_probabilities += other.from_probabilities;
  all_distributions = all_distributions && other.all_distributions;
  for (const auto& [index, counts] : other.classes) {
    Counts& sum = classes[index];
    sum.true_positives += counts.true_positives;
    sum.false_positives += counts.false_positives;
    sum.false_negatives += counts.false_negatives;
  }
}

MetricValue ClassificationSums::value(Metric metric) const {
  MetricValue result{.metric = metric};
  if (is_proportion(metric)) {
    const std::int64_t right = metric == Metric::top1 ? top1 : top5;
    result.value = ratio(right, positions);
    std::tie(result.low, result.high) = wilson_interval(right, positions);
    return result;
  }
  if (metric == Metric::cross_entropy) {
    const double sum = all_distributions ? from_probabilities : from_logits;
    const std::int64_t judged = positions - with_nan;
    result.value =
        judged ? sum / static_cast<double>(judged) : std::numeric_limits<double>::quiet_NaN();
  } else {
    for (const auto& [index, counts] : classes) {
      const std::int64_t hits = counts.true_positives;
      const std::int64_t predicted = hits + counts.false_positives;
      const std::int64_t present = hits + counts.false_negatives;
      result.value += metric == Metric::precision ? ratio(hits, predicted)
                      : metric == Metric::recall  ? ratio(hits, present)
                                                  : ratio(2 * hits, predicted + present);
    }
    result.value /= static_cast<double>(std::max<std::size_t>(classes.size(), 1));
  }
  result.low = result.high = result.value;
  return result;
}

}  // namespace onnxpress
