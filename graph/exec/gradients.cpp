#include "graph/exec/gradients.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <list>
#include <utility>

#include "graph/exec/backward_plan.h"
#include "graph/exec/unsupported.h"
#include "graph/kernels/onednn_threads.h"
#include "graph/rewrite/inline.h"

namespace onnxpress {
namespace {

// Makes an initializer an input of the same name and type.
void give_at_run(Graph& graph, Value* initializer) {
  const std::string name = initializer->name();
  Value* input = graph.add_input(graph.unique_name(name), Type::of(initializer->initializer()->dense()));
  graph.replace_uses(initializer, input);
  graph.remove_initializer(initializer);
  graph.rename(input, name);
}

// The first values of a run that hold NaN and infinities.
class NonFiniteObserver final : public Observer {
 public:
  bool wants(const Value&) override { return places_.nan.empty(); }
  void observe(const Value& value, const Tensor& tensor) override {
    if (!is_float(tensor.dtype())) return;
    const Tensor wide = tensor.cast(DType::float64);
    const auto elements = wide.data<double>();
    const std::string where =
        value.producer() != nullptr ? value.producer()->describe() : fmt::format("'{}'", value.name());
    const auto is_nan = [](double element) { return std::isnan(element); };
    const auto is_infinite = [](double element) { return std::isinf(element); };
    if (std::ranges::any_of(elements, is_nan)) places_.nan = where;
    if (places_.infinite.empty() && std::ranges::any_of(elements, is_infinite)) places_.infinite = where;
  }
  const NonFinitePlaces& places() const { return places_; }

 private:
  NonFinitePlaces places_;
};

}  // namespace

struct Differentiator::State {
  struct Entry {
    std::vector<Type> types;
    bool is_forward_only;
    std::unique_ptr<GraphPlan> forward;
    std::unique_ptr<BackwardPlan> backward;
  };

  State(const Model& source, std::vector<GivenValue> given, const std::string& loss_name,
        const DifferentiationOptions& options)
      : model(source.clone()),
        resources(options.threads > 0 ? options.threads : available_cpus()),
        capacity(std::max<std::size_t>(options.plans, 1)),
        recompute(options.recompute),
        parameters(std::move(given)) {
    resources.reference = options.reference;
    resources.on_step = options.on_step;
    inline_functions(*model);
    Graph& graph = model->graph;
    for (Value* input : std::vector<Value*>(graph.inputs().begin(), graph.inputs().end()))
      if (input->initializer()) graph.drop_input(input);
    for (const GivenValue& parameter : parameters) {
      Value* value = graph.find(parameter.name);
      require(value && (value->is_input() || value->initializer()),
              "expected an initializer or input '{}', found none", parameter.name);
      if (value->initializer()) give_at_run(graph, value);
    }
    number_inputs();
    if (loss_name.empty()) return;
    const auto found = std::ranges::find(graph.outputs(), loss_name, [](const Value* output) {
      return std::string_view(output->name());
    });
    require(found != graph.outputs().end(), "expected an output '{}', found none", loss_name);
    loss = *found;
  }

  void number_inputs() {
    const auto inputs = model->graph.inputs();
    of_parameter.assign(inputs.size(), no_slot);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      for (std::size_t k = 0; k < parameters.size(); ++k)
        if (parameters[k].name == inputs[i]->name()) of_parameter[i] = k;
      if (of_parameter[i] == no_slot) input_names.push_back(inputs[i]->name());
      const bool is_wanted = of_parameter[i] != no_slot && parameters[of_parameter[i]].is_differentiated;
      if (is_wanted) {
        wanted.insert(inputs[i]);
        require(is_float(inputs[i]->type.elem) || inputs[i]->type.elem == DType::undefined,
                "'{}': expected a float type to differentiate, found {}", inputs[i]->name(),
                to_string(inputs[i]->type));
      }
    }
  }

  // Inputs and parameters in the order of the graph's inputs.
  std::vector<Tensor> in_order(std::span<const Tensor> inputs,
                               std::span<const Tensor> values) const {
    require(inputs.size() == input_names.size(), "expected {} inputs ('{}'), found {}",
            input_names.size(), fmt::join(input_names, "', '"), inputs.size());
    require(values.size() == parameters.size(), "expected {} parameters, found {}",
            parameters.size(), values.size());
    std::vector<Tensor> given;
    std::size_t next = 0;
    for (std::size_t i = 0; i < of_parameter.size(); ++i) {
      const Tensor& tensor = of_parameter[i] == no_slot ? inputs[next++] : values[of_parameter[i]];
      const Value& input = *model->graph.inputs()[i];
      require(input.type.elem == DType::undefined || input.type.elem == tensor.dtype(),
              "'{}': expected {}, found {}", input.name(), to_string(input.type),
              to_string(Type::of(tensor)));
      given.push_back(tensor);
    }
    return given;
  }

  Entry& plan(const std::vector<Tensor>& given, bool is_forward_only) {
    std::vector<Type> types;
    for (const Tensor& tensor : given) types.push_back(Type::of(tensor));
    for (auto entry = plans.begin(); entry != plans.end(); ++entry) {
      if (entry->types != types || entry->is_forward_only != is_forward_only) continue;
      plans.splice(plans.begin(), plans, entry);
      return plans.front();
    }
    KnownInputs known;
    for (std::size_t i = 0; i < types.size(); ++i)
      known[model->graph.inputs()[i]] = {.type = types[i]};
    Entry entry{.types = std::move(types), .is_forward_only = is_forward_only};
    std::vector<const Value*> kept;
    if (!is_forward_only) {
      entry.backward = BackwardPlan::make(*model, known, wanted, *loss, resources, recompute);
      kept = entry.backward->kept;
    }
    entry.forward = make_plan(*model, model->graph, known, {}, resources, false, kept);
    if (plans.size() == capacity) plans.pop_back();
    plans.push_front(std::move(entry));
    return plans.front();
  }

  // Outputs of the graph, then what is kept.
  std::vector<Tensor> run_forward(Entry& entry, const std::vector<Tensor>& given, Observer* observer = nullptr) {
    const std::vector<RuntimeValue> values(given.begin(), given.end());
    return to_tensors(run_plan(*entry.forward, *model, values, {}, resources, observer));
  }

  std::unique_ptr<Model> model;
  EngineResources resources;
  std::size_t capacity;
  bool recompute;
  std::vector<GivenValue> parameters;
  std::vector<std::size_t> of_parameter;  // by graph input; no_slot for an input
  std::vector<std::string> input_names;
  std::unordered_set<const Value*> wanted;
  const Value* loss = nullptr;
  std::list<Entry> plans;  // most recently used first
};

Differentiator::Differentiator(const Model& model, std::vector<GivenValue> parameters,
                               std::string loss, DifferentiationOptions options) {
  require_supported(model);
  state_ = std::make_unique<State>(model, std::move(parameters), loss, options);
}

Differentiator::~Differentiator() = default;

Differentiator::Result Differentiator::run(std::span<const Tensor> inputs,
                                           std::span<const Tensor> parameters, double scale) {
  require(state_->loss != nullptr, "expected a loss to differentiate, found none");
  set_onednn_threads(state_->resources.threads);
  const std::vector<Tensor> given = state_->in_order(inputs, parameters);
  State::Entry& entry = state_->plan(given, false);
  std::vector<Tensor> saved = state_->run_forward(entry, given);
  const auto outputs = static_cast<std::ptrdiff_t>(state_->model->graph.outputs().size());
  Result result{.outputs = {saved.begin(), saved.begin() + outputs},
                .gradients = std::vector<Tensor>(state_->parameters.size())};
  saved.erase(saved.begin(), saved.begin() + outputs);
  std::vector<Tensor> gradients =
      run_backward(*entry.backward, saved, given, scale, state_->resources);
  for (std::size_t i = 0; i < gradients.size(); ++i)
    if (state_->of_parameter[i] != no_slot)
      result.gradients[state_->of_parameter[i]] = std::move(gradients[i]);
  return result;
}

std::vector<Tensor> Differentiator::forward(std::span<const Tensor> inputs,
                                            std::span<const Tensor> parameters) {
  set_onednn_threads(state_->resources.threads);
  const std::vector<Tensor> given = state_->in_order(inputs, parameters);
  return state_->run_forward(state_->plan(given, true), given);
}

NonFinitePlaces Differentiator::non_finite_places(std::span<const Tensor> inputs,
                                                  std::span<const Tensor> parameters) {
  const std::vector<Tensor> given = state_->in_order(inputs, parameters);
  NonFiniteObserver observer;
  state_->run_forward(state_->plan(given, true), given, &observer);
  return observer.places();
}

const std::vector<std::string>& Differentiator::input_names() const { return state_->input_names; }

const Model& Differentiator::model() const { return *state_->model; }

std::size_t Differentiator::reserved_bytes() const {
  return state_->resources.buffers.reserved_bytes();
}

}  // namespace onnxpress
