// Differences between two models' outputs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "graph/base/error.h"
#include "graph/exec/batches.h"
#include "graph/exec/metrics.h"

namespace onnxpress {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct OutputSums {
  std::int64_t samples = 0, agreeing = 0;
  bool has_classes = true, one_sided = false;
  double max_abs = 0, low = infinity, high = -infinity, reference_squares = 0, squares = 0;
  NonFinite before, after;

  void add(const OutputSums& other) {
    samples += other.samples;
    agreeing += other.agreeing;
    has_classes = has_classes && other.has_classes;
    one_sided = one_sided || other.one_sided;
    max_abs = std::max(max_abs, other.max_abs);
    low = std::min(low, other.low);
    high = std::max(high, other.high);
    reference_squares += other.reference_squares;
    squares += other.squares;
    before.add(other.before);
    after.add(other.after);
  }

  // Elements [0, count) of two tensors of equal dims.
  void compare(std::span<const double> reference, std::span<const double> other) {
    for (std::size_t i = 0; i < reference.size(); ++i) {
      const double x = reference[i], y = other[i];
      before.count(x);
      after.count(y);
      if (std::isfinite(x)) {
        low = std::min(low, x);
        high = std::max(high, x);
      }
      if ((std::isnan(x) && std::isnan(y)) || (std::isinf(x) && x == y)) continue;
      if (!std::isfinite(x) || !std::isfinite(y)) {
        one_sided = true;
        max_abs = infinity;
        continue;
      }
      const double difference = x - y;
      max_abs = std::max(max_abs, std::abs(difference));
      reference_squares += x * x;
      squares += difference * difference;
    }
  }

  OutputError result(std::string name) const {
    OutputError error{.output = std::move(name),
                      .samples = samples,
                      .max_abs = max_abs,
                      .before = before,
                      .after = after};
    error.range = high >= low ? high - low : 0;
    error.snr_db = one_sided      ? -infinity
                   : squares == 0 ? infinity
                                  : 10 * std::log10(reference_squares / squares);
    if (has_classes && samples > 0)
      error.top1_agreement = static_cast<double>(agreeing) / static_cast<double>(samples);
    return error;
  }
};

// Nothing when a score is NaN.
std::optional<std::size_t> best_class(std::span<const double> scores) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) return std::nullopt;
    if (scores[i] > scores[best]) best = i;
  }
  return best;
}

bool has_classes(const Tensor& output) {
  return is_float(output.dtype()) && output.rank() >= 2 && output.dim(1) > 1 &&
         element_count(std::span(output.dims()).subspan(2)) == 1;
}

OutputSums compare_tensors(const Tensor& reference, const Tensor& other, std::int64_t samples,
                           std::int64_t rows) {
  OutputSums sums{.samples = samples};
  if (reference.dtype() == DType::string) {
    sums.has_classes = false;
    if (reference.strings() != other.strings()) {
      sums.one_sided = true;
      sums.max_abs = infinity;
    }
    return sums;
  }
  const Tensor a = reference.cast(DType::float64), b = other.cast(DType::float64);
  std::size_t count = static_cast<std::size_t>(a.size());
  if (samples < rows && a.rank() > 0 && a.dim(0) == rows)  // the rest is padding
    count = count / static_cast<std::size_t>(rows) * static_cast<std::size_t>(samples);
  sums.compare(a.data<double>().first(count), b.data<double>().first(count));
  sums.has_classes = has_classes(reference);
  if (!sums.has_classes) return sums;
  const auto classes = static_cast<std::size_t>(reference.dim(1));
  sums.samples = static_cast<std::int64_t>(count / classes);
  for (std::size_t row = 0; row < count; row += classes) {
    const auto expected = best_class(a.data<double>().subspan(row, classes));
    sums.agreeing += expected && expected == best_class(b.data<double>().subspan(row, classes));
  }
  return sums;
}

void check_comparable(const Model& reference, const Model& other) {
  const std::vector<Value*> a = reference.required_inputs(), b = other.required_inputs();
  require(a.size() == b.size(), "expected {} required inputs as in the reference, found {}",
          a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    require(a[i]->type.elem == b[i]->type.elem,
            "input '{}': expected {} as in the reference, found {}", b[i]->name(),
            to_string(a[i]->type), to_string(b[i]->type));
  require(reference.graph.outputs().size() == other.graph.outputs().size(),
          "expected {} outputs as in the reference, found {}", reference.graph.outputs().size(),
          other.graph.outputs().size());
}

// Ready batches as a Dataset.
class GivenBatches final : public Dataset {
 public:
  explicit GivenBatches(const std::vector<std::vector<Tensor>>& inputs) : inputs_(inputs) {}

  std::int64_t samples() const override {
    std::int64_t total = 0;
    for (const auto& batch : inputs_) total += samples_in(batch);
    return total;
  }
  bool labelled() const override { return false; }
  void rewind() override { position_ = 0; }
  bool next(Batch& batch) override {
    if (position_ == inputs_.size()) return false;
    batch.inputs = inputs_[position_++];
    batch.samples = samples_in(batch.inputs);
    return true;
  }
  std::string description() const override { return "given inputs"; }
  std::string hash() const override { return ""; }

 private:
  static std::int64_t samples_in(const std::vector<Tensor>& batch) {
    return !batch.empty() && batch[0].rank() > 0 ? batch[0].dim(0) : 1;
  }

  const std::vector<std::vector<Tensor>>& inputs_;
  std::size_t position_ = 0;
};

}  // namespace

void NonFinite::count(double value) {
  ++elements;
  nan += std::isnan(value);
  infinite += std::isinf(value);
}

void NonFinite::add(const NonFinite& other) {
  elements += other.elements;
  nan += other.nan;
  infinite += other.infinite;
}

std::string to_string(const std::string& output, const NonFinite& found) {
  if (!found.any()) return {};
  std::string text = fmt::format("output '{}': ", output);
  if (found.nan > 0) text += fmt::format("{} of {} elements are NaN", found.nan, found.elements);
  if (found.infinite > 0)
    text += found.nan > 0
                ? fmt::format(", {} infinite", found.infinite)
                : fmt::format("{} of {} elements are infinite", found.infinite, found.elements);
  return text;
}

bool is_unjudgeable(const std::vector<OutputError>& errors) {
  return !errors.empty() &&
         std::ranges::all_of(errors, [](const OutputError& error) { return error.before.all(); });
}

std::vector<OutputError> compare_outputs(const Model& reference, const Model& other, Dataset& data,
                                         int threads) {
  check_comparable(reference, other);
  if (threads <= 0) threads = available_cpus();
  struct Engines {
    std::unique_ptr<Engine> reference, other;
  };
  std::vector<Engines> engines(static_cast<std::size_t>(threads));
  const auto outputs = reference.graph.outputs();
  std::vector<OutputSums> totals(outputs.size());
  for_each_batch(
      data, threads,
      [&](int worker, const Batch& batch, std::int64_t) {
        Engines& pair = engines[static_cast<std::size_t>(worker)];
        if (!pair.reference) {
          pair.reference = std::make_unique<Engine>(reference, EngineOptions{.threads = 1});
          pair.other = std::make_unique<Engine>(other, EngineOptions{.threads = 1});
        }
        const std::vector<Tensor> expected = pair.reference->run(batch.inputs);
        const std::vector<Tensor> found = pair.other->run(batch.inputs);
        const std::int64_t rows = !batch.inputs.empty() && batch.inputs[0].rank() > 0
                                      ? batch.inputs[0].dim(0)
                                      : batch.samples;
        std::vector<OutputSums> sums;
        for (std::size_t i = 0; i < expected.size(); ++i) {
          require(expected[i].dims() == found[i].dims() &&
                      (expected[i].dtype() == DType::string) == (found[i].dtype() == DType::string),
                  "output '{}': expected {} as in the reference, found {}", outputs[i]->name(),
                  to_string(Type::of(expected[i])), to_string(Type::of(found[i])));
          sums.push_back(compare_tensors(expected[i], found[i], batch.samples, rows));
        }
        return sums;
      },
      [&](const std::vector<OutputSums>& sums) {
        for (std::size_t i = 0; i < sums.size(); ++i) totals[i].add(sums[i]);
      });
  std::vector<OutputError> errors;
  for (std::size_t i = 0; i < totals.size(); ++i)
    errors.push_back(totals[i].result(outputs[i]->name()));
  return errors;
}

std::vector<OutputError> compare_outputs(const Model& reference, const Model& other,
                                         const std::vector<std::vector<Tensor>>& inputs,
                                         int threads) {
  GivenBatches data(inputs);
  return compare_outputs(reference, other, data, threads);
}

}  // namespace onnxpress
