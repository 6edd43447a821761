// What a model is: to know it again, and to see whether a pass changed it.
#pragma once

#include "graph/base/hash.h"
#include "graph/ir/model.h"

namespace onnxpress {

// structural_hash with names, of the model with each large tensor replaced by the hash of its
// contents, which are read once however many tensors share them.
Hash128 fingerprint(const Model& model);

// Everything but the contents of large tensors: nothing of them is read.
Hash128 form_hash(const Model& model);

// Whether large tensors of two models with the same form_hash hold the same. Tensors that the models
// share are not read, others up to the first difference.
bool same_contents(const Model& a, const Model& b);

}  // namespace onnxpress
