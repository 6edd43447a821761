// The group pass of operator fusions.
#include "passes/core/group.h"
#include "passes/core/registry.h"

namespace onnxpress {

PASS(fuse) {
  registry.add(std::make_unique<GroupPass>(
      PassInfo{.name = "fuse",
               .summary = "all operator fusions, until nothing changes",
               .effect = Effect::rounding},
      GroupPass::options(
          {{.name = "level",
            .kind = OptionSpec::Kind::choice,
            .default_value = "standard",
            .help =
                "operators that may be used: ONNX's own, or also ONNX Runtime's (com.microsoft)",
            .choices = "standard|runtime"}})));
}

}  // namespace onnxpress
