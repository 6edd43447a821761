// Copies of nodes and attributes between graphs.
#pragma once

#include <unordered_map>

#include "graph/ir/graph.h"

namespace onnxpress {

// Old values to new ones. A value not in the map is used as it is (a captured outer value).
using ValueMap = std::unordered_map<const Value*, Value*>;

// Deep copies; `parent` is the graph around the node that will own the subgraphs.
Attribute clone_attribute(const Attribute& attribute, Graph* parent, ValueMap& map);
Attributes clone_attributes(const Node& node, Graph* parent, ValueMap& map);
// Copies everything of `source` into the empty `target`, under the same names; `map` gains all
// copied values.
void clone_graph(const Graph& source, Graph& target, ValueMap& map);
// Adds a copy of `node` to `target` before `before` (at the end when nullptr), inputs and captured
// values through `map`, which gains the outputs. An output name taken anywhere in the tree of
// `target` gets a number.
Node* clone_node(const Node& node, Graph& target, ValueMap& map, Node* before = nullptr);

}  // namespace onnxpress
