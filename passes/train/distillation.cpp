#include "passes/train/distillation.h"

#include <algorithm>
#include <set>
#include <utility>

#include "graph/exec/trainer.h"
#include "graph/rewrite/inline.h"
#include "passes/core/idle_options.h"
#include "passes/train/regressor.h"

namespace onnxpress {
namespace {

using Kind = LossTerm::Kind;
using Soft = DistillationSettings::Soft;

template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw Unsuitable(fmt::format(format, std::forward<Args>(args)...));
}

// "a=b;c=d"; a name alone stands for both.
std::vector<DistillationSettings::Pair> pairs_from(std::string_view option, std::string_view text) {
  std::vector<DistillationSettings::Pair> pairs;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    const std::string_view one = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t middle = one.find('=');
    const std::string student(one.substr(0, middle));
    const std::string teacher(middle == std::string_view::npos ? one : one.substr(middle + 1));
    const bool is_pair = !student.empty() && !teacher.empty() && teacher.find('=') == std::string::npos;
    require(is_pair, "option '{}': expected STUDENT=TEACHER;..., found '{}'", option,
            one);
    pairs.push_back({student, teacher});
  }
  return pairs;
}

// Losses on what a final activation was applied to: the teacher's is taken off too.
bool is_on_logits(Kind kind) {
  return kind == Kind::distillation || kind == Kind::decoupled_distillation || kind == Kind::logits_mse;
}

Kind kind_of(Soft soft) {
  switch (soft) {
    case Soft::decoupled_distillation:
      return Kind::decoupled_distillation;
    case Soft::logits_mse:
      return Kind::logits_mse;
    case Soft::binary_cross_entropy:
      return Kind::binary_cross_entropy;
    case Soft::mse:
      return Kind::mse;
    case Soft::l1:
      return Kind::l1;
    case Soft::huber:
      return Kind::huber;
    default:
      return Kind::distillation;
  }
}

Soft soft_from(const std::string& text) {
  static const std::map<std::string, Soft, std::less<>> names = {
      {"auto", Soft::automatic},
      {"distillation", Soft::distillation},
      {"decoupled_distillation", Soft::decoupled_distillation},
      {"logits_mse", Soft::logits_mse},
      {"binary_cross_entropy", Soft::binary_cross_entropy},
      {"mse", Soft::mse},
      {"l1", Soft::l1},
      {"huber", Soft::huber},
      {"none", Soft::none}};
  return names.at(text);
}

std::string listed(std::span<Value* const> values) {
  std::string text;
  for (const Value* value : values)
    text += fmt::format("{}'{}' {}", text.empty() ? "" : ", ", value->name(), to_string(value->type));
  return text;
}

// A cache that is called a folder, or that several teachers need one for.
void make_cache_folder(const std::filesystem::path& path, bool holds_several) {
  if (path.empty() || std::filesystem::is_directory(path)) return;
  const bool is_called_folder = !path.has_filename();
  if (!is_called_folder && !holds_several) return;
  if (std::filesystem::exists(path))
    refuse("--teacher-cache: expected a folder for several teachers, found the file '{}'", path.native());
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!std::filesystem::is_directory(path))
    refuse("--teacher-cache: cannot make the folder '{}': {}", path.native(), error.message());
}

// Whether a value is computed from some weight.
bool depends_on_weights(const Model& model, const Value* value) {
  const std::vector<std::string> weights = trainable_parameters(model);
  std::set<const Value*> seen;
  std::vector<const Value*> pending = {value};
  while (!pending.empty()) {
    const Value* next = pending.back();
    pending.pop_back();
    if (next == nullptr || !seen.insert(next).second) continue;
    if (std::ranges::find(weights, next->name()) != weights.end()) return true;
    if (const Node* node = next->producer())
      for (const Value* input : node->inputs()) pending.push_back(input);
  }
  return false;
}

// Without the axis of samples.
Dims row_of(const Dims& dims) { return {dims.begin() + (dims.empty() ? 0 : 1), dims.end()}; }

}  // namespace

DistillationSettings DistillationSettings::from(const Options& options) {
  DistillationSettings settings{.soft = soft_from(options.text("soft")),
                                .alpha = options.number("alpha"),
                                .temperature = options.number("temperature"),
                                .target_weight = options.number("target_weight"),
                                .other_weight = options.number("other_weight"),
                                .says_temperature = options.given("temperature"),
                                .outputs = pairs_from("outputs", options.text("outputs")),
                                .hints = pairs_from("hints", options.text("hints")),
                                .attention = pairs_from("attention", options.text("attention")),
                                .relations = pairs_from("relations", options.text("relations")),
                                .hint_weight = options.number("hint_weight"),
                                .attention_weight = options.number("attention_weight"),
                                .distance_weight = options.number("distance_weight"),
                                .angle_weight = options.number("angle_weight")};
  const bool has_inner = !settings.hints.empty() || !settings.attention.empty() || !settings.relations.empty();
  require(settings.temperature > 0, "option 'temperature': expected a number above 0, found {}",
          settings.temperature);
  const bool has_soft = settings.soft != Soft::none && settings.alpha > 0;
  require(has_soft || has_inner,
          "expected soft targets, hints, attention or relations: without them there is nothing of the teacher "
          "(finetune trains "
          "on labels alone)");
  const bool may_soften = settings.soft == Soft::automatic || settings.soft == Soft::distillation ||
                          settings.soft == Soft::decoupled_distillation;
  const bool is_decoupled = has_soft && settings.soft == Soft::decoupled_distillation;
  const OptionPlace places[] = {
      {"soft", settings.soft == Soft::none || settings.alpha > 0, "alpha above 0"},
      {"temperature", has_soft && may_soften, "soft=distillation or decoupled_distillation"},
      {"target_weight", is_decoupled, "soft=decoupled_distillation"},
      {"other_weight", is_decoupled, "soft=decoupled_distillation"},
      {"outputs", has_soft, "soft targets (soft other than none, alpha above 0)"},
      {"hint_weight", !settings.hints.empty(), "hints"},
      {"attention_weight", !settings.attention.empty(), "attention"},
      {"distance_weight", !settings.relations.empty(), "relations"},
      {"angle_weight", !settings.relations.empty(), "relations"},
      {"loss", settings.alpha < 1, "alpha below 1"},
      {"label_smoothing", settings.alpha < 1, "alpha below 1"},
  };
  refuse_idle(options, places);
  return settings;
}

Distillation::Distillation(const Model& student, const DistillationSettings& settings,
                           const TrainingSettings& training, PassContext& context)
    : settings_(settings), sources_(context.teachers), model_(student.clone()) {
  samples_change_ = !training.augmentation.is_nothing();
  inline_functions(*model_);
  infer_types(*model_);
  first_ = look_at_first_batch(*model_, *context.training, context.pool.size());
  has_labels_ = first_.batch.labels.defined();
  wanted_.resize(sources_.size());
  if (settings_.alpha < 1) choose_hard(training, context.training->description());
  double total = 0;
  for (const TeacherSource& source : sources_) total += source.weight;
  if (settings_.soft != Soft::none && settings_.alpha > 0)
    for (std::size_t t = 0; t < sources_.size(); ++t)
      if (sources_[t].weight > 0) add_soft(t, sources_[t].weight / total);
  const auto is_softened = [](const SoftLoss& loss) {
    return loss.term.kind == Kind::distillation || loss.term.kind == Kind::decoupled_distillation;
  };
  if (settings_.says_temperature && !soft_.empty() && std::ranges::none_of(soft_, is_softened))
    refuse("option 'temperature' belongs to soft=distillation and would do nothing here: the loss is {}",
           name(soft_.front().term.kind));
  add_inner();
  run_teachers(context);
  for (std::size_t i = 0; i < soft_.size(); ++i) {
    check(soft_[i]);
    finish(soft_[i], context.seed + i);
  }
}

// Labels that are not there are missed only where something was said of them.
void Distillation::choose_hard(const TrainingSettings& training, const std::string& data) {
  const bool is_automatic = training.losses.size() == 1 && training.losses.front().name == "auto";
  if (has_labels_ || !is_automatic) return add_hard(training);
  if (training.label_smoothing > 0)
    refuse("option 'label_smoothing' belongs to labels and would do nothing here: '{}' has none", data);
  notes_.push_back(fmt::format("'{}' has no labels: the student learns from the teacher alone", data));
}

// The label's losses, as the options of training say, by what is left of alpha.
void Distillation::add_hard(const TrainingSettings& training) {
  const ChosenLosses chosen = choose_losses(*model_, training.losses, first_, training.label_smoothing);
  for (LossTerm term : chosen.terms) {
    term.weight *= 1 - settings_.alpha;
    task_.losses.push_back(std::move(term));
  }
  task_.targets = chosen.targets;
  task_.samples = chosen.samples;
  task_.loss_text = fmt::format("{:.6g}*({})", 1 - settings_.alpha, chosen.text);
  notes_.insert(notes_.end(), chosen.notes.begin(), chosen.notes.end());
}

// Outputs by name where all the student's are there, else by position.
std::vector<DistillationSettings::Pair> Distillation::output_pairs(const TeacherSource& teacher) const {
  if (!settings_.outputs.empty()) return settings_.outputs;
  const auto own = model_->graph.outputs(), others = teacher.model->graph.outputs();
  const auto has = [&](const Value* value) {
    return std::ranges::any_of(others, [&](const Value* other) { return other->name() == value->name(); });
  };
  const bool by_name = std::ranges::all_of(own, has);
  if (!by_name && own.size() != others.size())
    refuse(
        "expected outputs that match, found {} of the student and {} of teacher '{}': say which with "
        "outputs=STUDENT=TEACHER",
        listed(own), listed(others), teacher.name);
  std::vector<DistillationSettings::Pair> pairs;
  for (std::size_t i = 0; i < own.size(); ++i)
    if (is_float(own[i]->type.elem)) pairs.push_back({own[i]->name(), by_name ? own[i]->name() : others[i]->name()});
  if (pairs.empty()) refuse("expected an output of a floating type, found {}", listed(own));
  return pairs;
}

// What fits both outputs: behind a Sigmoid they are binary, behind a Softmax scores of classes; as they are,
// class labels tell scores, and one score, labels of the output's dims or none a regression.
LossTerm::Kind Distillation::soft_kind(const std::string& output, const Value& of_teacher) const {
  const auto ends_in = [](const Value& value, std::string_view op) {
    Value* logits = logits_of(const_cast<Value*>(&value));
    return logits != &value && std::ranges::any_of(logits->uses(), [&](const Use& use) { return use.node->is(op); });
  };
  const Value& own = *model_->graph.find(output);
  const bool is_binary = ends_in(own, "Sigmoid") || ends_in(of_teacher, "Sigmoid");
  if (settings_.soft != Soft::automatic) {
    const Kind said = kind_of(settings_.soft);
    if (said == Kind::distillation && ends_in(of_teacher, "Sigmoid") && logits_of(const_cast<Value*>(&own)) == &own)
      refuse("soft=distillation: output '{}' of the teacher ends in a Sigmoid: it holds no scores of classes; "
             "binary_cross_entropy is meant", of_teacher.name());
    return said;
  }
  if (is_binary) return Kind::binary_cross_entropy;
  if (logits_of(const_cast<Value*>(&own)) != &own || logits_of(const_cast<Value*>(&of_teacher)) != &of_teacher) return Kind::distillation;
  const Dims& dims = first_.outputs.at(output);
  if (dims.size() < 2 || dims.back() == 1) return Kind::mse;
  const Tensor& labels = first_.batch.labels;
  const bool is_regression = !labels.defined() || (is_float(labels.dtype()) && labels.dims() == dims);
  return is_regression ? Kind::mse : Kind::distillation;
}

std::size_t Distillation::want(std::size_t teacher, TeacherValue value) {
  std::vector<TeacherValue>& values = wanted_[teacher];
  const auto found = std::ranges::find(values, value);
  if (found != values.end()) return static_cast<std::size_t>(found - values.begin());
  values.push_back(std::move(value));
  return values.size() - 1;
}

void Distillation::add_soft(std::size_t teacher, double share) {
  for (const DistillationSettings::Pair& pair : output_pairs(sources_[teacher])) {
    const auto outputs = model_->graph.outputs();
    const auto output = std::ranges::find(outputs, pair.student, [](const Value* value) { return value->name(); });
    if (output == outputs.end() || !is_float((*output)->type.elem))
      refuse("option 'outputs': expected an output of floats of the student, found '{}'; there are {}", pair.student,
             listed(outputs));
    const Value* of_teacher = sources_[teacher].model->graph.find(pair.teacher);
    if (of_teacher == nullptr)
      refuse("option 'outputs': expected a value '{}' of teacher '{}', found none", pair.teacher, sources_[teacher].name);
    const Kind kind = soft_kind(pair.student, *of_teacher);
    if (kind == Kind::decoupled_distillation && !(has_labels_ && is_integer(first_.batch.labels.dtype())))
      refuse("decoupled_distillation: expected data with class labels, found none");
    LossTerm term{.kind = kind, .output = pair.student, .weight = settings_.alpha * share};
    if (is_on_logits(kind)) term.temperature = settings_.temperature;
    term.target_weight = settings_.target_weight;
    term.other_weight = settings_.other_weight;
    soft_.push_back({term, teacher, want(teacher, {.name = pair.teacher,
                                                      .as_logits = is_on_logits(kind),
                                                      .as_probabilities = kind == Kind::binary_cross_entropy})});
  }
}

// Of a value of the student, for the first batch: floats of one row a sample.
Dims Distillation::inner_dims(const TypeInference& types, std::string_view option, const std::string& name) const {
  const Value* value = model_->graph.find(name);
  if (value == nullptr) refuse("option '{}': expected a value '{}' of the student, found none", option, name);
  const Type& type = types.type(value);
  const std::optional<Dims> dims = type.shape ? concrete(*type.shape) : std::nullopt;
  if (!is_float(type.elem) || !dims || value->is_constant() || dims->empty() ||
      dims->front() != first_.batch.inputs.front().dim(0))
    refuse("option '{}': expected floats of one row a sample, found '{}' of the student, {}{}", option, name,
           value->is_constant() ? "a constant " : "", to_string(type));
  if (!depends_on_weights(*model_, value))
    refuse("option '{}': no weight of the student comes before '{}': it cannot be trained to follow anything", option,
           name);
  return *dims;
}

// Losses on values inside, after those of the first teacher. Types are those of the first batch.
void Distillation::add_inner() {
  TypeInference types(*model_);
  const std::vector<Value*> inputs = model_->required_inputs();
  for (std::size_t i = 0; i < inputs.size(); ++i) types.set_input(inputs[i], Type::of(first_.batch.inputs.at(i)));
  types.run();
  const auto positions = [](const Dims& dims) {
    return dims.size() > 2 ? std::optional(Dims(dims.begin() + 2, dims.end())) : std::nullopt;
  };
  const auto add = [&](std::string_view option, Kind kind, double weight, const DistillationSettings::Pair& pair,
                       const Dims& dims, std::optional<Dims> wanted) {
    const std::size_t value = want(0, {.name = pair.teacher, .positions = std::move(wanted)});
    soft_.push_back({{.kind = kind, .output = pair.student, .weight = weight}, 0, value, option, dims});
  };
  for (const DistillationSettings::Pair& pair : settings_.hints) {
    const Dims dims = inner_dims(types, "hints", pair.student);
    const bool are_maps = channel_axis(*model_->graph.find(pair.student)) == 1;
    add("hints", Kind::mse, settings_.hint_weight, pair, dims, are_maps ? positions(dims) : std::nullopt);
  }
  for (const DistillationSettings::Pair& pair : settings_.attention) {
    const Dims dims = inner_dims(types, "attention", pair.student);
    add("attention", Kind::attention_transfer, settings_.attention_weight, pair, dims, positions(dims));
  }
  for (const DistillationSettings::Pair& pair : settings_.relations) {
    const Dims dims = inner_dims(types, "relations", pair.student);
    const std::pair<Kind, double> both[] = {{Kind::relational_distance, settings_.distance_weight},
                                            {Kind::relational_angle, settings_.angle_weight}};
    for (const auto& [kind, weight] : both)
      if (weight > 0) add("relations", kind, weight, pair, dims, std::nullopt);
  }
}

void Distillation::run_teachers(PassContext& context) {
  TeacherTargetOptions options{.cache = context.support.teacher_cache, .samples_change = samples_change_};
  for (const Value* input : model_->required_inputs()) options.student_inputs.push_back(input->name());
  const auto is_used = [&](std::size_t t) { return !wanted_[t].empty(); };
  std::size_t used = 0;
  for (std::size_t t = 0; t < sources_.size(); ++t) used += is_used(t);
  make_cache_folder(options.cache, used > 1);
  for (std::size_t t = 0; t < sources_.size(); ++t) {
    teachers_.push_back(nullptr);
    if (!is_used(t) && t > 0)
      refuse("teacher '{}' would do nothing here: without soft targets all follow the first", sources_[t].name);
    if (!is_used(t)) continue;
    teachers_.back() = std::make_unique<TeacherTargets>(sources_[t], wanted_[t], *context.training, options, context);
    notes_.push_back(teachers_.back()->note());
    task_.about[fmt::format("teacher {}", t)] = teachers_.back()->key();
  }
}

// Whether student and teacher fit, by the first batch.
void Distillation::check(const SoftLoss& loss) {
  const Dims& theirs = teachers_[loss.teacher]->rows()[loss.value];
  const Dims ours = row_of(loss.dims.empty() ? first_.outputs.at(loss.term.output) : loss.dims);
  const auto told = [&](std::string_view expected) {
    refuse("option '{}': '{}' of the student gives {} a sample, '{}' of teacher '{}' {}: expected {}", loss.option,
           loss.term.output, to_string(ours), wanted_[loss.teacher][loss.value].name, sources_[loss.teacher].name,
           to_string(theirs), expected);
  };
  if (loss.option == "outputs" && ours != theirs) told("the same");
  if (loss.option == "hints" && ours.size() != theirs.size()) told("as many axes");
  const auto positions = [](const Dims& dims) { return std::span(dims).subspan(1); };
  if (loss.option == "attention" && (ours.size() < 2 || ours.size() != theirs.size() ||
                                     !std::ranges::equal(positions(ours), positions(theirs))))
    told("maps [channels, positions...] of as many axes");
}

// The loss with its target; a hint of another width gets a regressor.
void Distillation::finish(const SoftLoss& loss, std::uint64_t seed) {
  LossTerm term = loss.term;
  if (loss.option == "hints") {
    Value& value = *model_->graph.find(term.output);
    const std::size_t axis = channel_axis(value);
    const std::int64_t channels = teachers_[loss.teacher]->rows()[loss.value][axis - 1];
    const Dim& own = (*value.type.shape)[axis];
    if (!own.is_known() || own.value() != channels) {
      const Regressor regressor = add_regressor(*model_, &value, channels, seed);
      task_.further_parameters.insert(task_.further_parameters.end(), regressor.parameters.begin(),
                                      regressor.parameters.end());
      notes_.push_back(fmt::format("hint '{}': a regressor brings {} channels to the teacher's {}", term.output,
                                   own.to_string(), channels));
      term.output = regressor.value->name();
    }
  }
  task_.loss_text += fmt::format("{}{:.6g}*{}({})", task_.loss_text.empty() ? "" : "+", term.weight, name(term.kind),
                                 loss.term.output);
  if (is_on_logits(term.kind) && term.kind != Kind::logits_mse)
    task_.loss_text += fmt::format(" at temperature {}", term.temperature);
  std::size_t index = loss.value;
  for (std::size_t t = 0; t < loss.teacher; ++t) index += wanted_[t].size();
  task_.targets.push_back({.kind = TargetSource::Kind::computed, .index = index});
  if (term.kind == Kind::decoupled_distillation) task_.targets.push_back({.kind = TargetSource::Kind::labels});
  task_.losses.push_back(std::move(term));
}

TrainingTask Distillation::task() {
  task_.compute_targets = [this](const Batch& batch, const BatchPlace& place) {
    std::vector<Tensor> all;
    for (const auto& teacher : teachers_)
      if (teacher)
        for (Tensor& target : teacher->targets(batch, place)) all.push_back(std::move(target));
    return all;
  };
  return task_;
}

}  // namespace onnxpress
