// The group pass of exact simplifications.
#include "passes/core/group.h"
#include "passes/core/registry.h"

namespace onnxpress {

PASS(simplify) {
  registry.add(std::make_unique<GroupPass>(
      PassInfo{.name = "simplify",
               .summary = "all exact simplifications, until nothing changes",
               .effect = Effect::exact},
      GroupPass::options()));
}

}  // namespace onnxpress
