// Computes at compression time what does not depend on the model's inputs.
//
// Folding trades nodes (and the constants only they read) for the constant they compute. A value is
// folded only where that does not grow the file; else the values it is computed from are tried, so
// that a large Expand stays an operator while the shape it expands to becomes a constant. `growth`
// trades size for operators.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "graph/ops/evaluate.h"
#include "graph/rewrite/patch.h"
#include "passes/core/registry.h"
#include "passes/simplify/file_bytes.h"
#include "passes/simplify/fold_growth.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {fold_growth};

// Folds one graph; constants of graphs around it count as constants.
class Folder {
 public:
  // `has_initializers`: else constants are Constant nodes in the file, and stay these. `growth`: bytes
  // by which one fold may grow the file.
  Folder(Graph& graph, const TypeInference& types, std::int64_t ir_version, bool has_initializers,
         std::int64_t growth, ThreadPool& pool, std::vector<NearMiss>* near_misses)
      : graph_(graph),
        types_(types),
        growth_(growth),
        pool_(pool),
        near_misses_(near_misses),
        initializers_are_inputs_(ir_version < 4),
        has_initializers_(has_initializers) {}

  std::int64_t folded_nodes() const { return std::ssize(removed_); }
  std::int64_t kept() const { return kept_; }
  std::int64_t failed() const { return failed_; }

  bool run() {
    std::int64_t index = 0;
    for (Node* node : graph_.nodes()) {
      order_[node] = index++;
      if (!is_quantized(*node) && is_foldable(*node)) foldable_.insert(node);
    }
    std::vector<Value*> work;
    for (Node* node : graph_.nodes()) {
      if (!foldable_.contains(node)) continue;
      for (Value* output : node->outputs()) {
        if (output && has_reader_outside(*output)) work.push_back(output);
      }
    }
    Patch patch(graph_);
    std::set<Value*> seen(work.begin(), work.end());
    while (!work.empty()) {
      Value* value = work.back();
      work.pop_back();
      if (!has_initializers_ && value->producer()->is("Constant")) continue;
      if (!value->is_output() && fold(value, patch)) continue;
      for (Value* input : value->producer()->inputs()) {
        if (input && is_foldable_value(*input) && seen.insert(input).second) work.push_back(input);
      }
    }
    if (patch.empty()) return false;
    patch.apply();
    // Under the old names, now free: longer ones would stand at every reader.
    for (const auto& [constant, name] : folded_) {
      Value* value = patch.value(constant);
      if (value && graph_.unique_name(name) == name) graph_.rename(value, name);
    }
    return true;
  }

 private:
  bool is_foldable_value(const Value& value) const {
    return value.producer() && foldable_.contains(value.producer());
  }

  bool is_known(const Value& value) const {
    return value.constant() || types_.known_value(&value) || is_foldable_value(value);
  }

  // Quantized constants stay as they are, and what is computed from them: folding would undo a
  // compression.
  bool is_quantized(const Node& node) {
    const auto inputs = node.inputs();
    const bool reads =
        !node.is("Shape") && !node.is("Size") &&
        std::ranges::any_of(inputs, [&](const Value* input) { return quantized_.contains(input); });
    if (!reads && node.op_type() != "QuantizeLinear" && node.op_type() != "DequantizeLinear")
      return false;
    for (const Value* output : node.outputs())
      if (output) quantized_.insert(output);
    return true;
  }

  bool is_foldable(const Node& node) const {
    const OpDef* op = operators().find(node);
    if (!op || !op->prepare || !op->deterministic || !node.subgraphs().empty()) return false;
    const std::vector<Value*> outputs = node.outputs();
    const bool inferred = std::all_of(outputs.begin(), outputs.end(), [&](const Value* output) {
      return !output || output->is_unused() || types_.known_value(output);
    });
    const auto inputs = node.inputs();
    const bool computable = std::all_of(inputs.begin(), inputs.end(), [&](const Value* input) {
      return !input || is_known(*input);
    });
    // A function's attribute, known only where it is called.
    const bool has_reference = std::ranges::any_of(
        node.attributes(), [](const auto& attribute) { return !attribute.second.ref.empty(); });
    if (has_reference) return false;
    const bool has_sparse_or_strings = node.attribute("sparse_value") ||
                                       node.attribute("value_string") ||
                                       node.attribute("value_strings");
    return (inferred || computable) && !has_sparse_or_strings;
  }

  bool has_reader_outside(const Value& value) const {
    const auto uses = value.uses();
    return value.is_output() || std::any_of(uses.begin(), uses.end(), [&](const Use& use) {
             return !foldable_.contains(use.node);
           });
  }

  // Foldable nodes that nothing needs once `value` is a constant.
  std::vector<Node*> exclusive_cone(const Value& value) const {
    std::unordered_set<const Node*> cone;
    std::vector<Node*> nodes;
    std::map<std::int64_t, Node*, std::greater<>> candidates{
        {order_.at(value.producer()), value.producer()}};
    while (!candidates.empty()) {
      Node* node = candidates.begin()->second;
      candidates.erase(candidates.begin());
      const std::vector<Value*> outputs = node->outputs();
      const bool exclusive = std::all_of(outputs.begin(), outputs.end(), [&](const Value* output) {
        if (!output || output == &value) return true;
        const auto uses = output->uses();
        return !output->is_output() && std::all_of(uses.begin(), uses.end(), [&](const Use& use) {
          return cone.contains(use.node);
        });
      });
      if (!exclusive) continue;
      cone.insert(node);
      nodes.push_back(node);
      for (const Value* input : node->inputs()) {
        if (input && is_foldable_value(*input) && &input->graph() == &graph_)
          candidates.emplace(order_.at(input->producer()), input->producer());
      }
    }
    return nodes;
  }

  std::int64_t bytes_saved(const std::vector<Node*>& cone) const {
    const std::unordered_set<const Node*> in_cone(cone.begin(), cone.end());
    std::set<const Value*> constants;
    std::int64_t bytes = 0;
    for (const Node* node : cone) {
      bytes += node_bytes(*node);
      for (const Value* input : node->inputs()) {
        if (!input || !input->constant() || input->is_output()) continue;
        const auto uses = input->uses();
        if (std::all_of(uses.begin(), uses.end(),
                        [&](const Use& u) { return in_cone.contains(u.node); }))
          constants.insert(input);
      }
    }
    for (const Value* constant : constants)
      bytes +=
          field_bytes(stored_bytes(*constant->constant())) + field_bytes(constant->name().size());
    return bytes;
  }

  // Adds the fold to the patch, unless it grows the file or cannot be computed.
  bool fold(Value* value, Patch& patch) {
    const std::vector<Node*> cone = exclusive_cone(*value);
    const std::int64_t saved = bytes_saved(cone);
    const auto grows = [&](const Dims& dims, std::size_t bytes) {
      constexpr std::int64_t constant_node = 32;  // beside its tensor
      return initializer_bytes(value->name(), dims, bytes, initializers_are_inputs_) +
                 (has_initializers_ ? 0 : constant_node) >
             saved + growth_;
    };
    const Type& type = types_.type(value);
    if (const std::optional<std::size_t> bytes = inferred_bytes(type)) {
      const Dims dims = *concrete(*type.shape);
      const std::size_t least =
          may_be_varints(type.elem) ? static_cast<std::size_t>(element_count(dims)) : *bytes;
      if (grows(dims, std::min(*bytes, least))) return keep(*value);
    }
    std::optional<Tensor> result = compute(*value);
    if (!result) return false;
    if (grows(result->dims(), stored_bytes(*result))) return keep(*value);
    folded_.emplace_back(patch.constant(value->name(), std::move(*result)), value->name());
    patch.replace(value, folded_.back().first);
    for (Node* node : cone) {
      if (removed_.insert(node).second) patch.remove(node);
    }
    return true;
  }

  static std::optional<std::size_t> inferred_bytes(const Type& type) {
    const std::optional<Dims> dims =
        type.is_tensor() && type.shape ? concrete(*type.shape) : std::nullopt;
    if (!dims) return std::nullopt;
    return packed_bytes(type.elem, static_cast<std::size_t>(element_count(*dims)));
  }

  bool keep(const Value& value) {
    ++kept_;
    miss(value, "folding it would grow the file");
    return false;
  }

  void miss(const Value& value, std::string reason) const {
    if (near_misses_)
      near_misses_->push_back({"fold_constants", value.producer()->describe(), std::move(reason)});
  }

  // The value, from its known ancestors; nothing when a kernel refuses (a model that would fail at
  // run time keeps its failure).
  std::optional<Tensor> compute(const Value& value) {
    std::map<std::int64_t, const Node*> ancestors;
    std::vector<const Value*> work{&value};
    while (!work.empty()) {
      const Value* next = work.back();
      work.pop_back();
      if (find_known(*next)) continue;
      const Node* node = next->producer();
      if (!ancestors.emplace(order_.at(node), node).second) continue;
      for (const Value* input : node->inputs()) {
        if (input) work.push_back(input);
      }
    }
    try {
      for (const auto& [index, node] : ancestors) {
        std::vector<const Tensor*> inputs;
        for (const Value* input : node->inputs())
          inputs.push_back(input ? find_known(*input) : nullptr);
        for (const Value* output : node->outputs()) {
          const std::size_t bytes = output ? inferred_bytes(types_.type(output)).value_or(0) : 0;
          require(bytes <= largest_intermediate,
                  "'{}' takes {} bytes on the way, expected at most {}",
                  output ? output->name() : "", bytes, largest_intermediate);
        }
        std::vector<Tensor> outputs = evaluate(*operators().find(*node), *node, inputs, pool_);
        for (std::size_t i = 0; i < outputs.size(); ++i) {
          if (node->output(i)) computed_[node->output(i)] = std::move(outputs[i]);
        }
      }
    } catch (const Error& error) {
      ++failed_;
      miss(value, fmt::format("it cannot be computed: {}", error.what()));
      return std::nullopt;
    }
    const Tensor* result = find_known(value);
    if (!result || !result->defined() || result->dtype() == DType::string) return std::nullopt;
    return *result;
  }

  const Tensor* find_known(const Value& value) const {
    if (const Tensor* constant = value.constant()) return constant;
    if (const auto found = computed_.find(&value); found != computed_.end()) return &found->second;
    return types_.known_value(&value);
  }

  // A small result is not worth more memory than this: a hostile model may ask for any.
  static constexpr std::size_t largest_intermediate = std::size_t{1} << 30;

  Graph& graph_;
  const TypeInference& types_;
  std::int64_t growth_;
  ThreadPool& pool_;
  std::vector<NearMiss>* near_misses_;
  bool initializers_are_inputs_;
  bool has_initializers_;
  std::unordered_map<const Node*, std::int64_t> order_;
  std::unordered_set<const Node*> foldable_;
  std::unordered_set<const Value*> quantized_;
  std::unordered_map<const Value*, Tensor> computed_;
  std::set<Node*> removed_;
  std::vector<std::pair<Patch::Ref, std::string>> folded_;
  std::int64_t kept_ = 0;
  std::int64_t failed_ = 0;
};

class FoldConstants : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fold_constants",
      .summary = "computes what does not depend on inputs, where that does not grow the file",
      .options = option_specs,
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 10};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    std::int64_t nodes = 0, kept = 0, failed = 0;
    bool changed = false;
    std::vector<Graph*> graphs;
    model.for_each_graph([&](Graph& graph) { graphs.push_back(&graph); });
    std::reverse(graphs.begin(), graphs.end());  // a fold may remove nodes, never nested graphs
    std::optional<TypeInference> types;
    for (Graph* graph : graphs) {
      if (!types) types.emplace(model, TypeInferenceOptions{.use_declared = false}).run();
      // As the writer has it.
      const bool has_initializers =
          graph == &model.graph || (graph->is_within(model.graph) && model.ir_version >= 4);
      Folder folder(*graph, *types, model.ir_version, has_initializers,
                    context.options.integer("growth"), context.pool, context.near_misses);
      if (folder.run()) {
        changed = true;
        types.reset();
      }
      nodes += folder.folded_nodes();
      kept += folder.kept();
      failed += folder.failed();
    }
    Outcome outcome{.changed = changed,
                    .counts = {{"nodes", nodes}, {"kept", kept}, {"not_computed", failed}}};
    if (kept > 0)
      outcome.notes.push_back(
          fmt::format("{} values left unfolded: their constants would be larger than "
                      "the nodes that compute them",
                      kept));
    return outcome;
  }
};

}  // namespace

PASS(fold_constants) { registry.add(std::make_unique<FoldConstants>()); }

}  // namespace onnxpress
