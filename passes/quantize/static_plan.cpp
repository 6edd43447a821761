#include "passes/quantize/static_plan.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "graph/ops/clip.h"
#include "passes/common/calibration.h"
#include "passes/core/selector.h"

namespace onnxpress {
namespace {

// Concat of codes of one scale is a copy; others are requantized (or, by the target, refused).
bool joins_share_scales(const Target& target) {
  return target.id == Target::Id::tensorrt || target.id == Target::Id::qnn || target.id == Target::Id::openvino;
}

// Every operator of the target's runs on codes, whatever is around it.
bool runs_whole_graph(const Target& target) { return target.id == Target::Id::qnn; }

// The target's integer kernel has no result in float.
bool must_write_codes(const Node& node, const Target& target) {
  switch (target.id) {
    case Target::Id::openvino:
    case Target::Id::tensorrt: return false;
    case Target::Id::qnn: return true;
    default: return !node.is("MatMul") && !node.is("Gemm");
  }
}

class Planner {
 public:
  Planner(const Model& model, const TypeInference& types, const StaticTypes& kinds, const QuantizeRequest& request,
          const Exclusions& exclusions)
      : model_(model), types_(types), kinds_(kinds), request_(request), exclusions_(exclusions), selector_(request.select) {}

  StaticPlan plan() {
    collect();
    choose_products();
    find_sources();
    find_reachable();
    choose_others();
    explain();
    code_values();
    return std::move(plan_);
  }

 private:
  // --- nodes ------------------------------------------------------------------------------------

  void collect() {
    model_.graph.for_each_graph([&](const Graph& graph) {
      for (Node* node : graph.nodes()) {
        PlannedNode planned{.node = node, .use = operator_use(*node, kinds_.target), .reason = {}};
        planned.result = node->output(0);
        const Value* tensor = planned.use.weights.empty() ? node->output(0) : node->input(planned.use.weights[0]);
        planned.bits = tensor ? request_.bits_of(*node, *tensor) : request_.weight_bits;
        if (planned.bits == request_.weight_bits) planned.bits = kinds_.weight.bits;
        planned.activation_bits = planned.bits == 16 ? std::max(16, kinds_.activation.bits) : kinds_.activation.bits;
        absorb_bounds(planned);
        planned.reason = obstacle(planned, plan_.nodes.size(), tensor);
        places_.emplace(node, plan_.nodes.size());
        plan_.nodes.push_back(std::move(planned));
      }
    });
  }

  static void absorb_bounds(PlannedNode& planned) {
    if (planned.use.role != Role::linear && planned.use.role != Role::product && planned.use.role != Role::arithmetic)
      return;
    Value* output = planned.node->output(0);
    if (!output || output->is_output() || output->uses().size() != 1) return;
    const Use use = output->uses()[0];
    const bool bounds = use.node->is("Relu") || (use.node->is("Clip") && ClipBounds::from(*use.node));
    if (!bounds || use.index != 0 || &use.node->graph() != &planned.node->graph()) return;
    planned.absorbed = use.node;
    planned.result = use.node->output(0);
  }

  // Why nothing of the node may be quantized; empty: it may.
  std::string obstacle(const PlannedNode& planned, std::size_t place, const Value* tensor) const {
    const Node& node = *planned.node;
    if (const auto found = exclusions_.nodes.find(place); found != exclusions_.nodes.end()) return found->second;
    if (planned.use.role == Role::none) return planned.use.reason;
    if (planned.bits == 0) return "left in float as asked (overrides)";
    if (tensor ? !selector_.matches(node, *tensor) : !selector_.matches(node)) return "not selected";
    for (const Value* input : node.inputs())
      if (input && input->producer() && input->producer()->is("DequantizeLinear")) return "it is quantized already";
    for (const Value* output : node.outputs())
      for (const Use& use : output ? output->uses() : std::span<const Use>{})
        if (use.node->is("QuantizeLinear") && use.index == 0) return "it is quantized already";
    for (const std::size_t i : planned.use.data)
      if (!is_quantizable(node.input(i)))
        return fmt::format("'{}' is {}", node.input(i)->name(), to_string(types_.type(node.input(i))));
    if (node.is("Concat") && std::ranges::any_of(planned.use.data, [&](std::size_t i) { return is_half(node.input(i)); }))
      return "ONNX Runtime has no operator that joins codes of 16-bit floats";
    return {};
  }

  bool is_half(const Value* value) const {
    const DType type = value->constant() ? value->constant()->dtype() : types_.type(value).elem;
    return is_float(type) && onnxpress::bits(type) == 16;
  }

  bool is_quantizable(const Value* value) const {
    const DType type = value->constant() ? value->constant()->dtype() : types_.type(value).elem;
    return type == DType::float32 || (kinds_.opset >= 19 && (type == DType::float16 || type == DType::bfloat16));
  }

  bool is_product(const PlannedNode& planned) const {
    return planned.use.role == Role::linear || planned.use.role == Role::product;
  }

  const std::string* refusal(const Value* value) const {
    // ONNX Runtime puts one between DequantizeLinear and QuantizeLinear into an operator that it has not.
    static const std::string joined = "ONNX Runtime has no operator that joins codes of 16-bit floats, and would make one of them";
    if (value->producer() && value->producer()->is("Concat") && is_half(value)) return &joined;
    const auto found = exclusions_.values.find(calibration_key(*value));
    return found == exclusions_.values.end() ? nullptr : &found->second;
  }

  // A bias that is no constant vector cannot become one of integers.
  std::string bias_obstacle(const PlannedNode& planned) const {
    if (!planned.use.bias) return {};
    const Value* bias = planned.node->input(*planned.use.bias);
    if (!bias->constant()) return fmt::format("its bias '{}' is not a constant", bias->name());
    if (bias->constant()->rank() != 1) return fmt::format("its bias '{}' has {} axes, expected 1", bias->name(), bias->constant()->rank());
    return {};
  }

  // Why its weights cannot be had; empty: they can, or it has none.
  static std::string weight_obstacle(const PlannedNode& planned) {
    for (const std::size_t i : planned.use.weights) {
      const Value* weight = planned.node->input(i);
      if (!weight || (planned.use.role == Role::recurrent && !weight->constant())) continue;
      if (!weight->constant()) return fmt::format("'{}' is a sparse tensor", weight->name());
      if (!is_float(weight->constant()->dtype()) || onnxpress::bits(weight->constant()->dtype()) < 16 ||
          weight->constant()->dtype() == DType::float64)
        return fmt::format("'{}' is {}", weight->name(), name(weight->constant()->dtype()));
      if (weight->is_output()) return fmt::format("'{}' is a graph output", weight->name());
    }
    return {};
  }

  // Products, and operators whose weights alone are quantized.
  void choose_products() {
    for (PlannedNode& planned : plan_.nodes) {
      if (!planned.reason.empty()) continue;
      const bool weights = !planned.use.weights.empty();
      if (!is_product(planned) && !weights) continue;
      planned.reason = weight_obstacle(planned);
      if (!planned.reason.empty()) continue;
      planned.weights = weights;
      if (!is_product(planned)) {
        planned.reason = planned.use.role == Role::recurrent ? planned.use.reason : "";
        continue;
      }
      planned.reason = planned.use.on_integers ? bias_obstacle(planned) : planned.use.reason;
      for (const std::size_t i : planned.use.data)
        if (const std::string* refused = refusal(planned.node->input(i)); refused && planned.reason.empty())
          planned.reason = *refused;
      if (const std::string* refused = refusal(planned.result);
          refused && planned.reason.empty() && must_write_codes(*planned.node, kinds_.target))
        planned.reason = *refused;
      planned.on_codes = planned.reason.empty();
    }
  }

  // --- what is around them ----------------------------------------------------------------------

  bool may_run_on_codes(const PlannedNode& planned) const {
    if (!planned.reason.empty() || !planned.use.on_integers) return false;
    if (planned.use.role != Role::arithmetic && planned.use.role != Role::movement &&
        !(planned.use.role == Role::bounds && runs_whole_graph(kinds_.target)))
      return false;
    for (const std::size_t i : planned.use.data)
      if (refusal(planned.node->input(i))) return false;
    return !refusal(planned.result) && !is_bias_of_float_product(planned);
  }

  // The Add of a constant behind a MatMul: exact in float, where the product can be left.
  bool is_bias_of_float_product(const PlannedNode& planned) const {
    const Node& node = *planned.node;
    if (!node.is("Add") || runs_whole_graph(kinds_.target)) return false;
    for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
      const Node* producer = node.input(i)->producer();
      if (node.input(1 - i)->is_constant() && producer && producer->is("MatMul")) return true;
    }
    return false;
  }

  const PlannedNode* planned(const Node* node) const {
    const auto found = places_.find(node);
    return found == places_.end() ? nullptr : &plan_.nodes[found->second];
  }

  // Values that products read as they are, or behind operators that only move elements and that
  // nothing else is behind.
  void find_sources() {
    for (auto it = plan_.nodes.rbegin(); it != plan_.nodes.rend(); ++it) {
      if (it->on_codes)
        for (const std::size_t i : it->use.data) sources_.insert(it->node->input(i));
      if (it->use.role != Role::movement || !may_run_on_codes(*it)) continue;
      const auto outputs = it->node->outputs();
      const bool all_read = std::ranges::all_of(outputs, [&](const Value* v) { return !v || sources_.contains(v); });
      Value* input = it->node->input(0);
      const bool only_reader = std::ranges::all_of(input->uses(), [&](const Use& use) { return use.node == it->node; });
      if (all_read && only_reader && !input->is_output() && !input->is_constant()) sources_.insert(input);
    }
  }

  // Values that are, or may be had as, codes.
  void find_reachable() {
    reachable_.insert(sources_.begin(), sources_.end());
    for (const PlannedNode& planned : plan_.nodes) {
      if (planned.on_codes) reachable_.insert(planned.result);
      if (!may_run_on_codes(planned)) continue;
      const bool reached = runs_whole_graph(kinds_.target) ||
                           std::ranges::any_of(planned.use.data, [&](std::size_t i) {
                             return reachable_.contains(planned.node->input(i));
                           });
      if (!reached) continue;
      reachable_.insert(planned.result);
      if (planned.use.role == Role::movement)
        for (const Value* output : planned.node->outputs())
          if (output) reachable_.insert(output);
    }
  }

  void choose_others() {
    for (auto it = plan_.nodes.rbegin(); it != plan_.nodes.rend(); ++it) {
      PlannedNode& planned = *it;
      if (!planned.on_codes && may_run_on_codes(planned)) {
        const auto wanted = [&](const Value* value) { return value && wanted_.contains(value); };
        bool read = runs_whole_graph(kinds_.target) || wanted(planned.result);
        if (planned.use.role == Role::movement) read |= std::ranges::any_of(planned.node->outputs(), wanted);
        planned.on_codes = read && reachable_.contains(planned.result);
      }
      if (planned.on_codes)
        for (const std::size_t i : planned.use.data) wanted_.insert(planned.node->input(i));
    }
  }

  void explain() {
    for (PlannedNode& planned : plan_.nodes) {
      if (planned.on_codes || !planned.reason.empty() || planned.weights) continue;
      for (const std::size_t i : planned.use.data)
        if (const std::string* refused = refusal(planned.node->input(i))) planned.reason = *refused;
      if (!planned.reason.empty()) continue;
      if (!planned.use.on_integers)
        planned.reason = planned.use.reason;
      else if (is_bias_of_float_product(planned))
        planned.reason = "it adds a bias to a product that is better left in float";
      else if (!reachable_.contains(planned.result))
        planned.reason = "nothing before it makes codes";
      else
        planned.reason = "no operator on codes is behind it";
    }
  }

  // --- values -----------------------------------------------------------------------------------

  void code_values() {
    std::unordered_set<const Value*> coded = wanted_;
    for (const PlannedNode& planned : plan_.nodes) {
      if (!planned.on_codes) continue;
      if (planned.use.role == Role::movement) {
        for (const Value* output : planned.node->outputs())
          if (output && !output->is_unused()) coded.insert(output);
      } else if (must_write_codes(*planned.node, kinds_.target) && !planned.result->is_unused()) {
        coded.insert(planned.result);
      }
    }
    std::unordered_map<const Value*, std::size_t> index;
    const auto add = [&](Value* value, const PlannedNode* maker) {
      if (!value || !coded.contains(value) || value->is_constant() || index.contains(value)) return;
      index.emplace(value, plan_.values.size());
      plan_.values.push_back({.value = value,
                              .made_on_codes = maker && maker->on_codes,
                              .maker = maker,
                              .readers = {},
                              .bits = maker && maker->on_codes ? maker->activation_bits : kinds_.activation.bits});
    };
    model_.graph.for_each_graph([&](const Graph& graph) {
      for (Value* input : graph.inputs()) add(input, nullptr);
    });
    for (const PlannedNode& planned : plan_.nodes) {
      add(planned.result, &planned);
      if (planned.use.role == Role::movement || planned.result != planned.node->output(0))
        for (Value* output : planned.node->outputs()) add(output, &planned);
      for (Value* output : planned.node->outputs()) add(output, &planned);
    }
    for (const PlannedNode& planned : plan_.nodes) {
      if (!planned.on_codes) continue;
      for (const std::size_t i : planned.use.data) {
        const auto found = index.find(planned.node->input(i));
        if (found == index.end()) continue;
        plan_.values[found->second].readers.push_back({planned.node, i});
        plan_.values[found->second].bits = std::max(plan_.values[found->second].bits, planned.activation_bits);
      }
    }
    group_values(index);
  }

  void group_values(const std::unordered_map<const Value*, std::size_t>& index) {
    std::vector<std::size_t> parent(plan_.values.size());
    std::iota(parent.begin(), parent.end(), std::size_t{0});
    const auto root = [&](std::size_t i) {
      while (parent[i] != i) i = parent[i] = parent[parent[i]];
      return i;
    };
    const auto join = [&](const Value* a, const Value* b) {
      const auto first = index.find(a), second = index.find(b);
      if (first == index.end() || second == index.end()) return;
      const std::size_t x = root(first->second), y = root(second->second);
      parent[std::max(x, y)] = std::min(x, y);
    };
    for (const PlannedNode& planned : plan_.nodes) {
      if (!planned.on_codes) continue;
      const bool shares = planned.node->is("Concat") && joins_share_scales(kinds_.target);
      if (shares)
        for (const Value* input : planned.node->inputs()) join(input, planned.result);
      if (planned.use.role != Role::movement) continue;
      for (const Value* output : planned.node->outputs()) {
        const auto found = output ? index.find(output) : index.end();
        if (found == index.end()) continue;
        join(planned.node->input(0), output);
        plan_.values[found->second].is_source = !index.contains(planned.node->input(0));
      }
    }
    std::unordered_map<std::size_t, std::size_t> numbers;
    std::vector<int> widths;
    for (std::size_t i = 0; i < plan_.values.size(); ++i) {
      const auto [found, is_new] = numbers.emplace(root(i), numbers.size());
      plan_.values[i].group = found->second;
      if (is_new) widths.push_back(0);
      widths[found->second] = std::max(widths[found->second], plan_.values[i].bits);
    }
    for (CodedValue& value : plan_.values) value.bits = widths[value.group];
    plan_.groups = numbers.size();
  }

  const Model& model_;
  const TypeInference& types_;
  const StaticTypes& kinds_;
  const QuantizeRequest& request_;
  const Exclusions& exclusions_;
  Selector selector_;
  StaticPlan plan_;
  std::unordered_map<const Node*, std::size_t> places_;
  std::unordered_set<const Value*> sources_, reachable_, wanted_;
};

}  // namespace

StaticPlan plan_static(const Model& model, const TypeInference& types, const StaticTypes& kinds,
                       const QuantizeRequest& request, const Exclusions& exclusions) {
  return Planner(model, types, kinds, request, exclusions).plan();
}

}  // namespace onnxpress
