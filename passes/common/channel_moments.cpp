#include "passes/common/channel_moments.h"

#include <algorithm>
#include <map>

#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "graph/ops/infer.h"

namespace onnxpress {
namespace {

struct Sums {
  std::int64_t axis = 1;
  std::int64_t count = 0;
  std::vector<double> mean, squares;  // squares of differences from the mean

  // A tensor's moments folded in (Chan, Golub and LeVeque 1979, updating formulae, equation 2.1).
  void add(const Tensor& tensor, std::int64_t samples, std::int64_t rows) {
    const auto at = static_cast<std::size_t>(normalize_axis(axis, tensor.rank()));
    const bool padded = at != 0 && samples < rows && tensor.dim(0) == rows;
    const Tensor wide = tensor.cast(DType::float32);
    const auto values = wide.data<float>();
    std::int64_t inner = 1, outer = 1;
    for (std::size_t i = 0; i < tensor.rank(); ++i) (i < at ? outer : inner) *= i == at ? 1 : tensor.dim(i);
    if (padded) outer = outer / rows * samples;
    const std::int64_t channels = tensor.dim(at), added = outer * inner;
    if (added == 0) return;
    if (mean.empty()) {
      mean.resize(static_cast<std::size_t>(channels));
      squares.resize(mean.size());
    }
    require(std::ssize(mean) == channels, "expected {} channels as in the batches before, found {}", mean.size(), channels);
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto each = [&](auto&& fn) {
        for (std::int64_t o = 0; o < outer; ++o)
          for (const float value : values.subspan(static_cast<std::size_t>((o * channels + c) * inner), static_cast<std::size_t>(inner)))
            fn(static_cast<double>(value));
      };
      double sum = 0, spread = 0;
      each([&](double value) { sum += value; });
      const double center = sum / static_cast<double>(added);
      each([&](double value) { spread += (value - center) * (value - center); });
      const auto i = static_cast<std::size_t>(c);
      const double total = static_cast<double>(count + added), difference = center - mean[i];
      squares[i] += spread + difference * difference * static_cast<double>(count) * static_cast<double>(added) / total;
      mean[i] += difference * static_cast<double>(added) / total;
    }
    count += added;
  }
};

class MomentsObserver : public Observer {
 public:
  MomentsObserver(const Graph& graph, std::map<std::string, Sums, std::less<>>& sums) : graph_(graph), sums_(sums) {}

  void next_batch(std::int64_t samples, std::int64_t rows) {
    samples_ = samples;
    rows_ = rows;
  }
  bool wants(const Value& value) override { return &value.graph() == &graph_ && sums_.contains(value.name()); }
  void observe(const Value& value, const Tensor& tensor) override {
    in_context([&] { return fmt::format("value '{}'", value.name()); },
               [&] {
                 require(is_float(tensor.dtype()), "expected floating-point values, found {}", name(tensor.dtype()));
                 sums_.find(value.name())->second.add(tensor, samples_, rows_);
               });
  }

 private:
  const Graph& graph_;
  std::map<std::string, Sums, std::less<>>& sums_;
  std::int64_t samples_ = 0, rows_ = 0;
};

// Only what the values need is computed.
std::unique_ptr<Model> cut_at(const Model& model, const std::vector<ChannelsOf>& values) {
  std::unique_ptr<Model> cut = model.clone();
  std::vector<Value*> ends;
  for (const ChannelsOf& of : values) {
    Value* value = cut->graph.find(of.value);
    require(value != nullptr, "there is no value '{}' in the main graph", of.value);
    if (value->producer() && std::ranges::find(ends, value) == ends.end()) ends.push_back(value);
  }
  if (ends.empty()) return cut;
  while (!cut->graph.outputs().empty()) cut->graph.remove_output(0);
  for (Value* value : ends) cut->graph.add_output(value);
  return cut;
}

}  // namespace

std::vector<ChannelMoments> measure_moments(const Model& model, const std::vector<ChannelsOf>& values,
                                            PassContext& context, std::int64_t most_samples) {
  require(context.calibration != nullptr, "channel statistics need calibration data (--calib)");
  std::map<std::string, Sums, std::less<>> sums;
  for (const ChannelsOf& of : values) sums[of.value].axis = of.axis;
  const std::unique_ptr<Model> cut = cut_at(model, values);
  Engine engine(*cut, {.threads = context.pool.size()});
  MomentsObserver observer(engine.model().graph, sums);
  context.calibration->rewind();
  std::int64_t samples = 0;
  for (Batch batch; (most_samples == 0 || samples < most_samples) && context.calibration->next(batch);) {
    const bool has_rows = !batch.inputs.empty() && batch.inputs[0].rank() > 0;
    observer.next_batch(batch.samples, has_rows ? batch.inputs[0].dim(0) : batch.samples);
    if (batch.values.empty())
      engine.run(std::span<const Tensor>(batch.inputs), &observer);
    else
      engine.run(std::span<const RuntimeValue>(batch.values), &observer);
    samples += batch.samples;
  }
  require(samples > 0, "the calibration data has no samples");
  std::vector<ChannelMoments> moments;
  for (const ChannelsOf& of : values) {
    const Sums& found = sums.at(of.value);
    ChannelMoments& result = moments.emplace_back(ChannelMoments{.count = found.count, .mean = found.mean});
    for (const double squares : found.squares) result.variance.push_back(squares / static_cast<double>(found.count));
  }
  return moments;
}

}  // namespace onnxpress
