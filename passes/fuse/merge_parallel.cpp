// Merges products of the same input with several weights (the queries, keys and values of an
// attention) into one product and a Split, where that is fewer operators: two or more MatMuls with
// a bias each, three or more without, three or more Gemms. One wide product keeps more of a machine
// busy than several narrow ones. Convolutions are left alone: a Split between them and their
// activations costs runtimes more than it saves.
#include <algorithm>
#include <cstring>

#include "graph/ops/arithmetic.h"
#include "graph/ops/concat_split.h"
#include "graph/ops/gemm.h"
#include "passes/common/linear_operator.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"

namespace onnxpress {
namespace {

// One of the products.
struct Branch {
  Node* product = nullptr;
  Node* add = nullptr;    // of a MatMul's bias
  Value* bias = nullptr;  // constant

  Value* result() const { return add ? add->output() : product->output(); }
};

std::size_t column_axis(const Node& product) {
  return product.is("Gemm") && GemmAttrs::from(product).transpose_b ? 0 : 1;
}

bool is_weight(const Value* value) {
  return value && value->constant() && value->constant()->rank() == 2 && is_read_once(*value) &&
         bits(value->constant()->dtype()) >= 8 && value->constant()->dtype() != DType::string;
}

bool is_bias(const Value* value, std::int64_t columns) {
  return value && value->constant() && is_read_once(*value) &&
         value->constant()->dims() == Dims{columns};
}

// The branch that starts with a product of `x`, if it can be one of several.
std::optional<Branch> branch_at(Node& product, const Value* x) {
  const bool is_gemm = product.is("Gemm");
  if (!is_gemm && !product.is("MatMul")) return std::nullopt;
  if (product.input(0) != x || product.input(1) == x || product.input(2) == x ||
      !is_weight(product.input(1)))
    return std::nullopt;
  const std::int64_t columns = product.input(1)->constant()->dim(column_axis(product));
  Branch branch{.product = &product};
  if (is_gemm) {
    branch.bias = product.input(2);
    if (branch.bias && !is_bias(branch.bias, columns)) return std::nullopt;
  } else if (is_read_once(*product.output())) {
    Node* reader = product.output()->uses()[0].node;
    Value* other =
        reader->is("Add") ? reader->input(1 - product.output()->uses()[0].index) : nullptr;
    if (&reader->graph() == &product.graph() && is_bias(other, columns) &&
        is_aligned_last(*reader, reader->input(0) == other ? 0 : 1, std::nullopt, 1)) {
      branch.add = reader;
      branch.bias = other;
    }
  }
  if (branch.result()->is_unused()) return std::nullopt;
  return branch;
}

bool are_alike(const Branch& a, const Branch& b) {
  return a.product->op_type() == b.product->op_type() &&
         (!a.product->is("Gemm") || GemmAttrs::from(*a.product) == GemmAttrs::from(*b.product)) &&
         !a.bias == !b.bias &&
         a.product->input(1)->constant()->dtype() == b.product->input(1)->constant()->dtype();
}

// The products to be merged with the root, itself first; each once, in the order of its readers.
std::vector<Branch> branches_of(const Match& match) {
  const Value* x = match.root->input(0);
  std::vector<Branch> branches;
  const std::optional<Branch> root = branch_at(*match.root, x);
  if (!root) return branches;
  branches.push_back(*root);
  for (const Use& use : x->uses()) {
    if (use.node == match.root || use.index != 0 || &use.node->graph() != &match.root->graph())
      continue;
    const std::optional<Branch> branch = branch_at(*use.node, x);
    if (branch && are_alike(*branch, *root)) branches.push_back(*branch);
  }
  return branches;
}

std::optional<std::string> obstacle(const Match& match) {
  const std::vector<Branch> branches = branches_of(match);
  if (branches.empty()) return "its weight or bias is shared, or not a constant of a plain shape";
  if (branches.size() == 1) return std::nullopt;  // nothing to merge, and nothing to tell
  const std::size_t before = branches.size() * (branches[0].add ? 2 : 1);
  const std::size_t after = branches[0].add ? 3 : 2;
  if (before <= after)
    return fmt::format("{} of its kind read '{}': merging them would not save an operator",
                       branches.size(), match.root->input(0)->name());
  if (!match.type(branches[0].result()).shape) return "the rank of its result is not known";
  return std::nullopt;
}

// Tensors of equal type joined along the last axis, or along the first of two (`axis` 0).
Tensor joined(const std::vector<const Tensor*>& parts, std::size_t axis) {
  Dims dims = parts[0]->dims();
  dims[axis] = 0;
  for (const Tensor* part : parts) dims[axis] += part->dim(axis);
  Tensor whole = Tensor::uninitialized(parts[0]->dtype(), dims);
  const std::int64_t rows = axis == 0 ? 1 : dims[0];
  std::byte* to = whole.mutable_bytes().data();
  for (std::int64_t row = 0; row < rows; ++row)
    for (const Tensor* part : parts) {
      const std::size_t bytes = part->byte_size() / static_cast<std::size_t>(rows);
      std::memcpy(to, part->bytes().data() + static_cast<std::size_t>(row) * bytes, bytes);
      to += bytes;
    }
  return whole;
}

void merge(const Match& match, Patch& patch) {
  const std::vector<Branch> branches = branches_of(match);
  if (branches.size() == 1) return;
  const Branch& first = branches[0];
  const std::size_t axis = column_axis(*first.product);
  std::vector<const Tensor*> weights, biases;
  std::vector<std::int64_t> sizes;
  for (const Branch& branch : branches) {
    weights.push_back(branch.product->input(1)->constant());
    sizes.push_back(weights.back()->dim(axis));
    if (branch.bias) biases.push_back(branch.bias->constant());
  }
  std::vector<Patch::Ref> inputs{
      match.root->input(0), patch.constant(first.product->input(1)->name(), joined(weights, axis))};
  Patch::Ref bias;
  if (first.bias) bias = patch.constant(first.bias->name(), joined(biases, 0));
  if (first.bias && !first.add) inputs.push_back(bias);
  Attributes attributes;
  if (first.product->is("Gemm"))
    attributes = GemmAttrs::from(*first.product).to_attributes(match.root->graph().opset());
  Patch::Ref result = patch.node({.op_type = first.product->op_type(),
                                  .name = first.product->name,
                                  .inputs = std::move(inputs),
                                  .attributes = std::move(attributes)});
  if (first.add) {
    OpCall add = make_arithmetic(match.root->graph().opset(), "Add");
    result = patch.node({.op_type = std::move(add.op_type),
                         .name = first.add->name,
                         .inputs = {result, bias},
                         .attributes = std::move(add.attributes)});
  }
  const std::size_t rank = match.type(first.result()).shape->size();
  OpCall call = make_split(match.root->graph().opset(), static_cast<std::int64_t>(rank) - 1, sizes);
  std::vector<Patch::Ref> split_inputs{result};
  for (Tensor& constant : call.constants)
    split_inputs.push_back(
        patch.constant(first.product->input(1)->name() + "_sizes", std::move(constant)));
  const std::string& named = first.product->name;
  const Patch::Ref split = patch.node({.op_type = call.op_type,
                                       .name = named.empty() ? named : named + "_split",
                                       .inputs = std::move(split_inputs),
                                       .attributes = std::move(call.attributes),
                                       .outputs = branches.size()});
  for (std::size_t i = 0; i < branches.size(); ++i) {
    patch.replace(branches[i].result(), patch.output(split, i));
    if (branches[i].add) patch.remove(branches[i].add);
    patch.remove(branches[i].product);
  }
}

class MergeParallel : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "merge_parallel",
      .summary =
          "merges products of the same input into one and a Split, where that saves operators",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 68};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {{.name = "merge_parallel",
             .pattern = Pattern::op("MatMul|Gemm", "product",
                                    {Pattern::any("x"), Pattern::constant("weight")}),
             .when = obstacle,
             .replace = merge}};
  }
};

}  // namespace

PASS(merge_parallel) { registry.add(std::make_unique<MergeParallel>()); }

}  // namespace onnxpress
