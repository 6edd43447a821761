// Folds BatchNormalization into the convolution or product before it.
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"
#include "passes/fuse/affine_rules.h"

namespace onnxpress {
namespace {

class FuseConvBn : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_conv_bn",
      .summary = "folds BatchNormalization into the Conv, ConvTranspose, Gemm or MatMul before it",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 10};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {affine_behind_linear("fuse_conv_bn", "BatchNormalization"),
            affine_behind_product("fuse_conv_bn", "BatchNormalization"),
            affine_behind_bias("fuse_conv_bn", "BatchNormalization")};
  }
};

}  // namespace

PASS(fuse_conv_bn) { registry.add(std::make_unique<FuseConvBn>()); }

}  // namespace onnxpress
