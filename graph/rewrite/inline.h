// Model-local functions replaced by their bodies.
#pragma once

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

}  // namespace onnxpress
