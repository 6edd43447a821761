// Transposes and factors around MatMul as ONNX Runtime's FusedMatMul.
#include <numeric>

#include "graph/ops/fused_matmul.h"
#include "graph/ops/transpose.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

struct FusedProduct {
  std::array<Value*, 2> operands{};
  FusedMatMulAttrs attrs;
  Region region;
};

// Nothing else reads what the node makes.
bool has_one_reader(const Node& node) {
  return !node.output()->is_output() && node.output()->uses().size() == 1;
}

// The last two axes swapped, the others left where they are.
bool swaps_last_axes(const Tracer& tracer, const Node& transpose) {
  const auto rank = tracer.rank(transpose.input(0));
  if (!rank || *rank < 2) return false;
  std::vector<std::int64_t> wanted(*rank);
  std::iota(wanted.begin(), wanted.end(), 0);
  std::swap(wanted[*rank - 1], wanted[*rank - 2]);
  return transpose_permutation(transpose, *rank) == wanted;
}

// The other operand when the node multiplies or divides it by a number, and that number.
std::optional<std::pair<Value*, double>> scaled(const Tracer& tracer, const Node& node) {
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    if (node.is("Div") && position == 1) break;
    const auto number = tracer.factor(node.input(1 - position), node.input(position));
    if (number && (!node.is("Div") || *number != 0))
      return std::pair(node.input(position), node.is("Div") ? 1 / *number : *number);
  }
  return std::nullopt;
}

std::optional<FusedProduct> find_product(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  Node* const root = match.root;
  FusedProduct found{.operands = {root->input(0), root->input(1)},
                     .attrs = FusedMatMulAttrs::from(*root),
                     .region = {.nodes = {root}, .last = root}};
  double alpha = static_cast<double>(found.attrs.alpha);
  for (std::size_t i = 0; i < 2; ++i) {
    FusedMatMulAttrs::Reading& reading = i == 0 ? found.attrs.a : found.attrs.b;
    for (bool progress = true; progress;) {
      progress = false;
      Node* const node = tracer.maker(found.operands[i], {"Transpose", "Mul", "Div"});
      if (node == nullptr) break;
      if (node->is("Transpose")) {
        if (reading.batch_transposed || !swaps_last_axes(tracer, *node)) break;
        if (!has_one_reader(*node)) {
          reason = fmt::format("{} has other readers", node->describe());
          break;
        }
        reading.transposed = !reading.transposed;
        found.operands[i] = node->input(0);
      } else {
        const auto product = scaled(tracer, *node);
        if (!product || !has_one_reader(*node)) break;
        alpha *= product->second;
        found.operands[i] = product->first;
      }
      found.region.nodes.push_back(node);
      progress = true;
    }
  }
  while (const auto reader = tracer.only_reader(found.region.last, {"Mul", "Div"})) {
    const auto product = scaled(tracer, *reader->node);
    if (!product || product->first != found.region.last->output()) break;
    alpha *= product->second;
    found.region.nodes.push_back(reader->node);
    found.region.last = reader->node;
  }
  if (found.region.nodes.size() < 2) return std::nullopt;
  if (tracer.dtype(found.operands[0]) != DType::float32) {
    reason = fmt::format("'{}' is {}, expected float32", found.operands[0]->name(),
                         to_string(tracer.type(found.operands[0])));
    return std::nullopt;
  }
  found.attrs.alpha = static_cast<float>(alpha);
  return found;
}

void build_product(const Match& match, const FusedProduct& found, Patch& patch) {
  replace_region(patch, found.region,
                 {.op_type = "FusedMatMul",
                  .domain = "com.microsoft",
                  .name = match.root->name,
                  .inputs = {found.operands[0], found.operands[1]},
                  .attributes = found.attrs.to_attributes()});
}

class RuntimeFusedMatMul : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "runtime_fused_matmul",
      .summary = "MatMul takes transposes and factors around it (ONNX Runtime's FusedMatMul)",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 84};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    if (!is_runtime_level(options)) return {};
    return {recognition_rule<FusedProduct>(
        "runtime_fused_matmul", "MatMul|com.microsoft.FusedMatMul", find_product, build_product)};
  }
};

}  // namespace

PASS(runtime_fused_matmul) { registry.add(std::make_unique<RuntimeFusedMatMul>()); }

}  // namespace onnxpress
