// Quantization to any bit width, in every form that ONNX has.
#include "passes/core/prepared_pass.h"
#include "passes/core/registry.h"
#include "passes/quantize/bias_correction.h"
#include "passes/quantize/request.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "scheme",
     .kind = OptionSpec::Kind::choice,
     .default_value = "static",
     .help = "static: activations by ranges from calibration data; dynamic: activations when the model runs; "
             "weights: weights only",
     .choices = "static|dynamic|weights"},
    {.name = "bits",
     .default_value = "8",
     .help = "width of a weight, 2 to 8 or 16; auto: by measured sensitivity, within `budget`"},
    {.name = "act_bits",
     .kind = OptionSpec::Kind::integer,
     .default_value = "8",
     .help = "width of an activation: 2 to 8 or 16; fewer than 8 restrict the levels of 8-bit codes",
     .min = 2,
     .max = 16},
    {.name = "type", .default_value = "auto", .help = "of a weight: int2 ... int16, uint2 ... uint16, float8e4m3fn, float8e5m2, float4e2m1, mxfp4, mxfp8, nvfp4"},
    {.name = "act_type", .default_value = "auto", .help = "of an activation: int4, uint4, int8, uint8, int16, uint16"},
    {.name = "granularity",
     .kind = OptionSpec::Kind::choice,
     .default_value = "channel",
     .help = "one scale per output channel, per block of inputs or per tensor, of weights",
     .choices = "channel|block|tensor"},
    {.name = "block", .kind = OptionSpec::Kind::integer, .default_value = "32", .help = "elements of a block", .min = 2, .max = 65536},
    {.name = "symmetric", .kind = OptionSpec::Kind::flag, .default_value = "true", .help = "weights: zero in the middle of the levels and no zero point"},
    {.name = "act_symmetric",
     .kind = OptionSpec::Kind::choice,
     .default_value = "auto",
     .help = "activations: the same; auto: as the target has it",
     .choices = "auto|true|false"},
    {.name = "power_of_two", .kind = OptionSpec::Kind::flag, .default_value = "false", .help = "scales are powers of two"},
    {.name = "scales", .kind = OptionSpec::Kind::choice, .default_value = "auto", .help = "type of the scales of weights; auto: the weight's", .choices = "auto|fp16"},
    {.name = "calibration",
     .kind = OptionSpec::Kind::choice,
     .default_value = "mse",
     .help = "how ranges of activations are chosen",
     .choices = "minmax|ema|percentile|entropy|mse|snr"},
    {.name = "percentile", .kind = OptionSpec::Kind::number, .default_value = "99.999", .help = "per cent of the values inside the range", .min = 50, .max = 100},
    {.name = "form",
     .kind = OptionSpec::Kind::choice,
     .default_value = "auto",
     .help = "qdq: QuantizeLinear and DequantizeLinear; qoperator: QLinearConv and its kin; contrib: MatMulNBits and "
             "GatherBlockQuantized; codebook: Gather from a palette",
     .choices = "auto|qdq|qoperator|contrib|codebook"},
    {.name = "method",
     .kind = OptionSpec::Kind::choice,
     .default_value = "rtn",
     .help = "how weights are rounded: rtn (to nearest), mse (best scales), hqq, gptq, adaround",
     .choices = "rtn|mse|hqq|gptq|adaround"},
    {.name = "samples",
     .kind = OptionSpec::Kind::integer,
     .default_value = "1024",
     .help = "method gptq and adaround: calibration samples to look at, spread over the data",
     .min = 1,
     .max = 1e9},
    {.name = "damping",
     .kind = OptionSpec::Kind::number,
     .default_value = "0.01",
     .help = "method gptq and adaround: added to the diagonal of a layer's Hessian, as a share of its mean",
     .min = 1e-6,
     .max = 1},
    {.name = "act_order",
     .kind = OptionSpec::Kind::flag,
     .default_value = "true",
     .help = "method gptq: inputs of large activations are rounded first"},
    {.name = "steps",
     .kind = OptionSpec::Kind::integer,
     .default_value = "2000",
     .help = "method adaround: gradient steps for each layer",
     .min = 1,
     .max = 1e6},
    {.name = "bias_correction",
     .kind = OptionSpec::Kind::choice,
     .default_value = "none",
     .help = "shift biases by what rounding does to the mean: empirical (calibration data) or analytic (BatchNormalization)",
     .choices = "none|analytic|empirical"},
    {.name = "target",
     .kind = OptionSpec::Kind::choice,
     .default_value = "ort-cpu",
     .help = "the runtime that is to run the model",
     .choices = "ort-cpu|ort-cpu-avx2|openvino|tensorrt|qnn|generic"},
    {.name = "accuracy_level",
     .kind = OptionSpec::Kind::integer,
     .default_value = "0",
     .help = "of MatMulNBits (form=contrib): 1 computes in float32, 2 in float16, 3 in bfloat16, 4 with int8 "
             "activations; 0: as the runtime likes",
     .min = 0,
     .max = 4},
    {.name = "storage",
     .kind = OptionSpec::Kind::choice,
     .default_value = "loadable",
     .help = "loadable: only opsets and types that the reference ONNX Runtime runs; smallest: the smallest ONNX has",
     .choices = "loadable|smallest"},
    {.name = "overrides", .help = "bits by selector, 'conv1=4;op:Gemm=16;head*=float'; the last that matches counts"},
    {.name = "budget", .help = "of bits=auto: mean bits per weight, '4.5bpw'"},
    {.name = "max_drop",
     .kind = OptionSpec::Kind::number,
     .default_value = "-1",
     .help = "of bits=auto without budget: what may be lost on calibration data, of accuracy, or without labels of "
             "agreement (1% is a point); -1: as --max-drop has it",
     .min = -1,
     .max = 1},
    {.name = "select", .kind = OptionSpec::Kind::selector, .help = "nodes or tensors to quantize; default: all that can be"},
};

class Quantize : public Pass, public PreparedPass {
 public:
  static constexpr PassInfo pass_info{.name = "quantize",
                                      .summary = "weights and activations as integers (or small floats) of any width",
                                      .options = option_specs,
                                      .effect = Effect::lossy,
                                      .needs = Needs::optional_calibration,
                                      .min_opset = 10};

  const PassInfo& info() const override { return pass_info; }

  Needs needs(const Options& given) const override {
    const QuantizeRequest request = QuantizeRequest::from(given);
    return request.scheme == Scheme::static_ranges ? Needs::calibration : Needs::optional_calibration;
  }

  void check(const Options& given) const override {
    const QuantizeRequest request = QuantizeRequest::from(given);
    if (request.scheme == Scheme::static_ranges) check_static(request);
    if (request.scheme == Scheme::dynamic) check_dynamic(request);
  }

  void check_model(const Model& model, const Options& given) const override {
    for (const BitsRule& rule : QuantizeRequest::from(given).overrides)
      in_context([&] { return fmt::format("option overrides, '{}'", rule.selector); },
                 [&] { Selector(rule.selector).require_all_match(model); });
  }

  std::int64_t required_opset(const Model& model, const Options& given) const override {
    QuantizeRequest request = QuantizeRequest::from(given);
    if (request.automatic_bits) request.weight_bits = narrowest_automatic_bits(request);
    switch (request.scheme) {
      case Scheme::static_ranges: return static_opset(model, request);
      case Scheme::dynamic: return dynamic_opset(model, request);
      case Scheme::weights: return weights_only_opset(model, request);
    }
    return 0;
  }

  std::vector<std::string> preparations(const Model& model, const Options& given) const override {
    const QuantizeRequest request = QuantizeRequest::from(given);
    return request.scheme == Scheme::static_ranges ? static_preparations(model) : std::vector<std::string>{};
  }

  Outcome run(Model& model, PassContext& context) const override {
    QuantizeRequest request = QuantizeRequest::from(context.options);
    BitsAssignment assigned;
    if (request.automatic_bits) {
      assigned = assign_bits(model, context, request);
      request.overrides.insert(request.overrides.end(), assigned.rules.begin(), assigned.rules.end());
      request.automatic_bits = false;
    }
    const bool corrects = request.bias_correction != BiasCorrection::none;
    const std::unique_ptr<Model> original = corrects ? model.clone() : nullptr;
    if (context.calibration) context.calibration->rewind();
    Outcome outcome = run_scheme(model, context, request);
    if (corrects) correct_biases(model, *original, request.bias_correction, context, outcome);
    outcome.notes.insert(outcome.notes.end(), assigned.notes.begin(), assigned.notes.end());
    if (!assigned.sensitivity.empty()) add_sensitivity(assigned, outcome);
    return outcome;
  }

 private:
  static Outcome run_scheme(Model& model, PassContext& context, const QuantizeRequest& request) {
    switch (request.scheme) {
      case Scheme::static_ranges: return quantize_static(model, context, request);
      case Scheme::dynamic: return quantize_dynamic(model, context, request);
      case Scheme::weights: return quantize_weights_only(model, context, request);
    }
    return {};
  }

  static void add_sensitivity(const BitsAssignment& assigned, Outcome& outcome) {
    for (Json& record : outcome.layers) {
      const auto found = assigned.sensitivity.find(record.at("tensor").get<std::string>());
      record["alone"] = found == assigned.sensitivity.end() ? Json() : Json(found->second);
    }
  }
};

}  // namespace

PASS(quantize) { registry.add(std::make_unique<Quantize>()); }

}  // namespace onnxpress
