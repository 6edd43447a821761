// Random calls of all mutators on random graphs with subgraphs.
#include <doctest/doctest.h>

#include "graph/base/random.h"
#include "graph/ir/clone.h"
#include "graph/ir/model.h"
#include "invariants.h"

namespace onnxpress {
namespace {

const std::vector<std::string> kNames{"a", "b", "c", "d", "e", "f", "a_1", "b_1", "Relu", "Relu_1"};
constexpr std::size_t kMaxNodes = 25;
constexpr int kMaxDepth = 3;

class Editor {
 public:
  explicit Editor(std::uint64_t seed) : random_(seed) {
    model_.opsets = {{"", 17}};
    model_.graph.name = "main";
  }

  Model& model() { return model_; }

  // One random edit of a random graph. A refused edit must leave no trace.
  void step() {
    Graph& graph = any_graph();
    before_ = to_text(model_);
    try {
      edit(graph);
      ++done;
    } catch (const Error&) {
      REQUIRE(to_text(model_) == before_);
      ++refused;
    }
    Invariants::check(model_.graph, kNames);
  }

  int done = 0;
  int refused = 0;

 private:
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(random_.below(bound)); }
  bool one_in(std::size_t count) { return below(count) == 0; }

  template <class T>
  T pick(const std::vector<T>& all) {
    return all.empty() ? T() : all[below(all.size())];
  }

  // Names collide on purpose.
  std::string any_name() { return pick(kNames); }

  Graph& any_graph() {
    std::vector<Graph*> graphs;
    model_.graph.for_each_graph([&](Graph& graph) { graphs.push_back(&graph); });
    return *pick(graphs);
  }

  static std::vector<Value*> values_of(const Graph& graph) {
    std::vector<Value*> values(graph.inputs().begin(), graph.inputs().end());
    for (Value* value : graph.initializers())
      if (!value->is_input()) values.push_back(value);
    for (const Node* node : graph.nodes())
      for (Value* output : node->outputs())
        if (output) values.push_back(output);
    return values;
  }

  Value* visible_value(const Graph& graph) {
    std::vector<Value*> values;
    for (const Graph* g = &graph; g; g = g->parent())
      for (Value* value : values_of(*g)) values.push_back(value);
    return pick(values);
  }

  // Mostly visible ones; some are of unrelated graphs.
  Value* any_value(Graph& graph) {
    return visible_value(one_in(20) ? any_graph() : graph);
  }

  static int depth(const Graph& graph) { return graph.parent() ? 1 + depth(*graph.parent()) : 0; }

  std::unique_ptr<Graph> subgraph(Graph& parent) {
    auto graph = std::make_unique<Graph>(&parent);
    const std::size_t count = below(4);
    try {
      if (one_in(2)) graph->add_input(any_name(), Type());
      for (std::size_t i = 0; i < count; ++i) add_node(*graph);
      if (Value* output = visible_value(*graph)) graph->add_output(output);
    } catch (const Error&) {
      // What there is will do.
    }
    return graph;
  }

  Node* add_node(Graph& graph) {
    NodeSpec spec{.op_type = "Relu", .outputs = {}};
    for (std::size_t i = below(4); i > 0; --i)
      spec.inputs.push_back(one_in(5) ? nullptr : any_value(graph));
    for (std::size_t i = 0, count = 1 + below(2); i < count; ++i) {
      spec.outputs.push_back(one_in(3) ? "" : any_name());
      if (one_in(8)) spec.omitted_outputs.push_back(i);
    }
    if (one_in(3) && depth(graph) < kMaxDepth) spec.attributes["body"] = subgraph(graph);
    if (one_in(50)) spec.attributes["bad"] = subgraph(any_graph());
    // Building a subgraph may have renamed values that hid what it reads.
    before_ = to_text(model_);
    return graph.add_node(std::move(spec), one_in(2) ? nullptr : pick(graph.nodes()));
  }

  static void shrink(Graph& graph) {
    for (Node* node : graph.nodes()) {
      const std::vector<Value*> outputs = node->outputs();
      const auto unused = [](const Value* value) { return !value || value->is_unused(); };
      if (std::ranges::all_of(outputs, unused)) graph.remove(node);
    }
  }

  void edit(Graph& graph) {
    Node* node = pick(graph.nodes());
    Value* value = any_value(graph);
    Value* own = pick(values_of(graph));
    switch (below(22)) {
      case 0:
        graph.add_input(any_name(), Type());
        break;
      case 1:
        graph.add_initializer(any_name(), Tensor::scalar(static_cast<float>(below(9))));
        break;
      case 2:
      case 3:
      case 4:
      case 5:
        if (graph.node_count() < kMaxNodes)
          add_node(graph);
        else
          shrink(graph);
        break;
      case 6:
      case 7:
        if (node) graph.set_node_input(node, below(4), one_in(4) ? nullptr : value);
        break;
      case 8:
        if (node) graph.omit_node_output(node, below(3));
        break;
      case 9:
        if (value) graph.add_output(value);
        break;
      case 10:
        graph.remove_output(below(3));
        break;
      case 11:
      case 12:
      case 13:
        if (own && value) graph.replace_uses(own, value);
        break;
      case 14:
        if (node) graph.remove(node);
        break;
      case 15:
        if (value) graph.remove_initializer(value);
        break;
      case 16:
        if (value) graph.rename(value, any_name());
        break;
      case 17:
        if (node) graph.move_before(node, one_in(3) ? nullptr : pick(graph.nodes()));
        break;
      case 18:
        sort(graph);
        break;
      case 19:
        if (node && depth(graph) < kMaxDepth) {
          Attribute body = subgraph(one_in(20) ? any_graph() : graph);
          before_ = to_text(model_);
          graph.set_attribute(node, one_in(2) ? "body" : "other", std::move(body));
        }
        break;
      case 20:
        if (node) graph.remove_attribute(node, "body");
        break;
      default:
        edit_rarely(graph, node, value);
    }
  }

  void edit_rarely(Graph& graph, Node* node, Value* value) {
    switch (below(6)) {
      case 0:
        if (value) graph.set_default(value, {.tensor = Tensor::scalar(1.0F)});
        break;
      case 1:
        if (value) graph.drop_input(value);
        break;
      case 2:
        if (value) graph.set_initializer(value, Tensor::scalar(2.0F));
        break;
      case 3:
        if (value) graph.remove_input(value);
        break;
      case 4:
        if (node) graph.set_operator(node, "Neg", "ai.onnx");
        break;
      default:
        if (node && graph.node_count() < kMaxNodes) {
          ValueMap map;
          if (Value* from = visible_value(graph)) map[from] = visible_value(graph);
          clone_node(*node, graph, map, pick(graph.nodes()));
        }
    }
  }

  // A cycle is found in one graph after others were sorted, so the text may change.
  static void sort(Graph& graph) {
    try {
      graph.sort();
    } catch (const Error& error) {
      REQUIRE(error.message().find("cycle") != std::string::npos);
      REQUIRE_FALSE(Invariants::is_sorted(graph));
      return;
    }
    REQUIRE(Invariants::is_sorted(graph));
  }

  Random random_;
  Model model_;
  std::string before_;  // the text when the mutator under test was called
};

TEST_CASE("mutators keep uses, names and ownership right") {
  int done = 0;
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    Editor editor(seed);
    for (int step = 0; step < 400; ++step) editor.step();
    done += editor.done;
    refused += editor.refused;

    const Model& model = editor.model();
    const auto copy = model.clone();
    REQUIRE(to_text(*copy) == to_text(model));
    REQUIRE(structural_hash(*copy, true) == structural_hash(model, true));
    Invariants::check(copy->graph, kNames);
  }
  CHECK(done > 4000);
  CHECK(refused > 1000);
}

}  // namespace
}  // namespace onnxpress
