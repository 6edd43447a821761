// RMS normalization written out: x / sqrt(mean(x^2) + epsilon) * scale.
#include "graph/ops/introduced.h"
#include "graph/ops/layer_norm.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"
#include "passes/fuse/row_norm.h"

namespace onnxpress {
namespace {

std::optional<RowNorm> find_rms_norm(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  auto norm = find_row_norm(tracer, match.root, false, reason);
  if (!norm) return std::nullopt;
  if (!norm->over_last_axes()) {
    reason = "it normalizes over other than the last axes";
    return std::nullopt;
  }
  if (const auto missing = missing_operator(match.root->graph(), "RMSNormalization")) {
    reason = *missing;
    return std::nullopt;
  }
  take_casts(tracer, *norm);
  norm->scale = take_parameter(tracer, *norm, "Mul", [&](const Value* parameter) {
    return fits_rows(tracer, parameter, norm->x, norm->axes.size());
  });
  if (!tracer.is_float(norm->x)) {
    reason = fmt::format("the type of '{}' is not known", norm->x->name());
    return std::nullopt;
  }
  return norm;
}

void build(const Match& match, const RowNorm& norm, Patch& patch) {
  const Tracer tracer(match);
  const LayerNormAttrs attrs{.axis = norm.axes.front(),
                             .epsilon = static_cast<float>(norm.epsilon)};
  replace_region(patch, norm.region,
                 {.op_type = "RMSNormalization",
                  .inputs = {norm.x, row_parameter(tracer, patch, norm.scale, norm, 1)},
                  .attributes = attrs.to_attributes()});
}

Rule rms_norm_rule() {
  const auto find = [](const Match& match, std::string& reason) {
    return find_rms_norm(match, reason);
  };
  return recognition_rule<RowNorm>("fuse_rms_norm", "Div|Mul", find, build);
}

class FuseRmsNorm : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_rms_norm",
      .summary = "RMS normalization written out becomes one operator",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 3};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override { return {rms_norm_rule()}; }
};

}  // namespace

PASS(fuse_rms_norm) { registry.add(std::make_unique<FuseRmsNorm>()); }

}  // namespace onnxpress
