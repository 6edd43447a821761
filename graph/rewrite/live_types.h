// Types of a model while it is rewritten.
#pragma once

#include <memory>

#include "graph/ops/infer.h"
#include "graph/rewrite/patch.h"

namespace onnxpress {

// Inferred when first asked for, and kept current from patch to patch: new values are known as far
// as their own nodes tell, until refresh().
class LiveTypes {
 public:
  explicit LiveTypes(const Model& model) : model_(model) {}

  // Throws Error when the shape rules find a contradiction in the model.
  const TypeInference& get();
  void note(const Patch::Applied& applied);
  // The next get() infers the whole model anew.
  void refresh() { types_.reset(); }

 private:
  const Model& model_;
  std::unique_ptr<TypeInference> types_;
};

}  // namespace onnxpress
