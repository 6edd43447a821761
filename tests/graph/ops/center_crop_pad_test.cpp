#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("CenterCropPad crops and pads around the middle") {
  const auto row = [](const std::string& size, const std::string& expected) {
    check_y("initializer x: int32[5] = {1,2,3,4,5}\ninitializer s: int64[1] = {" + size +
                "}\ny = CenterCropPad(x, s)\n",
            expected, 18);
  };
  row("5", "int32[5]{1,2,3,4,5}");
  row("3", "int32[3]{2,3,4}");
  row("2", "int32[2]{2,3}");  // an odd number: more goes at the end
  row("4", "int32[4]{1,2,3,4}");
  row("8", "int32[8]{0,1,2,3,4,5,0,0}");
  row("0", "int32[0]{}");
  check_y(R"(initializer x: float32[2,3] = {1,2,3,4,5,6}
initializer s: int32[2] = {1,4}
y = CenterCropPad(x, s) {axes=[-1,0]}
)",
          "float32[4,1]{0,2,5,0}", 18);
  check_y(R"(initializer x: string[1] = {"a"}
initializer s: int64[1] = {3}
y = CenterCropPad(x, s)
)",
          "string[3]{\"\",\"a\",\"\"}", 18);
  for (const char* type : {"float16", "bfloat16", "float64", "int8", "uint64", "bool"})
    check_y(fmt::format("initializer x: {}[1] = {{1}}\ninitializer s: int64[1] = {{3}}\n"
                        "y = CenterCropPad(x, s)\n",
                        type),
            fmt::format("{}[3]{{0,1,0}}", type), 18);
}

TEST_CASE("CenterCropPad's type, and what it refuses") {
  const auto inferred = [](const std::string& body) {
    const auto model = parse_model("model ir=10 opset=18\ninput x: float32[n,3,h,w]\n" + body +
                                   "output y: float32\n");
    TypeInference inference(*model);
    inference.run();
    return to_string(inference.type(model->graph.find("y")));
  };
  CHECK(inferred("initializer s: int64[1] = {7}\ny = CenterCropPad(x, s) {axes=[2]}\n") ==
        "float32[n,3,7,w]");
  CHECK(inferred("input s: int64[2]\ny = CenterCropPad(x, s) {axes=[2,3]}\n") ==
        "float32[n,3,?,?]");
  const auto refused = [](const std::string& size, const std::string& attributes = "") {
    CAPTURE(size);
    CHECK_THROWS_AS(Computed("initializer x: float32[2,3] = random(1)\ninitializer s: int64" +
                                 size + "\ny = CenterCropPad(x, s) {" + attributes + "}\n",
                             18),
                    Error);
  };
  refused("[1] = {2}");
  refused("[2] = {2,-1}");
  refused("[1] = {2}", "axes=[2]");
  refused("[2] = {2,2}", "axes=[0,-2]");
  refused("[2] = {4611686018427387904,4611686018427387904}");
}

}  // namespace
}  // namespace onnxpress
