// The options of `quantize`, and those of its short form.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include "passes/core/pass.h"

namespace onnxpress {

inline constexpr OptionSpec quantize_options[] = {
    {.name = "scheme",
     .kind = OptionSpec::Kind::choice,
     .default_value = "static",
     .help = "static: activations by ranges from calibration data; dynamic: activations when the model runs; "
             "weights: weights only",
     .choices = "static|dynamic|weights"},
    {.name = "bits",
     .default_value = "8",
     .help = "width of a weight, 2 to 8 or 16: 2^bits levels, 2^bits - 1 when symmetric (3 for 2 bits); auto: by "
             "measured sensitivity, within `budget` or `max_drop`"},
    {.name = "act_bits",
     .kind = OptionSpec::Kind::choice,
     .default_value = "8",
     .help = "width of an activation; fewer than 8 bits restrict the levels of 8-bit codes",
     .choices = "2|3|4|5|6|7|8|16"},
    {.name = "type",
     .default_value = "auto",
     .help = "of a weight: int2 ... int16, uint2 ... uint16, float8e4m3fn, float8e5m2, float4e2m1, mxfp4, mxfp8, "
             "nvfp4; auto: by bits and symmetric"},
    {.name = "act_type",
     .default_value = "auto",
     .help = "of an activation: int4, uint4, int8, uint8, int16, uint16, float8e4m3fn, float8e5m2; auto: as the "
             "target has it"},
    {.name = "granularity",
     .kind = OptionSpec::Kind::choice,
     .default_value = "channel",
     .help = "one scale per output channel, per block of inputs or per tensor, of weights",
     .choices = "channel|block|tensor"},
    {.name = "block",
     .kind = OptionSpec::Kind::integer,
     .default_value = "32",
     .help = "granularity=block and form=contrib: elements of a block",
     .min = 2,
     .max = 65536},
    {.name = "symmetric",
     .kind = OptionSpec::Kind::flag,
     .default_value = "true",
     .help = "weights: zero in the middle of the levels and no zero point; else levels span smallest to largest"},
    {.name = "act_symmetric",
     .kind = OptionSpec::Kind::choice,
     .default_value = "auto",
     .help = "activations: the same; auto: as the target has it",
     .choices = "auto|true|false"},
    {.name = "power_of_two",
     .kind = OptionSpec::Kind::flag,
     .default_value = "false",
     .help = "scales are powers of two"},
    {.name = "scales",
     .kind = OptionSpec::Kind::choice,
     .default_value = "auto",
     .help = "scheme=weights: type of the scales; auto: the weight's",
     .choices = "auto|fp16"},
    {.name = "calibration",
     .kind = OptionSpec::Kind::choice,
     .default_value = "snr",
     .help = "scheme=static: how ranges of activations are chosen",
     .choices = "minmax|ema|percentile|entropy|mse|snr"},
    {.name = "percentile",
     .kind = OptionSpec::Kind::number,
     .default_value = "99.999",
     .help = "calibration=percentile: per cent of the values inside the range",
     .min = 50,
     .max = 100},
    {.name = "form",
     .kind = OptionSpec::Kind::choice,
     .default_value = "auto",
     .help = "qdq: QuantizeLinear and DequantizeLinear; qoperator: QLinearConv and its kin; contrib: MatMulNBits and "
             "GatherBlockQuantized; codebook: Gather from a palette; auto: qdq, and with scheme=dynamic qoperator",
     .choices = "auto|qdq|qoperator|contrib|codebook"},
    {.name = "method",
     .kind = OptionSpec::Kind::choice,
     .default_value = "auto",
     .help = "how weights are rounded: rtn (to nearest), mse (best scales), hqq, gptq, adaround; auto: mse where "
             "activations are quantized too and a scale has few weights, else rtn",
     .choices = "auto|rtn|mse|hqq|gptq|adaround"},
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
     .help = "method gptq and adaround: inputs of large activations are rounded first"},
    {.name = "steps",
     .kind = OptionSpec::Kind::integer,
     .default_value = "2000",
     .help = "method adaround: gradient steps for each layer",
     .min = 1,
     .max = 1e6},
    {.name = "bias_correction",
     .kind = OptionSpec::Kind::choice,
     .default_value = "none",
     .help = "shift biases by what rounding does to the mean: empirical (calibration data) or analytic "
             "(BatchNormalization)",
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
    {.name = "overrides",
     .help = "bits by selector, in quotes because of its '=': overrides='conv1=4;op:Gemm=16;head*=float'; the last "
             "that matches counts"},
    {.name = "budget", .help = "of bits=auto: mean bits per weight, '4.5bpw'"},
    {.name = "max_drop",
     .help = "of bits=auto without budget: what may be lost on calibration data, in percentage points of accuracy, or "
             "without labels of agreement (0.5 and 0.5% are half a point); default: as --max-drop has it"},
    {.name = "select",
     .kind = OptionSpec::Kind::selector,
     .help = "nodes or tensors to quantize; default: all that can be"},
};

// Names of those that scheme=weights has.
inline constexpr std::string_view weight_option_names[] = {
    "bits", "type", "granularity", "block", "symmetric", "power_of_two", "scales", "form", "method", "samples",
    "damping", "act_order", "steps", "bias_correction", "accuracy_level", "storage", "overrides", "budget",
    "max_drop", "select"};

inline constexpr auto quantize_weights_options = [] {
  std::array<OptionSpec, std::size(weight_option_names)> chosen;
  for (std::size_t i = 0; i < chosen.size(); ++i)
    chosen[i] = *std::ranges::find(quantize_options, weight_option_names[i], &OptionSpec::name);
  return chosen;
}();

}  // namespace onnxpress
