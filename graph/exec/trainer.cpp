#include "graph/exec/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "graph/exec/gradients.h"
#include "graph/exec/widen_half.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/rewrite/inline.h"

namespace onnxpress {
namespace {

double scalar(const Tensor& tensor) {
  return tensor.cast(DType::float64).data<double>()[0];
}

// total += added * share, in memory of its own.
void add_scaled(ThreadPool& pool, Tensor& total, const Tensor& added, double share) {
  if (!added.defined()) return;
  const bool is_first = !total.defined();
  if (is_first) total = Tensor(added.dtype(), added.dims());
  dispatch_floats(added.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* const from = added.data<T>().data();
    T* const to = total.mutable_data<T>().data();
    const T by = static_cast<T>(share);
    pool.parallel_for(added.size(), 16384, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] += from[i] * by;
    });
  });
}

// Parameters of float16 and bfloat16 that nothing widened yet.
void widen_parameters(Model& model, const std::set<std::string>& names) {
  Graph& graph = model.graph;
  for (const std::string& name : names) {
    Value* value = graph.find(name);
    const Tensor* tensor = value != nullptr ? value->constant() : nullptr;
    if (tensor == nullptr || float_compute_type(tensor->dtype()) == tensor->dtype()) continue;
    const Tensor wide = tensor->cast(DType::float32);
    Value* replacement = graph.add_initializer(graph.unique_name(name), wide);
    const std::vector<Use> uses(value->uses().begin(), value->uses().end());
    Value* narrow = nullptr;
    for (const Use& use : uses) {
      const bool is_cast = use.node->is("Cast") && &use.node->graph() == &graph &&
                           use.node->output()->type.elem == DType::float32;
      if (is_cast) {
        graph.replace_uses(use.node->output(), replacement);
        graph.remove(use.node);
        continue;
      }
      if (narrow == nullptr) {
        NodeSpec cast{.op_type = "Cast", .inputs = {replacement}};
        cast.attributes["to"] = static_cast<std::int64_t>(tensor->dtype());
        narrow = graph.add_node(std::move(cast), graph.nodes().front())->output();
      }
      graph.set_node_input(use.node, use.index, narrow);
    }
    if (!value->is_unused()) continue;
    graph.remove_initializer(value);
    graph.rename(replacement, name);
  }
}

}  // namespace

struct Trainer::State {
  State(const Model& source, std::vector<std::string> names, std::span<const LossTerm> losses,
        TrainerOptions given)
      : options(std::move(given)),
        pool(options.threads > 0 ? options.threads : available_cpus()),
        trained(std::move(names)) {
    std::unique_ptr<Model> model = source.clone();
    inline_functions(*model);
    if (auto wide = widened_for_training(*model)) {
      model = std::move(wide);
      widen_parameters(*model, {trained.begin(), trained.end()});
    }
    check_names(*model);
    outputs = model->graph.outputs().size();
    for (const Value* input : model->required_inputs()) inputs.push_back(input->name());
    loss = append_loss(*model, losses);
    notes = loss.notes;
    TrainingMode mode = options.mode;
    const std::set<std::string> is_trained(trained.begin(), trained.end());
    for (const Value* value : model->graph.initializers())
      if (!is_trained.contains(value->name())) mode.frozen.insert(value->name());
    changes = set_training_mode(*model, mode);
    notes.insert(notes.end(), changes.notes.begin(), changes.notes.end());

    std::vector<GivenValue> parameters;
    for (const std::string& name : trained) parameters.push_back({.name = name});
    for (const auto& statistic : changes.running)
      parameters.push_back({.name = statistic.initializer, .is_differentiated = false});
    if (!changes.key.empty()) parameters.push_back({.name = changes.key, .is_differentiated = false});
    for (const GivenValue& parameter : parameters)
      if (const Tensor* tensor = model->graph.find(parameter.name)->constant())
        values.push_back(*tensor);
    differentiator = std::make_unique<Differentiator>(
        *model, std::move(parameters), loss.output,
        DifferentiationOptions{.threads = pool.size(),
                               .reference = options.reference,
                               .recompute = options.recompute,
                               .on_step = options.on_step});
    find_outputs();
    std::vector<Regularization> regularization;
    for (std::size_t i = 0; i < trained.size(); ++i) {
      // The optimizer writes in place: not into what the model given shares.
      values[i] = copy_as(values[i], values[i].dtype());
      regularization.push_back(options.regularize ? options.regularize(trained[i], values[i])
                                                  : Regularization{});
    }
    optimizer.emplace(options.optimizer, std::move(regularization));
    for (const auto& [name, mask] : options.masks) {
      const auto found = std::ranges::find(trained, name);
      require(found != trained.end(), "mask of '{}': expected a trained parameter", name);
      const Tensor& value = values[static_cast<std::size_t>(found - trained.begin())];
      require(mask.dims() == value.dims(), "mask of '{}': expected {}, found {}", name,
              to_string(value.dims()), to_string(mask.dims()));
    }
  }

  void check_names(const Model& model) const {
    require(!trained.empty(), "there is nothing to train");
    std::set<std::string> seen;
    for (const std::string& name : trained) {
      const Value* value = model.graph.find(name);
      const Tensor* tensor = value != nullptr ? value->constant() : nullptr;
      require(tensor != nullptr, "expected an initializer '{}', found none", name);
      require(is_float(tensor->dtype()), "parameter '{}': expected a float type, found {}", name,
              onnxpress::name(tensor->dtype()));
      require(seen.insert(name).second, "parameter '{}' is listed twice", name);
    }
  }

  // Where in the graph's outputs the loss, its terms and the running statistics are.
  void find_outputs() {
    const auto all = differentiator->model().graph.outputs();
    const auto position = [&](const std::string& name) {
      const auto found = std::ranges::find(all, std::string_view(name), [](const Value* output) {
        return std::string_view(output->name());
      });
      require(found != all.end(), "output '{}' is missing", name);
      return static_cast<std::size_t>(found - all.begin());
    };
    loss_at = position(loss.output);
    for (const std::string& term : loss.terms) terms_at.push_back(position(term));
    for (const auto& statistic : changes.running) running_at.push_back(position(statistic.output));
  }

  // The required inputs in the order that the differentiator wants, and the parameters.
  std::vector<Tensor> in_order(std::span<const Tensor> given, std::span<const Tensor> targets) const {
    require(given.size() == inputs.size(), "expected {} inputs, found {}", inputs.size(),
            given.size());
    require(targets.size() == loss.targets.size(), "expected {} targets, found {}",
            loss.targets.size(), targets.size());
    std::map<std::string, Tensor> by_name;
    for (std::size_t i = 0; i < inputs.size(); ++i) by_name[inputs[i]] = given[i];
    for (std::size_t i = 0; i < targets.size(); ++i) by_name[loss.targets[i]] = targets[i];
    std::vector<Tensor> ordered;
    for (const std::string& name : differentiator->input_names()) ordered.push_back(by_name.at(name));
    return ordered;
  }

  // Says where a loss that is not finite comes from.
  [[noreturn]] void refuse(double found, std::span<const Tensor> ordered, std::span<const Tensor> parameters) const {
    const NonFinitePlaces places = differentiator->non_finite_places(ordered, parameters);
    std::string where;
    if (!places.nan.empty()) where = fmt::format(": the first NaN is of {}", places.nan);
    if (!places.infinite.empty())
      where += fmt::format("{} the first infinity of {}", where.empty() ? ":" : ",", places.infinite);
    throw NotFinite(fmt::format("step {}: the loss is {}{}", optimizer->steps() + 1,
                                std::isnan(found) ? "nan" : fmt::format("{}", found), where));
  }

  void apply_masks() {
    for (const auto& [name, mask] : options.masks) {
      const auto index = std::ranges::find(trained, name) - trained.begin();
      Tensor& value = values[static_cast<std::size_t>(index)];
      const Tensor wide = mask.cast(value.dtype());
      dispatch_floats(value.dtype(), [&]<class T>(std::type_identity<T>) {
        const auto keep = wide.data<T>();
        const auto target = value.mutable_data<T>();
        for (std::size_t i = 0; i < keep.size(); ++i)
          if (keep[i] == 0) target[i] = 0;
      });
    }
  }

  TrainerOptions options;
  ThreadPool pool;
  std::vector<std::string> trained, inputs, notes;
  std::size_t outputs = 0;  // of the model
  AppendedLoss loss;
  TrainingModeChanges changes;
  std::unique_ptr<Differentiator> differentiator;
  std::vector<Tensor> values;  // trained parameters, then running statistics
  std::size_t loss_at = 0;
  std::vector<std::size_t> terms_at, running_at;
  std::optional<Optimizer> optimizer;
  std::vector<Tensor> accumulated;  // gradients since the last update
  std::vector<Tensor> running;      // statistics that the next update takes over
  std::int64_t batches = 0;         // runs so far: what noise follows from
};

Trainer::Trainer(const Model& model, std::vector<std::string> trained,
                 std::span<const LossTerm> losses, TrainerOptions options)
    : state_(std::make_unique<State>(model, std::move(trained), losses, std::move(options))) {}

Trainer::~Trainer() = default;

Trainer::Step Trainer::accumulate(std::span<const Tensor> inputs, std::span<const Tensor> targets,
                                  double share) {
  State& s = *state_;
  std::vector<Tensor> parameters = s.values;
  if (!s.changes.key.empty())
    parameters.push_back(Tensor::scalar<std::int64_t>(
        static_cast<std::int64_t>(s.options.seed * 0x9e3779b97f4a7c15u) + s.batches));
  Differentiator::Result result = s.differentiator->run(s.in_order(inputs, targets), parameters);
  Step step;
  step.loss = scalar(result.outputs[s.loss_at]);
  if (!std::isfinite(step.loss)) s.refuse(step.loss, s.in_order(inputs, targets), parameters);
  for (const std::size_t at : s.terms_at) step.terms.push_back(scalar(result.outputs[at]));
  ++s.batches;
  std::vector<Tensor> running;
  for (const std::size_t at : s.running_at) running.push_back(std::move(result.outputs[at]));
  s.running = std::move(running);
  result.gradients.resize(s.trained.size());
  if (s.accumulated.empty() && share == 1) {
    s.accumulated = std::move(result.gradients);
  } else {
    // What is there may be shared with other gradients: it is copied before it is added to.
    s.accumulated.resize(s.trained.size());
    for (std::size_t i = 0; i < s.trained.size(); ++i) {
      Tensor total;
      add_scaled(s.pool, total, s.accumulated[i], 1);
      add_scaled(s.pool, total, result.gradients[i], share);
      s.accumulated[i] = std::move(total);
    }
  }
  result.outputs.resize(s.outputs);
  step.outputs = std::move(result.outputs);
  return step;
}

void Trainer::update(Step& step) {
  State& s = *state_;
  require(!s.accumulated.empty(), "there are no gradients to update with");
  GradientStep how{.rate = s.options.schedule.at(s.optimizer->steps()), .limit = s.options.clip_value};
  step.rate = how.rate;
  if (s.options.clip_norm > 0) {
    step.norm = global_norm(s.pool, s.accumulated);
    if (!std::isfinite(step.norm))
      throw NotFinite(fmt::format("step {}: the gradients are not finite", s.optimizer->steps() + 1));
    if (step.norm > s.options.clip_norm) how.factor = s.options.clip_norm / step.norm;
  }
  std::vector<Tensor> parameters(std::make_move_iterator(s.values.begin()),
                                 std::make_move_iterator(s.values.begin() +
                                                         std::ssize(s.trained)));
  s.optimizer->step(s.pool, parameters, s.accumulated, how);
  std::ranges::move(parameters, s.values.begin());
  for (std::size_t i = 0; i < s.running.size(); ++i)
    s.values[s.trained.size() + i] = std::move(s.running[i]);
  s.running.clear();
  s.accumulated.clear();
  s.apply_masks();
}

Trainer::Step Trainer::step(std::span<const Tensor> inputs, std::span<const Tensor> targets) {
  Step step = accumulate(inputs, targets);
  update(step);
  return step;
}

std::int64_t Trainer::steps() const { return state_->optimizer->steps(); }
const std::vector<std::string>& Trainer::parameters() const { return state_->trained; }
const std::vector<std::string>& Trainer::targets() const { return state_->loss.targets; }
const std::vector<std::string>& Trainer::notes() const { return state_->notes; }
const Tensor& Trainer::value(std::size_t number) const { return state_->values.at(number); }
std::size_t Trainer::value_count() const { return state_->values.size(); }

void Trainer::set_value(std::size_t number, Tensor value) {
  Tensor& target = state_->values.at(number);
  require(value.dims() == target.dims() && value.dtype() == target.dtype(),
          "expected {}{}, found {}{}", name(target.dtype()), to_string(target.dims()),
          name(value.dtype()), to_string(value.dims()));
  target = copy_as(value, value.dtype());
}

void Trainer::store(Model& model) const {
  const State& s = *state_;
  const auto put = [&](const std::string& name, const Tensor& tensor) {
    Value* value = model.graph.find(name);
    require(value != nullptr && value->initializer() != nullptr,
            "expected an initializer '{}', found none", name);
    const DType type = value->initializer()->dense().dtype();
    model.graph.set_initializer(value, copy_as(tensor, type));
  };
  for (std::size_t i = 0; i < s.trained.size(); ++i) put(s.trained[i], s.values[i]);
  for (std::size_t i = 0; i < s.changes.running.size(); ++i)
    put(s.changes.running[i].initializer, s.values[s.trained.size() + i]);
}

std::map<std::string, Tensor> Trainer::state() const {
  const State& s = *state_;
  std::map<std::string, Tensor> state;
  for (const auto& [name, tensor] : s.optimizer->state()) state["optimizer/" + name] = tensor;
  for (std::size_t i = 0; i < s.values.size(); ++i)
    state[fmt::format("value/{}", i)] = copy_as(s.values[i], s.values[i].dtype());
  state["steps"] = Tensor::scalar<std::int64_t>(s.optimizer->steps());
  state["batches"] = Tensor::scalar<std::int64_t>(s.batches);
  return state;
}

void Trainer::restore(const std::map<std::string, Tensor>& state) {
  State& s = *state_;
  const auto find = [&](const std::string& name) -> const Tensor& {
    const auto found = state.find(name);
    require(found != state.end(), "the checkpoint has no '{}'", name);
    return found->second;
  };
  std::vector<Tensor> values;
  for (std::size_t i = 0; i < s.values.size(); ++i) {
    const Tensor& tensor = find(fmt::format("value/{}", i));
    require(tensor.dims() == s.values[i].dims() && tensor.dtype() == s.values[i].dtype(),
            "the checkpoint is of another model: expected {}, found {}",
            to_string(Type::of(s.values[i])), to_string(Type::of(tensor)));
    values.push_back(copy_as(tensor, tensor.dtype()));
  }
  std::map<std::string, Tensor> optimizer;
  const std::string prefix = "optimizer/";
  for (const auto& [name, tensor] : state)
    if (name.starts_with(prefix)) optimizer[name.substr(prefix.size())] = copy_as(tensor, tensor.dtype());
  const std::int64_t steps = find("steps").to_ints().at(0);
  s.batches = find("batches").to_ints().at(0);
  s.values = std::move(values);
  s.optimizer->restore(optimizer, steps);
  s.accumulated.clear();
  s.running.clear();
}

std::size_t Trainer::reserved_bytes() const { return state_->differentiator->reserved_bytes(); }

}  // namespace onnxpress
