// The short form of quantize{scheme=weights}.
#include <map>

#include "passes/core/registry.h"
#include "passes/quantize/request.h"

namespace onnxpress {
namespace {

// As quantize has them, with the same meanings.
constexpr OptionSpec option_specs[] = {
    {.name = "bits",
     .kind = OptionSpec::Kind::integer,
     .default_value = "8",
     .help = "width of a weight: 2^bits levels, 2^bits - 1 when symmetric (3 for 2 bits)",
     .min = 2,
     .max = 16},
    {.name = "type",
     .default_value = "auto",
     .help = "int2 ... int16, uint2 ... uint16, float8e4m3fn, float8e5m2, float4e2m1, mxfp4, mxfp8, nvfp4; auto: by "
             "bits and symmetric"},
    {.name = "symmetric",
     .kind = OptionSpec::Kind::flag,
     .default_value = "true",
     .help = "zero in the middle of the levels and no zero point; else levels span smallest to largest"},
    {.name = "granularity",
     .kind = OptionSpec::Kind::choice,
     .default_value = "channel",
     .help = "one scale per output channel, per block of inputs or per tensor",
     .choices = "channel|block|tensor"},
    {.name = "block",
     .kind = OptionSpec::Kind::integer,
     .default_value = "32",
     .help = "elements of a block",
     .min = 2,
     .max = 65536},
    {.name = "power_of_two",
     .kind = OptionSpec::Kind::flag,
     .default_value = "false",
     .help = "scales are powers of two"},
    {.name = "scales",
     .kind = OptionSpec::Kind::choice,
     .default_value = "auto",
     .help = "type of the scales; auto: the weight's",
     .choices = "auto|fp16"},
    {.name = "form",
     .kind = OptionSpec::Kind::choice,
     .default_value = "qdq",
     .help = "qdq: DequantizeLinear; contrib: MatMulNBits and GatherBlockQuantized; codebook: Gather from a palette",
     .choices = "qdq|contrib|codebook"},
    {.name = "method",
     .kind = OptionSpec::Kind::choice,
     .default_value = "rtn",
     .help = "how weights are rounded: rtn (to nearest), mse (best scales), hqq, gptq, adaround",
     .choices = "rtn|mse|hqq|gptq|adaround"},
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
    {.name = "select",
     .kind = OptionSpec::Kind::selector,
     .help = "nodes or tensors to quantize; default: weights of Conv, ConvTranspose, Gemm, MatMul, Einsum, Gather, "
             "LSTM, GRU, RNN and fused operators"},
};

class QuantizeWeights : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "quantize_weights",
      .summary = "weights as 2- to 16-bit integers or small floats: smaller, not faster",
      .options = option_specs,
      .effect = Effect::lossy,
      .needs = Needs::optional_calibration,
      .min_opset = 10};

  const PassInfo& info() const override { return pass_info; }

  void check(const Options& given) const override { request_of(given); }

  std::int64_t required_opset(const Model& model, const Options& given) const override {
    return weights_only_opset(model, request_of(given));
  }

  Outcome run(Model& model, PassContext& context) const override {
    return quantize_weights_only(model, context, request_of(context.options));
  }

 private:
  // What quantize makes of the same options.
  static QuantizeRequest request_of(const Options& given) {
    std::map<std::string, std::string> all{{"scheme", "weights"}};
    for (const OptionSpec& option : option_specs)
      if (given.given(option.name)) all[std::string(option.name)] = given.given_text(option.name);
    QuantizeRequest request = QuantizeRequest::from(Options("quantize", passes().find("quantize").info().options, all));
    request.pass = pass_info.name;
    return request;
  }
};

}  // namespace

PASS(quantize_weights) { registry.add(std::make_unique<QuantizeWeights>()); }

}  // namespace onnxpress
