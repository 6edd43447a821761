// What declared effects allow.
#include <doctest/doctest.h>

#include "graph/ir/parse.h"
#include "passes/core/probe.h"

namespace onnxpress {
namespace {

// One output with these values before and after.
struct Change {
  std::unique_ptr<Model> model =
      parse_model("model ir=8 opset=17\ninput x: float32[3]\ny = Relu(x)\noutput y: float32[3]\n");
  ProbeOutputs before, after;

  Change(const std::vector<float>& from, const std::vector<float>& to)
      : before{{Tensor::of<float>({3}, from)}}, after{{Tensor::of<float>({3}, to)}} {}

  bool breaks(Effect effect, const std::vector<OutputError>& own_rounding = {}) const {
    const auto errors = measure_errors(*model, before, after);
    return broken_effect(effect, 0, before, after, errors, own_rounding).has_value();
  }
};

TEST_CASE("exact allows nothing, rounding 1e-5 of the range") {
  const std::vector<float> values{0, 50, 100};
  CHECK_FALSE(Change(values, values).breaks(Effect::exact));
  CHECK(Change(values, {0, 50.00001f, 100}).breaks(Effect::exact));
  CHECK_FALSE(Change(values, {0, 50.0009f, 100}).breaks(Effect::rounding));
  CHECK(Change(values, {0, 50.002f, 100}).breaks(Effect::rounding));
  CHECK_FALSE(Change(values, {0, 70, 100}).breaks(Effect::lossy));
}

TEST_CASE("rounding allows twice what the order of summation makes of the model itself") {
  const std::vector<float> values{0, 50, 100};
  const Change reordered(values, {0, 50.01f, 100});
  const auto own = measure_errors(*reordered.model, reordered.before, reordered.after);
  CHECK_FALSE(Change(values, {0, 50.015f, 100}).breaks(Effect::rounding, own));
  CHECK(Change(values, {0, 50.03f, 100}).breaks(Effect::rounding, own));
  CHECK(Change(values, {0, 50.015f, 100}).breaks(Effect::exact, own));
}

}  // namespace
}  // namespace onnxpress
