// Activations of one input written out: HardSwish, HardSigmoid, Swish, Mish, Softplus, LeakyRelu,
// PRelu, Relu, Clip.
#include <cmath>
#include <limits>

#include "graph/ops/activations.h"
#include "graph/ops/clip.h"
#include "graph/ops/introduced.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// A value between two bounds.
struct Bounded {
  Value* inside = nullptr;
  double low = -infinity, high = infinity;
  double scale = 1, shift = 0;  // of `inside`, before the bounds (HardSigmoid)
  std::vector<Node*> nodes;
};

// max(low, .) or min(high, .) of two inputs, and Relu.
std::optional<Bounded> one_bound(const Tracer& tracer, Node* node) {
  if (node->is("Relu")) return Bounded{.inside = node->input(0), .low = 0, .nodes = {node}};
  if (node->input_count() != 2) return std::nullopt;
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    Value* const inside = node->input(position);
    const auto bound = tracer.factor(node->input(1 - position), inside);
    if (!bound) continue;
    Bounded found{.inside = inside, .nodes = {node}};
    (node->is("Max") ? found.low : found.high) = *bound;
    return found;
  }
  return std::nullopt;
}

std::optional<Bounded> bounded(const Tracer& tracer, Node* node) {
  if (node->is("HardSigmoid")) {
    const HardSigmoidAttrs attrs = HardSigmoidAttrs::from(*node);
    return Bounded{.inside = node->input(0),
                   .low = 0,
                   .high = 1,
                   .scale = static_cast<double>(attrs.alpha),
                   .shift = static_cast<double>(attrs.beta),
                   .nodes = {node}};
  }
  if (node->is("Clip")) {
    const auto bounds = ClipBounds::from(*node);
    if (!bounds) return std::nullopt;
    return Bounded{
        .inside = node->input(0), .low = bounds->low, .high = bounds->high, .nodes = {node}};
  }
  auto outer = one_bound(tracer, node);
  Node* const below = outer ? tracer.maker(outer->inside, {"Max", "Min", "Relu"}) : nullptr;
  const auto inner = below != nullptr ? one_bound(tracer, below) : std::nullopt;
  if (!inner) return std::nullopt;
  outer->inside = inner->inside;
  if (outer->low == -infinity) outer->low = inner->low;
  if (outer->high == infinity) outer->high = inner->high;
  if (!(outer->low < outer->high) || std::isinf(outer->low) || std::isinf(outer->high))
    return std::nullopt;
  outer->nodes.push_back(below);
  return outer;
}

// What the value is made of by sums and products with numbers.
Value* variable(const Tracer& tracer, Value* value) {
  for (int depth = 0; depth < 4; ++depth) {
    const Node* const node = tracer.maker(value, {"Add", "Sub", "Mul", "Div"});
    if (node == nullptr) break;
    if (tracer.factor(node->input(1), node->input(0)))
      value = node->input(0);
    else if (tracer.factor(node->input(0), node->input(1)) && !node->is("Div"))
      value = node->input(1);
    else
      break;
  }
  return value;
}

// x * clip(alpha x + beta, 0, 1), or the clip alone.
struct HardGate {
  Value* x = nullptr;
  double alpha = 0, beta = 0;
  Region region;
};

// The bounds and `inside` of a gate after multiplication by the number behind it, as a function of
// x; nothing when the bounds are not 0 and 1 or `inside` is not linear.
std::optional<HardGate> scaled_gate(const Tracer& tracer, const Bounded& gate, Value* x,
                                    double number, Region region) {
  HardGate found{.x = x, .region = std::move(region)};
  const DType type = tracer.dtype(x);
  if (gate.low != 0 || !(number > 0) || !tracer.is_near(gate.high * number, 1, type))
    return std::nullopt;
  const auto inside = tracer.polynomial(gate.inside, x, found.region.nodes);
  if (!inside || (*inside)[2] != 0 || (*inside)[3] != 0) return std::nullopt;
  found.alpha = number * gate.scale * (*inside)[1];
  found.beta = number * (gate.scale * (*inside)[0] + gate.shift);
  found.region.nodes.insert(found.region.nodes.begin(), gate.nodes.begin(), gate.nodes.end());
  return found;
}

// Accepts the region when all of it can go.
bool can_go(const Tracer& tracer, const Region& region, std::string& reason) {
  const auto obstacle = tracer.obstacle(region);
  if (obstacle) reason = *obstacle;
  return !obstacle;
}

std::optional<HardGate> find_hard_swish(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  const auto gate = bounded(tracer, match.root);
  if (!gate) return std::nullopt;
  for (const Tracer::Gated& reading : tracer.gated(match.root)) {
    if (reading.x == nullptr) continue;
    auto found = scaled_gate(tracer, *gate, reading.x, reading.number, reading.region);
    if (!found || !tracer.is_near(found->alpha, 1.0 / 6, tracer.dtype(found->x)) ||
        !tracer.is_near(found->beta, 0.5, tracer.dtype(found->x)))
      continue;
    if (!can_go(tracer, found->region, reason)) continue;
    if (const auto obstacle = tracer.type_obstacle(found->x)) {
      reason = *obstacle;
      return std::nullopt;
    }
    const auto missing = missing_operator(match.root->graph(), "HardSwish");
    if (missing && found->region.nodes.size() <= 2) {
      reason = *missing;
      return std::nullopt;
    }
    return found;
  }
  return std::nullopt;
}

void build_hard_swish(const Match& match, const HardGate& found, Patch& patch) {
  if (!missing_operator(match.root->graph(), "HardSwish")) {
    replace_region(patch, found.region, {.op_type = "HardSwish", .inputs = {found.x}});
    return;
  }
  const HardSigmoidAttrs attrs{.alpha = 1.0F / 6, .beta = 0.5F};
  const Patch::Ref gate = patch.node({.op_type = "HardSigmoid",
                                      .name = match.root->name,
                                      .inputs = {found.x},
                                      .attributes = attrs.to_attributes()});
  replace_region(patch, found.region, {.op_type = "Mul", .inputs = {found.x, gate}});
}

std::optional<HardGate> find_hard_sigmoid(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  const auto gate = bounded(tracer, match.root);
  if (!gate) return std::nullopt;
  std::vector<Tracer::Gated> readings = tracer.gated(match.root);
  readings.push_back({.region = {.last = match.root}});  // nothing behind
  for (const Tracer::Gated& reading : readings) {
    if (reading.x != nullptr) continue;
    Value* const x = variable(tracer, gate->inside);
    const auto found = scaled_gate(tracer, *gate, x, reading.number, reading.region);
    if (!found || found->region.nodes.size() < 2 || !(found->alpha > 0)) continue;
    if (!can_go(tracer, found->region, reason)) continue;
    if (const auto obstacle = tracer.type_obstacle(x)) {
      reason = *obstacle;
      return std::nullopt;
    }
    return found;
  }
  return std::nullopt;
}

void build_hard_sigmoid(const Match&, const HardGate& found, Patch& patch) {
  const HardSigmoidAttrs attrs{.alpha = static_cast<float>(found.alpha),
                               .beta = static_cast<float>(found.beta)};
  replace_region(
      patch, found.region,
      {.op_type = "HardSigmoid", .inputs = {found.x}, .attributes = attrs.to_attributes()});
}

// A function of x and what it does with it.
struct Activation {
  Value* x = nullptr;
  double alpha = 1;
  Region region;
};

// Why a graph cannot hold Swish. ONNX Runtime 1.31 computes that of opset 24 by its definition as a
// function, but has nothing for it in models of later opsets.
std::optional<std::string> no_swish(const Graph& graph) {
  if (std::optional<std::string> missing = missing_operator(graph, "Swish")) return missing;
  if (graph.opset() <= 24) return std::nullopt;
  return fmt::format("ONNX Runtime does not run Swish in models of opset {}", graph.opset());
}

std::optional<Activation> find_swish(const Match& match, std::string& reason, bool runtime) {
  const Tracer tracer(match);
  for (const Tracer::Gated& reading : tracer.gated(match.root)) {
    if (reading.x == nullptr || reading.number != 1) continue;
    Activation found{.x = reading.x, .region = reading.region};
    const auto inside = tracer.polynomial(match.root->input(0), reading.x, found.region.nodes);
    if (!inside || (*inside)[0] != 0 || (*inside)[2] != 0 || (*inside)[3] != 0) continue;
    found.alpha = (*inside)[1];
    found.region.nodes.push_back(match.root);
    if (!can_go(tracer, found.region, reason)) continue;
    if (const auto obstacle = no_swish(match.root->graph()); obstacle && !runtime) {
      reason = *obstacle;
      return std::nullopt;
    }
    return found;
  }
  return std::nullopt;
}

// Swish where the model can hold it, else ONNX Runtime's QuickGelu, which is the same.
void build_swish(const Match& match, const Activation& found, Patch& patch) {
  const bool standard = !no_swish(match.root->graph());
  replace_region(patch, found.region,
                 {.op_type = standard ? "Swish" : "QuickGelu",
                  .domain = standard ? "" : "com.microsoft",
                  .inputs = {found.x},
                  .attributes = swish_attributes(static_cast<float>(found.alpha))});
}

// log(1 + exp(x)).
std::optional<Activation> find_softplus(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  Node* const sum = tracer.maker(match.root->input(0), {"Add"});
  if (sum == nullptr) return std::nullopt;
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    Node* const exponential = tracer.maker(sum->input(position), {"Exp"});
    if (exponential == nullptr ||
        !tracer.is_factor(sum->input(1 - position), sum->input(position), 1))
      continue;
    Activation found{.x = exponential->input(0),
                     .region = {.nodes = {exponential, sum, match.root}, .last = match.root}};
    if (!can_go(tracer, found.region, reason)) return std::nullopt;
    if (const auto obstacle = tracer.type_obstacle(found.x)) {
      reason = *obstacle;
      return std::nullopt;
    }
    return found;
  }
  return std::nullopt;
}

void build_softplus(const Match&, const Activation& found, Patch& patch) {
  replace_region(patch, found.region, {.op_type = "Softplus", .inputs = {found.x}});
}

// x * tanh(softplus(x)).
std::optional<Activation> find_mish(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  Node* const inner = tracer.maker(match.root->input(0), {"Softplus"});
  if (inner == nullptr) return std::nullopt;
  for (const Tracer::Gated& reading : tracer.gated(match.root)) {
    if (reading.x != inner->input(0) || reading.number != 1) continue;
    Activation found{.x = reading.x, .region = reading.region};
    found.region.nodes.insert(found.region.nodes.begin(), {inner, match.root});
    if (!can_go(tracer, found.region, reason)) continue;
    if (const auto missing = missing_operator(match.root->graph(), "Mish")) {
      reason = *missing;
      return std::nullopt;
    }
    return found;
  }
  return std::nullopt;
}

void build_mish(const Match&, const Activation& found, Patch& patch) {
  replace_region(patch, found.region, {.op_type = "Mish", .inputs = {found.x}});
}

// Between two numbers, by Min and Max.
std::optional<Bounded> find_clip(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  auto found = bounded(tracer, match.root);
  if (!found || found->nodes.size() < 2) return std::nullopt;
  if (!can_go(tracer, {.nodes = found->nodes, .last = match.root}, reason)) return std::nullopt;
  if (!tracer.is_float(found->inside)) {
    reason = fmt::format("the type of '{}' is not known", found->inside->name());
    return std::nullopt;
  }
  return found;
}

void build_clip(const Match& match, const Bounded& found, Patch& patch) {
  OpCall call =
      make_clip(match.root->graph().opset(), match.type(found.inside).elem, found.low, found.high);
  Patch::NodeTemplate node{
      .op_type = call.op_type, .inputs = {found.inside}, .attributes = std::move(call.attributes)};
  constexpr const char* names[] = {"min", "max"};
  for (std::size_t i = 0; i < call.constants.size(); ++i)
    node.inputs.push_back(patch.constant(match.root->output()->name() + "_" + names[i],
                                         std::move(call.constants[i])));
  replace_region(patch, {.nodes = found.nodes, .last = match.root}, std::move(node));
}

// max(x, 0), also written as Clip without an upper bound.
std::optional<Activation> find_relu(const Match& match, std::string&) {
  const Tracer tracer(match);
  std::optional<Bounded> found;
  if (match.root->is("Clip")) {
    const auto bounds = ClipBounds::from(*match.root);
    if (bounds)
      found = Bounded{.inside = match.root->input(0), .low = bounds->low, .high = bounds->high};
  } else {
    found = one_bound(tracer, match.root);
  }
  if (!found || found->low != 0 || found->high != infinity || !tracer.is_float(found->inside))
    return std::nullopt;
  return Activation{.x = found->inside, .region = {.nodes = {match.root}, .last = match.root}};
}

void build_relu(const Match&, const Activation& found, Patch& patch) {
  replace_region(patch, found.region, {.op_type = "Relu", .inputs = {found.x}});
}

// x times a number between 0 and 1.
std::optional<Activation> leak(const Tracer& tracer, const Value* value) {
  Node* const product = tracer.maker(value, {"Mul"});
  if (product == nullptr) return std::nullopt;
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    const auto slope = tracer.factor(product->input(1 - position), product->input(position));
    if (slope && *slope > 0 && *slope < 1)
      return Activation{
          .x = product->input(position), .alpha = *slope, .region = {.nodes = {product}}};
  }
  return std::nullopt;
}

// max(x, alpha x).
std::optional<Activation> find_leaky_relu(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  if (match.root->input_count() != 2) return std::nullopt;
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    auto found = leak(tracer, match.root->input(position));
    if (!found || found->x != match.root->input(1 - position)) continue;
    found->region.nodes.push_back(match.root);
    found->region.last = match.root;
    if (!can_go(tracer, found->region, reason)) return std::nullopt;
    if (const auto obstacle = tracer.type_obstacle(found->x)) {
      reason = *obstacle;
      return std::nullopt;
    }
    return found;
  }
  return std::nullopt;
}

void build_leaky_relu(const Match&, const Activation& found, Patch& patch) {
  replace_region(patch, found.region,
                 {.op_type = "LeakyRelu",
                  .inputs = {found.x},
                  .attributes = LeakyReluAttrs{static_cast<float>(found.alpha)}.to_attributes()});
}

class FuseActivations : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_activations",
      .summary = "activations written out (HardSwish, Swish, Mish, Clip, ...) become one operator",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 5};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    const auto swish = [runtime = is_runtime_level(options)](const Match& match,
                                                             std::string& reason) {
      return find_swish(match, reason, runtime);
    };
    constexpr std::string_view bounding = "Clip|HardSigmoid|Min|Max";
    return {
        recognition_rule<HardGate>("fuse_hard_swish", bounding, find_hard_swish, build_hard_swish),
        recognition_rule<HardGate>("fuse_hard_sigmoid", bounding, find_hard_sigmoid,
                                   build_hard_sigmoid),
        recognition_rule<Bounded>("fuse_clip", "Min|Max", find_clip, build_clip),
        recognition_rule<Activation>("fuse_relu", "Max|Clip", find_relu, build_relu),
        recognition_rule<Activation>("fuse_leaky_relu", "Max", find_leaky_relu, build_leaky_relu),
        recognition_rule<Activation>("fuse_softplus", "Log", find_softplus, build_softplus),
        recognition_rule<Activation>("fuse_mish", "Tanh", find_mish, build_mish),
        recognition_rule<Activation>("fuse_swish", "Sigmoid", swish, build_swish)};
  }
};

}  // namespace

PASS(fuse_activations) { registry.add(std::make_unique<FuseActivations>()); }

}  // namespace onnxpress
