#include "graph/exec/engine.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "graph/exec/plan.h"
#include "graph/exec/unsupported.h"
#include "graph/exec/widen_half.h"
#include "graph/kernels/onednn_threads.h"
#include "graph/rewrite/inline.h"

namespace onnxpress {
namespace {

std::string join(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, ", "));
}

// Checks given types against declared ones; symbols get one number each.
class InputCheck {
 public:
  void check(const Value& input, const Type& found) {
    const Type& declared = input.type;
    if (declared.kind == Type::Kind::unknown) return;
    if (!declared.is_tensor() || !found.is_tensor()) {
      require(may_hold(declared, found), "input '{}': expected {}, found {}", input.name(),
              to_string(declared), to_string(found));
      return;
    }
    const bool right_element = declared.elem == DType::undefined || declared.elem == found.elem;
    bool right_shape = !declared.shape || declared.shape->size() == found.shape->size();
    if (right_shape && declared.shape)
      for (std::size_t i = 0; i < declared.shape->size(); ++i) {
        const Dim& dim = (*declared.shape)[i];
        right_shape = right_shape && (!dim.is_known() || dim == (*found.shape)[i]);
      }
    require(right_element && right_shape, "input '{}': expected {}, found {}", input.name(),
            to_string(declared), to_string(found));
    if (declared.shape) check_symbols(input, found);
  }

 private:
  // Kinds and element types agree as far as they are known.
  static bool may_hold(const Type& declared, const Type& found) {
    if (declared.kind == Type::Kind::unknown || found.kind == Type::Kind::unknown) return true;
    if (declared.kind != found.kind) return false;
    if (declared.is_tensor())
      return declared.elem == DType::undefined || declared.elem == found.elem;
    return !declared.inner || !found.inner || may_hold(*declared.inner, *found.inner);
  }

  void check_symbols(const Value& input, const Type& found) {
    for (std::size_t i = 0; i < input.type.shape->size(); ++i) {
      const Dim& dim = (*input.type.shape)[i];
      if (!dim.is_symbol()) continue;
      const Dim& number = (*found.shape)[i];
      const auto [known, is_new] = symbols_.try_emplace(dim.symbol(), number.value(), input.name());
      const auto& [expected, from] = known->second;
      require(is_new || expected == number.value(),
              "input '{}': expected {} with {} = {} as in input '{}', found {}", input.name(),
              to_string(input.type), dim.symbol(), expected, from, to_string(found));
    }
  }

  std::map<std::string, std::pair<std::int64_t, std::string>> symbols_;
};

}  // namespace

struct Engine::State {
  struct Entry {
    std::vector<Type> types;
    bool fuse;
    std::unique_ptr<GraphPlan> plan;
  };

  State(const Model& source, const EngineOptions& options)
      : model(source.clone()),
        resources(options.threads > 0 ? options.threads : available_cpus()),
        capacity(std::max<std::size_t>(options.plans, 1)) {
    resources.reference = options.reference;
    resources.lean = options.lean;
    may_fuse = options.fuse && !options.reference;
    resources.on_step = options.on_step;
    resources.kept = options.kept;
    inline_functions(*model);
    inputs = model->required_inputs();
    if (may_fuse && !options.kept) wide = widened_half(*model);
    if (wide) wide_inputs = wide->required_inputs();
  }

  // What a plan is made of.
  const Model& planned(bool fuse) const { return fuse && wide ? *wide : *model; }

  // Without `fuse`, a plan that produces every value.
  GraphPlan& plan(const std::vector<Type>& types, bool fuse) {
    fuse = fuse && may_fuse;
    for (auto entry = plans.begin(); entry != plans.end(); ++entry) {
      if (entry->types != types || entry->fuse != fuse) continue;
      plans.splice(plans.begin(), plans, entry);
      return *plans.front().plan;
    }
    check(types);
    const Model& source = planned(fuse);
    const std::vector<Value*>& sources = &source == model.get() ? inputs : wide_inputs;
    KnownInputs known;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const bool says_nothing =
          types[i].inner && types[i].inner->kind == Type::Kind::unknown;  // empty: as declared
      known[sources[i]] = {.type = says_nothing ? inputs[i]->type : types[i]};
    }
    if (plans.size() == capacity) plans.pop_back();
    plans.push_front({.types = types,
                      .fuse = fuse,
                      .plan = make_plan(source, source.graph, known, {}, resources, fuse)});
    ++made;
    return *plans.front().plan;
  }

  void check(const std::vector<Type>& types) const {
    if (types.size() != inputs.size()) {
      std::vector<std::string> names;
      for (const Value* input : inputs) names.push_back("'" + input->name() + "'");
      fail("expected {} inputs ({}), found {}", inputs.size(), join(names), types.size());
    }
    InputCheck check;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (types[i].is_tensor())
        require(types[i].shape && concrete(*types[i].shape),
                "input '{}': expected a tensor with all dims known, found {}", inputs[i]->name(),
                to_string(types[i]));
      check.check(*inputs[i], types[i]);
    }
  }

  std::unique_ptr<Model> model;
  std::unique_ptr<Model> wide;  // for plans that fuse, where it differs
  EngineResources resources;
  std::size_t capacity;
  bool may_fuse = true;
  std::vector<Value*> inputs, wide_inputs;
  std::list<Entry> plans;  // most recently used first
  std::size_t made = 0;
};

Engine::Engine(const Model& model, EngineOptions options) {
  require_supported(model);
  state_ = std::make_unique<State>(model, options);
}

Engine::~Engine() = default;

std::vector<std::string> Engine::unsupported(const Model& model) {
  std::vector<std::string> names;
  for (const UnsupportedOperator& op : unsupported_operators(model))
    names.push_back(fmt::format("{} ({} {})", op.op_type, op.domain, op.version));
  std::ranges::sort(names);
  return names;
}

std::vector<Tensor> Engine::run(std::span<const Tensor> inputs, Observer* observer) {
  const std::vector<RuntimeValue> values(inputs.begin(), inputs.end());
  const auto declared = model().graph.outputs();
  std::vector<RuntimeValue> results = run(values, observer);
  std::vector<Tensor> outputs;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!results[i].is_tensor())
      fail("output '{}': expected a tensor, found {}", declared[i]->name(),
           to_string(type_of(results[i])));
    outputs.push_back(std::move(results[i]).tensor());
  }
  return outputs;
}

std::vector<RuntimeValue> Engine::run(std::span<const RuntimeValue> inputs, Observer* observer) {
  set_onednn_threads(state_->resources.threads);
  std::vector<Type> types;
  for (const RuntimeValue& input : inputs) types.push_back(type_of(input));
  const bool fuse = observer == nullptr || state_->resources.kept;
  GraphPlan& plan = state_->plan(types, fuse);
  const Model& planned = state_->planned(fuse && state_->may_fuse);
  return run_plan(plan, planned, inputs, {}, state_->resources, observer);
}

const Model& Engine::model() const { return *state_->model; }

std::size_t Engine::plans_made() const { return state_->made; }

PlanSummary Engine::summary(std::span<const Type> inputs) {
  set_onednn_threads(state_->resources.threads);
  const GraphPlan& plan = state_->plan({inputs.begin(), inputs.end()}, true);
  PlanSummary summary{.arena_bytes = plan.arena_bytes,
                      .unshared_bytes = plan.unshared_bytes,
                      .dynamic_values = plan.dynamic_values};
  for (const PlanStep& step : plan.steps)
    if (step.kernel)
      summary.steps.push_back({step.node->name, step.node->op_type(), step.backend, step.macs});
  return summary;
}

}  // namespace onnxpress
