#include "passes/common/batch_augmentation.h"

#include <optional>
#include <utility>

namespace onnxpress {
namespace {

// The classes that mixed labels are probabilities of; nothing where labels are numbers.
std::optional<std::int64_t> mixed_classes(const ChosenLosses& losses, const FirstBatch& first,
                                          std::vector<TargetSource>& targets) {
  std::optional<std::int64_t> classes;
  std::size_t target = 0;
  for (const LossTerm& term : losses.terms) {
    if (term.kind == LossTerm::Kind::ctc)
      throw Unsuitable("augmentation: mixup cannot mix the sequences of a ctc loss");
    if (term.kind == LossTerm::Kind::decoupled_distillation)
      throw Unsuitable("augmentation: mixup cannot mix the labels of decoupled_distillation");
    if (term.kind == LossTerm::Kind::gaussian_kl) continue;
    TargetSource& source = targets.at(target++);
    const auto dims = first.outputs.find(term.output);
    const Tensor& labels = first.batch.labels;
    if (term.kind != LossTerm::Kind::cross_entropy || source.kind != TargetSource::Kind::labels ||
        dims == first.outputs.end() || !is_integer(labels.dtype()))
      continue;
    if (dims->second.size() != 2 || labels.size() != dims->second[0])
      throw Unsuitable(
          fmt::format("augmentation: mixup mixes one class of each sample, found labels {} of output '{}' {}",
                      to_string(labels.dims()), term.output, to_string(dims->second)));
    classes = dims->second[1];
    source.row.reset();
  }
  return classes;
}

}  // namespace

BatchTransform augmented(const AugmentationOptions& asked, const Model& model, const ChosenLosses& losses,
                         const FirstBatch& first, std::vector<TargetSource>& targets, PassContext& context,
                         BatchTransform next, std::vector<std::string>& notes) {
  if (asked.is_nothing()) return next;
  std::optional<std::int64_t> classes;
  if (asked.mixup > 0) classes = mixed_classes(losses, first, targets);
  Augmentation made(asked, model, classes, context.seed);
  notes.push_back(made.description());
  return [by = std::move(made), next = std::move(next), &pool = context.pool](Batch& batch, const BatchPlace& place) {
    by.apply(batch, place.samples, place.epoch, pool);
    if (next) next(batch, place);
  };
}

}  // namespace onnxpress
