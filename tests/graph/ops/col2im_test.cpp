#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("Col2Im adds blocks where they lie") {
  // Blocks of 2 at 0, 1 and 2 of an image of 4: columns are taps, then blocks.
  const std::string line = "initializer i: int64[1] = {4}\ninitializer b: int64[1] = {2}\n";
  check_y("initializer x: float32[1,2,3] = {1,2,3,10,20,30}\n" + line + "y = Col2Im(x, i, b)\n",
          "float32[1,1,4]{1,12,23,30}", 18);
  check_y("initializer x: float32[1,2,3] = {1,2,3,10,20,30}\n" + line +
              "y = Col2Im(x, i, b) {strides=[2], pads=[1,1]}\n",
          "float32[1,1,4]{10,2,20,3}", 18);
  check_y(
      "initializer x: int8[1,2,2] = {1,2,10,20}\n" + line + "y = Col2Im(x, i, b) {dilations=[2]}\n",
      "int8[1,1,4]{1,2,10,20}", 18);
  check_y(R"(initializer x: float64[2,4,1] = {1,2,3,4,5,6,7,8}
initializer i: int64[2] = {2,2}
initializer b: int64[2] = {2,2}
y = Col2Im(x, i, b)
)",
          "float64[2,1,2,2]{1,2,3,4,5,6,7,8}", 18);
}

TEST_CASE("Col2Im counts how often windows cover a cell") {
  // Of ones: the transposed convolution of ones with ones.
  const Computed computed(R"(initializer x: float32[1,12,48] = ones
initializer i: int64[3] = {4,3,5}
initializer b: int64[3] = {2,3,2}
y = Col2Im(x, i, b) {pads=[0,1,0,1,1,0]}
initializer o: float32[1,1,4,3,4] = ones
initializer w: float32[1,1,2,3,2] = ones
z = ConvTranspose(o, w) {pads=[0,1,0,1,1,0]}
)",
                          18);
  CHECK(to_string(computed["z"].dims()) == "[1,1,4,3,5]");
  check_close(computed["y"], computed["z"]);
}

TEST_CASE("Col2Im's type, and what it refuses") {
  const auto model = parse_model(R"(model ir=10 opset=18
input x: float32[n,12,l]
initializer i: int64[2] = {5,6}
initializer b: int64[2] = {2,3}
y = Col2Im(x, i, b)
output y: float32
)");
  TypeInference inference(*model);
  inference.run();
  CHECK(to_string(inference.type(model->graph.find("y"))) == "float32[n,2,5,6]");
  const auto refused = [](const std::string& x, const std::string& image, const std::string& block,
                          const std::string& attributes = "") {
    CAPTURE(x);
    CHECK_THROWS_AS(Computed("initializer x: float32[" + x + "] = random(1)\ninitializer i: int64" +
                                 image + "\ninitializer b: int64" + block +
                                 "\ny = Col2Im(x, i, b) {" + attributes + "}\n",
                             18),
                    Error);
  };
  refused("1,3,3", "[1] = {4}", "[1] = {2}");
  refused("1,2,4", "[1] = {4}", "[1] = {2}");
  refused("1,2", "[1] = {4}", "[1] = {2}");
  refused("1,2,3", "[2] = {4,1}", "[1] = {2}");
  refused("1,2,3", "[1] = {-4}", "[1] = {2}");
  refused("1,2,3", "[1] = {4}", "[1] = {0}");
  refused("1,2,3", "[1] = {1}", "[1] = {2}");
  refused("1,2,3", "[1] = {4}", "[1] = {2}", "strides=[0]");
  refused("1,2,3", "[1] = {4}", "[1] = {2}", "pads=[-1,1]");
  refused("1,0,3", "[3] = {1048576,1048576,1048576}", "[3] = {1048576,1048576,1048576}");
  CHECK_THROWS_AS(Computed(R"(initializer x: bool[1,2,3] = {1,1,1,1,1,1}
initializer i: int64[1] = {4}
initializer b: int64[1] = {2}
y = Col2Im(x, i, b)
)",
                           18),
                  Error);
}

}  // namespace
}  // namespace onnxpress
