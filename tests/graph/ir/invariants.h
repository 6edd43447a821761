// Recomputes from scratch what Graph's mutators keep: uses, outputs, names, ownership.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "graph/ir/graph.h"

namespace onnxpress {

class Invariants {
 public:
  // Checks the tree under `root`, and that exactly its names are taken.
  static void check(Graph& root, const std::vector<std::string>& candidates = {}) {
    Invariants all;
    root.for_each_graph([&](Graph& graph) { all.collect(graph); });
    for (const auto& [value, uses] : all.uses_) {
      std::vector<Use> found(value->uses().begin(), value->uses().end());
      REQUIRE(sorted(found) == sorted(uses));
    }
    for (const auto& [value, listings] : all.listings_) {
      const std::multiset<Graph*> found(value->output_of().begin(), value->output_of().end());
      REQUIRE(found == listings);
    }
    for (const std::string& name : all.names_) REQUIRE(root.unique_name(name) != name);
    for (const std::string& name : candidates)
      REQUIRE((root.unique_name(name) != name) == all.names_.contains(name));
  }

  // True when every node comes after the nodes it depends on.
  static bool is_sorted(const Graph& graph) {
    std::set<const Node*> done;
    const auto is_ready = [&](const Value* value) {
      return !value || &value->graph() != &graph || !value->producer() ||
             done.contains(value->producer());
    };
    for (const Node* node : graph.nodes()) {
      for (const Value* value : node->inputs())
        if (!is_ready(value)) return false;
      for (const Value* value : node->captured())
        if (!is_ready(value)) return false;
      for (const Graph* subgraph : node->subgraphs())
        if (!is_sorted(*subgraph)) return false;
      done.insert(node);
    }
    return true;
  }

 private:
  static std::vector<Use> sorted(std::vector<Use> uses) {
    std::ranges::sort(uses, [](const Use& a, const Use& b) {
      return std::pair(a.node, a.index) < std::pair(b.node, b.index);
    });
    return uses;
  }

  void define(Graph& graph, Value* value) {
    REQUIRE(&value->graph() == &graph);
    REQUIRE_FALSE(value->name().empty());
    REQUIRE(graph.find(value->name()) == value);
    names_.insert(value->name());
    uses_[value];
    listings_[value];
  }

  void collect(Graph& graph) {
    std::size_t defined = 0;
    for (Value* value : graph.inputs()) {
      REQUIRE(value->is_input());
      REQUIRE_FALSE(value->producer());
      define(graph, value);
      ++defined;
    }
    for (Value* value : graph.initializers()) {
      REQUIRE(value->initializer());
      if (value->is_input()) continue;
      define(graph, value);
      ++defined;
    }
    REQUIRE(graph.nodes().size() == graph.node_count());
    for (Node* node : graph.nodes()) {
      REQUIRE(&node->graph() == &graph);
      REQUIRE((node->input_count() == 0 || node->inputs().back()));
      for (std::size_t i = 0; i < node->input_count(); ++i) {
        Value* value = node->input(i);
        if (!value) continue;
        REQUIRE(graph.find_visible(value->name()) == value);
        uses_[value].push_back({node, i});
      }
      for (std::size_t i = 0; i < node->output_count(); ++i) {
        Value* value = node->output(i);
        if (!value) continue;
        REQUIRE(value->producer() == node);
        REQUIRE(value->output_index() == i);
        define(graph, value);
        ++defined;
      }
      for (Graph* subgraph : node->subgraphs()) {
        REQUIRE(subgraph->parent() == &graph);
        REQUIRE(subgraph->owner() == node);
      }
    }
    for (Value* value : graph.outputs()) {
      REQUIRE(graph.find_visible(value->name()) == value);
      listings_[value].insert(&graph);
    }
    // Names are unique: as many as values.
    std::set<std::string> here;
    for (const auto& [value, uses] : uses_)
      if (&value->graph() == &graph) here.insert(value->name());
    REQUIRE(here.size() == defined);
  }

  std::map<Value*, std::vector<Use>> uses_;
  std::map<Value*, std::multiset<Graph*>> listings_;
  std::set<std::string> names_;
};

}  // namespace onnxpress
