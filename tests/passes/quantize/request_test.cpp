#include <doctest/doctest.h>

#include <algorithm>

#include "graph/base/error.h"
#include "passes/core/pipeline.h"
#include "passes/core/registry.h"
#include "passes/quantize/options.h"
#include "passes/quantize/request.h"

namespace onnxpress {
namespace {

// What checking the only step says; empty: nothing.
std::string objection(const std::string& step) {
  try {
    const Pipeline pipeline = Pipeline::parse(step);
    pipeline.steps[0].pass->check(pipeline.steps[0].options);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("an option that nothing reads is refused, with where it belongs") {
  struct Case {
    const char *idle, *option, *belongs_to, *read;  // `read`: the same option where it is read
  };
  const Case cases[] = {
      {"percentile=99", "percentile", "calibration=percentile", "percentile=99,calibration=percentile"},
      {"block=16", "block", "granularity=block", "block=16,granularity=block"},
      {"samples=10", "samples", "method=gptq", "samples=10,method=gptq"},
      {"damping=0.1", "damping", "method=gptq", "damping=0.1,method=adaround"},
      {"act_order=false", "act_order", "method=gptq", "act_order=false,method=gptq"},
      {"steps=10,method=gptq", "steps", "method=adaround", "steps=10,method=adaround"},
      {"calibration=mse,scheme=weights", "calibration", "scheme=static", "calibration=mse"},
      {"act_bits=16,scheme=weights", "act_bits", "scheme=static", "act_bits=16"},
      {"act_bits=16,act_type=uint8", "act_bits", "act_type", "act_type=uint16"},
      {"act_type=uint8,scheme=weights", "act_type", "scheme=static", "act_type=uint8"},
      {"act_symmetric=true,scheme=weights", "act_symmetric", "scheme=static", "act_symmetric=true"},
      {"calibration=mse,scheme=dynamic", "calibration", "scheme=static", "scheme=dynamic"},
      {"storage=smallest,scheme=dynamic", "storage", "scheme=static", "storage=smallest,bits=2"},
      {"storage=smallest", "storage", "2-bit weights", "storage=smallest,overrides='w=2'"},
      {"storage=smallest,form=codebook,scheme=weights", "storage", "without form=codebook", "storage=smallest,form=contrib,scheme=weights"},
      {"scales=fp16", "scales", "scheme=weights", "scales=fp16,scheme=weights"},
      {"accuracy_level=4", "accuracy_level", "form=contrib", "accuracy_level=4,form=contrib,scheme=weights"},
      {"budget=4bpw", "budget", "bits=auto", "budget=4bpw,bits=auto"},
      {"max_drop=1", "max_drop", "bits=auto", "max_drop=1,bits=auto"},
      {"max_drop=1,bits=auto,budget=4bpw", "max_drop", "without budget", "bits=auto,budget=4bpw"},
      {"symmetric=false,form=codebook,scheme=weights", "symmetric", "equal distances", "symmetric=false"},
      {"block=16,type=mxfp8,storage=smallest,scheme=weights", "block", "granularity=block",
       "type=mxfp8,storage=smallest,scheme=weights"},
      {"granularity=channel,type=mxfp8,storage=smallest,scheme=weights", "granularity", "blocks of their own",
       "granularity=channel"},
  };
  for (const Case& each : cases) {
    CAPTURE(each.idle);
    const std::string said = objection("quantize{" + std::string(each.idle) + "}");
    CHECK(says(said, "option '" + std::string(each.option) + "' belongs to "));
    CHECK(says(said, each.belongs_to));
    CHECK(objection("quantize{" + std::string(each.read) + "}") == "");
  }
}

TEST_CASE("a type and symmetric that contradict each other are refused") {
  CHECK(says(objection("quantize{type=uint8,symmetric=true}"), "type=uint8 is always with a zero point"));
  CHECK(says(objection("quantize{type=int8,symmetric=false}"), "type=int8 is always symmetric"));
  CHECK(says(objection("quantize{scheme=weights,type=float8e5m2,symmetric=false}"), "always symmetric"));
  CHECK(objection("quantize{type=uint8,symmetric=false}") == "");
  CHECK(objection("quantize_weights{type=int8,symmetric=false}") == "");
}

TEST_CASE("widths and types that scheme=static has not are refused") {
  CHECK(says(objection("quantize{type=int4,bits=8}"), "type int4 has 4 bits, found 8"));
  CHECK(says(objection("quantize{type=float4e2m1}"), "found float4e2m1"));
  CHECK(says(objection("quantize{form=qoperator,overrides='op:Conv=16'}"), "found 16 bits for 'op:Conv'"));
}

TEST_CASE("widths and blocks that a form or type has not are refused before any work") {
  for (const auto& [options, reason] :
       {std::pair{"form=contrib,bits=16", "form=contrib has weights of 2 to 8 bits, found 16"},
        {"form=contrib,overrides='op:Gemm=16'", "found 16"},
        {"form=contrib,block=24", "a power of two of at least 16, found 24"},
        {"form=contrib,block=8", "found 8"},
        {"form=codebook,bits=16", "form=codebook has indices of 2 to 8 bits, found 16"},
        {"type=float8e4m3fn,bits=3", "type float8e4m3fn has 8 bits, found 3"},
        {"type=float8e4m3fn,overrides='op:Gemm=4'", "found 4"},
        {"type=int4,bits=8", "type int4 has 4 bits, found 8"}})
    CHECK(says(objection("quantize{scheme=weights," + std::string(options) + "}"), reason));
  CHECK(objection("quantize{scheme=weights,type=int8,bits=5}") == "");
  CHECK(objection("quantize{scheme=weights,form=contrib,block=64,overrides='op:Gemm=float'}") == "");
}

TEST_CASE("what needs data or a limit says so before any work") {
  const auto needs = [](const std::string& step) {
    const Pipeline pipeline = Pipeline::parse(step);
    return pipeline.steps[0].pass->needs(pipeline.steps[0].options);
  };
  CHECK(needs("quantize") == Needs::calibration);
  CHECK(needs("quantize{scheme=weights}") == Needs::optional_calibration);
  CHECK(needs("quantize{scheme=weights,method=gptq}") == Needs::calibration);
  CHECK(needs("quantize_weights{method=adaround}") == Needs::calibration);
  CHECK(needs("quantize{scheme=dynamic,bias_correction=empirical}") == Needs::calibration);
  CHECK(needs("quantize{scheme=dynamic,bias_correction=analytic}") == Needs::optional_calibration);
  CHECK(says(objection("quantize{bits=auto}"), "expected budget=4.5bpw, max_drop=0.5%"));
  CHECK(objection("quantize_weights{bits=auto,budget=5bpw}") == "");
}

TEST_CASE("max_drop counts percentage points, with and without the sign") {
  const auto drop = [](const std::string& text) {
    const Pipeline pipeline = Pipeline::parse("quantize{bits=auto,max_drop=" + text + "}");
    return QuantizeRequest::from(pipeline.steps[0].options).max_drop;
  };
  CHECK(drop("0.5").value() == doctest::Approx(0.005));
  CHECK(drop("0.5%").value() == doctest::Approx(0.005));
  CHECK(drop("0").value() == 0);
  CHECK_THROWS_WITH_AS(drop("101"), doctest::Contains("from 0 to 100"), Error);
  CHECK_THROWS_WITH_AS(drop("-1"), doctest::Contains("found '-1'"), Error);
}

TEST_CASE("a value with a '=' asks for quotes") {
  CHECK_THROWS_WITH_AS(Pipeline::parse("quantize{overrides=conv1=4}"), doctest::Contains("overrides='...'"), Error);
  CHECK(says(objection("quantize{overrides='conv1'}"), "overrides='conv1=4;head*=float'"));
  CHECK(objection("quantize{overrides='conv1=4;head*=float'}") == "");
}

TEST_CASE("the short form has the options of quantize, with the same defaults") {
  for (const OptionSpec& own : quantize_weights_options) {
    CAPTURE(own.name);
    const auto same = std::ranges::find(quantize_options, own.name, &OptionSpec::name);
    REQUIRE(same != std::end(quantize_options));
    CHECK(own.help == same->help);
    CHECK(own.default_value == same->default_value);
  }
  CHECK(passes().find("quantize_weights").info().options.size() == std::size(weight_option_names));
}

}  // namespace
}  // namespace onnxpress
