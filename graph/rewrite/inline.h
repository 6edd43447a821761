// Model-local functions replaced by their bodies; bodies copied into the graph around them.
#pragma once

#include "graph/ir/clone.h"
#include "graph/ir/model.h"

namespace onnxpress {

// Puts the body of its function in place of every call, in the main graph and the graphs nested in
// it, calls inside bodies included, and drops the functions. Attributes that a body takes by
// reference come from the call, else from the function's default, else are left out; interior
// values and nodes are named "CALL/NAME". Domains that only functions import are added to the
// model's imports.
//
// Throws Error: a function that calls itself, directly or not; a call without a required attribute
// or with more inputs or outputs than its function has; a body whose operators mean something else
// under the operator sets that the model imports.
void inline_functions(Model& model);

// The same for one function of the model, which goes, also where bodies of other functions call it
// (their operator sets count there); functions that it calls stay. The interior of a function that
// is called once keeps its names where they are free. Returns the number of calls. Throws Error,
// the model being partly changed, also where a default of the function may be needed for an
// attribute that a caller's body takes by reference.
std::int64_t inline_function(Model& model, const Function& function);

// Copies what `body` defines into `target`, before `before`: `map` holds what stands for the body's
// inputs and gains the copies. A name that is taken gets a number.
void splice_graph(const Graph& body, Graph& target, Node* before, ValueMap& map);

}  // namespace onnxpress
