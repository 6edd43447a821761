// RMS normalization written out: x / sqrt(mean(x^2) + epsilon) * scale.
#include "graph/ops/introduced.h"
#include "graph/ops/layer_norm.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"
#include "passes/fuse/row_norm.h"

namespace onnxpress {
namespace {

std::optional<RowNorm> find_rms_norm(const Match& match, std::string& reason, bool runtime) {
  const Tracer tracer(match);
  auto norm = find_row_norm(tracer, match.root, false, reason);
  if (!norm) return std::nullopt;
  if (!norm->over_last_axes()) {
    reason = "it normalizes over other than the last axes";
    return std::nullopt;
  }
  if (const auto missing = missing_operator(match.root->graph(), "RMSNormalization");
      missing && !runtime) {
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

// ONNX's operator where the opset has it, else ONNX Runtime's.
void build(const Match& match, const RowNorm& norm, Patch& patch) {
  const Tracer tracer(match);
  const bool standard = !missing_operator(match.root->graph(), "RMSNormalization");
  const LayerNormAttrs attrs{.axis = norm.axes.front(), .epsilon = static_cast<float>(norm.epsilon)};
  replace_region(
      patch, norm.region,
      {.op_type = standard ? "RMSNormalization" : "SimplifiedLayerNormalization",
       .inputs = {norm.x, row_parameter(tracer, patch, norm.scale, norm, 1)},
       .attributes = attrs.to_attributes()});
}

class FuseRmsNorm : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{.name = "fuse_rms_norm",
                                      .summary = "RMS normalization written out becomes one operator",
                                      .options = level_options,
                                      .effect = Effect::rounding,
                                      .group = "fuse",
                                      .group_order = 3};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    const auto find = [runtime = is_runtime_level(options)](const Match& match,
                                                            std::string& reason) {
      return find_rms_norm(match, reason, runtime);
    };
    return {recognition_rule<RowNorm>("fuse_rms_norm", "Div|Mul", find, build)};
  }
};

}  // namespace

PASS(fuse_rms_norm) { registry.add(std::make_unique<FuseRmsNorm>()); }

}  // namespace onnxpress
