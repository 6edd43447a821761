#include "passes/common/loss_choice.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "graph/exec/class_scores.h"
#include "graph/exec/engine.h"

namespace onnxpress {
namespace {

using Kind = LossTerm::Kind;
using Source = TargetSource::Kind;

template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw Unsuitable(fmt::format(format, std::forward<Args>(args)...));
}

enum class Tail { none, softmax, sigmoid };

Tail tail_of(Value* value) {
  Value* behind = logits_of(value);
  if (behind == value) return Tail::none;
  const auto reads = behind->uses();
  return std::ranges::any_of(reads, [](const Use& use) { return use.node->is("Sigmoid"); }) ? Tail::sigmoid
                                                                                            : Tail::softmax;
}

std::string_view name(Tail tail) {
  return tail == Tail::sigmoid ? "a Sigmoid's" : tail == Tail::softmax ? "a Softmax's" : "an";
}

bool is_binary(const Tensor& labels) {
  const Tensor wide = labels.cast(DType::float64);
  return std::ranges::all_of(wide.data<double>(), [](double value) { return value == 0 || value == 1; });
}

// [samples, classes] of 0 and 1: whether each row has a single 1.
bool is_one_hot(const Tensor& labels) {
  if (labels.rank() != 2 || labels.dim(1) < 2) return false;
  const Tensor wide = labels.cast(DType::float64);
  const auto values = wide.data<double>();
  const auto classes = static_cast<std::size_t>(labels.dim(1));
  for (std::size_t row = 0; row < values.size(); row += classes)
    if (std::ranges::count(values.subspan(row, classes), 1.0) != 1) return false;
  return true;
}

class Chooser {
 public:
  Chooser(const Model& model, const FirstBatch& first, double label_smoothing)
      : model_(model), batch_(first.batch), dims_(first.outputs), smoothing_(label_smoothing) {
    for (const Value* input : model.required_inputs()) inputs_.push_back(input->name());
  }

  ChosenLosses choose(const std::vector<LossSpec>& specs) {
    for (const LossSpec& spec : specs) {
      const bool is_automatic = spec.name == "auto";
      add(is_automatic ? recognized(spec.weight) : spec);
    }
    if (smoothing_ > 0 && std::ranges::find(chosen_.terms, Kind::cross_entropy, &LossTerm::kind) == chosen_.terms.end())
      refuse("option 'label_smoothing' belongs to cross_entropy and would do nothing here: the loss is {}",
             chosen_.text);
    return std::move(chosen_);
  }

 private:
  // --- recognition ------------------------------------------------------------------------------

  LossSpec recognized(double weight) {
    LossSpec spec = batch_.labels.defined() ? by_labels() : without_labels();
    spec.weight = weight;
    return spec;
  }

  LossSpec said(std::string loss, const Value& output, const std::string& why) {
    chosen_.notes.push_back(fmt::format("loss: {} of output '{}', for {}", loss, output.name(), why));
    return {.name = std::move(loss), .values = {output.name()}};
  }

  LossSpec by_labels() {
    const Tensor& labels = batch_.labels;
    if (const Variational found = variational(); is_only(found)) return bound(found, "; the labels are not used");
    const bool has_lengths = batch_.further.contains("y_len") || batch_.further.contains("x_len");
    if (has_lengths && labels.rank() == 2)
      for (Value* output : model_.graph.outputs())
        if (dims(*output).size() == 3) return said("ctc", *output, "class sequences with lengths");
    for (Value* output : model_.graph.outputs()) {
      const Dims& scores = dims(*output);
      const auto layout = ClassLayout::fit(scores, labels.dims());
      const bool is_one_each = layout && layout->classes == 1;
      const Tail tail = tail_of(output);
      if (is_integer(labels.dtype()) && layout && !is_one_each && tail != Tail::sigmoid)
        return said("cross_entropy", *output,
                    fmt::format("class numbers and {} output {}", name(tail), to_string(scores)));
      if (!is_one_each && element_count(scores) != labels.size()) continue;
      if (tail == Tail::softmax) return said("cross_entropy", *output, "probabilities and a Softmax's output");
      if (tail == Tail::sigmoid) return said("binary_cross_entropy", *output, "a Sigmoid's output");
      if (is_binary(labels)) {
        if (!is_integer(labels.dtype()) && labels.dims() == scores && is_one_hot(labels))
          return said("cross_entropy", *output, "rows of labels that are 1 for one class and 0 for the others");
        return said("binary_cross_entropy", *output, "labels that are 0 or 1 of one score each");
      }
      return said("mse", *output, "numbers of the output's size");
    }
    refuse("the labels {}{} fit no loss for the outputs {}: say one (option loss)", onnxpress::name(labels.dtype()),
           to_string(labels.dims()), all_outputs());
  }

  // Outputs of a variational autoencoder, by their names and sizes.
  struct Variational {
    const Value *mean = nullptr, *log_variance = nullptr;
    const Value* reconstruction = nullptr;  // of an input's size
  };

  const Value* called(std::initializer_list<std::string_view> names) const {
    for (const Value* output : model_.graph.outputs()) {
      std::string lower = output->name();
      std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      std::erase(lower, '_');
      for (const std::string_view name : names)
        if (lower == name || lower.ends_with(fmt::format("/{}", name))) return output;
    }
    return nullptr;
  }

  Variational variational() const {
    Variational found{.mean = called({"mu", "mean", "zmean"}),
                      .log_variance = called({"logvar", "logvariance", "zlogvar", "logsigma2"})};
    for (const Value* output : model_.graph.outputs())
      if (found.reconstruction == nullptr && output != found.mean && output != found.log_variance &&
          reconstructed(dims(*output)))
        found.reconstruction = output;
    return found;
  }

  // Whether labels are certainly not what the model is trained on: it gives nothing but means and log variances of one
  // size, what is drawn by them, and reconstructions, none of which has the labels' size.
  bool is_only(const Variational& found) const {
    if (found.mean == nullptr || found.log_variance == nullptr || found.reconstruction == nullptr) return false;
    const Value* drawn = called({"z", "latent", "sample"});
    return dims(*found.log_variance) == dims(*found.mean) &&
           std::ranges::all_of(model_.graph.outputs(), [&](const Value* output) {
             return output == found.mean || output == found.log_variance || output == drawn ||
                    (reconstructed(dims(*output)) && element_count(dims(*output)) != batch_.labels.size());
           });
  }

  LossSpec bound(const Variational& found, std::string_view further) {
    LossSpec spec = said("elbo", *found.reconstruction,
                         fmt::format("an output of the input's size, means '{}' and log variances '{}'{}",
                                     found.mean->name(), found.log_variance->name(), further));
    spec.values = {found.reconstruction->name(), found.mean->name(), found.log_variance->name()};
    return spec;
  }

  LossSpec without_labels() {
    const Variational found = variational();
    if (found.reconstruction == nullptr)
      refuse(
          "the training data has no labels (an array 'y' or 'labels'), and no output has the size of an input; "
          "outputs are {}",
          all_outputs());
    if (found.mean != nullptr && found.log_variance != nullptr) return bound(found, "");
    Value* output = model_.graph.find(found.reconstruction->name());
    return said(tail_of(output) == Tail::sigmoid ? "binary_cross_entropy" : "mse", *output,
                "data without labels: it reconstructs the input");
  }

  // The input that an output of these dims reconstructs.
  std::optional<std::size_t> reconstructed(const Dims& output) const {
    for (std::size_t i = 0; i < batch_.inputs.size(); ++i)
      if (is_float(batch_.inputs[i].dtype()) && batch_.inputs[i].size() == element_count(output)) return i;
    return std::nullopt;
  }

  std::string all_outputs() const {
    std::string text;
    for (const Value* output : model_.graph.outputs())
      text += fmt::format("{}'{}' {}", text.empty() ? "" : ", ", output->name(), to_string(dims(*output)));
    return text;
  }

  // --- terms and targets ------------------------------------------------------------------------

  const Dims& dims(const Value& value) const {
    static const Dims unknown;
    const auto found = dims_.find(value.name());
    return found != dims_.end() ? found->second : unknown;
  }

  Value& value_of(const std::string& wanted) const {
    if (wanted.empty()) {
      if (model_.graph.outputs().empty()) refuse("the model has no output to train");
      return *model_.graph.outputs().front();
    }
    Value* value = model_.graph.find(wanted);
    if (value == nullptr) {
      std::vector<std::string> names;
      for (const Value* output : model_.graph.outputs()) names.push_back(output->name());
      const std::string near = nearest_name(wanted, names);
      refuse("loss: the model has no output or value '{}'{}", wanted,
             near.empty() ? fmt::format("; outputs are {}", all_outputs()) : fmt::format("; did you mean '{}'?", near));
    }
    return *value;
  }

  TargetSource source(const std::string& wanted) const {
    if (wanted.empty() || wanted == "y" || wanted == "labels") {
      if (!batch_.labels.defined())
        refuse("the training data has no labels (an array 'y' or 'labels'), which the loss asks for");
      return {};
    }
    const auto input = std::ranges::find(inputs_, wanted);
    if (input != inputs_.end())
      return {.kind = Source::input, .index = static_cast<std::size_t>(input - inputs_.begin())};
    if (!batch_.further.contains(wanted))
      refuse("loss: target '{}' is no input of the model and no array of the training data", wanted);
    return {.kind = Source::further, .name = wanted};
  }

  const Tensor& tensor_of(const TargetSource& source) const {
    switch (source.kind) {
      case Source::input:
        return batch_.inputs.at(source.index);
      case Source::further:
        return batch_.further.at(source.name);
      default:
        return batch_.labels;
    }
  }

  // Targets that must have the dims of the output; without labels, the input that it reconstructs.
  TargetSource element_source(const LossSpec& spec, const Value& output) const {
    TargetSource found;
    const std::string wanted = spec.text("target", "");
    if (wanted.empty() && !batch_.labels.defined()) {
      const auto input = reconstructed(dims(output));
      if (!input) found = source(wanted);
      found = {.kind = Source::input, .index = input.value_or(0)};
    } else {
      found = source(wanted);
    }
    const Dims& expected = dims(output);
    const Tensor& tensor = tensor_of(found);
    if (expected.empty() || tensor.dims() == expected) return found;
    if (tensor.size() != element_count(expected) || tensor.dim(0) != expected[0])
      refuse("loss {}: output '{}' is {}, its targets are {}", spec.name, output.name(), to_string(expected),
             to_string(tensor.dims()));
    found.row = Dims(expected.begin() + 1, expected.end());
    return found;
  }

  void add(const LossSpec& spec) {
    if (spec.name == "elbo") return add_bound(spec);
    LossTerm term{.kind = *loss_from_name(spec.name), .weight = spec.weight};
    Value& output = value_of(spec.values.empty() ? "" : spec.values[0]);
    term.output = output.name();
    term.by_sample = by_sample(spec);
    switch (term.kind) {
      case Kind::cross_entropy:
        term.label_smoothing = spec.number("label_smoothing", smoothing_);
        if (spec.settings.contains("ignore")) term.ignored = static_cast<std::int64_t>(spec.number("ignore", 0));
        chosen_.targets.push_back(class_source(spec, output));
        break;
      case Kind::ctc:
        add_sequences(spec, output, term);
        break;
      case Kind::gaussian_kl:
        value_of(spec.values[1]);
        term.log_variance = spec.values[1];
        chosen_.samples[term.output] = term.log_variance;
        break;
      case Kind::kl:
        if (output.producer() && output.producer()->is("Softmax"))
          refuse("loss kl: output '{}' is a Softmax's, expected logarithms of probabilities: cross_entropy has the same gradients",
                 output.name());
        chosen_.targets.push_back(element_source(spec, output));
        break;
      case Kind::huber:
        term.delta = spec.number("delta", 1);
        [[fallthrough]];
      default:
        chosen_.targets.push_back(element_source(spec, output));
    }
    push(spec, std::move(term));
  }

  static bool by_sample(const LossSpec& spec) {
    const std::string reduction = spec.text("reduction", "mean");
    if (reduction != "mean" && reduction != "sample")
      refuse("loss '{}': reduction: expected mean or sample, found '{}'", spec.name, reduction);
    return reduction == "sample";
  }

  TargetSource class_source(const LossSpec& spec, const Value& output) const {
    TargetSource found = source(spec.text("target", ""));
    const Tensor& tensor = tensor_of(found);
    const Dims& scores = dims(output);
    if (tensor.dims() == scores && !is_float(tensor.dtype()))
      refuse("labels {}{} of output '{}' {}: expected a class number for each of its positions, or probabilities of a "
             "floating type",
             onnxpress::name(tensor.dtype()), to_string(tensor.dims()), output.name(), to_string(scores));
    if (scores.empty() || tensor.dims() == scores) return found;
    const auto layout = ClassLayout::fit(scores, tensor.dims());
    if (!layout || layout->classes < 2)
      refuse(
          "labels {}{} do not fit output '{}' {}: expected a class number for each of its positions, or "
          "probabilities {}",
          onnxpress::name(tensor.dtype()), to_string(tensor.dims()), output.name(), to_string(scores),
          to_string(scores));
    if (!is_integer(tensor.dtype()))
      refuse(
          "labels {}{} of output '{}' {}: expected class numbers of an integer type, or probabilities {}; for numbers "
          "say loss=mse",
          onnxpress::name(tensor.dtype()), to_string(tensor.dims()), output.name(), to_string(scores),
          to_string(scores));
    if (tensor.rank() > 1 && tensor.dims().back() == 1) {  // [N,1]
      Dims row(tensor.dims().begin() + 1, tensor.dims().end());
      while (!row.empty() && row.back() == 1) row.pop_back();
      found.row = row;
    }
    return found;
  }

  void add_sequences(const LossSpec& spec, const Value& output, LossTerm& term) {
    const TargetSource symbols = source(spec.text("target", ""));
    const Dims& scores = dims(output);
    const Tensor& tensor = tensor_of(symbols);
    const std::int64_t count = batch_.samples;
    if (scores.size() != 3 || tensor.rank() != 2)
      refuse("loss ctc: expected an output of 3 axes and targets [N,L], found '{}' {} and {}", output.name(),
             to_string(scores), to_string(tensor.dims()));
    const std::string order = spec.text("batch_first", batch_order(output, count));
    if (order != "true" && order != "false")
      refuse("loss ctc: output '{}' {} has {} samples in both axes or none: say batch_first=true or false",
             output.name(), to_string(scores), count);
    term.batch_first = order == "true";
    term.blank = static_cast<std::int64_t>(spec.number("blank", 0));
    chosen_.targets.push_back(symbols);
    const auto add_lengths = [&](const char* setting, const char* usual) {
      const std::string name = spec.text(setting, batch_.further.contains(usual) ? usual : "");
      if (!name.empty()) chosen_.targets.push_back(source(name));
      return !name.empty();
    };
    term.has_lengths = add_lengths("lengths", "x_len");
    term.has_target_lengths = add_lengths("target_lengths", "y_len");
  }

  // Whether the output's first axis counts samples: "true", "false" where its second does, or nothing. By
  // size, else by the name that the input's axis has.
  std::string batch_order(const Value& output, std::int64_t count) const {
    const Dims& scores = dims(output);
    const bool first = scores[0] == count, second = scores[1] == count;
    if (first != second) return first ? "true" : "false";
    const auto& declared = output.type.shape;
    const auto& given = model_.required_inputs().front()->type.shape;
    if (!first || !declared || !given || given->empty()) return "";
    if ((*declared)[0] == (*declared)[1]) return "";
    return (*declared)[0] == given->front() ? "true" : (*declared)[1] == given->front() ? "false" : "";
  }

  // The negative evidence lower bound of a variational autoencoder: Kingma and Welling 2014, equation 10.
  void add_bound(const LossSpec& spec) {
    if (spec.values.empty()) {
      const Variational outputs = variational();
      if (outputs.mean == nullptr || outputs.log_variance == nullptr || outputs.reconstruction == nullptr)
        refuse("loss elbo: no output{}: expected elbo(reconstruction, mean, log_variance); outputs are {}",
               outputs.reconstruction == nullptr ? " has the size of an input" : "s are called mean and log variance",
               all_outputs());
      LossSpec found = bound(outputs, "");
      found.settings = spec.settings;
      found.weight = spec.weight;
      return add_bound(found);
    }
    Value& output = value_of(spec.values[0]);
    const std::string likelihood =
        spec.text("likelihood", tail_of(&output) == Tail::sigmoid ? "bernoulli" : "gaussian");
    if (likelihood != "bernoulli" && likelihood != "gaussian")
      refuse("loss elbo: likelihood: expected bernoulli or gaussian, found '{}'", likelihood);
    LossTerm term{.kind = likelihood == "bernoulli" ? Kind::binary_cross_entropy : Kind::mse,
                  .output = output.name(),
                  .weight = spec.weight,
                  .by_sample = true};
    // Labels of the data are not what a bound compares with.
    LossSpec target = spec;
    if (!spec.settings.contains("target")) {
      const auto input = reconstructed(dims(output));
      if (!input)
        refuse("loss elbo: output '{}' {} has no input's size: say target=NAME", output.name(),
               to_string(dims(output)));
      target.settings["target"] = inputs_[*input];
    }
    chosen_.targets.push_back(element_source(target, output));
    push(spec, std::move(term));
    LossTerm divergence{.kind = Kind::gaussian_kl,
                        .output = value_of(spec.values[1]).name(),
                        .log_variance = value_of(spec.values[2]).name(),
                        .weight = spec.weight * spec.number("beta", 1)};
    chosen_.samples[divergence.output] = divergence.log_variance;
    chosen_.terms.push_back(std::move(divergence));
  }

  void push(const LossSpec& spec, LossTerm term) {
    std::string arguments = fmt::format("{}", fmt::join(spec.values, ","));
    for (const auto& [setting, text] : spec.settings)
      arguments += fmt::format("{}{}={}", arguments.empty() ? "" : ",", setting, text);
    chosen_.text += fmt::format("{}{}{}{}", chosen_.text.empty() ? "" : "+",
                                spec.weight != 1 ? fmt::format("{}*", spec.weight) : "", spec.name,
                                arguments.empty() ? "" : fmt::format("({})", arguments));
    chosen_.terms.push_back(std::move(term));
  }

  const Model& model_;
  const Batch& batch_;
  const std::map<std::string, Dims>& dims_;
  double smoothing_;
  std::vector<std::string> inputs_;
  ChosenLosses chosen_;
};

}  // namespace

FirstBatch look_at_first_batch(const Model& model, Dataset& data, int threads) {
  FirstBatch first;
  data.rewind();
  require(data.next(first.batch), "'{}' has no samples", data.description());
  data.rewind();
  Engine engine(model, {.threads = threads});
  const std::vector<Tensor> outputs = engine.run(first.batch.inputs);
  for (std::size_t i = 0; i < outputs.size(); ++i) first.outputs[model.graph.outputs()[i]->name()] = outputs[i].dims();
  return first;
}

ChosenLosses choose_losses(const Model& model, const std::vector<LossSpec>& specs, const FirstBatch& first,
                           double label_smoothing) {
  return Chooser(model, first, label_smoothing).choose(specs);
}

}  // namespace onnxpress
