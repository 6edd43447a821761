#include "passes/quantize/request.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <tuple>

#include "graph/base/error.h"
#include "passes/core/idle_options.h"

namespace onnxpress {
namespace {

std::optional<int> parse_int(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int parse_bits(std::string_view option, std::string_view text) {
  const std::optional<int> bits = parse_int(text);
  require(bits && ((*bits >= 2 && *bits <= 8) || *bits == 16), "option '{}': expected 2 to 8 or 16 bits, found '{}'",
          option, text);
  return *bits;
}

std::optional<DType> parse_type(const Options& options, std::string_view option) {
  const std::string& text = options.text(option);
  if (text == "auto") return std::nullopt;
  const std::optional<DType> type = dtype_from_name(text);
  require(type && (is_integer(*type) ? bits(*type) <= 16 : bits(*type) <= 8),
          "option '{}': expected auto or a type of at most 16 bits (int8, uint4, float8e4m3fn ...), found '{}'", option,
          text);
  return type;
}

// A type of weights, or one of the block formats with all that it says.
void read_weight_type(const Options& options, QuantizeRequest& request) {
  const std::string& text = options.text("type");
  for (const auto& [name, format, type, block] :
       {std::tuple{"mxfp4", BlockFormat::mxfp4, DType::float4e2m1, 32},
        {"mxfp8", BlockFormat::mxfp8, DType::float8e4m3fn, 32},
        {"nvfp4", BlockFormat::nvfp4, DType::float4e2m1, 16}}) {
    if (text != name) continue;
    request.format = format;
    request.weight_type = type;
    request.granularity = Granularity::Kind::block;
    request.block = block;
  }
  if (request.format == BlockFormat::none) request.weight_type = parse_type(options, "type");
  // Without a width that the user says, all levels of the type.
  if (request.weight_type && !options.given("bits") && !request.automatic_bits)
    request.weight_bits = bits(*request.weight_type);
}

// What no scheme but `weights` has, and what it has not.
void check_weights_only(const QuantizeRequest& request) {
  const bool own_form = request.form == Form::contrib || request.form == Form::codebook;
  if (request.scheme != Scheme::weights) {
    require(!own_form, "form=contrib and form=codebook belong to scheme=weights");
    return;
  }
  require(request.form != Form::qoperator, "scheme=weights has no operators of integers: form=qoperator is for static "
          "and dynamic");
  const bool small_float = request.weight_type && is_float(*request.weight_type);
  require(!own_form || !request.weight_type,
          "option 'type': form=contrib and form=codebook have a type of their own (say bits), found {}",
          request.weight_type ? name(*request.weight_type) : "");
  const bool to_nearest = request.rounding == Rounding::automatic || request.rounding == Rounding::nearest;
  require(!small_float || to_nearest || request.rounding == Rounding::mse,
          "method={} moves between evenly spaced levels, which {} has not: expected rtn or mse",
          request.rounding == Rounding::hqq    ? "hqq"
          : request.rounding == Rounding::gptq ? "gptq"
                                               : "adaround",
          small_float ? name(*request.weight_type) : "");
  require(request.form != Form::codebook || to_nearest,
          "form=codebook chooses its levels itself: expected method=rtn");
  const bool own_scales = own_form || request.format != BlockFormat::none;
  require(!own_scales || request.scale_type == DType::undefined,
          "scales=fp16 belongs to form=qdq and types without scales of their own");
  require(!request.power_of_two || (request.form != Form::codebook && request.format == BlockFormat::none),
          "power_of_two is for scales that are chosen: not for form=codebook and the block formats");
  const bool unloadable = request.format != BlockFormat::none || request.weight_type == DType::float4e2m1;
  require(!unloadable || !request.only_loadable,
          "the reference ONNX Runtime loads no float4e2m1 and no float8e8m0 scales: say storage=smallest to write them "
          "all the same");
}

// Widths and blocks that the form or the type of weights has not.
void check_widths(const QuantizeRequest& request) {
  if (request.scheme != Scheme::weights) {
    const bool fits = !request.weight_type || is_float(*request.weight_type) || request.weight_bits <= bits(*request.weight_type);
    require(fits, "type {} has {} bits, found {}", name(request.weight_type.value_or(DType::undefined)),
            bits(request.weight_type.value_or(DType::int8)), request.weight_bits);
    return;
  }
  constexpr std::int64_t least_block = 16;  // that the operators of com.microsoft take
  require(request.form != Form::contrib ||
              (request.block >= least_block && std::has_single_bit(static_cast<std::uint64_t>(request.block))),
          "form=contrib needs blocks of a power of two of at least {}, found {}", least_block, request.block);
  if (!request.automatic_bits) request.check_width(request.weight_bits);
  for (const BitsRule& rule : request.overrides)
    if (rule.bits != 0) request.check_width(rule.bits);
}

std::vector<BitsRule> parse_overrides(std::string_view text) {
  std::vector<BitsRule> rules;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    const std::string_view rule = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t equals = rule.rfind('=');
    require(equals != std::string_view::npos && equals > 0,
            "option 'overrides': expected SELECTOR=BITS or SELECTOR=float, all of them in one pair of quotes "
            "(overrides='conv1=4;head*=float'), found '{}'", rule);
    const std::string_view bits = rule.substr(equals + 1);
    rules.push_back({std::string(rule.substr(0, equals)), bits == "float" ? 0 : parse_bits("overrides", bits)});
  }
  return rules;
}

std::optional<double> parse_budget(std::string_view text) {
  if (text.empty()) return std::nullopt;
  std::string_view number = text;
  if (number.ends_with("bpw")) number.remove_suffix(3);
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  require(error == std::errc{} && end == number.data() + number.size() && value >= 2 && value <= 16,
          "option 'budget': expected 2bpw to 16bpw (bits per weight), found '{}'", text);
  return value;
}

// Percentage points as a share; 0.5 and 0.5% are half a point, as for --max-drop.
std::optional<double> parse_drop(std::string_view text) {
  if (text.empty()) return std::nullopt;
  std::string_view number = text;
  if (number.ends_with('%')) number.remove_suffix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  require(error == std::errc{} && end == number.data() + number.size() && value >= 0 && value <= 100,
          "option 'max_drop': expected percentage points from 0 to 100 (0.5%), found '{}'", text);
  return value / 100;
}

// Whether some type may be one that the runtime does not get right.
bool may_choose_storage(const QuantizeRequest& request) {
  if (request.scheme == Scheme::weights) return request.form != Form::codebook;
  const auto is_narrow = [](int bits) { return bits > 0 && bits <= 2; };
  return request.scheme == Scheme::static_ranges &&
         (is_narrow(request.weight_bits) || std::ranges::any_of(request.overrides, is_narrow, &BitsRule::bits));
}

// Options that were said although nothing reads them.
void check_idle(const Options& options, const QuantizeRequest& request) {
  const bool is_static = request.scheme == Scheme::static_ranges;
  const bool has_blocks = request.granularity == Granularity::Kind::block || request.form == Form::contrib;
  const OptionPlace places[] = {
      {"calibration", is_static, "scheme=static"},
      {"percentile", is_static && request.range.method == RangeMethod::percentile, "calibration=percentile"},
      {"act_bits",
       request.scheme != Scheme::weights &&
           request.activation_bits <= bits(request.activation_type.value_or(DType::int16)),
       "scheme=static and an act_type of as many bits"},
      {"act_type", request.scheme != Scheme::weights, "scheme=static"},
      {"act_symmetric", request.scheme != Scheme::weights, "scheme=static"},
      {"granularity", request.format == BlockFormat::none, "types without blocks of their own"},
      {"block", has_blocks && request.format == BlockFormat::none, "granularity=block or form=contrib"},
      {"symmetric", request.form != Form::codebook, "forms with levels at equal distances"},
      {"scales", request.scheme == Scheme::weights, "scheme=weights"},
      {"samples", request.rounds_by_inputs(), "method=gptq or adaround"},
      {"damping", request.rounds_by_inputs(), "method=gptq or adaround"},
      {"act_order", request.rounds_by_inputs(), "method=gptq or adaround"},
      {"steps", request.rounding == Rounding::adaround, "method=adaround"},
      {"storage", may_choose_storage(request), "scheme=weights without form=codebook, or 2-bit weights with scheme=static"},
      {"accuracy_level", request.form == Form::contrib, "form=contrib"},
      {"budget", request.automatic_bits, "bits=auto"},
      {"max_drop", request.automatic_bits && !request.budget_bits, "bits=auto without budget"},
  };
  refuse_idle(options, places);
}

// A type says whether there is a zero point; only scheme=weights has signed codes with one.
void check_symmetry(const Options& options, const QuantizeRequest& request) {
  if (!options.given("symmetric") || !request.weight_type || request.scheme == Scheme::dynamic) return;
  const DType type = *request.weight_type;
  const bool is_signed = !is_integer(type) || is_signed_integer(type);
  const bool may = request.symmetric ? is_signed
                                     : !is_signed || (is_integer(type) && request.scheme == Scheme::weights);
  require(may, "option 'symmetric': type={} is always {}, found {}", options.text("type"),
          request.symmetric ? "with a zero point" : "symmetric", request.symmetric);
}

template <class T>
T choice(const Options& options, std::string_view option,
         std::initializer_list<std::pair<std::string_view, T>> values) {
  const std::string& text = options.text(option);
  for (const auto& [name, value] : values)
    if (name == text) return value;
  fail("option '{}': '{}' is not known here", option, text);
}

}  // namespace

QuantizeRequest QuantizeRequest::from(const Options& options) {
  QuantizeRequest request;
  request.scheme = choice<Scheme>(
      options, "scheme",
      {{"static", Scheme::static_ranges}, {"dynamic", Scheme::dynamic}, {"weights", Scheme::weights}});
  request.form = choice<Form>(options, "form",
                              {{"auto", Form::automatic},
                               {"qdq", Form::qdq},
                               {"qoperator", Form::qoperator},
                               {"contrib", Form::contrib},
                               {"codebook", Form::codebook}});
  request.automatic_bits = options.text("bits") == "auto";
  if (!request.automatic_bits) request.weight_bits = parse_bits("bits", options.text("bits"));
  request.activation_bits = parse_int(options.text("act_bits")).value();
  request.granularity = choice<Granularity::Kind>(options, "granularity",
                                                  {{"tensor", Granularity::Kind::tensor},
                                                   {"channel", Granularity::Kind::channel},
                                                   {"block", Granularity::Kind::block}});
  request.block = options.integer("block");
  read_weight_type(options, request);
  request.activation_type = parse_type(options, "act_type");
  if (request.activation_type && !options.given("act_bits")) request.activation_bits = bits(*request.activation_type);
  request.symmetric = options.flag("symmetric");
  if (options.text("act_symmetric") != "auto") request.symmetric_activations = options.text("act_symmetric") == "true";
  request.power_of_two = options.flag("power_of_two");
  if (options.text("scales") == "fp16") request.scale_type = DType::float16;
  request.range.method = choice<RangeMethod>(options, "calibration",
                                             {{"minmax", RangeMethod::minmax},
                                              {"ema", RangeMethod::ema},
                                              {"percentile", RangeMethod::percentile},
                                              {"entropy", RangeMethod::entropy},
                                              {"mse", RangeMethod::mse},
                                              {"snr", RangeMethod::snr}});
  request.range.percentile = options.number("percentile");
  request.rounding = choice<Rounding>(options, "method",
                                      {{"auto", Rounding::automatic},
                                       {"rtn", Rounding::nearest},
                                       {"mse", Rounding::mse},
                                       {"hqq", Rounding::hqq},
                                       {"gptq", Rounding::gptq},
                                       {"adaround", Rounding::adaround}});
  request.rounding_samples = options.integer("samples");
  request.damping = options.number("damping");
  request.act_order = options.flag("act_order");
  request.rounding_steps = options.integer("steps");
  request.bias_correction = choice<BiasCorrection>(options, "bias_correction",
                                                   {{"none", BiasCorrection::none},
                                                    {"analytic", BiasCorrection::analytic},
                                                    {"empirical", BiasCorrection::empirical}});
  request.target = Target::from_name(options.text("target"));
  request.only_loadable = options.text("storage") == "loadable";
  request.accuracy_level = options.integer("accuracy_level");
  request.select = options.text("select");
  request.overrides = parse_overrides(options.text("overrides"));
  request.budget_bits = parse_budget(options.text("budget"));
  request.max_drop = parse_drop(options.text("max_drop"));
  check_weights_only(request);
  check_widths(request);
  check_idle(options, request);
  check_symmetry(options, request);
  return request;
}

void QuantizeRequest::check_width(int width) const {
  require(form != Form::contrib || width <= 8, "form=contrib has weights of 2 to 8 bits, found {}", width);
  // An index of 16 bits would be as large as half a float, with a palette beside it.
  require(form != Form::codebook || width <= 8, "form=codebook has indices of 2 to 8 bits, found {}", width);
  if (!weight_type) return;
  const int own = bits(*weight_type);
  require(is_float(*weight_type) ? width == own : width <= own, "type {} has {} bits, found {}", name(*weight_type), own,
          width);
}

int QuantizeRequest::bits_of(const Node& node, const Value& weight) const {
  int bits = weight_bits;
  for (const BitsRule& rule : overrides)
    if (Selector(rule.selector).matches(node, weight)) bits = rule.bits;
  return bits;
}

}  // namespace onnxpress
