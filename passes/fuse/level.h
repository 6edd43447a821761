// Passes that use ONNX Runtime's operators where option `level` allows it.
#pragma once

#include <array>

#include "passes/core/rule_pass.h"

namespace onnxpress {

// The option as the group pass `fuse` hands it on.
inline constexpr std::array level_options = {
    OptionSpec{.name = "level",
               .kind = OptionSpec::Kind::choice,
               .default_value = "standard",
               .help = "operators that may be used: ONNX's own, or also ONNX Runtime's",
               .choices = "standard|runtime"}};

bool is_runtime_level(const Options& options);

// `opset` when the model is of a lower one, can be raised, and `rule`, which asks for no opset,
// would then apply; else 0.
std::int64_t opset_for(const Model& model, std::int64_t opset, const Rule& rule);

// At level=runtime the model imports com.microsoft while the rules run, and afterwards where a node
// is of that domain.
class LevelRulePass : public RulePass {
 public:
  Outcome run(Model& model, PassContext& context) const override;
};

}  // namespace onnxpress
