#include "passes/quantize/aware_teacher.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "graph/ops/infer.h"
#include "passes/core/pass.h"

namespace onnxpress {
namespace {

// Whether a Sigmoid gives the value, through Identity.
bool is_sigmoid_output(const Value* value) {
  while (value->producer() != nullptr && value->producer()->is("Identity")) value = value->producer()->input(0);
  return value->producer() != nullptr && value->producer()->is("Sigmoid");
}

double mean_square(const Tensor& tensor) {
  const Tensor wide = tensor.cast(DType::float64);
  double sum = 0;
  for (const double value : wide.data<double>()) sum += value * value;
  return tensor.size() > 0 ? sum / static_cast<double>(tensor.size()) : 0;
}

}  // namespace

SelfTeacher::SelfTeacher(const Model& model, const Batch& first, bool labels_are_classes, double temperature,
                         double weight, int threads) {
  const std::unique_ptr<Model> copy = model.clone();
  TypeInference types(*copy);
  types.run();
  std::vector<Value*> taught;
  std::vector<std::string> said;
  const std::vector<Value*> outputs(copy->graph.outputs().begin(), copy->graph.outputs().end());
  for (Value* output : outputs) {
    if (!is_float(types.type(output).elem)) continue;
    Value* scores = logits_of(output);
    const bool is_sigmoid = is_sigmoid_output(output);
    const auto& shape = types.type(output).shape;
    const bool is_class_scores = scores != output ? !is_sigmoid : labels_are_classes && shape && shape->size() >= 2;
    LossTerm term{.output = output->name(), .weight = weight};
    term.kind = is_sigmoid        ? LossTerm::Kind::binary_cross_entropy
                : is_class_scores ? LossTerm::Kind::distillation
                                  : LossTerm::Kind::mse;
    if (is_class_scores) term.temperature = temperature;
    Value* target = is_class_scores ? scores : output;
    if (std::ranges::find(taught, target) != taught.end()) continue;  // logits beside what is made of them
    taught.push_back(target);
    terms_.push_back(term);
    said.push_back(fmt::format("{}({})", name(term.kind), output->name()));
  }
  if (terms_.empty()) throw Unsuitable("objective=teacher: no output is a floating-point tensor");
  text_ = fmt::format("{} with the float model", fmt::join(said, "+"));
  for (std::size_t i = copy->graph.outputs().size(); i-- > 0;) copy->graph.remove_output(i);
  for (Value* value : taught) copy->graph.add_output(value);
  engine_ = std::make_unique<Engine>(*copy, EngineOptions{.threads = threads});
  const std::vector<Tensor> seen = engine_->run(first.inputs);
  for (std::size_t i = 0; i < terms_.size(); ++i)
    if (terms_[i].kind == LossTerm::Kind::mse) terms_[i].weight /= std::max(mean_square(seen[i]), 1e-12);
}

std::vector<TargetSource> SelfTeacher::targets() const {
  std::vector<TargetSource> targets;
  for (std::size_t i = 0; i < terms_.size(); ++i) targets.push_back({.kind = TargetSource::Kind::computed, .index = i});
  return targets;
}

std::vector<Tensor> SelfTeacher::compute(const Batch& batch) { return engine_->run(batch.inputs); }

}  // namespace onnxpress
