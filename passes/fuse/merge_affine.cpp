// Merges chains of constant scales and shifts: (x * a) * b, (x + a) + b, (x * a + b) * c, and those
// before and behind a BatchNormalization into it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/arithmetic.h"
#include "graph/ops/batch_norm.h"
#include "graph/ops/broadcasting.h"
#include "passes/common/linear_operator.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"
#include "passes/fuse/affine_rules.h"

namespace onnxpress {
namespace {

using Obstacle = std::optional<std::string>;

template <class Fn>
Tensor elementwise(const Tensor& a, const Tensor& b, Fn&& fn) {
  const Dims dims = broadcast(a.dims(), b.dims());
  const std::vector<std::int64_t> steps_a = broadcast_strides(a.dims(), dims);
  const std::vector<std::int64_t> steps_b = broadcast_strides(b.dims(), dims);
  const std::vector<std::int64_t> steps = row_strides(dims);
  Tensor result = Tensor::uninitialized(DType::float64, dims);
  double* const out = result.mutable_data<double>().data();
  const double* const from_a = a.data<double>().data();
  const double* const from_b = b.data<double>().data();
  for (std::int64_t i = 0; i < result.size(); ++i) {
    std::int64_t at_a = 0, at_b = 0;
    for (std::size_t axis = 0; axis < dims.size(); ++axis) {
      const std::int64_t index = i / steps[axis] % dims[axis];
      at_a += index * steps_a[axis];
      at_b += index * steps_b[axis];
    }
    out[i] = fn(from_a[at_a], from_b[at_b]);
  }
  return result;
}

// Of tensors of which an undefined one is the neutral element.
Tensor product(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() ? a : b;
  return elementwise(a, b, std::multiplies<>());
}
Tensor sum(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() ? a : b;
  return elementwise(a, b, std::plus<>());
}

// x * scale + shift, as tensors that broadcast to x (or x to them); undefined: none.
struct Affine {
  Tensor scale, shift;

  Affine then(const Affine& next) const {
    return {product(scale, next.scale),
            sum(shift.defined() ? product(shift, next.scale) : shift, next.shift)};
  }
};

// What Mul, Div, Add or Sub with a constant does to its other input.
Affine affine_of(const Node& node, const Tensor& constant, bool constant_first) {
  const Tensor c = constant.cast(DType::float64);
  if (node.is("Mul")) return {.scale = c};
  if (node.is("Div")) return {.scale = elementwise(Tensor::scalar(1.0), c, std::divides<>())};
  if (node.is("Add")) return {.shift = c};
  if (constant_first) return {.scale = Tensor::scalar(-1.0), .shift = c};
  return {.shift = product(c, Tensor::scalar(-1.0))};
}

bool is_constant_first(const Node& node) { return node.input(0)->constant() != nullptr; }

// Why a node of a chain cannot be read as a scale or shift.
Obstacle no_step(const Node& node) {
  const bool first = is_constant_first(node);
  const Value* operand = node.input(first ? 0 : 1);
  const Tensor& constant = *operand->constant();
  if (constant.dtype() != DType::float32 && constant.dtype() != DType::float64)
    return fmt::format("'{}' is {}", operand->name(), name(constant.dtype()));
  if (node.is("Div") && first) return fmt::format("{} divides a constant", node.describe());
  if (!is_aligned_last(node, first ? 0 : 1, std::nullopt, constant.rank()))
    return fmt::format("{} broadcasts along other axes than the last", node.describe());
  if (constant.size() == 0) return fmt::format("'{}' is empty", operand->name());
  if (node.is("Add") || node.is("Sub"))
    for (const float value : constant.to_floats())
      if (std::abs(value) >= rounding_shift)
        return fmt::format("'{}' has values so large that adding them rounds", operand->name());
  return std::nullopt;
}

// A chain of two or three such nodes that becomes one or two.
struct Chain {
  Value* x = nullptr;
  Affine affine;
  DType type = DType::float32;
  bool scales = false, flips = false;  // `flips`: the scale is -1
};

double magnitude(const Tensor& tensor) {
  double most = 0;
  for (const double value : tensor.data<double>()) most = std::max(most, std::abs(value));
  return most;
}

// A shift that is this many times larger than another takes bits from it that are not to be seen
// where inputs are small (1e-4 of the small one is 1,700 units in the last place of the large one).
constexpr double largest_ratio = 1024;

// Why the constants of a chain and of the step behind it, taken together, say less than apart.
Obstacle lost_bits(const Chain& chain, const Affine& next, const Affine& merged) {
  const auto rounded = [&](const Tensor& tensor) {
    return tensor.cast(chain.type).cast(DType::float64);
  };
  if (chain.affine.scale.defined() && next.scale.defined()) {
    const double least = chain.type == DType::float64 ? std::numeric_limits<double>::min()
                                                      : std::numeric_limits<float>::min();
    const Tensor none = elementwise(chain.affine.scale, next.scale, [&](double a, double b) {
      return a != 0 && b != 0 && std::abs(a * b) < least ? 1.0 : 0.0;
    });
    if (magnitude(none) > 0)
      return fmt::format("the merged scale is too small for {}", name(chain.type));
  }
  if (chain.affine.shift.defined() && next.shift.defined()) {
    const double one = magnitude(product(chain.affine.shift, next.scale));
    const double other = magnitude(next.shift);
    const double small = std::min(one, other), large = std::max(one, other);
    const auto exact = [&] {
      return std::ranges::equal(merged.shift.data<double>(),
                                rounded(merged.shift).data<double>());
    };
    if (small > 0 && large > largest_ratio * small && !exact())
      return fmt::format("the sum of shifts of {:.3g} and {:.3g} would round", large, small);
  }
  return std::nullopt;
}

std::optional<Chain> read_chain(const Match& match, std::string& reason) {
  const auto miss = [&](std::string why) {
    reason = std::move(why);
    return std::nullopt;
  };
  std::vector<const Node*> nodes;  // first to last
  for (const char* name : {"first", "second", "third"})
    if (const Node* node = match.node(name)) nodes.push_back(node);
  std::size_t freed = 0;
  Chain chain{.x = match.value("x")};
  if (chain.x->constant()) return miss("all of it is constant");
  if (ends_product(*nodes[nodes.size() - 2]))
    return miss("it may end an activation or a normalization written out");
  std::size_t scales = 0;
  Dims merged;
  std::int64_t elements = 0;
  for (const Node* node : nodes) {
    const Tensor& constant = *node->input(is_constant_first(*node) ? 0 : 1)->constant();
    merged = broadcast(merged, constant.dims());
    elements += constant.size();
  }
  if (element_count(merged) > elements) return miss("the merged constant would grow the file");
  for (const Node* node : nodes) {
    if (Obstacle obstacle = no_step(*node)) return miss(*obstacle);
    const bool first = is_constant_first(*node);
    const Tensor& constant = *node->input(first ? 0 : 1)->constant();
    chain.type = constant.dtype();
    const Affine next = affine_of(*node, constant, first);
    Affine both = chain.affine.then(next);
    if (Obstacle obstacle = lost_bits(chain, next, both)) return miss(*obstacle);
    chain.affine = std::move(both);
    freed += constant_bytes_only_for(*node);
    scales += node->is("Mul") || node->is("Div");
    if (node->is("Sub") && first) chain.flips = !chain.flips;
  }
  chain.scales = scales > 0;
  std::size_t kept = 0;
  for (Tensor* tensor : {&chain.affine.scale, &chain.affine.shift}) {
    if (!tensor->defined()) continue;
    *tensor = tensor->cast(chain.type);
    if (!all_finite(*tensor)) return miss("the merged constant is not finite");
    if (tensor == &chain.affine.shift || chain.scales) kept += tensor->byte_size();
  }
  if (kept > freed + least_node_bytes) return miss("the merged constant would grow the file");
  return chain;
}

Obstacle chain_obstacle(const Match& match) {
  std::string reason;
  return read_chain(match, reason) ? std::nullopt : Obstacle(reason);
}

void merge_chain(const Match& match, Patch& patch) {
  std::string reason;
  const Chain chain = *read_chain(match, reason);
  const Node& root = *match.root;
  const Node& first = *match.node("first");
  const auto make = [&](std::string_view op, const Node& named, std::vector<Patch::Ref> inputs) {
    OpCall call = make_arithmetic(root.graph().opset(), std::string(op));
    return patch.node({.op_type = std::move(call.op_type),
                       .name = named.name,
                       .inputs = std::move(inputs),
                       .attributes = std::move(call.attributes)});
  };
  const auto constant = [&](const Node& named, const Tensor& tensor) {
    return patch.constant(named.input(is_constant_first(named) ? 0 : 1)->name(), tensor);
  };
  Patch::Ref result = chain.x;
  if (chain.scales) result = make("Mul", first, {result, constant(first, chain.affine.scale)});
  if (chain.affine.shift.defined()) {
    const Patch::Ref shift = constant(root, chain.affine.shift);
    result = chain.flips && !chain.scales ? make("Sub", root, {shift, result})
                                          : make("Add", root, {result, shift});
  }
  patch.replace(root.output(), result);
}

constexpr std::string_view scaling = "Mul|Div", shifting = "Add|Sub", either = "Mul|Div|Add|Sub";

Pattern step(std::string_view op_types, std::string name, Pattern data) {
  return Pattern::op(op_types, std::move(name), {std::move(data), Pattern::constant()})
      .commutative();
}

Rule chain_rule(std::string name, Pattern pattern) {
  return {.name = std::move(name),
          .pattern = std::move(pattern),
          .when = chain_obstacle,
          .replace = merge_chain};
}

// A scale and shift in front of BatchNormalization or behind it, or two BatchNormalizations, read
// as one, which the BatchNormalization `kept` computes with another scale and bias.
struct Norm {
  Node* kept = nullptr;
  Tensor scale, bias;
};

std::optional<Norm> read_norm(const Match& match, std::string& reason) {
  const auto miss = [&](std::string why) {
    reason = std::move(why);
    return std::nullopt;
  };
  Node& first = *match.node("first");
  Node& second = *match.root;
  Norm norm{.kept = first.is("BatchNormalization") ? &first : &second};
  if (!second.output() || second.output()->is_unused()) return miss("nothing reads its result");
  const Value* scale = norm.kept->input(1);
  if (!scale || !scale->constant())
    return miss("the scale of BatchNormalization is not a constant");
  if (scale->constant()->dtype() != DType::float32 && scale->constant()->dtype() != DType::float64)
    return miss(fmt::format("'{}' is {}", scale->name(), name(scale->constant()->dtype())));
  const Type& type = match.type(match.value("x"));
  if (!type.shape || type.shape->size() < 2)
    return miss(fmt::format("the shape of '{}' is not known", match.value("x")->name()));
  const ChannelView view{scale->constant()->size(), type.shape->size() - 2, type.shape->size()};
  const Dim& channels = (*type.shape)[1];
  if (!channels.is_known() || channels.value() != view.count)
    return miss(
        fmt::format("'{}' is not known to have {} channels", match.value("x")->name(), view.count));
  const std::size_t data = second.input(0) == first.output() ? 0 : 1;
  const std::optional<AffineNode> before =
      read_affine(first, first.input(0) == match.value("x") ? 0 : 1, view, reason);
  if (!before) return std::nullopt;
  const std::optional<AffineNode> after = read_affine(second, data, view, reason);
  if (!after) return std::nullopt;

  const auto values = [&](std::size_t input) {
    const Tensor wide = norm.kept->input(input)->constant()->cast(DType::float64);
    const auto span = wide.data<double>();
    return std::vector<double>(span.begin(), span.end());
  };
  const std::vector<double> mean = values(3), variance = values(4);
  const auto epsilon = static_cast<double>(BatchNormAttrs::from(*norm.kept).epsilon);
  const std::vector<double> gamma = values(1), beta = values(2);
  std::vector<double> scales, biases, factors;
  double largest_shift = 0, largest_output = 0;
  for (std::size_t c = 0; c < mean.size(); ++c) {
    const double factor = before->affine.scale[c] * after->affine.scale[c];
    factors.push_back(factor);
    largest_shift =
        std::max(largest_shift, std::abs(before->affine.shift[c] * after->affine.scale[c]));
    largest_output = std::max(largest_output, std::abs(gamma[c]) + std::abs(beta[c]));
    scales.push_back(factor * std::sqrt(variance[c] + epsilon));
    biases.push_back(before->affine.shift[c] * after->affine.scale[c] + after->affine.shift[c] +
                     mean[c] * factor);
  }
  const DType dtype = scale->constant()->dtype();
  norm.scale = Tensor::of<double>({view.count}, scales).cast(dtype);
  norm.bias = Tensor::of<double>({view.count}, biases).cast(dtype);
  if (!all_finite(norm.bias)) return miss("the merged constant is not finite");
  const bool is_zero = all_zero(*norm.kept->input(1)->constant()) ||
                       std::ranges::all_of(factors, [](double factor) { return factor == 0; });
  if (Obstacle obstacle = range_obstacle(norm.scale, is_zero)) return miss(*obstacle);
  // What is added in front of BatchNormalization may be there to cancel.
  if (norm.kept == &second && !first.is("BatchNormalization") &&
      largest_shift > largest_ratio * largest_output)
    return miss(fmt::format("'{}' is so much larger than results that its sum with them rounds",
                            before->constants[0]->name()));
  const Node& gone = norm.kept == &first ? second : first;
  std::size_t added = 0;
  for (const std::size_t input : {1U, 2U})
    if (!is_read_once(*norm.kept->input(input))) added += norm.scale.byte_size();
  if (added > constant_bytes_only_for(gone) + least_node_bytes)
    return miss("the merged constant would grow the file");
  return norm;
}

Rule norm_rule(std::string_view second, std::string_view first) {
  return {.name = "merge_into_batch_norm",
          .pattern = step(second, "second", step(first, "first", Pattern::any("x"))),
          .when = [](const Match& match) -> Obstacle {
            std::string reason;
            return read_norm(match, reason) ? std::nullopt : Obstacle(reason);
          },
          .replace =
              [](const Match& match, Patch& patch) {
                std::string reason;
                Norm norm = *read_norm(match, reason);
                put_constant(patch, norm.kept, 1, *norm.kept->input(1), std::move(norm.scale));
                put_constant(patch, norm.kept, 2, *norm.kept->input(2), std::move(norm.bias));
                if (norm.kept == match.root)
                  patch.replace_input(match.root, 0, match.value("x"));
                else
                  patch.replace(match.root->output(), norm.kept->output());
              }};
}

class MergeAffine : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "merge_affine",
      .summary =
          "merges chains of constant scales and shifts, and those around "
          "BatchNormalization into it",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 62};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    const auto x = [] { return Pattern::any("x"); };
    return {
        chain_rule("merge_scales", step(scaling, "second", step(scaling, "first", x()))),
        chain_rule("merge_shifts", step(shifting, "second", step(shifting, "first", x()))),
        chain_rule("merge_scales_and_shifts",
                   step(scaling, "third", step(shifting, "second", step(scaling, "first", x())))),
        chain_rule("merge_scales_and_shifts",
                   step(shifting, "third", step(scaling, "second", step(shifting, "first", x())))),
        norm_rule("BatchNormalization", "BatchNormalization"),
        norm_rule("BatchNormalization", either),
        norm_rule(either, "BatchNormalization")};
  }
};

}  // namespace

PASS(merge_affine) { registry.add(std::make_unique<MergeAffine>()); }

}  // namespace onnxpress
