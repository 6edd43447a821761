// Operators that exporters write out in several nodes.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "graph/exec/plan.h"
#include "graph/exec/post_ops.h"
#include "graph/exec/step_index.h"
#include "graph/ops/attributes.h"

namespace onnxpress {
namespace {

// A match: the operator that replaces the steps, which end in the last of them.
struct Recognized {
  std::string op_type;
  Attributes attributes;
  std::vector<std::size_t> inputs;  // slots
  std::vector<std::size_t> steps;   // in order
};

bool is_near(std::optional<float> value, double wanted) {
  return value && std::abs(*value - wanted) <= 1e-5 * std::abs(wanted);
}

class Recognizer {
 public:
  explicit Recognizer(GraphPlan& plan) : plan_(plan), index_(plan) {}

  void run() {
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      if (!plan_.steps[i].node || !is_executed(plan_, plan_.steps[i])) continue;
      auto found = gelu(i);
      if (!found) found = gated(i);
      if (!found) found = layer_norm(i);
      if (found) replace(*found);
    }
    std::erase_if(plan_.steps, [](const PlanStep& step) { return step.node == nullptr; });
  }

 private:
  const PlanStep& step(std::size_t i) const { return plan_.steps[i]; }
  bool is(std::size_t i, std::string_view op) const {
    return step(i).node && step(i).node->is(op) && step(i).outputs.size() == 1;
  }

  // The step that makes input `position` of step `i` for it alone, when it is an `op`.
  std::optional<std::size_t> from(std::size_t i, std::size_t position, std::string_view op) const {
    if (position >= step(i).inputs.size() || step(i).inputs[position] == no_slot)
      return std::nullopt;
    const std::size_t slot = step(i).inputs[position];
    const auto producer = index_.producer(slot);
    if (!producer || !is(*producer, op) || !index_.only_reader(slot)) return std::nullopt;
    return producer;
  }

  // The step that alone reads the output of step `i`, when it is an `op`, and at which position.
  std::optional<StepIndex::Read> into(std::size_t i, std::string_view op) const {
    const auto reader = index_.only_reader(step(i).outputs[0]);
    if (!reader || !is(reader->step, op)) return std::nullopt;
    return reader;
  }

  std::optional<float> scalar(std::size_t i, std::size_t position) const {
    return scalar_input(plan_, step(i), position);
  }

  // x * 1/2 * (1 + erf(x / sqrt(2))), the factors in any order.
  std::optional<Recognized> gelu(std::size_t erf) const {
    if (!is(erf, "Erf")) return std::nullopt;
    const double root = std::sqrt(2.0);
    std::size_t x = no_slot;
    Recognized found{.op_type = "Gelu"};
    if (const auto scaled = from(erf, 0, "Div"); scaled && is_near(scalar(*scaled, 1), root)) {
      x = step(*scaled).inputs[0];
      found.steps.push_back(*scaled);
    } else if (const auto product = from(erf, 0, "Mul")) {
      for (const std::size_t position : {0, 1})
        if (is_near(scalar(*product, 1 - position), 1 / root)) x = step(*product).inputs[position];
      found.steps.push_back(*product);
    }
    const auto sum = into(erf, "Add");
    if (x == no_slot || !sum || !is_near(scalar(sum->step, 1 - sum->input), 1)) return std::nullopt;
    found.steps.insert(found.steps.end(), {erf, sum->step});
    bool needs_x = true, needs_half = true;
    for (std::size_t last = sum->step; needs_x || needs_half;) {
      const auto next = into(last, "Mul");
      if (!next) return std::nullopt;
      const std::size_t other = 1 - next->input;
      if (needs_half && is_near(scalar(next->step, other), 0.5)) {
        needs_half = false;
      } else if (needs_x && step(next->step).inputs[other] == x) {
        needs_x = false;
      } else if (const auto halved = from(next->step, other, "Mul");
                 halved && needs_x && needs_half && is_halved(*halved, x)) {
        needs_x = needs_half = false;
        found.steps.push_back(*halved);
      } else {
        return std::nullopt;
      }
      last = next->step;
      found.steps.push_back(last);
    }
    found.inputs = {x};
    return found;
  }

  // Step `i` is x / 2, written as a product.
  bool is_halved(std::size_t i, std::size_t x) const {
    for (const std::size_t position : {0, 1})
      if (step(i).inputs[position] == x && is_near(scalar(i, 1 - position), 0.5)) return true;
    return false;
  }

  // x * f(x): Swish (sigmoid), HardSwish (hard sigmoid with its constants), Mish (tanh of
  // softplus).
  std::optional<Recognized> gated(std::size_t product) const {
    if (!is(product, "Mul") || step(product).inputs.size() != 2) return std::nullopt;
    for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
      const std::size_t x = step(product).inputs[1 - position];
      const auto gate_of = [&](std::size_t gate, std::string_view op) {
        return Recognized{.op_type = std::string(op), .inputs = {x}, .steps = {gate, product}};
      };
      if (const auto gate = from(product, position, "Sigmoid"); gate && step(*gate).inputs[0] == x)
        return gate_of(*gate, "Swish");
      if (const auto gate = from(product, position, "HardSigmoid");
          gate && step(*gate).inputs[0] == x) {
        const Node& node = *step(*gate).node;
        if (is_near(get_float(node, "alpha", 0.2f), 1.0 / 6) &&
            is_near(get_float(node, "beta", 0.5f), 0.5))
          return gate_of(*gate, "HardSwish");
      }
      if (const auto gate = from(product, position, "Tanh")) {
        const auto inner = from(*gate, 0, "Softplus");
        if (inner && step(*inner).inputs[0] == x) {
          Recognized found = gate_of(*gate, "Mish");
          found.steps.insert(found.steps.begin(), *inner);
          return found;
        }
      }
    }
    return std::nullopt;
  }

  // ReduceMean over the last axis, kept.
  bool is_mean_of_last(std::size_t i) const {
    if (!is(i, "ReduceMean")) return false;
    const PlanStep& mean = step(i);
    const auto dims = plan_.slots[mean.inputs[0]].dims();
    if (!dims || dims->empty()) return false;
    std::vector<std::int64_t> axes = get_ints(*mean.node, "axes");
    if (mean.inputs.size() > 1 && mean.inputs[1] != no_slot) {
      const Slot& slot = plan_.slots[mean.inputs[1]];
      if (slot.source != Slot::Source::constant) return false;
      axes = slot.constant.to_ints();
    }
    const auto rank = static_cast<std::int64_t>(dims->size());
    return get_bool(*mean.node, "keepdims", true) && axes.size() == 1 &&
           (axes[0] == -1 || axes[0] == rank - 1);
  }

  // (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias over the last axis.
  std::optional<Recognized> layer_norm(std::size_t mean) const {
    if (!is_mean_of_last(mean)) return std::nullopt;
    const std::size_t x = step(mean).inputs[0];
    const auto centred = into(mean, "Sub");
    if (!centred || centred->input != 1 || step(centred->step).inputs[0] != x) return std::nullopt;
    const std::size_t away = step(centred->step).outputs[0];
    // The quotient, and from it back to the variance.
    for (std::size_t divide = centred->step + 1; divide < plan_.steps.size(); ++divide) {
      if (!is(divide, "Div") || step(divide).inputs[0] != away) continue;
      const auto root = from(divide, 1, "Sqrt");
      const auto sum = root ? from(*root, 0, "Add") : std::nullopt;
      if (!sum) return std::nullopt;
      for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
        const auto epsilon = scalar(*sum, 1 - position);
        const auto variance = from(*sum, position, "ReduceMean");
        if (!epsilon || !variance || !is_mean_of_last(*variance)) continue;
        const auto square = squared(*variance, away);
        if (!square || index_.readers(away) != (step(*square).node->is("Mul") ? 3u : 2u))
          return std::nullopt;
        return scaled_norm({mean, centred->step, *square, *variance, *sum, *root, divide}, x,
                           *epsilon);
      }
      return std::nullopt;
    }
    return std::nullopt;
  }

  // What makes input 0 of step `i`: `away` squared, by Pow or as a product.
  std::optional<std::size_t> squared(std::size_t i, std::size_t away) const {
    if (const auto power = from(i, 0, "Pow");
        power && step(*power).inputs[0] == away && is_near(scalar(*power, 1), 2))
      return power;
    if (const auto product = from(i, 0, "Mul");
        product && step(*product).inputs == std::vector<std::size_t>{away, away})
      return product;
    return std::nullopt;
  }

  // With the scale and bias behind the normalization.
  std::optional<Recognized> scaled_norm(std::vector<std::size_t> steps, std::size_t x,
                                        float epsilon) const {
    const auto size = plan_.slots[x].dims()->back();
    const auto parameter = [&](const StepIndex::Read& read) -> std::optional<std::size_t> {
      const std::size_t slot = step(read.step).inputs[1 - read.input];
      const bool fits = slot != no_slot && plan_.slots[slot].source == Slot::Source::constant &&
                        plan_.slots[slot].dims() == Dims{size};
      return fits ? std::optional(slot) : std::nullopt;
    };
    const auto product = into(steps.back(), "Mul");
    if (!product) return std::nullopt;
    const auto scale = parameter(*product);
    if (!scale) return std::nullopt;
    steps.push_back(product->step);
    Recognized found{.op_type = "LayerNormalization", .inputs = {x, *scale}};
    found.attributes["epsilon"] = epsilon;
    if (const auto sum = into(product->step, "Add")) {
      if (const auto bias = parameter(*sum)) {
        found.inputs.push_back(*bias);
        steps.push_back(sum->step);
      }
    }
    found.steps = std::move(steps);
    return found;
  }

  void replace(Recognized& found) {
    const std::size_t last = *std::ranges::max_element(found.steps);
    for (const std::size_t slot : found.inputs)
      if (plan_.slots[slot].type.elem != DType::float32) return;
    const Node* const end = plan_.steps[last].node;
    PlanStep merged{.node = make_node(*end, found), .inputs = found.inputs};
    merged.outputs = plan_.steps[last].outputs;
    for (const std::size_t i : found.steps) {
      index_.forget(i, plan_.steps[i].inputs);
      plan_.steps[i] = PlanStep{};
    }
    plan_.steps[last] = std::move(merged);
    index_.add(plan_.steps[last], last);
  }

  const Node* make_node(const Node& like, Recognized& found) {
    return plan_.made_up_graph()->add_node(
        {.op_type = found.op_type, .name = like.name, .attributes = std::move(found.attributes)});
  }

  GraphPlan& plan_;
  StepIndex index_;
};

}  // namespace

void recognize_steps(GraphPlan& plan) { Recognizer(plan).run(); }

}  // namespace onnxpress
