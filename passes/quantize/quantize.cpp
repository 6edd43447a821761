// Quantization to any bit width, in every form that ONNX has.
#include "graph/rewrite/inline.h"
#include "passes/core/registry.h"
#include "passes/quantize/bias_correction.h"
#include "passes/quantize/function_weights.h"
#include "passes/quantize/options.h"
#include "passes/quantize/quantize_pass.h"

namespace onnxpress {
namespace {

Outcome run_scheme(Model& model, PassContext& context, const QuantizeRequest& request) {
  switch (request.scheme) {
    case Scheme::static_ranges: return quantize_static(model, context, request);
    case Scheme::dynamic: return quantize_dynamic(model, context, request);
    case Scheme::weights: return quantize_weights_only(model, context, request);
  }
  return {};
}

void add_sensitivity(const BitsAssignment& assigned, Outcome& outcome) {
  for (Json& record : outcome.layers) {
    const auto found = assigned.sensitivity.find(record.at("tensor").get<std::string>());
    record["alone"] = found == assigned.sensitivity.end() ? Json() : Json(found->second);
  }
}

class Quantize : public QuantizePass {
 public:
  static constexpr PassInfo pass_info{.name = "quantize",
                                      .summary = "weights and activations as integers (or small floats) of any width",
                                      .options = quantize_options,
                                      .effect = Effect::lossy,
                                      .needs = Needs::optional_calibration,
                                      .min_opset = 10};

  const PassInfo& info() const override { return pass_info; }

 protected:
  QuantizeRequest request(const Options& given) const override { return QuantizeRequest::from(given); }
};

}  // namespace

Needs QuantizePass::needs(const Options& given) const {
  const QuantizeRequest asked = request(given);
  const bool looks_at_inputs = asked.scheme == Scheme::static_ranges || asked.rounds_by_inputs() ||
                               asked.bias_correction == BiasCorrection::empirical;
  return looks_at_inputs ? Needs::calibration : Needs::optional_calibration;
}

void QuantizePass::check(const Options& given) const {
  const QuantizeRequest asked = request(given);
  if (asked.scheme == Scheme::static_ranges) check_static(asked);
  if (asked.scheme == Scheme::dynamic) check_dynamic(asked);
  if (asked.automatic_bits) check_automatic_bits(asked);
}

void QuantizePass::check_model(const Model& model, const Options& given) const {
  for (const BitsRule& rule : request(given).overrides)
    in_context([&] { return fmt::format("option overrides, '{}'", rule.selector); },
               [&] { Selector(rule.selector).require_all_match(model); });
}

std::int64_t QuantizePass::required_opset(const Model& model, const Options& given) const {
  QuantizeRequest asked = request(given);
  if (asked.automatic_bits) asked.weight_bits = narrowest_automatic_bits(asked);
  if (asked.scheme == Scheme::static_ranges) return static_opset(model, asked);
  const std::unique_ptr<Model> inlined = with_function_weights(model);
  const Model& seen = inlined ? *inlined : model;
  return asked.scheme == Scheme::dynamic ? dynamic_opset(seen, asked) : weights_only_opset(seen, asked);
}

std::vector<std::string> QuantizePass::preparations(const Model& model, const Options& given) const {
  return request(given).scheme == Scheme::static_ranges ? static_preparations(model) : std::vector<std::string>{};
}

Outcome QuantizePass::run(Model& model, PassContext& context) const {
  QuantizeRequest asked = request(context.options);
  // The static scheme puts all functions in place of their calls, to know the values in them.
  const bool is_inlined = asked.scheme != Scheme::static_ranges && with_function_weights(model) != nullptr;
  const std::size_t functions = model.functions.size();
  if (is_inlined) inline_functions(model);
  BitsAssignment assigned;
  if (asked.automatic_bits) {
    assigned = assign_bits(model, context, asked);
    asked.overrides.insert(asked.overrides.end(), assigned.rules.begin(), assigned.rules.end());
    asked.automatic_bits = false;
  }
  if (context.calibration) context.calibration->rewind();
  Outcome outcome = convert(model, context, std::move(asked));
  outcome.notes.insert(outcome.notes.end(), assigned.notes.begin(), assigned.notes.end());
  if (is_inlined) {
    outcome.changed = true;
    outcome.notes.push_back(fmt::format("{} functions were put in place of their calls: operators in them read weights", functions));
  }
  if (!assigned.sensitivity.empty()) add_sensitivity(assigned, outcome);
  return outcome;
}

Outcome QuantizePass::convert(Model& model, PassContext& context, QuantizeRequest asked) const {
  const bool corrects = asked.bias_correction != BiasCorrection::none;
  const std::unique_ptr<Model> original = corrects ? model.clone() : nullptr;
  Outcome outcome = run_scheme(model, context, asked);
  if (corrects) correct_biases(model, *original, asked.bias_correction, context, outcome);
  return outcome;
}

PASS(quantize) { registry.add(std::make_unique<Quantize>()); }

}  // namespace onnxpress
