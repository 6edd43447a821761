// Passes that others are worth running before.
#pragma once

#include <string>
#include <vector>

#include "passes/core/pass.h"

namespace onnxpress {

// What a Pass may implement beside it.
class PreparedPass {
 public:
  virtual ~PreparedPass() = default;
  // Names of registered passes that are worth running first on this model, with their default
  // options: the runner runs them as steps of their own, and says for whom. The pass works without.
  virtual std::vector<std::string> preparations(const Model& model, const Options& options) const = 0;
};

}  // namespace onnxpress
