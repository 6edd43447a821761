#include "graph/rewrite/live_types.h"

namespace onnxpress {

const TypeInference& LiveTypes::get() {
  if (!types_) {
    types_ = std::make_unique<TypeInference>(model_);
    types_->run();
  }
  return *types_;
}

void LiveTypes::note(const Patch::Applied& applied) {
  if (!types_) return;
  for (const Value* constant : applied.constants) types_->forget(constant);
  for (const Node* node : applied.created) types_->update(*node);
}

}  // namespace onnxpress
