#include "graph/exec/held_out.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "graph/exec/class_scores.h"

namespace onnxpress {
namespace {

Tensor with_rows(const Tensor& tensor, const std::optional<Dims>& row) {
  if (!row || tensor.rank() == 0) return tensor;
  Dims dims = *row;
  dims.insert(dims.begin(), tensor.dim(0));
  require(element_count(dims) == tensor.size(), "expected targets {}, found {}", to_string(dims),
          to_string(tensor.dims()));
  return tensor.reshaped(std::move(dims));
}

Tensor target_of(const Batch& batch, const TargetSource& source, std::span<const Tensor> computed) {
  switch (source.kind) {
    case TargetSource::Kind::labels:
      require(batch.labels.defined(), "the training data has no labels, which the loss asks for");
      return batch.labels;
    case TargetSource::Kind::input:
      require(source.index < batch.inputs.size(), "expected an input to reconstruct, found {}", source.index);
      return batch.inputs[source.index];
    case TargetSource::Kind::further: {
      const auto found = batch.further.find(source.name);
      require(found != batch.further.end(), "the training data has no array '{}' of one row a sample",
              source.name);
      return found->second;
    }
    case TargetSource::Kind::computed:
      break;
  }
  require(source.index < computed.size(), "expected computed target {}, found {} of them", source.index,
          computed.size());
  return computed[source.index];
}

}  // namespace

std::vector<Tensor> targets_of(const Batch& batch, const BatchPlace& place, std::size_t count,
                               const FitOptions& options) {
  std::vector<Tensor> computed;
  if (options.compute_targets) computed = options.compute_targets(batch, place);
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < count; ++i) {
    const TargetSource source = i < options.targets.size() ? options.targets[i] : TargetSource{};
    result.push_back(with_rows(target_of(batch, source, computed), source.row));
  }
  return result;
}

HeldOutJudge::HeldOutJudge(const Model& model, std::span<const LossTerm> losses, const FitOptions& options)
    : options_(options), model_(model.clone()), is_fixed_(fixed_batch(model).has_value()) {
  loss_ = append_loss(*model_, losses);
  const auto is_labels = [](const TargetSource& source) { return source.kind == TargetSource::Kind::labels; };
  if (!options.targets.empty() && std::ranges::none_of(options.targets, is_labels)) return;
  const auto outputs = model.graph.outputs();
  classified_ = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (outputs[i]->name() == losses.front().output) classified_ = i;
  is_binary_ = losses.front().kind == LossTerm::Kind::binary_cross_entropy;
  is_probability_ = !outputs.empty() && is_sigmoid_output(*outputs[*classified_]);
  ignored_ = losses.front().ignored;
}

std::pair<double, std::optional<double>> HeldOutJudge::judge(const Trainer& trainer, const Samples& samples,
                                                             std::int64_t batch) const {
  trainer.store(*model_);
  Differentiator run(*model_, {}, loss_.output, {.threads = options_.threads});
  const auto outputs = run.model().graph.outputs();
  const auto at = std::ranges::find(outputs, std::string_view(loss_.output), [](const Value* output) {
                    return std::string_view(output->name());
                  }) - outputs.begin();
  double total = 0;
  std::int64_t count = 0;
  ClassificationSums sums;
  bool are_classes = samples.is_labelled() && classified_;
  for (std::int64_t begin = 0; begin < samples.count(); begin += batch) {
    // A fixed batch is filled up from the start; what was seen counts once.
    std::vector<std::int64_t> indices, numbers;
    for (std::int64_t i = begin; i < begin + batch; ++i)
      if (i < samples.count() || is_fixed_) indices.push_back(i % samples.count());
    for (const std::int64_t index : indices) numbers.push_back(samples.number(index));
    const std::int64_t fresh = std::min(batch, samples.count() - begin);
    const Batch part = samples.gather(indices);
    const std::vector<Tensor> results = run.forward(in_order(run, part, {.samples = numbers}), {});
    total += results[static_cast<std::size_t>(at)].cast(DType::float64).data<double>()[0] *
             static_cast<double>(fresh);
    count += fresh;
    are_classes = are_classes && is_integer(part.labels.dtype());
    if (!are_classes) continue;
    auto layout = ClassLayout::fit(results[*classified_].dims(), part.labels.dims());
    are_classes = layout.has_value() && (layout->classes > 1 || is_binary_);
    if (!are_classes) continue;
    layout->is_probability = is_probability_;
    layout->ignored = ignored_;
    sums.judge(results[*classified_], *layout, part.labels, fresh, begin);
  }
  std::optional<double> accuracy;
  if (are_classes && sums.positions > 0)
    accuracy = static_cast<double>(sums.top1) / static_cast<double>(sums.positions);
  return {total / static_cast<double>(std::max<std::int64_t>(count, 1)), accuracy};
}

std::vector<Tensor> HeldOutJudge::in_order(const Differentiator& run, const Batch& batch,
                                           const BatchPlace& place) const {
  std::map<std::string, Tensor> by_name;
  const std::vector<Tensor> wanted = targets_of(batch, place, loss_.targets.size(), options_);
  for (std::size_t i = 0; i < wanted.size(); ++i) by_name[loss_.targets[i]] = wanted[i];
  std::size_t next = 0;
  for (const Value* input : model_->required_inputs())
    if (!by_name.contains(input->name())) by_name[input->name()] = batch.inputs.at(next++);
  std::vector<Tensor> ordered;
  for (const std::string& name : run.input_names()) ordered.push_back(by_name.at(name));
  return ordered;
}

}  // namespace onnxpress
