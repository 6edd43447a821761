// Samples that no loss can be computed of, found before they are trained on.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <span>
#include <string_view>

#include "graph/exec/class_scores.h"
#include "graph/ops/dispatch.h"
#include "passes/common/loss_choice.h"

namespace onnxpress {
namespace {

using Kind = LossTerm::Kind;
using Source = TargetSource::Kind;

const Tensor& tensor_of(const TargetSource& source, const Batch& batch) {
  if (source.kind == Source::further) return batch.further.at(source.name);
  return source.kind == Source::input ? batch.inputs.at(source.index) : batch.labels;
}

// By IsNaN, or by a comparison of x with itself: such a model may replace missing values.
bool asks_for_nan(const Model& model) {
  bool found = false;
  model.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes())
      found |= node->is("IsNaN") || (node->is("Equal") && node->input(0) == node->input(1));
  });
  return found;
}

// `what` names the array.
void refuse_nan(const Tensor& tensor, const BatchPlace& place, std::string_view what) {
  if (!tensor.defined() || !is_float(tensor.dtype()) || tensor.size() == 0) return;
  const bool is_wide = tensor.dtype() == DType::float32 || tensor.dtype() == DType::float64;
  const Tensor wide = is_wide ? tensor : tensor.cast(DType::float32);
  const std::size_t each = static_cast<std::size_t>(tensor.size()) / place.samples.size();
  dispatch_floats(wide.dtype(), [&]<class T>(std::type_identity<T>) {
    const auto values = wide.data<T>();
    const auto found = std::ranges::find_if(values, [](T value) { return std::isnan(value); });
    if (found != values.end())
      throw Unsuitable(fmt::format("sample {}: {} has a value that is not a number (nan)",
                                   place.samples[static_cast<std::size_t>(found - values.begin()) / each], what));
  });
}

}  // namespace

SampleCheck::SampleCheck(const Model& model, const ChosenLosses& losses, const FirstBatch& first) {
  if (!asks_for_nan(model))
    for (const Value* input : model.required_inputs()) inputs_.push_back(input->name());
  std::ranges::copy_if(losses.targets, std::back_inserter(targets_),
                       [](const TargetSource& source) { return source.kind == Source::labels || source.kind == Source::further; });
  std::size_t next = 0;
  for (const LossTerm& term : losses.terms) {
    if (term.kind == Kind::gaussian_kl) continue;
    Rule rule{.term = term, .source = losses.targets.at(next++)};
    if (term.kind == Kind::decoupled_distillation) ++next;
    if (term.kind == Kind::ctc) {
      if (term.has_lengths) rule.steps = losses.targets.at(next++);
      if (term.has_target_lengths) rule.lengths = losses.targets.at(next++);
    }
    const auto dims = first.outputs.find(term.output);
    const bool is_checked =
        term.kind == Kind::cross_entropy || term.kind == Kind::ctc || term.kind == Kind::binary_cross_entropy || term.kind == Kind::kl;
    if (!is_checked || dims == first.outputs.end() || rule.source.kind == Source::computed) continue;
    rule.dims = dims->second;
    rules_.push_back(std::move(rule));
  }
}

void SampleCheck::operator()(const Batch& batch, const BatchPlace& place) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    refuse_nan(batch.inputs.at(i), place, fmt::format("input '{}'", inputs_[i]));
  for (const TargetSource& target : targets_)
    refuse_nan(tensor_of(target, batch), place, target.kind == Source::labels ? "its label" : fmt::format("array '{}'", target.name));
  for (const Rule& rule : rules_) {
    const Tensor& labels = tensor_of(rule.source, batch);
    if (rule.term.kind == Kind::binary_cross_entropy)
      check_numbers(rule, labels, place);
    else if (!is_integer(labels.dtype()))
      check_probabilities(rule, labels, place);
    else if (rule.term.kind != Kind::kl) {
      const Tensor lengths = rule.lengths ? tensor_of(*rule.lengths, batch) : Tensor();
      check_classes(rule, labels, lengths, place);
      if (rule.term.kind == Kind::ctc)
        check_alignments(rule, labels, lengths, rule.steps ? tensor_of(*rule.steps, batch) : Tensor(), place);
    }
  }
}

void SampleCheck::check_numbers(const Rule& rule, const Tensor& labels, const BatchPlace& place) {
  const std::size_t each = static_cast<std::size_t>(labels.size()) / place.samples.size();
  const Tensor wide = labels.cast(DType::float64);
  const auto values = wide.data<double>();
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!(values[i] >= 0 && values[i] <= 1))
      throw Unsuitable(
          fmt::format("label {} of sample {}: expected 0 to 1: the loss of output '{}' is binary_cross_entropy",
                      values[i], place.samples[i / each], rule.term.output));
}

void SampleCheck::check_probabilities(const Rule& rule, const Tensor& labels, const BatchPlace& place) {
  constexpr double most_off = 1e-2;  // of a sum, of 16-bit floats for instance
  const std::size_t each = static_cast<std::size_t>(labels.size()) / place.samples.size();
  const Tensor wide = labels.cast(DType::float64);
  const auto values = wide.data<double>();
  const bool are_rows = labels.rank() == 2;
  for (std::size_t sample = 0; sample < place.samples.size(); ++sample) {
    double sum = 0;
    for (const double value : values.subspan(sample * each, each)) {
      if (!(value >= 0))
        throw Unsuitable(fmt::format("label {} of sample {}: expected probabilities of classes: the loss of output '{}' is {}", value,
                                     place.samples[sample], rule.term.output, name(rule.term.kind)));
      sum += value;
    }
    if (are_rows && !(std::fabs(sum - 1) <= most_off))
      throw Unsuitable(fmt::format("labels of sample {}: expected probabilities that sum up to 1, found a sum of {:.6g}: the loss of output "
                                   "'{}' is {}", place.samples[sample], sum, rule.term.output, name(rule.term.kind)));
  }
}

void SampleCheck::check_classes(const Rule& rule, const Tensor& labels, const Tensor& lengths, const BatchPlace& place) {
  const std::size_t each = static_cast<std::size_t>(labels.size()) / place.samples.size();
  const bool is_ctc = rule.term.kind == Kind::ctc;
  const auto layout = ClassLayout::fit(rule.dims, labels.dims());
  const std::int64_t classes = is_ctc ? rule.dims.back() : layout ? layout->classes : 0;
  if (classes == 0) return;
  const std::vector<std::int64_t> sizes = lengths.defined() ? lengths.to_ints() : std::vector<std::int64_t>();
  const std::vector<std::int64_t> values = labels.to_ints();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool is_padding = !sizes.empty() && static_cast<std::int64_t>(i % each) >= sizes[i / each];
    if (is_padding || rule.term.ignored == values[i]) continue;
    if (values[i] < 0 || values[i] >= classes)
      throw Unsuitable(fmt::format("label {} of sample {}: expected 0 to {}: output '{}' has {} classes", values[i],
                                   place.samples[i / each], classes - 1, rule.term.output, classes));
    if (is_ctc && values[i] == rule.term.blank)
      throw Unsuitable(fmt::format("label {} of sample {}: it is the blank of ctc, expected the other classes",
                                   values[i], place.samples[i / each]));
  }
}

// A path has a step for each class of the target, and one for a blank between two that are the same (Graves
// et al. 2006, section 3): on fewer steps no path gives the target, and the loss is infinite.
void SampleCheck::check_alignments(const Rule& rule, const Tensor& labels, const Tensor& lengths, const Tensor& steps,
                                  const BatchPlace& place) {
  const std::size_t width = static_cast<std::size_t>(labels.size()) / place.samples.size();
  const std::vector<std::int64_t> sizes = lengths.defined() ? lengths.to_ints() : std::vector<std::int64_t>();
  const std::vector<std::int64_t> given = steps.defined() ? steps.to_ints() : std::vector<std::int64_t>();
  const std::vector<std::int64_t> values = labels.to_ints();
  for (std::size_t sample = 0; sample < place.samples.size(); ++sample) {
    const std::size_t size = sizes.empty() ? width : std::min(width, static_cast<std::size_t>(std::max<std::int64_t>(sizes[sample], 0)));
    const auto line = std::span(values).subspan(sample * width, size);
    std::int64_t blanks = 0;
    for (std::size_t i = 1; i < size; ++i) blanks += line[i] == line[i - 1];
    const std::int64_t present = given.empty() ? rule.dims[rule.term.batch_first ? 1 : 0] : given[sample];
    const std::int64_t needed = static_cast<std::int64_t>(size) + blanks;
    if (present < needed)
      throw Unsuitable(fmt::format("sample {}: a target of {} classes, {} of them the same as the one before, needs {} "
                                   "steps of output '{}', found {}: no path of ctc gives it; leave the sample out",
                                   place.samples[sample], size, blanks, needed, rule.term.output, present));
  }
}

}  // namespace onnxpress
