// The short form of quantize{scheme=weights}.
#include <map>

#include "passes/core/registry.h"
#include "passes/quantize/options.h"
#include "passes/quantize/quantize_pass.h"

namespace onnxpress {
namespace {

class QuantizeWeights : public QuantizePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "quantize_weights",
      .summary = "weights as 2- to 16-bit integers or small floats: smaller, not faster",
      .options = quantize_weights_options,
      .effect = Effect::lossy,
      .needs = Needs::optional_calibration,
      .min_opset = 10};

  const PassInfo& info() const override { return pass_info; }

 protected:
  QuantizeRequest request(const Options& given) const override {
    std::map<std::string, std::string> all{{"scheme", "weights"}};
    for (const OptionSpec& option : quantize_weights_options)
      if (given.given(option.name)) all[std::string(option.name)] = given.given_text(option.name);
    QuantizeRequest request = QuantizeRequest::from(Options(pass_info.name, quantize_options, all));
    request.pass = pass_info.name;
    return request;
  }
};

}  // namespace

PASS(quantize_weights) { registry.add(std::make_unique<QuantizeWeights>()); }

}  // namespace onnxpress
