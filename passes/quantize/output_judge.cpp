#include "passes/quantize/output_judge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/base/error.h"
#include "graph/base/random.h"
#include "graph/exec/engine.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t generated_sets = 4;

// Whether an output is one row of class scores per sample.
bool has_classes(const Tensor& output) {
  return is_float(output.dtype()) && output.rank() >= 2 && output.dim(1) > 1 &&
         element_count(std::span(output.dims()).subspan(2)) == 1;
}

// Nothing when a score is NaN.
std::optional<std::size_t> best_class(std::span<const float> scores) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) return std::nullopt;
    if (scores[i] > scores[best]) best = i;
  }
  return best;
}

std::size_t bytes_of(const std::vector<Tensor>& tensors) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += tensor.byte_size();
  return bytes;
}

// Elements that belong to the first `samples` of the rows.
std::size_t judged_elements(const Tensor& tensor, std::int64_t samples) {
  const auto size = static_cast<std::size_t>(tensor.size());
  if (tensor.rank() == 0 || tensor.dim(0) <= samples) return size;
  return size / static_cast<std::size_t>(tensor.dim(0)) * static_cast<std::size_t>(samples);
}

struct OutputNoise {
  double signal = 0, noise = 0;
  bool broken = false, has_elements = false;

  void add(std::span<const float> expected, std::span<const float> found) {
    has_elements |= !expected.empty();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double x = static_cast<double>(expected[i]), y = static_cast<double>(found[i]);
      if (!std::isfinite(x)) continue;
      broken |= !std::isfinite(y);
      signal += x * x;
      noise += (x - y) * (x - y);
    }
  }

  double relative() const {
    if (broken) return std::numeric_limits<double>::infinity();
    if (noise == 0) return 0;
    return signal > 0 ? noise / signal : std::numeric_limits<double>::infinity();
  }
};

}  // namespace

double OutputQuality::snr_db() const {
  return noise > 0 ? -10 * std::log10(noise) : std::numeric_limits<double>::infinity();
}

std::optional<double> OutputQuality::drop(const OutputQuality& original) const {
  if (accuracy && original.accuracy) return *original.accuracy - *accuracy;
  if (agreement) return 1 - *agreement;
  return std::nullopt;
}

OutputJudge::OutputJudge(const Model& original, PassContext& context, std::int64_t most_samples, std::size_t most_bytes)
    : threads_(context.pool.size()) {
  Engine engine(original, {.threads = threads_});
  std::size_t bytes = 0;
  const auto run = [&](std::vector<Tensor> inputs, Tensor labels, std::int64_t samples) {
    std::vector<Tensor> outputs = engine.run(std::span<const Tensor>(inputs));
    bytes += bytes_of(inputs) + bytes_of(outputs);
    add(std::move(inputs), std::move(outputs), std::move(labels), samples);
  };
  if (context.calibration == nullptr) {
    generated_ = true;
    for (std::uint64_t i = 0; i < generated_sets; ++i)
      run(probe_inputs(original, Random(context.seed).split(i).next()), Tensor(), 1);
  } else {
    generated_ = context.calibration->generated();
    context.calibration->rewind();
    for (Batch batch; samples_ < most_samples && bytes < most_bytes && context.calibration->next(batch);) {
      require(batch.values.empty(), "outputs cannot be compared for inputs that are sequences");
      run(std::move(batch.inputs), std::move(batch.labels), batch.samples);
      batch = Batch();
    }
  }
  require(samples_ > 0, "the calibration data has no samples");
  original_ = compare(outputs_);
}

void OutputJudge::add(std::vector<Tensor> inputs, std::vector<Tensor> outputs, Tensor labels, std::int64_t samples) {
  inputs_.push_back(std::move(inputs));
  outputs_.push_back(std::move(outputs));
  labels_.push_back(std::move(labels));
  counts_.push_back(samples);
  samples_ += samples;
}

OutputQuality OutputJudge::judge(const Model& other) const {
  Engine engine(other, {.threads = threads_});
  std::vector<std::vector<Tensor>> outputs;
  for (const std::vector<Tensor>& inputs : inputs_) outputs.push_back(engine.run(std::span<const Tensor>(inputs)));
  return compare(outputs);
}

OutputQuality OutputJudge::compare(const std::vector<std::vector<Tensor>>& outputs) const {
  OutputQuality quality;
  std::vector<OutputNoise> noises(outputs_[0].size());
  std::int64_t rows = 0, agreeing = 0, labelled = 0, right = 0;
  bool judges_classes = false;
  for (std::size_t batch = 0; batch < outputs.size(); ++batch) {
    bool first_classes = true;
    for (std::size_t i = 0; i < noises.size(); ++i) {
      const Tensor &expected = outputs_[batch][i], &found = outputs[batch][i];
      if (!is_float(expected.dtype())) continue;
      require(expected.dims() == found.dims(), "output {}: expected dims {} as before, found {}", i,
              to_string(expected.dims()), to_string(found.dims()));
      const std::vector<float> x = expected.to_floats(), y = found.to_floats();
      const std::size_t count = judged_elements(expected, counts_[batch]);
      noises[i].add(std::span(x).first(count), std::span(y).first(count));
      if (!has_classes(expected) || !first_classes) continue;
      first_classes = false;
      judges_classes = true;
      const auto classes = static_cast<std::size_t>(expected.dim(1));
      const Tensor& labels = labels_[batch];
      const bool has_labels = labels.defined() && labels.dtype() != DType::string && labels.size() >= static_cast<std::int64_t>(count / classes);
      const std::vector<float> label = has_labels ? labels.to_floats() : std::vector<float>{};
      for (std::size_t row = 0; row < count / classes; ++row) {
        const auto before = best_class(std::span(x).subspan(row * classes, classes));
        const auto after = best_class(std::span(y).subspan(row * classes, classes));
        ++rows;
        agreeing += before && before == after;
        if (!has_labels || labels.size() != labels.dim(0)) continue;
        ++labelled;
        right += after && static_cast<float>(*after) == label[row];
      }
    }
  }
  std::size_t judged = 0;
  for (const OutputNoise& noise : noises) {
    if (!noise.has_elements) continue;
    quality.noise += noise.relative();
    ++judged;
  }
  if (judged > 0) quality.noise /= static_cast<double>(judged);
  if (judges_classes && rows > 0) quality.agreement = static_cast<double>(agreeing) / static_cast<double>(rows);
  if (labelled > 0 && labelled == rows) quality.accuracy = static_cast<double>(right) / static_cast<double>(labelled);
  return quality;
}

}  // namespace onnxpress
