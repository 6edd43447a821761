// Quantization to any bit width, in every form that ONNX has.
#include "graph/onnx/writer.h"
#include "graph/rewrite/inline.h"
#include "passes/common/weights.h"
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

// Widths of weights for what has none.
std::vector<std::string> idle_overrides(const Model& model, const QuantizeRequest& request) {
  constexpr int of_activations_too = 16;
  std::vector<std::string> notes;
  if (request.overrides.empty()) return notes;
  const std::vector<Weight> weights = collect_weights(model, WeightKinds::all, Selector(""), request.pass, nullptr);
  for (const BitsRule& rule : request.overrides) {
    if (rule.bits == 0 || (rule.bits == of_activations_too && request.scheme == Scheme::static_ranges)) continue;
    const Selector selector(rule.selector);
    if (std::ranges::none_of(weights, [&](const Weight& weight) { return selector.matches(*weight.node, *weight.value); }))
      notes.push_back(fmt::format("overrides: '{}' has no weights that a width could be given to", rule.selector));
  }
  return notes;
}

// Of floats that Constant nodes in functions make, but for single numbers.
std::size_t constant_bytes(const Model& model) {
  std::size_t bytes = 0;
  for (const auto& function : model.functions)
    function->body.for_each_graph([&](const Graph& graph) {
      for (const Node* node : graph.nodes())
        if (const Attribute* value = node->is("Constant") ? node->attribute("value") : nullptr)
          if (const auto* tensor = std::get_if<NamedTensor>(&value->value); tensor && is_float(tensor->tensor.dtype()) && tensor->tensor.size() > 1)
            bytes += tensor->tensor.byte_size();
    });
  return bytes;
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
  const QuantizeRequest asked = request(context.options);
  return model.functions.empty() ? run_on(model, context, asked) : run_with_functions(model, context, asked);
}

Outcome QuantizePass::run_on(Model& model, PassContext& context, QuantizeRequest asked) const {
  const std::vector<std::string> idle = idle_overrides(model, asked);
  BitsAssignment assigned;
  if (asked.automatic_bits) {
    assigned = assign_bits(model, context, asked);
    asked.overrides.insert(asked.overrides.end(), assigned.rules.begin(), assigned.rules.end());
    asked.automatic_bits = false;
  }
  if (context.calibration) context.calibration->rewind();
  Outcome outcome = convert(model, context, std::move(asked));
  outcome.notes.insert(outcome.notes.end(), idle.begin(), idle.end());
  outcome.notes.insert(outcome.notes.end(), assigned.notes.begin(), assigned.notes.end());
  if (!assigned.sensitivity.empty()) add_sensitivity(assigned, outcome);
  return outcome;
}

// Values and weights in functions are quantized where these stand in place of their calls. A copy tells
// whether that pays: bodies that are called often take more than codes save.
Outcome QuantizePass::run_with_functions(Model& model, PassContext& context, const QuantizeRequest& asked) const {
  const bool is_static = asked.scheme == Scheme::static_ranges;
  const std::size_t functions = model.functions.size();
  const auto inlined = [&] {
    Outcome outcome = run_on(model, context, asked);
    outcome.changed = true;
    outcome.notes.insert(outcome.notes.begin(), fmt::format("{} functions were put in place of their calls", functions));
    return outcome;
  };
  std::unique_ptr<Model> trial = is_static ? model.clone() : with_function_weights(model);
  if (!trial) {
    Outcome outcome = run_on(model, context, asked);
    if (const std::size_t bytes = constant_bytes(model))
      outcome.notes.push_back(fmt::format("Constant nodes in functions hold {} bytes of floats, which stay as they are: inline_functions and "
                                          "fold_constants (or simplify) before bring them to the operators where that does not grow the file", bytes));
    return outcome;
  }
  if (is_static) inline_functions(*trial);
  PassContext quiet = context;
  quiet.near_misses = nullptr;
  const Outcome tried = run_on(*trial, quiet, asked);
  if (!tried.layers.empty() && serialized_size(*trial) <= serialized_size(model)) {
    inline_functions(model);
    return inlined();
  }
  const std::string reason = fmt::format("functions stay, with what is in them: {}",
                                         tried.layers.empty() ? "in place of their calls nothing would be quantized either"
                                                              : "in place of their calls they would take more than codes save");
  Outcome outcome;
  if (!is_static) outcome = run_on(model, context, asked);
  outcome.notes.push_back(reason);
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
