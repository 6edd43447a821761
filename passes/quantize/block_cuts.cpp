// Where a model can be cut into blocks.
#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "graph/exec/losses.h"
#include "graph/ops/infer.h"
#include "graph/rewrite/pattern.h"
#include "passes/quantize/aware_blocks.h"

namespace onnxpress {
namespace {

// Values that depend on weights and are still read, as the nodes of the main graph go by.
class LiveValues {
 public:
  LiveValues(const Model& model, const std::vector<std::string>& weights) : graph_(model.graph) {
    for (const std::string& name : weights)
      if (const Value* value = graph_.find(name)) trained_.insert(value);
  }

  // Whether the node reads a trained weight.
  bool pass(Node& node) {
    std::set<const Value*> read(node.inputs().begin(), node.inputs().end());
    for (const Value* captured : node.captured()) read.insert(captured);
    bool has_weights = false, depends = false;
    for (const Value* value : read) {
      has_weights |= trained_.contains(value);
      depends |= trained_.contains(value) || dependent_.contains(value);
    }
    for (const Value* value : read)
      if (const auto found = live_.find(value); found != live_.end() && --found->second == 0) live_.erase(found);
    if (!depends) return false;
    for (const Value* output : node.outputs()) {
      if (output == nullptr || output->is_unused()) continue;
      dependent_.insert(output);
      live_.emplace(output, readers(*output));
    }
    return has_weights;
  }

  // The only one, or nothing.
  const Value* single() const { return live_.size() == 1 ? live_.begin()->first : nullptr; }
  bool depends(const Value* value) const { return dependent_.contains(value); }

 private:
  // Nodes of the main graph that read the value, and one for an output.
  std::size_t readers(const Value& value) const {
    std::set<const Node*> nodes;
    for (const Use& use : value.uses()) nodes.insert(graph_.holder(use.node));
    return nodes.size() + (value.is_output() ? 1 : 0);
  }

  const Graph& graph_;
  std::unordered_set<const Value*> trained_, dependent_;
  std::unordered_map<const Value*, std::size_t> live_;
};

}  // namespace

std::vector<Block> find_blocks(const Model& model, const std::vector<std::string>& weights,
                               const std::function<bool(const Value&)>& may_end) {
  LiveValues live(model, weights);
  std::vector<Block> blocks;
  std::string begin, end;  // of the block at hand; `end` is where it may end, if it may
  bool has_weights = false;
  for (Node* node : model.graph.nodes()) {
    const Value* before = live.single();
    const bool starts = live.pass(*node);
    if (starts && has_weights && before != nullptr && may_end(*before)) {
      blocks.push_back({.begin = begin, .ends = {before->name()}});
      begin = before->name();
      has_weights = false;
    }
    has_weights |= starts;
  }
  Block last{.begin = begin, .ends = {}};
  for (Value* output : model.graph.outputs()) {
    const Value* scores = logits_of(output);
    if (!live.depends(scores) || scores->name() == begin) continue;
    if (std::ranges::find(last.ends, scores->name()) == last.ends.end()) last.ends.push_back(scores->name());
  }
  if (has_weights && !last.ends.empty()) blocks.push_back(std::move(last));
  return blocks;
}

std::unique_ptr<Model> cut_block(const Model& model, const std::string& begin, const std::vector<std::string>& ends) {
  std::unique_ptr<Model> block = model.clone();
  Graph& graph = block->graph;
  std::vector<Value*> outputs;
  for (const std::string& end : ends) {
    outputs.push_back(graph.find(end));
    require(outputs.back() != nullptr, "expected a value '{}', found none", end);
  }
  Type type;
  if (!begin.empty()) {
    TypeInference types(*block);
    types.run();
    type = types.type(graph.find(begin));
  }
  for (std::size_t i = graph.outputs().size(); i-- > 0;) graph.remove_output(i);
  for (Value* output : outputs) graph.add_output(output);
  if (!begin.empty()) graph.replace_uses(graph.find(begin), graph.add_input(graph.unique_name("block_input"), type));
  remove_unused(graph);
  const std::vector<Value*> inputs(graph.inputs().begin(), graph.inputs().end());
  for (Value* input : inputs)
    if (input->is_unused()) graph.remove_input(input);
  return block;
}

}  // namespace onnxpress
