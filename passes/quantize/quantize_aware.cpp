// Quantization whose weights, biases and scales are trained with what rounding does to them.
#include "graph/rewrite/inline.h"
#include "passes/common/training_options.h"
#include "passes/core/registry.h"
#include "passes/quantize/aware_training.h"
#include "passes/quantize/options.h"
#include "passes/quantize/quantize_pass.h"
#include "passes/quantize/spread_dataset.h"

namespace onnxpress {
namespace {

// Options of quantize, of this pass, and of training; where grids begin is better chosen by least error.
std::vector<OptionSpec> all_options() {
  std::vector<OptionSpec> all(std::begin(quantize_options), std::end(quantize_options));
  for (OptionSpec& option : all)
    if (option.name == "method") option.default_value = "mse";
  all.insert(all.end(), std::begin(aware_options), std::end(aware_options));
  for (const OptionSpec& shared : training_options())
    if (std::ranges::find(all, shared.name, &OptionSpec::name) == all.end()) all.push_back(shared);
  return all;
}

class QuantizeAware final : public QuantizePass {
 public:
  QuantizeAware() : options_(all_options()) { info_.options = options_; }

  const PassInfo& info() const override { return info_; }
  Needs needs(const Options&) const override { return Needs::training; }

  void check(const Options& given) const override {
    QuantizePass::check(given);
    check_aware(given, request(given));
  }

  std::string checkpoint_obstacle(const Options& given) const override {
    return given.text("objective") == "blocks"
               ? "objective=blocks trains many times and keeps no checkpoint: expected another objective, or no --checkpoint"
               : "";
  }

  Outcome run(Model& model, PassContext& context) const override {
    SpreadDataset few(*context.training, context.options.integer("calibration_samples"));
    PassContext inner = context;
    if (inner.calibration == nullptr) inner.calibration = &few;
    const std::size_t functions = model.functions.size();
    inline_functions(model);
    Outcome outcome = QuantizePass::run(model, inner);
    if (functions > 0) {
      outcome.changed = true;
      outcome.notes.insert(outcome.notes.begin(), fmt::format("{} functions were put in place of their calls", functions));
    }
    return outcome;
  }

 protected:
  QuantizeRequest request(const Options& given) const override { return QuantizeRequest::from(given); }

  Outcome convert(Model& model, PassContext& context, QuantizeRequest asked) const override {
    AwareReport report;
    asked.tune = aware_tuner(context, report);
    Outcome outcome = QuantizePass::convert(model, context, std::move(asked));
    outcome.notes.insert(outcome.notes.begin(), report.notes.begin(), report.notes.end());
    outcome.training = std::move(report.record);
    return outcome;
  }

 private:
  PassInfo info_{.name = "quantize_aware",
                 .summary = "quantizes, and trains weights, biases and scales with what rounding does to them",
                 .effect = Effect::lossy,
                 .needs = Needs::training,
                 .min_opset = 10};
  std::vector<OptionSpec> options_;
};

}  // namespace

PASS(quantize_aware) { registry.add(std::make_unique<QuantizeAware>()); }

}  // namespace onnxpress
