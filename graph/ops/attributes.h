// Typed access to a node's attributes, for the files of graph/ops.
//
// Every getter throws Error naming the node and the attribute when the attribute is there but of
// another kind, or when it refers to an attribute of a function that was not bound. `get_*` return
// `otherwise` when it is absent, `require_*` throw.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/graph.h"

namespace onnxpress {

std::int64_t get_int(const Node& node, std::string_view name, std::int64_t otherwise);
bool get_bool(const Node& node, std::string_view name, bool otherwise);
float get_float(const Node& node, std::string_view name, float otherwise);
std::string get_string(const Node& node, std::string_view name, std::string_view otherwise);
std::vector<std::int64_t> get_ints(const Node& node, std::string_view name,
                                   std::vector<std::int64_t> otherwise = {});
std::vector<float> get_floats(const Node& node, std::string_view name,
                              std::vector<float> otherwise = {});
std::vector<std::string> get_strings(const Node& node, std::string_view name,
                                     std::vector<std::string> otherwise = {});

std::optional<std::int64_t> find_int(const Node& node, std::string_view name);
std::optional<float> find_float(const Node& node, std::string_view name);
std::optional<std::vector<std::int64_t>> find_ints(const Node& node, std::string_view name);
const Tensor* find_tensor(const Node& node, std::string_view name);
const Type* find_type(const Node& node, std::string_view name);
const Graph* find_graph(const Node& node, std::string_view name);

std::int64_t require_int(const Node& node, std::string_view name);
std::vector<std::int64_t> require_ints(const Node& node, std::string_view name);
const Graph& require_graph(const Node& node, std::string_view name);

}  // namespace onnxpress
