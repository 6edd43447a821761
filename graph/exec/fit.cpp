#include "graph/exec/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <tuple>
#include <utility>

#include "graph/exec/fit_state.h"
#include "graph/exec/held_out.h"
#include "graph/exec/samples.h"

namespace onnxpress {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_finite(const Tensor& tensor) {
  return !is_float(tensor.dtype()) ||
         std::ranges::all_of(tensor.to_floats(), [](float x) { return std::isfinite(x); });
}

class Fit {
 public:
  Fit(Trainer& trainer, const Model& model, std::span<const LossTerm> losses, Dataset& data,
      const FitOptions& options, const FitObserver& observer)
      : trainer_(trainer),
        data_(data),
        options_(options),
        observer_(observer),
        judge_(model, losses, options),
        batch_(fixed_batch(model).value_or(options.batch)),
        is_fixed_(fixed_batch(model).has_value()) {
    require(batch_ > 0 && options.epochs > 0 && options.accumulation > 0,
            "expected at least one epoch, one sample and one batch");
  }

  FitResult run() {
    Random random(options_.seed);
    data_.rewind();
    Samples samples = Samples::read(data_, options_.most_bytes);
    is_whole_ = samples.count() == data_.samples();
    if (!is_whole_)
      result_.notes.push_back(fmt::format("{} of {} samples fit into memory: they are shuffled in parts, and only the "
                                          "first part has held-out samples",
                                          samples.count(), data_.samples()));
    check(samples);
    Random holding = random.split(0);
    held_ = samples.hold_out(options_.hold_out, holding);
    require(samples.count() > 0, "there are no samples to train on");
    require(!is_fixed_ || samples.count() >= batch_, "expected at least the {} samples of a batch, found {}",
            batch_, samples.count());
    total_ = std::max(data_.samples() - held_.count(), samples.count());
    if (!options_.resume.empty())
      restore();
    else
      judge_start();
    if (observer_.begin)
      observer_.begin({.samples = total_,
                       .held_out = held_.count(),
                       .epochs = options_.epochs,
                       .batch = batch_,
                       .first_epoch = at_.epoch});
    while (at_.epoch <= options_.epochs && !at_.stopped_early) {
      const Clock::time_point start = Clock::now();
      Random order = random.split(static_cast<std::uint64_t>(at_.epoch));
      EpochRecord record{.epoch = at_.epoch, .rate = at_.rate};
      train(samples, order, record);
      judge(record);
      record.seconds = seconds_since(start);
      finish(record);
    }
    if (best_.is_there())
      best_.swap(trainer_);
    else if (average_.is_there())
      average_.swap(trainer_);
    result_.epochs = std::move(at_.records);
    result_.best_epoch = at_.best_epoch;
    result_.stopped_early = at_.stopped_early;
    return std::move(result_);
  }

 private:
  void check(const Samples& samples) const {
    if (!options_.check) return;
    // Few enough to add little to the memory that the samples take, of whatever size they are.
    constexpr std::size_t most_bytes = std::size_t{16} << 20;
    const std::size_t each = samples.bytes() / static_cast<std::size_t>(std::max<std::int64_t>(samples.count(), 1));
    const auto at_a_time = static_cast<std::int64_t>(std::clamp<std::size_t>(most_bytes / std::max<std::size_t>(each, 1), 1, 4096));
    for (std::int64_t begin = 0; begin < samples.count(); begin += at_a_time) {
      std::vector<std::int64_t> indices, numbers;
      for (std::int64_t i = begin; i < std::min(samples.count(), begin + at_a_time); ++i) {
        indices.push_back(i);
        numbers.push_back(samples.number(i));
      }
      options_.check(samples.gather(indices), {.samples = numbers});
    }
  }

  void restore() {
    at_ = FitPosition::restore(options_.resume);
    FitState of_trainer;
    const std::string prefix = "trainer/";
    for (const auto& [name, tensor] : options_.resume)
      if (name.starts_with(prefix)) of_trainer[name.substr(prefix.size())] = tensor;
    trainer_.restore(of_trainer);
    best_.restore(options_.resume, "best", trainer_);
    average_.restore(options_.resume, "average", trainer_);
    skip_until_ = at_.samples;
  }

  void save() const {
    if (!options_.checkpoint) return;
    FitState state;
    at_.save(state);
    for (auto& [name, tensor] : trainer_.state()) {
      if (!is_finite(tensor))
        throw NotFinite(fmt::format("update {}: '{}' is no longer finite", trainer_.steps(), name));
      state["trainer/" + name] = tensor;
    }
    best_.save(state, "best");
    average_.save(state, "average");
    options_.checkpoint(state);
  }

  void judge_start() {
    if (!options_.keep_start || held_.count() == 0) return;
    at_.epoch = 0;
    EpochRecord record;
    judge(record);
    at_.records.push_back(record);
    at_.epoch = 1;
  }

  void judge(EpochRecord& record) {
    if (held_.count() == 0) return;
    if (average_.is_there()) average_.swap(trainer_);
    std::tie(record.held_loss, record.held_accuracy) = judge_.judge(trainer_, held_, batch_);
    if (!std::isfinite(*record.held_loss))
      throw NotFinite(fmt::format("{}: the loss of the held-out samples is not finite ({})",
                                  at_.epoch == 0 ? "before training" : fmt::format("after epoch {}", at_.epoch),
                                  *record.held_loss));
    const bool is_better = !at_.best || *record.held_loss < *at_.best;
    if (is_better) {
      at_.best = record.held_loss;
      at_.best_epoch = at_.epoch;
      if (options_.keep_best) best_.copy(trainer_);
    }
    at_.without_better = is_better ? 0 : at_.without_better + 1;
    if (average_.is_there()) average_.swap(trainer_);
  }

  void finish(const EpochRecord& record) {
    at_.records.push_back(record);
    at_.stopped_early = options_.patience > 0 && at_.without_better >= options_.patience;
    ++at_.epoch;
    at_.samples = at_.batches = 0;
    at_.sum = 0;
    skip_until_ = 0;
    if (observer_.epoch) observer_.epoch(record);
    save();
  }

  // One epoch; where not all samples fit, part after part, the held-out ones being of the first.
  void train(const Samples& samples, Random& random, EpochRecord& record) {
    train_part(samples, random, record);
    if (!is_whole_) {
      data_.rewind();
      std::int64_t first = samples.count() + held_.count();
      skip(first);
      for (;;) {
        const Samples part = Samples::read(data_, options_.most_bytes, first);
        if (part.count() == 0) break;
        if (at_.epoch == 1) check(part);
        train_part(part, random, record);
        first += part.count();
      }
    }
    record.loss = at_.sum / static_cast<double>(std::max<std::int64_t>(at_.batches, 1));
    record.step = trainer_.steps();
  }

  void skip(std::int64_t count) {
    Batch batch;
    while (count > 0 && data_.next(batch)) count -= batch.samples;
  }

  void train_part(const Samples& samples, Random& random, EpochRecord& record) {
    const std::vector<std::int64_t> order = shuffled(samples.count(), random);
    std::int64_t pending = 0;
    Trainer::Step step;
    for (std::int64_t begin = 0; begin < samples.count(); begin += batch_) {
      const std::int64_t size = std::min(batch_, samples.count() - begin);
      if (is_fixed_ && size < batch_) break;
      record.samples += size;
      if (record.samples <= skip_until_) continue;  // done before the run was resumed
      train_batch(samples, std::span(order).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size)),
                  step);
      at_.samples = record.samples;
      if (++pending == options_.accumulation) {
        update(step, record);
        pending = 0;
      }
      tell(step, record);
      if (pending == 0) save_update();
    }
    if (pending > 0) {
      update(step, record);
      tell(step, record);
      save_update();
    }
  }

  void train_batch(const Samples& samples, std::span<const std::int64_t> indices, Trainer::Step& step) {
    std::vector<std::int64_t> numbers;
    for (const std::int64_t index : indices) numbers.push_back(samples.number(index));
    const BatchPlace place{.epoch = at_.epoch, .samples = numbers};
    Batch batch = samples.gather(indices);
    if (options_.transform) options_.transform(batch, place);
    step = trainer_.accumulate(batch.inputs, targets_of(batch, place, judge_.targets(), options_),
                               1.0 / static_cast<double>(options_.accumulation));
    at_.sum += step.loss;
    ++at_.batches;
  }

  void update(Trainer::Step& step, EpochRecord& record) {
    trainer_.update(step);
    record.rate = at_.rate = step.rate;
    if (options_.average > 0) average_.blend(trainer_, options_.average);
  }

  // Behind what is told of it: what a checkpoint holds has been told.
  void save_update() const {
    if (options_.checkpoint_updates > 0 && trainer_.steps() % options_.checkpoint_updates == 0) save();
  }

  void tell(const Trainer::Step& step, const EpochRecord& record) const {
    if (!observer_.step) return;
    observer_.step({.step = trainer_.steps(),
                    .epoch = record.epoch,
                    .done = record.samples,
                    .total = total_,
                    .loss = step.loss,
                    .terms = step.terms,
                    .rate = record.rate,
                    .norm = step.norm});
  }

  Trainer& trainer_;
  Dataset& data_;
  const FitOptions& options_;
  const FitObserver& observer_;
  HeldOutJudge judge_;
  KeptParameters average_, best_;
  Samples held_;
  FitPosition at_;
  FitResult result_;
  std::int64_t batch_ = 0, total_ = 0;
  std::int64_t skip_until_ = 0;  // samples of the epoch that a resumed run had done
  bool is_fixed_ = false, is_whole_ = true;
};

}  // namespace

std::optional<std::int64_t> fixed_batch(const Model& model) {
  for (const Value* input : model.required_inputs()) {
    const auto& shape = input->type.shape;
    if (shape && !shape->empty() && shape->front().is_known()) return shape->front().value();
  }
  return std::nullopt;
}

std::int64_t updates_per_epoch(const Model& model, std::int64_t samples, const FitOptions& options) {
  const std::int64_t batch = fixed_batch(model).value_or(options.batch);
  const std::int64_t trained = samples - held_out_of(samples, options.hold_out);
  const std::int64_t batches = fixed_batch(model) ? trained / batch : (trained + batch - 1) / batch;
  return (batches + options.accumulation - 1) / options.accumulation;
}

FitResult fit(Trainer& trainer, const Model& model, std::span<const LossTerm> losses, Dataset& data,
              const FitOptions& options, const FitObserver& observer) {
  return Fit(trainer, model, losses, data, options, observer).run();
}

}  // namespace onnxpress
