#include "passes/quantize/sampled_rows.h"

#include <algorithm>

#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "passes/common/calibration.h"

namespace onnxpress {
namespace {

class RowSampler : public Observer {
 public:
  RowSampler(const std::map<std::string, std::int64_t, std::less<>>& axes, std::size_t most_rows, std::size_t rows_per_batch)
      : axes_(axes), most_rows_(most_rows), rows_per_batch_(rows_per_batch) {}

  void next_batch(std::int64_t samples, std::int64_t batch_rows) {
    samples_ = samples;
    batch_rows_ = batch_rows;
  }
  bool wants(const Value& value) override { return axes_.contains(calibration_key(value)); }

  void observe(const Value& value, const Tensor& tensor) override {
    const std::string key = calibration_key(value);
    const auto axis = static_cast<std::size_t>(axes_.find(key)->second);
    if (axis >= tensor.rank() || !is_float(tensor.dtype())) return;
    std::size_t outer = 1, inner = 1;
    for (std::size_t i = 0; i < tensor.rank(); ++i) {
      if (i != axis) (i < axis ? outer : inner) *= static_cast<std::size_t>(tensor.dim(i));
    }
    // What only fills up a batch is no data.
    if (axis != 0 && samples_ < batch_rows_ && tensor.dim(0) == batch_rows_)
      outer = outer / static_cast<std::size_t>(batch_rows_) * static_cast<std::size_t>(samples_);
    SampledRows& into = rows[key];
    const auto channels = static_cast<std::size_t>(tensor.dim(axis));
    if (into.channels == 0) into.channels = channels;
    const std::size_t places = outer * inner;
    if (into.channels != channels || into.rows() >= most_rows_ || places == 0) return;
    const std::size_t count = std::min({places, rows_per_batch_, most_rows_ - into.rows()});
    const Tensor wide = tensor.cast(DType::float32);
    const auto values = wide.data<float>();
    for (std::size_t k = 0; k < count; ++k) {
      const std::size_t place = k * places / count, o = place / inner, i = place % inner;
      for (std::size_t c = 0; c < channels; ++c) into.values.push_back(values[(o * channels + c) * inner + i]);
    }
  }

  bool is_full() const {
    return rows.size() == axes_.size() &&
           std::ranges::all_of(rows, [&](const auto& entry) { return entry.second.rows() >= most_rows_; });
  }

  std::map<std::string, SampledRows, std::less<>> rows;

 private:
  const std::map<std::string, std::int64_t, std::less<>>& axes_;
  std::size_t most_rows_, rows_per_batch_;
  std::int64_t samples_ = 0, batch_rows_ = 0;
};

}  // namespace

std::map<std::string, SampledRows, std::less<>> sample_rows(
    const Model& model, const std::map<std::string, std::int64_t, std::less<>>& values, PassContext& context,
    std::size_t most_rows, std::size_t rows_per_batch) {
  require(context.calibration != nullptr, "samples of activations need calibration data (--calib)");
  Engine engine(model, {.threads = context.pool.size()});
  RowSampler sampler(values, most_rows, rows_per_batch);
  context.calibration->rewind();
  std::int64_t samples = 0;
  for (Batch batch; !sampler.is_full() && context.calibration->next(batch);) {
    const bool has_rows = !batch.inputs.empty() && batch.inputs[0].rank() > 0;
    sampler.next_batch(batch.samples, has_rows ? batch.inputs[0].dim(0) : batch.samples);
    if (batch.values.empty())
      engine.run(std::span<const Tensor>(batch.inputs), &sampler);
    else
      engine.run(std::span<const RuntimeValue>(batch.values), &sampler);
    samples += batch.samples;
  }
  require(samples > 0, "the calibration data has no samples");
  return std::move(sampler.rows);
}

}  // namespace onnxpress
