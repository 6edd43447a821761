// The group pass of operator fusions.
#include "passes/core/group.h"
#include "passes/core/registry.h"

namespace onnxpress {

PASS(fuse) {
  registry.add(std::make_unique<GroupPass>(PassInfo{
      .name = "fuse",
      .summary = "all operator fusions, until nothing changes",
      .options = GroupPass::options(),
      .effect = Effect::rounding}));
}

}  // namespace onnxpress
