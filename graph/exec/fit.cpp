#include "graph/exec/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "graph/exec/class_scores.h"
#include "graph/exec/gradients.h"
#include "graph/exec/samples.h"
#include "graph/ops/compute_type.h"

namespace onnxpress {
namespace {

using Clock = std::chrono::steady_clock;

// The batch size that the model's inputs are fixed to; nothing when it is open.
std::optional<std::int64_t> fixed_batch(const Model& model) {
  for (const Value* input : model.required_inputs()) {
    const auto& shape = input->type.shape;
    if (shape && !shape->empty() && shape->front().is_known()) return shape->front().value();
  }
  return std::nullopt;
}

// The loss of the model as it is in inference.
class Judge {
 public:
  Judge(const Model& model, std::span<const LossTerm> losses, const FitOptions& options)
      : options_(options), model_(model.clone()) {
    loss_ = append_loss(*model_, losses);
  }

  // Mean loss and, where labels are classes, accuracy.
  std::pair<double, std::optional<double>> judge(const Trainer& trainer, const Samples& samples,
                                                 std::int64_t batch) const {
    trainer.store(*model_);
    Differentiator run(*model_, {}, loss_.output, {});
    const auto outputs = run.model().graph.outputs();
    const auto at = std::ranges::find(outputs, std::string_view(loss_.output), [](const Value* output) {
                      return std::string_view(output->name());
                    }) - outputs.begin();
    double total = 0;
    std::int64_t count = 0;
    ClassificationSums sums;
    bool are_classes = samples.is_labelled();
    for (std::int64_t begin = 0; begin < samples.count(); begin += batch) {
      // A fixed batch is filled up from the start; what was seen counts once.
      std::vector<std::int64_t> numbers;
      for (std::int64_t i = begin; i < begin + batch; ++i)
        if (i < samples.count() || fixed_) numbers.push_back(i % samples.count());
      const std::int64_t fresh = std::min(batch, samples.count() - begin);
      const Batch part = samples.gather(numbers);
      const std::vector<Tensor> results = run.forward(in_order(run, part), {});
      total += results[static_cast<std::size_t>(at)].cast(DType::float64).data<double>()[0] *
               static_cast<double>(fresh);
      count += fresh;
      are_classes = are_classes && is_integer(part.labels.dtype());
      if (!are_classes) continue;
      const auto layout = ClassLayout::fit(results[0].dims(), part.labels.dims());
      are_classes = layout.has_value();
      if (are_classes) sums.judge(results[0], *layout, part.labels, fresh, begin);
    }
    std::optional<double> accuracy;
    if (are_classes && sums.positions > 0)
      accuracy = static_cast<double>(sums.top1) / static_cast<double>(sums.positions);
    return {total / static_cast<double>(std::max<std::int64_t>(count, 1)), accuracy};
  }

  std::vector<Tensor> targets(const Batch& batch) const {
    std::vector<Tensor> result;
    for (std::size_t i = 0; i < loss_.targets.size(); ++i) {
      const auto from = i < options_.targets.size() ? options_.targets[i] : std::nullopt;
      if (!from) {
        require(batch.labels.defined(), "the training data has no labels, which the loss asks for");
        result.push_back(batch.labels);
      } else {
        require(*from < batch.inputs.size(), "expected an input to reconstruct, found {}", *from);
        result.push_back(batch.inputs[*from]);
      }
    }
    return result;
  }

  void set_fixed(bool is_fixed) { fixed_ = is_fixed; }

 private:
  std::vector<Tensor> in_order(const Differentiator& run, const Batch& batch) const {
    std::map<std::string, Tensor> by_name;
    const std::vector<Tensor> wanted = targets(batch);
    for (std::size_t i = 0; i < wanted.size(); ++i) by_name[loss_.targets[i]] = wanted[i];
    std::size_t next = 0;
    for (const Value* input : model_->required_inputs())
      if (!by_name.contains(input->name())) by_name[input->name()] = batch.inputs.at(next++);
    std::vector<Tensor> ordered;
    for (const std::string& name : run.input_names()) ordered.push_back(by_name.at(name));
    return ordered;
  }

  const FitOptions& options_;
  std::unique_ptr<Model> model_;
  AppendedLoss loss_;
  bool fixed_ = false;
};

// Parameters kept aside: the best so far, or their moving average.
class Kept {
 public:
  void copy(const Trainer& trainer) {
    values_.clear();
    for (std::size_t i = 0; i < trainer.parameters().size(); ++i)
      values_.push_back(copy_as(trainer.value(i), trainer.value(i).dtype()));
  }
  void blend(const Trainer& trainer, double decay) {
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
  bool is_there() const { return !values_.empty(); }
  // Exchanges with the trainer's.
  void swap(Trainer& trainer) {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      Tensor now = copy_as(trainer.value(i), trainer.value(i).dtype());
      trainer.set_value(i, values_[i]);
      values_[i] = std::move(now);
    }
  }

 private:
  std::vector<Tensor> values_;
};

class Fit {
 public:
  Fit(Trainer& trainer, const Model& model, std::span<const LossTerm> losses, Dataset& data,
      const FitOptions& options, const FitObserver& observer)
      : trainer_(trainer), data_(data), options_(options), observer_(observer), judge_(model, losses, options) {
    const auto fixed = fixed_batch(model);
    batch_ = fixed.value_or(options.batch);
    judge_.set_fixed(fixed.has_value());
    is_fixed_ = fixed.has_value();
    require(batch_ > 0 && options.epochs > 0 && options.accumulation > 0,
            "expected at least one epoch, one sample and one batch");
  }

  FitResult run() {
    Random random(options_.seed);
    data_.rewind();
    Samples samples = Samples::read(data_, options_.most_bytes);
    is_whole_ = samples.count() == data_.samples();
    if (!is_whole_)
      result_.notes.push_back(fmt::format("{} of {} samples fit into memory: they are shuffled in parts",
                                          samples.count(), data_.samples()));
    Random holding = random.split(0);
    Samples held = samples.hold_out(options_.hold_out, holding);
    require(samples.count() > 0, "there are no samples to train on");
    require(!is_fixed_ || samples.count() >= batch_, "expected at least the {} samples of a batch, found {}",
            batch_, samples.count());
    std::int64_t without_better = 0;
    std::optional<double> best;
    Kept kept;
    for (std::int64_t epoch = 1; epoch <= options_.epochs; ++epoch) {
      const Clock::time_point start = Clock::now();
      EpochRecord record{.epoch = epoch};
      Random order = random.split(static_cast<std::uint64_t>(epoch));
      train(samples, held, order, record);
      if (held.count() > 0) {
        if (average_.is_there()) average_.swap(trainer_);
        std::tie(record.held_loss, record.held_accuracy) = judge_.judge(trainer_, held, batch_);
        const bool is_better = !best || *record.held_loss < *best;
        if (is_better) {
          best = record.held_loss;
          result_.best_epoch = epoch;
          if (options_.keep_best) kept.copy(trainer_);
        }
        without_better = is_better ? 0 : without_better + 1;
        if (average_.is_there()) average_.swap(trainer_);
      }
      record.seconds = std::chrono::duration<double>(Clock::now() - start).count();
      result_.epochs.push_back(record);
      if (observer_.epoch) observer_.epoch(record);
      if (options_.patience > 0 && without_better >= options_.patience) {
        result_.stopped_early = true;
        break;
      }
    }
    if (kept.is_there())
      kept.swap(trainer_);
    else if (average_.is_there())
      average_.swap(trainer_);
    return std::move(result_);
  }

 private:
  // One epoch; where not all samples fit, part after part, the held-out ones being of the first.
  void train(Samples& samples, const Samples& held, Random& random, EpochRecord& record) {
    double sum = 0;
    std::int64_t steps = 0;
    const std::int64_t total = std::max(data_.samples() - held.count(), samples.count());
    train_part(samples, random, record, sum, steps, total);
    if (!is_whole_) {
      data_.rewind();
      skip(samples.count() + held.count());
      for (;;) {
        Samples part = Samples::read(data_, options_.most_bytes);
        if (part.count() == 0) break;
        train_part(part, random, record, sum, steps, total);
      }
    }
    record.loss = sum / static_cast<double>(std::max<std::int64_t>(steps, 1));
  }

  void skip(std::int64_t count) {
    Batch batch;
    while (count > 0 && data_.next(batch)) count -= batch.samples;
  }

  void train_part(const Samples& samples, Random& random, EpochRecord& record, double& sum,
                  std::int64_t& steps, std::int64_t total) {
    const std::vector<std::int64_t> order = shuffled(samples.count(), random);
    std::int64_t pending = 0;
    Trainer::Step step;
    for (std::int64_t begin = 0; begin < samples.count(); begin += batch_) {
      const std::int64_t size = std::min(batch_, samples.count() - begin);
      if (is_fixed_ && size < batch_) break;
      const Batch batch = samples.gather(std::span(order).subspan(static_cast<std::size_t>(begin),
                                                                  static_cast<std::size_t>(size)));
      step = trainer_.accumulate(batch.inputs, judge_.targets(batch),
                                 1.0 / static_cast<double>(options_.accumulation));
      sum += step.loss;
      ++steps;
      record.samples += size;
      if (++pending == options_.accumulation) {
        trainer_.update(step);
        record.rate = step.rate;
        pending = 0;
        if (options_.average > 0) average_.blend(trainer_, options_.average);
      }
      if (observer_.step) observer_.step(record.epoch, record.samples, total, step.loss);
    }
    if (pending > 0) trainer_.update(step);
  }

  Trainer& trainer_;
  Dataset& data_;
  const FitOptions& options_;
  const FitObserver& observer_;
  Judge judge_;
  Kept average_;
  FitResult result_;
  std::int64_t batch_ = 0;
  bool is_fixed_ = false, is_whole_ = true;
};

}  // namespace

FitResult fit(Trainer& trainer, const Model& model, std::span<const LossTerm> losses, Dataset& data,
              const FitOptions& options, const FitObserver& observer) {
  return Fit(trainer, model, losses, data, options, observer).run();
}

}  // namespace onnxpress
