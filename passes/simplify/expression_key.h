// What a node computes, as text that two nodes share when they compute the same.
#pragma once

#include <functional>
#include <string>

#include "graph/ir/model.h"

namespace onnxpress {

// Whether the node gives the same outputs whenever its inputs are the same: its operator and those
// of its subgraphs and of the function it calls are known, and none draws random numbers.
bool is_deterministic(const Model& model, const Node& node);

// Operator, inputs, attributes and which outputs there are; subgraphs by their structure, inner
// names aside. Inputs, and what subgraphs capture, go by the value that `canonical` gives for them.
// The first two inputs of commutative operators go in either order. Large tensors go by their
// XXH3-128 hash.
std::string expression_key(const Node& node,
                           const std::function<const Value*(const Value*)>& canonical);

// Whether tensors that the keys of two nodes hold by hash only are equal, given equal keys.
bool equal_attribute_tensors(const Node& a, const Node& b);

// Whether values of these types may stand for each other: nothing known of both differs.
bool compatible(const Type& a, const Type& b);

}  // namespace onnxpress
