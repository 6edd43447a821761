// Removes operators that hand one of their inputs on as it is.
//
// Bits count: x + 0 is no identity for floats (-0 + 0 is +0), and neither is a sum over one element
// (it starts from 0); x - 0, x * 1, x / 1 and x ^ 1 are.
#include <algorithm>

#include "graph/ops/concat_split.h"
#include "graph/ops/constant.h"
#include "graph/ops/identity.h"
#include "graph/ops/pad.h"
#include "graph/ops/pool.h"
#include "graph/ops/reshape.h"
#include "graph/ops/resize.h"
#include "graph/ops/slice.h"
#include "graph/ops/transpose.h"
#include "passes/common/identities.h"
#include "passes/common/rewriting.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

Source identity(const Match& match) { return {match.root->input(0)}; }

Source dropout(const Match& match) {
  if (is_inference_dropout(*match.root)) return {match.root->input(0)};
  return {nullptr, "it may be in training mode"};
}

Source cast(const Match& match) {
  const DType from = match.type(match.root->input(0)).elem;
  const DType to =
      match.root->is("Cast") ? cast_target(*match.root) : match.type(match.root->input(1)).elem;
  if (from == DType::undefined || to == DType::undefined)
    return {nullptr, "its element types are not known"};
  return from == to ? Source{match.root->input(0)} : Source{};
}

// A Reshape that is given the dims that are there already, be they known or not.
bool repeats_dims(const Match& match) {
  const auto target = ReshapeTarget::from(*match.root);
  const Type& type = match.type(match.root->input(0));
  if (!target || !type.shape || target->dims.size() != type.shape->size()) return false;
  std::size_t open = 0;
  for (std::size_t i = 0; i < target->dims.size(); ++i) {
    const std::int64_t dim = target->dims[i];
    const bool copied = dim == 0 && !target->allow_zero;
    if (copied || (*type.shape)[i].value() == dim)
      open += (*type.shape)[i].value() == -1 && !copied;
    else if (dim == -1)
      ++open;
    else
      return false;
  }
  // One open dim is what the others leave, if none of them is 0.
  const bool zero =
      std::ranges::any_of(*type.shape, [](const Dim& dim) { return dim.value() == 0; });
  return open == 0 || (open == 1 && !zero);
}

Source reshape(const Match& match) {
  if (match.root->is("Reshape") && repeats_dims(match)) return {match.root->input(0)};
  return if_same_type(match);
}

Source expand(const Match& match) {
  const Type& type = match.type(match.root->input(0));
  const auto dims = constant_ints(match.root->input(1));
  const bool ones = dims && std::ranges::all_of(*dims, [](std::int64_t dim) { return dim == 1; });
  if (ones && type.shape && dims->size() <= type.shape->size()) return {match.root->input(0)};
  return if_same_type(match);
}

Source transpose(const Match& match) {
  const Type& type = match.type(match.root->input(0));
  if (!type.shape) return {nullptr, "the rank of its input is not known"};
  const auto permutation = transpose_permutation(*match.root, type.shape->size());
  for (std::size_t i = 0; i < permutation.size(); ++i) {
    const auto from = static_cast<std::size_t>(permutation[i]);
    const auto is_one = [&](std::size_t axis) { return (*type.shape)[axis].value() == 1; };
    if (from != i && !(is_one(from) && is_one(i))) return {};
  }
  return {match.root->input(0)};
}

Source pad(const Match& match) {
  const PadAttrs attrs = PadAttrs::from(*match.root);
  if (!attrs.pads) return {nullptr, "its pads are not known"};
  const bool none = std::ranges::all_of(*attrs.pads, [](std::int64_t pad) { return pad == 0; });
  return none ? Source{match.root->input(0)} : Source{};
}

// Whether a Slice starts at 0 and goes on by 1: what it keeps is told by the sizes.
bool starts_at_zero(const Node& slice) {
  const auto all = [&](std::size_t index, std::int64_t wanted) {
    const auto values = constant_ints(slice.input(index));
    return values &&
           std::ranges::all_of(*values, [&](std::int64_t value) { return value == wanted; });
  };
  return all(1, 0) && (!slice.input(4) || all(4, 1));
}

Source slice(const Match& match) {
  const Type& type = match.type(match.root->input(0));
  if (!type.shape) return {nullptr, "the rank of its input is not known"};
  const auto attrs = SliceAttrs::from(*match.root);
  if (!attrs)
    return starts_at_zero(*match.root) ? if_same_type(match)
                                       : Source{nullptr, "its bounds are not known"};
  for (std::size_t i = 0; i < attrs->axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(normalize_axis(attrs->axes[i], type.shape->size()));
    const Dim& dim = (*type.shape)[axis];
    if (attrs->takes_all(i)) continue;
    if (!dim.is_known()) return {nullptr, fmt::format("axis {} is {}", axis, dim.to_string())};
    const SliceAttrs::Range range = attrs->range(i, dim.value());
    if (range.count != dim.value() || (range.step != 1 && range.count > 1)) return {};
  }
  return {match.root->input(0)};
}

// Concat of one part, or of one that is not empty.
Source concat(const Match& match) {
  const Node& node = *match.root;
  if (node.input_count() == 1) return {node.input(0)};
  Value* only = nullptr;
  for (Value* input : node.inputs()) {
    const Type& type = match.type(input);
    if (!type.shape) return {};
    const auto axis =
        static_cast<std::size_t>(normalize_axis(concat_axis(node), type.shape->size()));
    if ((*type.shape)[axis].value() == 0) continue;
    if (only) return {};
    only = input;
  }
  return {only};
}

Source split(const Match& match) {
  return match.root->output_count() == 1 ? Source{match.root->input(0)} : Source{};
}

Source resize(const Match& match) {
  const bool keeps = same_type(match.type(match.root->input(0)), match.type(match.root->output()));
  return resizes_nothing(*match.root, keeps) ? Source{match.root->input(0)} : Source{};
}

// Sum, Max, Min, Mean of one.
Source variadic(const Match& match) {
  return match.root->input_count() == 1 ? Source{match.root->input(0)} : Source{};
}

// Operators with a constant operand that changes nothing: which, and where it may be.
struct Neutral {
  std::string_view op_type;
  double value;
  bool on_either_side;
  int sign_of_zero;  // for floats; 0: does not matter
};
constexpr Neutral neutrals[] = {
    {"Add", 0, true, -1}, {"Sub", 0, false, 1}, {"Mul", 1, true, 0}, {"Div", 1, false, 0},
    {"Pow", 1, false, 0}, {"And", 1, true, 0},  {"Or", 0, true, 0},  {"Xor", 0, true, 0},
};

Source arithmetic(const Match& match) {
  const Node& node = *match.root;
  const Neutral& neutral = *std::ranges::find(neutrals, node.op_type(), &Neutral::op_type);
  for (const std::size_t index : {std::size_t{1}, std::size_t{0}}) {
    if (index == 0 && !neutral.on_either_side) continue;
    const auto constant = constant_contents(node.input(index));
    if (!constant || !is_all(*constant, neutral.value)) continue;
    if (is_float(constant->dtype()) && !is_all(*constant, neutral.value, neutral.sign_of_zero))
      return {nullptr, "adding a zero of that sign makes +0 of -0"};
    if (!node.input(1 - index)) return {};
    const DType type = match.type(node.input(1 - index)).elem;
    // An exponent of another type has the power computed in double.
    if (type != constant->dtype() && !is_float(type))
      return {nullptr, "the element types of its operands differ or are not known"};
    return unless_broadcast(match, 1 - index, *constant);
  }
  return {};
}

Source where(const Match& match) {
  const Node& node = *match.root;
  if (node.input(1) == node.input(2)) return if_same_type(match, 1);
  const auto condition = constant_contents(node.input(0));
  if (!condition) return {nullptr, "its condition is not a constant"};
  if (is_all(*condition, 1)) return if_same_type(match, 1);
  return is_all(*condition, 0) ? if_same_type(match, 2) : Source{};
}

// Operators that undo themselves.
Source involution(const Match& match) {
  const Node* inner = match.root->input(0) ? match.root->input(0)->producer() : nullptr;
  return inner && inner->is(match.root->op_type()) ? Source{inner->input(0)} : Source{};
}

// Operators that do nothing the second time.
Source idempotent(const Match& match) {
  const Node* inner = match.root->input(0) ? match.root->input(0)->producer() : nullptr;
  return inner && inner->is(match.root->op_type()) ? Source{match.root->input(0)} : Source{};
}

// A sum over one element starts from 0, which makes +0 of -0.
Source reduction(const Match& match) {
  const Node& node = *match.root;
  const bool sums = node.is("ReduceSum") || node.is("ReduceMean");
  if (sums && !is_integer(match.type(node.input(0)).elem))
    return {nullptr, "a sum over one element makes +0 of -0"};
  return if_over_ones(match);
}

Source max_pool(const Match& match) {
  return takes_each_cell(PoolAttrs::from(*match.root).window) ? Source{match.root->input(0)}
                                                              : Source{};
}

// Operators whose result one operand decides: x * 0 for integers, x and false, x or true. The
// result is then a constant, if that is small.
std::optional<Tensor> decided(const Match& match) {
  constexpr std::int64_t most_elements = 16;
  const Node& node = *match.root;
  const Type& type = match.type(node.output());
  const auto dims = type.shape ? concrete(*type.shape) : std::nullopt;
  if (!dims || is_float(type.elem) || element_count(*dims) > most_elements) return std::nullopt;
  const double wanted = node.is("Or") ? 1 : 0;
  for (const Value* operand : node.inputs()) {
    const auto constant = constant_contents(operand);
    if (!constant || !is_all(*constant, wanted)) continue;
    Tensor result(DType::float64, *dims);
    for (double& element : result.mutable_data<double>()) element = wanted;
    return result.cast(type.elem);
  }
  return std::nullopt;
}

std::optional<std::string> decided_obstacle(const Match& match) {
  const Value* result = match.root->output();
  if (!result || result->is_unused() || !decided(match)) return "";
  if (result->is_output()) return fmt::format("its result '{}' is a graph output", result->name());
  return std::nullopt;
}

class EliminateIdentities : public RulePass {
 public:
  static constexpr PassInfo pass_info{.name = "eliminate_identities",
                                      .summary =
                                          "removes operators that hand an input on as it is: "
                                          "Identity, Dropout, Cast to the same type, "
                                          "Reshape to the same shape, x * 1, ...",
                                      .effect = Effect::exact,
                                      .group = "simplify",
                                      .group_order = 20};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {
        identity_rule("eliminate_identity", "Identity", identity),
        identity_rule("eliminate_dropout", "Dropout", dropout),
        identity_rule("eliminate_cast", "Cast|CastLike", cast),
        identity_rule("eliminate_reshape", "Reshape|Flatten|Squeeze|Unsqueeze", reshape),
        identity_rule("eliminate_expand", "Expand", expand),
        identity_rule("eliminate_tile", "Tile",
                      [](const Match& match) { return if_same_type(match); }),
        identity_rule("eliminate_transpose", "Transpose", transpose),
        identity_rule("eliminate_pad", "Pad", pad),
        identity_rule("eliminate_slice", "Slice", slice),
        identity_rule("eliminate_concat", "Concat", concat),
        identity_rule("eliminate_split", "Split", split),
        identity_rule("eliminate_resize", "Resize|Upsample", resize),
        identity_rule("eliminate_variadic", "Sum|Max|Min|Mean", variadic),
        identity_rule("eliminate_neutral_operand", "Add|Sub|Mul|Div|Pow|And|Or|Xor", arithmetic),
        {.name = "fold_decided_operand",
             .pattern = Pattern::op("Mul|And|Or", "node"),
             .when = decided_obstacle,
             .replace =
                 [](const Match& match, Patch& patch) {
                   Value* result = match.root->output();
                   patch.replace(result, patch.constant(result->name(), *decided(match)));
                 }},
            identity_rule("eliminate_where", "Where", where),
        identity_rule("eliminate_involution", "Neg|Not", involution),
        identity_rule("eliminate_idempotent", "Relu|Abs|Ceil|Floor|Round|Sign", idempotent),
        identity_rule("eliminate_reduction", "ReduceMax|ReduceMin|ReduceProd|ReduceSum|ReduceMean",
                      reduction),
        identity_rule("eliminate_max_pool", "MaxPool", max_pool)};
  }
};

}  // namespace

PASS(eliminate_identities) { registry.add(std::make_unique<EliminateIdentities>()); }

}  // namespace onnxpress
