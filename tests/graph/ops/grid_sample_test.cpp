// GridSample and AffineGrid on values worked out by hand.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

// Samples of {1,2;3,4} at (x, y) pairs, with corners aligned: -1 and 1 are cells.
void check_samples(const std::string& grid, std::size_t count, const std::string& attributes,
                   const std::string& expected) {
  check_y(fmt::format(R"(initializer x: float32[1,1,2,2] = {{1,2,3,4}}
initializer g: float32[1,1,{},2] = {{{}}}
y = GridSample(x, g) {{align_corners=1{}}}
)",
                      count, grid, attributes),
          fmt::format("float32[1,1,1,{}]{{{}}}", count, expected), 20);
}

TEST_CASE("GridSample interpolates between cells") {
  check_samples("-1,-1, 1,-1, -1,1, 0,0, 0.5,-1", 5, "", "1,2,3,2.5,1.75");
  check_samples("-1,-1, 0.5,-1, -0.5,0.5", 3, ", mode=\"nearest\"", "1,2,3");
  // Halfway between two cells the even one is taken: x = 0.5 and 1.5 of {1,2,3}.
  check_y(R"(initializer x: float32[1,1,3] = {1,2,3}
initializer g: float32[1,2,1] = {-0.5,0.5}
y = GridSample(x, g) {align_corners=1, mode="nearest"}
)",
          "float32[1,1,2]{1,3}", 20);
  // Edges instead of centers at -1 and 1: x = ((g + 1) * 2 - 1) / 2.
  check_y(R"(initializer x: float32[1,1,1,2] = {1,2}
initializer g: float32[1,1,3,2] = {-0.5,0, 0,0, 0.5,0}
y = GridSample(x, g)
)",
          "float32[1,1,1,3]{1,1.5,2}", 16);
  // Cubic weights of a = -0.75 at 0.5 are -3/32, 19/32, 19/32, -3/32.
  check_y(R"(initializer x: float32[1,1,1,4] = {1,2,4,8}
initializer g: float32[1,1,1,2] = {0,0}
y = GridSample(x, g) {align_corners=1, mode="bicubic"}
)",
          "float32[1,1,1,1]{2.71875}", 16);
}

TEST_CASE("GridSample pads") {
  // Cell coordinates 2 (one out) and -1.5.
  check_samples("3,-1, -4,-1", 2, "", "0,0");
  check_samples("2,-1", 1, "", "1");  // halfway to the zeros
  check_samples("3,-1, -4,1", 2, ", padding_mode=\"border\"", "2,3");
  check_samples("2,-1, 3,-1, -4,-1", 3, ", padding_mode=\"reflection\"", "1.5,1,1.5");
  check_samples("nan,0, inf,-1, -inf,1, 1e30,-1", 4, ", padding_mode=\"border\"", "2,2,3,2");
  check_samples("nan,0, inf,-1, -1e30,1", 3, "", "0,0,0");
  // What lies outside has no influence, not even through 0 * inf.
  check_y(R"(initializer x: float32[1,1,1,2] = {inf,1}
initializer g: float32[1,1,2,2] = {1,0, 9,0}
y = GridSample(x, g) {align_corners=1, mode="nearest"}
)",
          "float32[1,1,1,2]{1,0}", 20);
}

TEST_CASE("GridSample of volumes, batches and other types") {
  // The middle of a cube is the mean of its corners; coordinates go innermost first.
  check_y(R"(initializer x: float32[1,2,2,2,2] = {0,1,2,3,4,5,6,7,10,10,10,10,20,20,20,20}
initializer g: float32[1,1,1,2,3] = {0,0,0, -1,0,1}
y = GridSample(x, g) {align_corners=1}
)",
          "float32[1,2,1,1,2]{3.5,5,15,20}", 20);
  check_y(R"(initializer x: float64[2,1,1,2] = {1,2,10,20}
initializer g: float64[2,1,1,2] = {1,0,-1,0}
y = GridSample(x, g) {align_corners=1}
)",
          "float64[2,1,1,1]{2,10}", 16);
  check_y(R"(initializer x: int32[1,1,1,2] = {1,4}
initializer g: float32[1,1,1,2] = {0,0}
y = GridSample(x, g)
)",
          "int32[1,1,1,1]{2}", 16);
  check_y(R"(initializer x: float16[1,1,1,2] = {1,4}
initializer g: float16[1,1,1,2] = {0,0}
y = GridSample(x, g)
)",
          "float16[1,1,1,1]{2.5}", 16);
  check_y(R"(initializer x: string[1,1,1,2] = {"a","b"}
initializer g: float32[1,1,2,2] = {0.5,0, 5,0}
y = GridSample(x, g) {mode="nearest"}
)",
          "string[1,1,1,2]{\"b\",\"\"}", 16);
}

TEST_CASE("AffineGrid") {
  check_y(R"(initializer t: float32[1,2,3] = {1,0,0,0,1,0}
initializer s: int64[4] = {1,5,2,3}
y = AffineGrid(t, s) {align_corners=1}
)",
          "float32[1,2,3,2]{-1,-1,0,-1,1,-1,-1,1,0,1,1,1}", 20);
  // Centers of two cells at -0.5 and 0.5; x' = 2y + 1, y' = x.
  check_y(R"(initializer t: float32[1,2,3] = {0,2,1,1,0,0}
initializer s: int64[4] = {1,1,1,2}
y = AffineGrid(t, s)
)",
          "float32[1,1,2,2]{1,-0.5,1,0.5}", 20);
  check_y(R"(initializer t: float32[1,3,4] = {1,0,0,0,0,1,0,0,0,0,1,3}
initializer s: int64[5] = {1,1,1,1,1}
y = AffineGrid(t, s) {align_corners=1}
)",
          "float32[1,1,1,1,3]{0,0,3}", 20);
  const auto model = parse_model(R"(model ir=10 opset=20
input t: float32[n,2,3]
initializer s: int64[4] = {7,1,4,5}
y = AffineGrid(t, s)
output y: float32
)");
  TypeInference inference(*model);
  inference.run();
  CHECK(to_string(inference.type(model->graph.find("y"))) == "float32[7,4,5,2]");
}

TEST_CASE("GridSample and AffineGrid refuse what makes no sense") {
  const auto refused = [](const std::string& x, const std::string& g, const std::string& attributes,
                          std::int64_t opset = 20) {
    CAPTURE(x);
    CHECK_THROWS_AS(
        Computed("initializer x: float32[" + x + "] = random(1)\ninitializer g: " + "float32[" + g +
                     "] = random(2)\ny = GridSample(x, g) {" + attributes + "}\n",
                 opset),
        Error);
  };
  refused("1,1,2,2", "2,1,1,2", "");
  refused("1,1,2,2", "1,1,1,3", "");
  refused("1,1,2,2", "1,1,2", "");
  refused("1,1", "1,1", "");
  refused("1,1,0,2", "1,1,1,2", "");
  refused("1,1,2,2", "1,1,1,2", "mode=\"bilinear\"");
  refused("1,1,2,2", "1,1,1,2", "mode=\"linear\"", 16);
  refused("1,1,2,2", "1,1,1,2", "padding_mode=\"wrap\"");
  const auto affine = [](const std::string& theta, const std::string& size) {
    CAPTURE(size);
    CHECK_THROWS_AS(Computed("initializer t: float32[" + theta + "] = random(1)\ninitializer s: " +
                                 "int64" + size + "\ny = AffineGrid(t, s)\n",
                             20),
                    Error);
  };
  affine("1,2,3", "[3] = {1,1,2}");
  affine("1,2,3", "[4] = {2,1,2,2}");
  affine("1,2,3", "[4] = {1,1,-2,2}");
  affine("1,2,3", "[5] = {1,1,2,2,2}");
  affine("1,2,3", "[4] = {1,1,4611686018427387904,2}");
}

}  // namespace
}  // namespace onnxpress
