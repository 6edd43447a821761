// The group pass of exact simplifications.
#include "passes/core/group.h"
#include "passes/core/registry.h"
#include "passes/simplify/fold_growth.h"

namespace onnxpress {

PASS(simplify) {
  registry.add(std::make_unique<GroupPass>(
      PassInfo{.name = "simplify",
               .summary = "all exact simplifications, until nothing changes",
               .effect = Effect::exact},
      GroupPass::options({fold_growth})));
}

}  // namespace onnxpress
