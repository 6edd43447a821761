// Attention by heads as ONNX Runtime's Attention (with the projections of one input) or
// MultiHeadAttention.
#include <algorithm>
#include <array>

#include "graph/ops/concat_split.h"
#include "graph/ops/contrib_attention.h"
#include "graph/ops/slice.h"
#include "passes/core/registry.h"
#include "passes/fuse/attention.h"
#include "passes/fuse/level.h"

namespace onnxpress {
namespace {

// x * weight + bias with constants, or some columns of that.
struct Projection {
  Value* x = nullptr;
  Value* weight = nullptr;  // nullptr: not one that can be merged
  Value* bias = nullptr;    // nullptr: none
  std::int64_t first = 0;   // column
  std::vector<Node*> nodes;
};

struct RuntimeAttention {
  WrittenAttention written;
  std::array<Projection, 3> projections;  // of queries, keys, values
  bool merged = false;                    // all of one input: Attention
  bool biased = false;                    // all have a bias
  bool expands = false;                   // the mask has one row for all queries
};

bool is_read_once(const Value& value) { return value.uses().size() == 1 && !value.is_output(); }

Projection projection(const Tracer& tracer, const Region& region, Value* rows) {
  Projection found{.x = rows};
  const Shape* const shape = tracer.shape(rows);
  if (Node* const sum = tracer.maker(rows, {"Add"});
      sum != nullptr && tracer.is_private(region, rows)) {
    for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
      Value* const bias = sum->input(position);
      const Tensor* const constant = bias != nullptr ? bias->constant() : nullptr;
      if (constant == nullptr || constant->dims() != Dims{shape->back().value()}) continue;
      found = {.x = sum->input(1 - position), .bias = bias, .nodes = {sum}};
      break;
    }
  }
  Node* const product = tracer.maker(found.x, {"MatMul"});
  const bool is_read_here =
      found.x == rows ? tracer.is_private(region, rows) : is_read_once(*found.x);
  if (product == nullptr || !is_read_here) return found;
  Value* const weight = product->input(1);
  const Tensor* const constant = weight != nullptr ? weight->constant() : nullptr;
  if (constant == nullptr || constant->rank() != 2 || !is_read_once(*weight)) return found;
  found.weight = weight;
  return found;
}

// Takes the products in too when all read one input.
void merge(const Tracer& tracer, RuntimeAttention& found) {
  std::array<Node*, 3> products{};
  for (std::size_t i = 0; i < 3; ++i) {
    const Projection& part = found.projections[i];
    if (part.weight == nullptr || part.bias == nullptr) return;
    products[i] = part.x->producer();
    if (products[i]->input(0) != products[0]->input(0)) return;
  }
  const Shape* const x = tracer.shape(products[0]->input(0));
  if (x == nullptr || x->size() != 3) return;
  found.merged = true;
  for (std::size_t i = 0; i < 3; ++i) {
    found.projections[i].x = products[i]->input(0);
    found.projections[i].nodes.push_back(products[i]);
  }
}

// The projections where queries, keys and values are the parts of one product (merge_parallel's).
std::optional<std::array<Projection, 3>> split_product(const Tracer& tracer,
                                                       const WrittenAttention& written) {
  const std::array<Value*, 3> rows{written.query, written.key, written.value};
  Node* const split = rows[0]->producer();
  if (split == nullptr || !split->is("Split") || split->output_count() != rows.size() ||
      normalize_axis(SplitAttrs::from(*split).axis, 3) != 2)
    return std::nullopt;
  Node* const sum = tracer.maker(split->input(0), {"Add"});
  if (sum == nullptr || !is_read_once(*split->input(0))) return std::nullopt;
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    Node* const product = tracer.maker(sum->input(1 - position), {"MatMul"});
    Value* const bias = sum->input(position);
    Value* const weight = product != nullptr ? product->input(1) : nullptr;
    if (weight == nullptr || weight->constant() == nullptr || weight->constant()->rank() != 2 ||
        bias == nullptr || bias->constant() == nullptr || !is_read_once(*product->output()) ||
        bias->constant()->dims() != Dims{weight->constant()->dim(1)} ||
        tracer.rank(product->input(0)) != 3)
      continue;
    std::array<Projection, 3> parts;
    std::int64_t first = 0;
    for (Value* output : split->outputs()) {
      const auto at = std::ranges::find(rows, output);
      if (at == rows.end() || !tracer.is_private(written.region, output)) return std::nullopt;
      const std::int64_t width = tracer.shape(output)->back().value();
      parts[static_cast<std::size_t>(at - rows.begin())] = {
          .x = product->input(0), .weight = weight, .bias = bias, .first = first};
      first += width;
    }
    parts[0].nodes = {split, sum, product};
    return parts;
  }
  return std::nullopt;
}

// The scores [batch, heads, length, keys] that a mask is added to; nothing when it does not fit.
std::optional<bool> needs_expansion(const Tracer& tracer, const WrittenAttention& written) {
  const Shape* const mask = tracer.shape(written.mask);
  if (mask == nullptr || mask->size() != 4) return std::nullopt;
  const Shape& q = *tracer.shape(written.query);
  const Shape& k = *tracer.shape(written.key);
  const auto fits = [&](std::size_t axis, const Dim& size) {
    return (*mask)[axis] == Dim(1) || same_dim((*mask)[axis], size);
  };
  if (!fits(0, q[0]) || !fits(1, Dim(written.heads)) || !fits(2, q[1]) ||
      !same_dim((*mask)[3], k[1]))
    return std::nullopt;
  return !same_dim((*mask)[2], q[1]);
}

std::optional<RuntimeAttention> find_runtime(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  auto written = find_attention(tracer, match.root, reason);
  if (!written) return std::nullopt;
  RuntimeAttention found{.written = std::move(*written)};
  if (tracer.dtype(found.written.query) != DType::float32) {
    reason = fmt::format("'{}' is {}, expected float32", found.written.query->name(),
                         to_string(tracer.type(found.written.query)));
    return std::nullopt;
  }
  if (found.written.mask != nullptr) {
    const auto expands = needs_expansion(tracer, found.written);
    if (!expands) {
      reason = fmt::format("the mask '{}' is {}, not known to fit the scores",
                           found.written.mask->name(), to_string(tracer.type(found.written.mask)));
      return std::nullopt;
    }
    found.expands = *expands;
  }
  if (auto parts = split_product(tracer, found.written)) {
    found.projections = std::move(*parts);
    found.merged = found.biased = true;
    return found;
  }
  Value* const rows[] = {found.written.query, found.written.key, found.written.value};
  for (std::size_t i = 0; i < 3; ++i)
    found.projections[i] = projection(tracer, found.written.region, rows[i]);
  found.biased = std::ranges::all_of(found.projections,
                                     [](const Projection& part) { return part.bias != nullptr; });
  merge(tracer, found);
  return found;
}

// An Expand of the mask to `length` rows that is there already, or a new one.
// `rows` [batch, length, ...] is read by the attention.
Patch::Ref expanded_mask(const Tracer& tracer, const WrittenAttention& written, Value* rows,
                         Patch& patch) {
  const Graph& graph = written.region.last->graph();
  const Dim& length = (*tracer.shape(written.query))[1];
  for (const Use& use : written.mask->uses()) {
    const Shape* const shape =
        use.node->is("Expand") && &use.node->graph() == &graph && use.index == 0
            ? tracer.shape(use.node->output())
            : nullptr;
    if (shape == nullptr || shape->size() != 4 || !same_dim((*shape)[2], length)) continue;
    const Shape& mask = *tracer.shape(written.mask);
    if (same_dim((*shape)[0], mask[0]) && same_dim((*shape)[1], mask[1])) return use.node->output();
  }
  const std::string name = written.mask->name();
  Patch::Ref target;
  if (length.is_known()) {
    target = patch.constant(name + "_dims", Tensor::of<std::int64_t>({2}, {length.value(), 1}));
  } else {
    const Patch::Ref dims =
        patch.node({.op_type = "Shape", .name = name + "_shape", .inputs = {rows}});
    OpCall slice =
        make_slice(graph.opset(), {.starts = {1}, .ends = {2}, .axes = {0}, .steps = {1}});
    Patch::NodeTemplate node{.op_type = slice.op_type,
                             .name = name + "_rows",
                             .inputs = {dims},
                             .attributes = std::move(slice.attributes)};
    for (Tensor& constant : slice.constants)
      node.inputs.push_back(patch.constant(name + "_rows_c", std::move(constant)));
    const Patch::Ref count = patch.node(std::move(node));
    const Patch::Ref one = patch.constant(name + "_one", Tensor::of<std::int64_t>({1}, {1}));
    target = patch.node({.op_type = "Concat",
                         .name = name + "_dims",
                         .inputs = {count, one},
                         .attributes = make_concat(0).attributes});
  }
  return patch.node(
      {.op_type = "Expand", .name = name + "_expand", .inputs = {written.mask, target}});
}

// Columns of a matrix, or elements of a vector.
struct Columns {
  const Tensor* tensor = nullptr;
  std::int64_t first = 0, count = 0;
};

// Vectors one after the other, matrices beside each other.
Tensor beside(std::span<const Columns> parts) {
  const bool vectors = parts[0].tensor->rank() == 1;
  const std::int64_t rows = vectors ? 1 : parts[0].tensor->dim(0);
  std::int64_t columns = 0;
  for (const Columns& part : parts) columns += part.count;
  Tensor joined =
      Tensor::uninitialized(DType::float32, vectors ? Dims{columns} : Dims{rows, columns});
  float* out = joined.mutable_data<float>().data();
  for (std::int64_t row = 0; row < rows; ++row)
    for (const Columns& part : parts) {
      const std::int64_t width = part.tensor->dims().back();
      out = std::copy_n(part.tensor->data<float>().data() + row * width + part.first, part.count,
                        out);
    }
  return joined;
}

void build(const Match& match, const RuntimeAttention& found, Patch& patch) {
  const Tracer tracer(match);
  const WrittenAttention& written = found.written;
  Value* const rows = found.merged || found.biased ? found.projections[0].x : written.query;
  Patch::Ref mask = written.mask;
  if (found.expands) mask = expanded_mask(tracer, written, rows, patch);
  std::array<Columns, 3> weights{}, biases{};
  Value* const parts[] = {written.query, written.key, written.value};
  for (std::size_t i = 0; i < 3; ++i) {
    const Projection& part = found.projections[i];
    const std::int64_t width = tracer.shape(parts[i])->back().value();
    if (found.merged) weights[i] = {part.weight->constant(), part.first, width};
    if (found.biased) biases[i] = {part.bias->constant(), part.first, width};
  }
  ContribAttentionAttrs attrs{.heads = written.heads, .scale = static_cast<float>(written.scale)};
  Patch::NodeTemplate node{.domain = "com.microsoft"};
  Region region = written.region;
  Patch::Ref bias;
  if (found.biased) bias = patch.constant(found.projections[0].bias->name(), beside(biases));
  if (found.merged) {
    node.op_type = "Attention";
    node.inputs = {rows, patch.constant(found.projections[0].weight->name(), beside(weights)),
                   bias, {},
                   {},   mask};
    const std::int64_t hidden = biases[0].count, values = biases[2].count;
    if (hidden != values) attrs.hidden = {hidden, hidden, values};
  } else {
    node.op_type = "MultiHeadAttention";
    node.inputs = {written.query, written.key, written.value, bias, {}, mask};
    for (std::size_t i = 0; found.biased && i < 3; ++i) node.inputs[i] = found.projections[i].x;
  }
  if (found.biased)
    for (const Projection& part : found.projections)
      region.nodes.insert(region.nodes.end(), part.nodes.begin(), part.nodes.end());
  node.attributes = attrs.to_attributes();
  while (node.inputs.back() == Patch::Ref()) node.inputs.pop_back();
  replace_region(patch, region, std::move(node));
}

class RuntimeAttentionPass : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "runtime_attention",
      .summary = "attention written out becomes ONNX Runtime's Attention or MultiHeadAttention",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 6};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    if (!is_runtime_level(options)) return {};
    return {
        recognition_rule<RuntimeAttention>("runtime_attention", "Softmax", find_runtime, build)};
  }
};

}  // namespace

PASS(runtime_attention) { registry.add(std::make_unique<RuntimeAttentionPass>()); }

}  // namespace onnxpress
