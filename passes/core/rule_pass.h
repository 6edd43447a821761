// Passes that are a list of rewriting rules.
#pragma once

#include <vector>

#include "graph/rewrite/pattern.h"
#include "passes/core/pass.h"

namespace onnxpress {

// Applies its rules in all graphs until none matches. Counts are by rule, near misses the rules'
// own reasons.
class RulePass : public Pass {
 public:
  Outcome run(Model& model, PassContext& context) const override;

 protected:
  // For a model as it is given; earlier rules win at the same node.
  virtual std::vector<Rule> rules(const Model& model, const Options& options) const = 0;
};

}  // namespace onnxpress
