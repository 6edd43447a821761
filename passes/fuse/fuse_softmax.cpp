// Softmax and LogSoftmax written out, with the largest element subtracted or not.
#include "graph/ops/softmax.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

struct FoundSoftmax {
  Value* x = nullptr;
  std::int64_t axis = -1;
  Region region;
};

// x when the value is x - max(x) along the axis; the nodes of that.
Value* without_maximum(const Tracer& tracer, const Value* value, std::int64_t axis,
                       std::vector<Node*>& nodes) {
  Node* const difference = tracer.maker(value, {"Sub"});
  Node* const largest =
      difference != nullptr ? tracer.maker(difference->input(1), {"ReduceMax"}) : nullptr;
  if (largest == nullptr || largest->input(0) != difference->input(0) ||
      tracer.reduced_axis(*largest) != axis)
    return nullptr;
  nodes.insert(nodes.end(), {difference, largest});
  return difference->input(0);
}

// From `shifted`, the argument of the exponential, to the operator's input.
std::optional<FoundSoftmax> complete(const Tracer& tracer, Node* root, Value* shifted,
                                     const Node& sum, std::vector<Node*> nodes,
                                     std::string& reason) {
  const auto axis = tracer.reduced_axis(sum);
  if (!axis) {
    reason = fmt::format("{} does not reduce one known axis and keep it", sum.describe());
    return std::nullopt;
  }
  FoundSoftmax found{.x = shifted, .region = {.nodes = std::move(nodes), .last = root}};
  found.region.nodes.push_back(root);
  std::vector<Node*> shift;
  Value* const x = without_maximum(tracer, shifted, *axis, shift);
  if (x != nullptr) {
    found.x = x;
    found.region.nodes.insert(found.region.nodes.end(), shift.begin(), shift.end());
  }
  if (const auto obstacle = tracer.obstacle(found.region)) {
    reason = *obstacle;
    return std::nullopt;
  }
  if (!SoftmaxAttrs::along(root->graph().opset(), *axis, tracer.rank(found.x))) {
    reason = fmt::format("axis {} needs opset 13, the model has {}", *axis, root->graph().opset());
    return std::nullopt;
  }
  found.axis = *axis;
  return found;
}

// exp(z) / sum(exp(z)).
std::optional<FoundSoftmax> find_softmax(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  Node* const exponential = tracer.maker(match.root->input(0), {"Exp"});
  Node* const sum = tracer.maker(match.root->input(1), {"ReduceSum"});
  if (exponential == nullptr || sum == nullptr || sum->input(0) != exponential->output())
    return std::nullopt;
  return complete(tracer, match.root, exponential->input(0), *sum, {exponential, sum}, reason);
}

// z - log(sum(exp(z))).
std::optional<FoundSoftmax> find_log_softmax(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  Value* const z = match.root->input(0);
  if (Node* const reduced = tracer.maker(match.root->input(1), {"ReduceLogSumExp"}))
    return reduced->input(0) == z ? complete(tracer, match.root, z, *reduced, {reduced}, reason)
                                  : std::nullopt;
  Node* const logarithm = tracer.maker(match.root->input(1), {"Log"});
  Node* const sum =
      logarithm != nullptr ? tracer.maker(logarithm->input(0), {"ReduceSum"}) : nullptr;
  Node* const exponential = sum != nullptr ? tracer.maker(sum->input(0), {"Exp"}) : nullptr;
  if (exponential == nullptr || exponential->input(0) != z) return std::nullopt;
  return complete(tracer, match.root, z, *sum, {exponential, sum, logarithm}, reason);
}

void build(const Match& match, const FoundSoftmax& found, Patch& patch) {
  replace_region(patch, found.region,
                 {.op_type = match.root->is("Div") ? "Softmax" : "LogSoftmax",
                  .inputs = {found.x},
                  .attributes = *SoftmaxAttrs::along(match.root->graph().opset(), found.axis,
                                                     Tracer(match).rank(found.x))});
}

class FuseSoftmax : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_softmax",
      .summary = "Softmax and LogSoftmax written out become one operator",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 1};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {recognition_rule<FoundSoftmax>("fuse_softmax", "Div", find_softmax, build),
            recognition_rule<FoundSoftmax>("fuse_log_softmax", "Sub", find_log_softmax, build)};
  }
};

}  // namespace

PASS(fuse_softmax) { registry.add(std::make_unique<FuseSoftmax>()); }

}  // namespace onnxpress
