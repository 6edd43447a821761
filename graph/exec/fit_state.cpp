#include "graph/exec/fit_state.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "graph/ops/compute_type.h"

namespace onnxpress {
namespace {

constexpr std::size_t record_width = 8;

const Tensor& tensor_of(const FitState& state, const std::string& name) {
  const auto found = state.find(name);
  require(found != state.end(), "the checkpoint has no '{}'", name);
  return found->second;
}

std::vector<double> numbers_of(const FitState& state, const std::string& name, std::size_t width) {
  const Tensor& tensor = tensor_of(state, name);
  require(tensor.dtype() == DType::float64 && tensor.size() % static_cast<std::int64_t>(width) == 0,
          "'{}' of the checkpoint: expected float64 in rows of {}, found {}", name, width,
          to_string(Type::of(tensor)));
  const auto data = tensor.data<double>();
  return {data.begin(), data.end()};
}

// NaN stands for nothing.
double number(const std::optional<double>& value) { return value.value_or(std::numeric_limits<double>::quiet_NaN()); }
std::optional<double> optional(double value) { return std::isnan(value) ? std::nullopt : std::optional(value); }

std::array<double, record_width> row(const EpochRecord& record) {
  return {static_cast<double>(record.epoch), static_cast<double>(record.step), record.loss, number(record.held_loss),
          number(record.held_accuracy), record.rate, record.seconds, static_cast<double>(record.samples)};
}

}  // namespace

void KeptParameters::copy(const Trainer& trainer) {
  values_.clear();
  for (std::size_t i = 0; i < trainer.value_count(); ++i)
    values_.push_back(copy_as(trainer.value(i), trainer.value(i).dtype()));
}

void KeptParameters::blend(const Trainer& trainer, double decay) {
  if (values_.empty()) return copy(trainer);
  for (std::size_t i = 0; i < values_.size(); ++i) {
    const Tensor now = trainer.value(i).cast(DType::float64);
    Tensor mean = copy_as(values_[i], DType::float64);
    const auto from = now.data<double>();
    const auto to = mean.mutable_data<double>();
    for (std::size_t k = 0; k < to.size(); ++k) to[k] = decay * to[k] + (1 - decay) * from[k];
    values_[i] = mean.cast(values_[i].dtype());
  }
}

void KeptParameters::swap(Trainer& trainer) {
  for (std::size_t i = 0; i < values_.size(); ++i) {
    Tensor now = copy_as(trainer.value(i), trainer.value(i).dtype());
    trainer.set_value(i, values_[i]);
    values_[i] = std::move(now);
  }
}

void KeptParameters::save(FitState& state, const std::string& prefix) const {
  for (std::size_t i = 0; i < values_.size(); ++i)
    state[fmt::format("{}/{}", prefix, i)] = copy_as(values_[i], values_[i].dtype());
}

void KeptParameters::restore(const FitState& state, const std::string& prefix, const Trainer& trainer) {
  values_.clear();
  if (!state.contains(prefix + "/0")) return;
  for (std::size_t i = 0; i < trainer.value_count(); ++i) {
    const std::string name = fmt::format("{}/{}", prefix, i);
    const Tensor& tensor = tensor_of(state, name);
    require(tensor.dims() == trainer.value(i).dims() && tensor.dtype() == trainer.value(i).dtype(),
            "the checkpoint is of another model: expected {}, found {}", to_string(Type::of(trainer.value(i))),
            to_string(Type::of(tensor)));
    values_.push_back(copy_as(tensor, tensor.dtype()));
  }
}

void FitPosition::save(FitState& state) const {
  state["fit/counts"] = Tensor::of<std::int64_t>(
      {6}, {epoch, samples, batches, best_epoch, without_better, stopped_early ? std::int64_t{1} : std::int64_t{0}});
  state["fit/losses"] = Tensor::of<double>({3}, {sum, number(best), rate});
  Tensor table(DType::float64, {std::ssize(records), std::int64_t{record_width}});
  auto to = table.mutable_data<double>().begin();
  for (const EpochRecord& record : records) to = std::ranges::copy(row(record), to).out;
  state["fit/epochs"] = std::move(table);
}

FitPosition FitPosition::restore(const FitState& state) {
  const std::vector<std::int64_t> counts = tensor_of(state, "fit/counts").to_ints();
  require(counts.size() == 6, "'fit/counts' of the checkpoint: expected 6 numbers, found {}", counts.size());
  const std::vector<double> losses = numbers_of(state, "fit/losses", 3);
  FitPosition position{.epoch = counts[0],
                       .samples = counts[1],
                       .sum = losses.at(0),
                       .rate = losses.at(2),
                       .batches = counts[2],
                       .best = optional(losses.at(1)),
                       .best_epoch = counts[3],
                       .without_better = counts[4],
                       .stopped_early = counts[5] != 0};
  const std::vector<double> table = numbers_of(state, "fit/epochs", record_width);
  for (std::size_t i = 0; i < table.size(); i += record_width)
    position.records.push_back({.epoch = static_cast<std::int64_t>(table[i]),
                                .step = static_cast<std::int64_t>(table[i + 1]),
                                .loss = table[i + 2],
                                .held_loss = optional(table[i + 3]),
                                .held_accuracy = optional(table[i + 4]),
                                .rate = table[i + 5],
                                .seconds = table[i + 6],
                                .samples = static_cast<std::int64_t>(table[i + 7])});
  return position;
}

}  // namespace onnxpress
