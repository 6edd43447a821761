// What `quantize` and its short form have in common.
#pragma once

#include "passes/core/prepared_pass.h"
#include "passes/quantize/request.h"

namespace onnxpress {

// A pass that does what a QuantizeRequest asks; how the request follows from the options is left open.
class QuantizePass : public Pass, public PreparedPass {
 public:
  Needs needs(const Options& given) const override;
  void check(const Options& given) const override;
  void check_model(const Model& model, const Options& given) const override;
  std::int64_t required_opset(const Model& model, const Options& given) const override;
  std::vector<std::string> preparations(const Model& model, const Options& given) const override;
  Outcome run(Model& model, PassContext& context) const override;

 protected:
  // Throws Error for options that contradict each other.
  virtual QuantizeRequest request(const Options& given) const = 0;
  // What run() does once widths are known.
  virtual Outcome convert(Model& model, PassContext& context, QuantizeRequest asked) const;

 private:
  Outcome run_on(Model& model, PassContext& context, QuantizeRequest asked) const;
  Outcome run_with_functions(Model& model, PassContext& context, const QuantizeRequest& asked) const;
};

}  // namespace onnxpress
