// What the conditions and replacements of many rules share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/ops/call.h"
#include "graph/rewrite/pattern.h"

namespace onnxpress {

// Whether both are tensors of one element type and of shapes known to be equal.
bool same_type(const Type& a, const Type& b);
// Whether both have shapes known to be equal: the same number or the same symbol in every place.
bool same_shape(const Type& a, const Type& b);

// Whether the node, or a Constant node it reads, has attributes that are parameters of the function
// around it: what it does is then only known at a call.
bool has_open_attributes(const Node& node);

// Whether nothing reads any of the node's results: there is no use in changing it.
bool is_unread(const Node& node);

// For a node like this one.
Attributes copy_attributes(const Node& node);

// Why readers of `old`, a node's result, cannot read `source` in its place without an Identity for
// a graph's output; nothing when they can.
std::optional<std::string> handing_on_obstacle(const Value& old, const Value& source);

// While it lives, the model and its functions import ONNX Runtime's operators (com.microsoft);
// afterwards where a node is one of them.
class WithRuntimeDomain {
 public:
  explicit WithRuntimeDomain(Model& model);  // must outlive the object
  ~WithRuntimeDomain();
  WithRuntimeDomain(const WithRuntimeDomain&) = delete;
  WithRuntimeDomain& operator=(const WithRuntimeDomain&) = delete;

 private:
  struct Import {
    OpsetImports* opsets;
    const Graph* graph;
  };
  std::vector<Import> added_;
};

// A constant of the patch, or one that the main graph has already (of at most a few elements).
Patch::Ref shared_constant(Patch& patch, const Graph& graph, std::string hint, Tensor tensor);

// A node for the call, its constants as initializers; those that the main graph has already (of at
// most a few elements) are used again.
Patch::Ref add_call(Patch& patch, const Graph& graph, OpCall call, std::vector<Patch::Ref> inputs,
                    std::string name = "");

}  // namespace onnxpress
