// Vectors divided by their Euclidean norm, which a tiny number keeps from 0, as LpNormalization.
#include "graph/ops/clip.h"
#include "graph/ops/group_norm.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

struct FoundNorm {
  Value* x = nullptr;
  std::int64_t axis = -1;
  Region region;
};

// LpNormalization has no epsilon and leaves zeros; vectors this short are taken for zeros.
constexpr double negligible = 1e-10;

// What bounds or lifts the norm; the number must be positive.
Value* kept_from_zero(const Tracer& tracer, const Value* value, double& epsilon,
                      std::vector<Node*>& nodes) {
  Node* const node = tracer.maker(value, {"Clip", "Max", "Add"});
  if (node == nullptr) return nullptr;
  nodes.push_back(node);
  if (node->is("Clip")) {
    const auto bounds = ClipBounds::from(*node);
    if (!bounds || bounds->high < 1e30) return nullptr;
    epsilon = bounds->low;
    return node->input(0);
  }
  if (node->input_count() != 2) return nullptr;
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    const auto number = tracer.factor(node->input(1 - position), node->input(position));
    if (!number) continue;
    epsilon = *number;
    return node->input(position);
  }
  return nullptr;
}

// x where the value is its Euclidean norm along one axis.
Value* normed(const Tracer& tracer, const Value* value, FoundNorm& found) {
  Node* reduce = tracer.maker(value, {"ReduceL2"});
  Value* x = reduce != nullptr ? reduce->input(0) : nullptr;
  if (Node* const root = tracer.maker(value, {"Sqrt"})) {
    reduce = tracer.maker(root->input(0), {"ReduceSumSquare", "ReduceSum"});
    if (reduce == nullptr) return nullptr;
    found.region.nodes.push_back(root);
    x = reduce->input(0);
    if (reduce->is("ReduceSum")) {
      Node* const square = tracer.maker(x, {"Mul", "Pow"});
      const bool is_square =
          square != nullptr && (square->is("Mul") ? square->input(0) == square->input(1)
                                                  : tracer.number(square->input(1)) == 2.0);
      if (!is_square) return nullptr;
      found.region.nodes.push_back(square);
      x = square->input(0);
    }
  }
  const auto axis = reduce != nullptr ? tracer.reduced_axis(*reduce) : std::nullopt;
  if (!axis) return nullptr;
  found.region.nodes.push_back(reduce);
  found.axis = *axis;
  return x;
}

std::optional<FoundNorm> find_norm(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  FoundNorm found{.x = match.root->input(0), .region = {.nodes = {match.root}, .last = match.root}};
  Value* below = match.root->input(1);
  if (Node* const expand = tracer.maker(below, {"Expand"})) {
    const Shape* const shape = tracer.shape(below);
    const Shape* const wanted = tracer.shape(found.x);
    if (shape == nullptr || wanted == nullptr || shape->size() != wanted->size())
      return std::nullopt;
    for (std::size_t i = 0; i < shape->size(); ++i)
      if (!same_dim((*shape)[i], (*wanted)[i])) return std::nullopt;
    found.region.nodes.push_back(expand);
    tracer.absorb_dims(found.region, expand->input(1));
    below = expand->input(0);
  }
  double epsilon = 0;
  Value* const inner = kept_from_zero(tracer, below, epsilon, found.region.nodes);
  if (inner == nullptr || normed(tracer, inner, found) != found.x) return std::nullopt;
  if (!(epsilon > 0) || epsilon > negligible) {
    reason = fmt::format("its epsilon {} changes short vectors, LpNormalization has none", epsilon);
    return std::nullopt;
  }
  if (const DType type = tracer.dtype(found.x); type != DType::float32 && type != DType::float64) {
    reason = fmt::format("'{}' is {}, expected float32 or float64", found.x->name(),
                         to_string(tracer.type(found.x)));
    return std::nullopt;
  }
  if (const auto obstacle = tracer.obstacle(found.region)) {
    reason = *obstacle;
    return std::nullopt;
  }
  return found;
}

void build(const Match&, const FoundNorm& found, Patch& patch) {
  replace_region(patch, found.region,
                 {.op_type = "LpNormalization",
                  .inputs = {found.x},
                  .attributes = l2_normalization_attributes(found.axis)});
}

class FuseLpNorm : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_lp_norm",
      .summary = "vectors divided by their Euclidean norm become LpNormalization",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 4};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {recognition_rule<FoundNorm>("fuse_lp_norm", "Div", find_norm, build)};
  }
};

}  // namespace

PASS(fuse_lp_norm) { registry.add(std::make_unique<FuseLpNorm>()); }

}  // namespace onnxpress
