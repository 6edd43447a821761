#include "graph/exec/metrics.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>

#include "graph/base/error.h"
#include "graph/exec/batches.h"
#include "graph/exec/class_scores.h"

namespace onnxpress {
namespace {

constexpr std::array<std::pair<Metric, std::string_view>, 7> metric_names{
    {{Metric::top1, "top1"},
     {Metric::top5, "top5"},
     {Metric::precision, "precision"},
     {Metric::recall, "recall"},
     {Metric::f1, "f1"},
     {Metric::cross_entropy, "cross_entropy"},
     {Metric::mse, "mse"}}};

bool is_class_number(DType type) { return is_integer(type) || type == DType::boolean; }

// Floating-point labels may be class numbers all the same.
bool all_whole(const Tensor& labels) {
  const std::vector<float> values = labels.to_floats();
  return std::ranges::all_of(values, [](float value) { return std::trunc(value) == value; });
}

bool same_after_first(const Dims& a, const Dims& b) {
  return !a.empty() && !b.empty() && std::equal(a.begin() + 1, a.end(), b.begin() + 1, b.end());
}

// What one model's output is measured by.
struct Judgement {
  std::size_t output = 0;
  bool classification = false, squares = false;
  bool is_probability = false;  // of an output with one class
};

struct BatchSums {
  ClassificationSums classes;
  std::int64_t samples = 0, elements = 0, with_nan = 0;
  double squares = 0;
  NonFinite non_finite;
};

bool fits(const Tensor& output, const Tensor& labels, bool classification, bool squares) {
  if (classification && !ClassLayout::fit(output.dims(), labels.dims())) return false;
  return !squares || same_after_first(output.dims(), labels.dims());
}

std::size_t choose_output(const Model& model, std::span<const Tensor> outputs, const Tensor& labels,
                          const Judgement& wanted, const std::string& name) {
  const auto declared = model.graph.outputs();
  const auto check = [&](std::size_t i) {
    require(fits(outputs[i], labels, wanted.classification, wanted.squares),
            "output '{}' has shape {}, which does not fit labels of shape {}", declared[i]->name(),
            to_string(outputs[i].dims()), to_string(labels.dims()));
    return i;
  };
  if (!name.empty()) {
    for (std::size_t i = 0; i < declared.size(); ++i)
      if (declared[i]->name() == name) return check(i);
    fail("the model has no output '{}'", name);
  }
  if (outputs.size() == 1) return check(0);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (fits(outputs[i], labels, wanted.classification, wanted.squares)) return i;
  fail("no output of the model fits labels of shape {}", to_string(labels.dims()));
}

void add_squares(const Tensor& output, const Tensor& labels, std::int64_t samples,
                 BatchSums& sums) {
  const Tensor found = output.cast(DType::float64), wanted = labels.cast(DType::float64);
  const std::int64_t per_sample = output.size() / std::max<std::int64_t>(output.dim(0), 1);
  const auto a = found.data<double>(), b = wanted.data<double>();
  for (std::size_t i = 0; i < static_cast<std::size_t>(samples * per_sample); ++i) {
    const double difference = a[i] - b[i];
    if (std::isnan(difference)) {
      ++sums.with_nan;
    } else {
      sums.squares += difference * difference;
      ++sums.elements;
    }
  }
}

// Of the first `samples` rows.
void count_non_finite(const Tensor& output, std::int64_t samples, NonFinite& found) {
  const Tensor values = output.cast(DType::float64);
  const std::int64_t per_sample = output.size() / std::max<std::int64_t>(output.dim(0), 1);
  for (const double value :
       values.data<double>().first(static_cast<std::size_t>(samples * per_sample)))
    found.count(value);
}

std::vector<Metric> default_metrics(bool classification) {
  if (!classification) return {Metric::mse};
  return {Metric::top1,   Metric::top5, Metric::precision,
          Metric::recall, Metric::f1,   Metric::cross_entropy};
}

// Evaluates batch by batch; the first batch decides what is judged.
class Evaluator {
 public:
  Evaluator(const Model& model, const EvaluationOptions& options, int threads)
      : model_(model), options_(options), engines_(static_cast<std::size_t>(threads)) {}

  BatchSums judge(int worker, const Batch& batch, const Judgement& judgement,
                  std::int64_t first_sample) {
    const Tensor output = run(worker, batch)[judgement.output];
    const std::int64_t rows = std::min(output.dim(0), batch.labels.dim(0));
    require(rows >= batch.samples, "expected an output and labels of {} samples, found {} and {}",
            batch.samples, to_string(output.dims()), to_string(batch.labels.dims()));
    BatchSums sums{.samples = batch.samples};
    count_non_finite(output, batch.samples, sums.non_finite);
    if (judgement.classification) {
      auto layout = ClassLayout::fit(output.dims(), batch.labels.dims());
      require(layout.has_value(), "an output of shape {} does not fit labels of shape {}",
              to_string(output.dims()), to_string(batch.labels.dims()));
      layout->is_probability = judgement.is_probability;
      sums.classes.judge(output, *layout, batch.labels, batch.samples, first_sample);
    }
    if (judgement.squares) {
      require(same_after_first(output.dims(), batch.labels.dims()),
              "an output of shape {} does not fit labels of shape {}", to_string(output.dims()),
              to_string(batch.labels.dims()));
      add_squares(output, batch.labels, batch.samples, sums);
    }
    return sums;
  }

  // What to judge, from one batch; sets the metrics when none were asked for.
  Judgement choose(const Batch& batch, std::vector<Metric>& metrics) {
    const std::vector<Tensor> outputs = run(0, batch);
    const bool class_numbers = are_class_numbers(batch.labels, outputs, metrics);
    if (metrics.empty()) metrics = default_metrics(class_numbers);
    Judgement judgement;
    for (const Metric metric : metrics) {
      (metric == Metric::mse ? judgement.squares : judgement.classification) = true;
      require(metric == Metric::mse || class_numbers,
              "{} needs labels that are class numbers, found {} that are not whole numbers",
              name(metric), name(batch.labels.dtype()));
    }
    judgement.output = choose_output(model_, outputs, batch.labels, judgement, options_.output);
    judgement.is_probability = is_sigmoid_output(*model_.graph.outputs()[judgement.output]);
    return judgement;
  }

 private:
  // Floating-point labels are, when they are whole numbers and a metric of classes is asked for or
  // they fit nothing but class scores.
  static bool are_class_numbers(const Tensor& labels, std::span<const Tensor> outputs,
                                const std::vector<Metric>& metrics) {
    if (is_class_number(labels.dtype())) return true;
    if (!is_float(labels.dtype())) return false;
    const auto fits_any = [&](bool classification) {
      return std::ranges::any_of(outputs, [&](const Tensor& output) {
        return fits(output, labels, classification, !classification);
      });
    };
    const bool fits_scores = metrics.empty() && fits_any(true) && !fits_any(false);
    const bool asked =
        std::ranges::any_of(metrics, [](Metric metric) { return metric != Metric::mse; });
    const bool whole = all_whole(labels);
    require(whole || !fits_scores,
            "{} labels of shape {} fit nothing but class scores, and are not whole numbers",
            name(labels.dtype()), to_string(labels.dims()));
    return whole && (asked || fits_scores);
  }

  std::vector<Tensor> run(int worker, const Batch& batch) {
    std::unique_ptr<Engine>& engine = engines_[static_cast<std::size_t>(worker)];
    if (!engine) engine = std::make_unique<Engine>(model_, EngineOptions{.threads = 1});
    return engine->run(batch.inputs);
  }

  const Model& model_;
  const EvaluationOptions& options_;
  std::vector<std::unique_ptr<Engine>> engines_;
};

}  // namespace

std::string_view name(Metric metric) {
  for (const auto& [known, text] : metric_names)
    if (known == metric) return text;
  return "unknown";
}

std::optional<Metric> metric_from_name(std::string_view text) {
  if (text == "accuracy") return Metric::top1;
  for (const auto& [metric, known] : metric_names)
    if (known == text) return metric;
  return std::nullopt;
}

bool higher_is_better(Metric metric) {
  return metric != Metric::cross_entropy && metric != Metric::mse;
}

bool is_proportion(Metric metric) { return metric == Metric::top1 || metric == Metric::top5; }

std::pair<double, double> wilson_interval(std::int64_t successes, std::int64_t total) {
  constexpr double z = 1.959963984540054;  // the normal distribution's 97.5 % quantile
  const double n = static_cast<double>(total);
  const double p = static_cast<double>(successes) / n;
  const double scale = 1 + z * z / n;
  const double middle = (p + z * z / (2 * n)) / scale;
  const double half = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale;
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

const MetricValue* Evaluation::find(Metric metric) const {
  for (const MetricValue& value : values)
    if (value.metric == metric) return &value;
  return nullptr;
}

Evaluation evaluate(const Model& model, Dataset& data, const EvaluationOptions& options) {
  require(data.labelled(), "{} has no labels", data.description());
  const auto start = std::chrono::steady_clock::now();
  const int threads = options.threads > 0 ? options.threads : available_cpus();
  Evaluator evaluator(model, options, threads);
  std::vector<Metric> metrics = options.metrics;

  Batch first;
  data.rewind();
  require(data.next(first), "{} has no samples", data.description());
  const Judgement judgement = evaluator.choose(first, metrics);

  BatchSums total;
  std::int64_t read = 0;
  for_each_batch(
      data, threads,
      [&](int worker, const Batch& batch, std::int64_t first_sample) {
        return evaluator.judge(worker, batch, judgement, first_sample);
      },
      [&](const BatchSums& sums) {
        read += sums.samples;
        total.classes.add(sums.classes);
        total.elements += sums.elements;
        total.with_nan += sums.with_nan;
        total.squares += sums.squares;
        total.non_finite.add(sums.non_finite);
      });

  Evaluation result{.samples = read,
                    .positions = judgement.classification ? total.classes.positions : read,
                    .correct = total.classes.top1,
                    .output = model.graph.outputs()[judgement.output]->name(),
                    .non_finite = total.non_finite};
  for (const Metric metric : metrics) {
    if (metric != Metric::mse) {
      result.values.push_back(total.classes.value(metric));
    } else {
      const double value =
          total.squares / static_cast<double>(std::max<std::int64_t>(total.elements, 1));
      result.values.push_back({.metric = metric, .value = value, .low = value, .high = value});
    }
  }
  if (total.classes.with_nan > 0)
    result.notes.push_back(
        fmt::format("{} positions have NaN scores: counted as wrong", total.classes.with_nan));
  if (total.with_nan > 0)
    result.notes.push_back(fmt::format("{} elements are NaN: left out of mse", total.with_nan));
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace onnxpress
