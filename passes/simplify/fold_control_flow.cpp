// Puts bodies in place of the If, Loop and Scan nodes of which it is known what they run: an If
// whose condition is constant, a Loop of one step or none.
#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "graph/ops/control_flow.h"
#include "graph/ops/reshape.h"
#include "graph/rewrite/inline.h"
#include "passes/core/registry.h"
#include "passes/simplify/file_bytes.h"

namespace onnxpress {
namespace {

// The body's copy in the place of one node.
class Splice {
 public:
  Splice(Node& node, const Graph& body) : node_(node), graph_(node.graph()), body_(body) {}

  void bind(const Value* input, Value* value) { map_[input] = value; }
  Value* add_constant(const std::string& hint, Tensor tensor) {
    return graph_.add_initializer(graph_.unique_name(hint), std::move(tensor));
  }
  void run() { splice_graph(body_, graph_, &node_, map_); }
  // What an output of the body is now.
  Value* of(const Value* inner) const {
    const auto found = map_.find(inner);
    return found == map_.end() ? const_cast<Value*>(inner) : found->second;
  }
  Value* unsqueeze(Value* value) {
    OpCall call = make_unsqueeze(graph_.opset(), {0});
    std::vector<Value*> inputs{value};
    for (Tensor& constant : call.constants)
      inputs.push_back(add_constant(value->name() + "_axes", std::move(constant)));
    return graph_
        .add_node({.op_type = std::move(call.op_type),
                   .inputs = std::move(inputs),
                   .attributes = std::move(call.attributes)},
                  &node_)
        ->output();
  }
  // Readers of the node's output read `value`, which takes the output's name if it is new here.
  void replace(std::size_t index, Value* value) {
    Value* output = node_.output(index);
    if (!output || output->is_unused()) return;
    const bool is_new = std::ranges::any_of(map_, [&](const auto& entry) {
      return entry.second == value && entry.first != value && &value->graph() == &graph_;
    });
    if (is_new) names_[value] = output->name();
    graph_.replace_uses(output, value);
  }
  // Removes the node; copies take their names back where these are free now.
  void finish() {
    std::vector<std::pair<Value*, std::string>> wanted;
    const auto want = [&](const Value* inner) {
      Value* copy = of(inner);
      if (copy == inner || &copy->graph() != &graph_ || copy->is_input()) return;
      const auto named = names_.find(copy);
      wanted.emplace_back(copy, named == names_.end() ? inner->name() : named->second);
    };
    for (const Value* constant : body_.initializers()) want(constant);
    for (const Node* inner : body_.nodes())
      for (const Value* output : inner->outputs())
        if (output) want(output);
    Graph& graph = graph_;
    graph.remove(&node_);
    for (const auto& [copy, name] : wanted)
      if (!copy->is_output() && copy->name() != name && graph.unique_name(name) == name)
        graph.rename(copy, name);
  }

 private:
  Node& node_;
  Graph& graph_;
  const Graph& body_;
  ValueMap map_;
  std::map<const Value*, std::string> names_;
};

class ControlFlowFolder {
 public:
  ControlFlowFolder(Model& model, std::vector<NearMiss>* near_misses)
      : model_(model), near_misses_(near_misses) {}

  std::int64_t branches() const { return branches_; }
  std::int64_t loops() const { return loops_; }

  // Whether anything changed.
  bool sweep() {
    types_.emplace(model_, TypeInferenceOptions{.use_declared = false});
    types_->run();
    std::vector<Node*> nodes;
    model_.graph.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes())
        if (node->is("If") || node->is("Loop")) nodes.push_back(node);
    });
    std::reverse(nodes.begin(), nodes.end());  // those inside another's body first
    const std::int64_t before = branches_ + loops_;
    changed_.clear();
    for (Node* node : nodes) {
      const std::optional<std::string> obstacle =
          node->is("If") ? fold_if(*node) : fold_loop(*node);
      if (obstacle) misses_.push_back({"fold_control_flow", node->describe(), *obstacle});
    }
    const bool changed = branches_ + loops_ > before;
    if (!changed && near_misses_)
      near_misses_->insert(near_misses_->end(), misses_.begin(), misses_.end());
    misses_.clear();
    return changed;
  }

 private:
  std::optional<bool> truth(const Value* condition) const {
    const Tensor* tensor = types_->known_value(condition);
    if (!tensor || tensor->dtype() != DType::boolean || tensor->size() != 1) return std::nullopt;
    return tensor->to_ints()[0] != 0;
  }

  bool is_changed(const Graph& body) const {
    bool changed = false;
    body.for_each_graph([&](const Graph& graph) { changed |= changed_.contains(&graph); });
    return changed;
  }

  std::optional<std::string> fold_if(Node& node) {
    const Value* condition = node.input(0);
    const std::optional<bool> taken = condition ? truth(condition) : std::nullopt;
    if (!taken) return "its condition is not constant";
    const Graph& branch = if_branch(node, *taken);
    if (branch.outputs().size() < node.output_count()) return "its branch has too few outputs";
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      const Value* result = branch.outputs()[i];
      if (node.output(i) && &result->graph() != &branch && naming_grows(*node.output(i), *result))
        return fmt::format("its readers would name '{}': the file would grow", result->name());
    }
    changed_.insert(&node.graph());
    Splice splice(node, branch);
    splice.run();
    for (std::size_t i = 0; i < node.output_count(); ++i)
      splice.replace(i, splice.of(branch.outputs()[i]));
    splice.finish();
    ++branches_;
    return std::nullopt;
  }

  // 0, 1, or nothing: not known, or more.
  std::optional<std::int64_t> steps(const Node& node, const Graph& body) const {
    std::optional<bool> begins = true;
    if (node.input(1)) begins = truth(node.input(1));
    if (begins == false) return 0;
    std::optional<std::int64_t> limit;
    if (node.input(0)) {
      const Tensor* trips = types_->known_value(node.input(0));
      if (trips && trips->size() == 1) limit = trips->to_ints()[0];
      if (limit && *limit <= 0) return 0;
    }
    if (begins != true) return std::nullopt;
    if (limit == 1) return 1;
    const bool may_begin = !node.input(0) || limit;
    return may_begin && truth(body.outputs()[0]) == false ? std::optional<std::int64_t>(1)
                                                          : std::nullopt;
  }

  // The stacked output of a loop without steps.
  std::optional<Tensor> nothing_stacked(const Value* each) const {
    const Type& type = types_->type(each);
    std::optional<Dims> dims =
        type.is_tensor() && type.shape ? concrete(*type.shape) : std::nullopt;
    if (!dims || type.elem == DType::undefined) return std::nullopt;
    dims->insert(dims->begin(), 0);
    return Tensor(type.elem, std::move(*dims));
  }

  std::optional<std::string> fold_loop(Node& node) {
    const Graph& body = loop_body(node);
    if (is_changed(body)) return std::nullopt;  // its types are not known before the next sweep
    const std::size_t state = node.input_count() > 2 ? node.input_count() - 2 : 0;
    if (body.inputs().size() != state + 2 || body.outputs().size() < state + 1 ||
        node.output_count() > body.outputs().size() - 1)
      return "its body does not fit its inputs and outputs";
    for (std::size_t i = 0; i < state; ++i)
      if (!node.input(i + 2)) return "a part of its state is omitted";
    const std::optional<std::int64_t> count = steps(node, body);
    if (!count) return "the number of its steps is not known to be one or none";
    return *count == 0 ? drop_loop(node, body, state) : unroll_loop(node, body, state);
  }

  std::optional<std::string> drop_loop(Node& node, const Graph& body, std::size_t state) {
    std::vector<std::optional<Tensor>> empty(node.output_count());
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      Value* output = node.output(i);
      if (!output || output->is_unused()) continue;
      if (i < state) {
        if (naming_grows(*output, *node.input(i + 2)))
          return fmt::format("its readers would name '{}': the file would grow",
                             node.input(i + 2)->name());
        continue;
      }
      empty[i] = nothing_stacked(body.outputs()[i + 1]);
      if (!empty[i])
        return fmt::format("it runs no step, and the shape of '{}' is not known", output->name());
    }
    changed_.insert(&node.graph());
    Splice splice(node, body);
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      Value* output = node.output(i);
      if (!output || output->is_unused()) continue;
      splice.replace(i, i < state ? node.input(i + 2)
                                  : splice.add_constant(output->name(), std::move(*empty[i])));
    }
    node.graph().remove(&node);
    ++loops_;
    return std::nullopt;
  }

  std::optional<std::string> unroll_loop(Node& node, const Graph& body, std::size_t state) {
    changed_.insert(&node.graph());
    Splice splice(node, body);
    const auto bind_constant = [&](const Value* input, Tensor tensor) {
      if (!input->is_unused())
        splice.bind(input, splice.add_constant(input->name(), std::move(tensor)));
    };
    bind_constant(body.inputs()[0], Tensor::scalar(std::int64_t{0}));
    bind_constant(body.inputs()[1], Tensor::scalar(true));
    for (std::size_t i = 0; i < state; ++i) splice.bind(body.inputs()[i + 2], node.input(i + 2));
    splice.run();
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      if (!node.output(i) || node.output(i)->is_unused()) continue;
      Value* result = splice.of(body.outputs()[i + 1]);
      splice.replace(i, i < state ? result : splice.unsqueeze(result));
    }
    splice.finish();
    ++loops_;
    return std::nullopt;
  }

  Model& model_;
  std::vector<NearMiss>* near_misses_;
  std::optional<TypeInference> types_;
  std::vector<NearMiss> misses_;
  std::set<const Graph*> changed_;  // in this sweep
  std::int64_t branches_ = 0;
  std::int64_t loops_ = 0;
};

class FoldControlFlow : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fold_control_flow",
      .summary = "puts the body in place of an If of constant condition and a Loop of one step",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 20};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    ControlFlowFolder folder(model, context.near_misses);
    while (folder.sweep()) {
    }
    return {.changed = folder.branches() + folder.loops() > 0,
            .counts = {{"branches", folder.branches()}, {"loops", folder.loops()}}};
  }
};

}  // namespace

PASS(fold_control_flow) { registry.add(std::make_unique<FoldControlFlow>()); }

}  // namespace onnxpress
