// Resize and Upsample against the specification's formulas written out.
#include <array>
#include <functional>

#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

const std::string row = "initializer x: float32[1,1,1,4] = {1,2,3,4}\n";

// y of Resize over the last axis of {1,2,3,4}.
void check_row(const std::string& attributes, const std::string& scale, const std::string& expected,
               std::int64_t opset = 19) {
  check_y(row + "initializer s: float32[4] = {1,1,1," + scale + "}\ny = Resize(x, _, s) {" +
              attributes + "}\n",
          expected, opset);
}

TEST_CASE("Resize takes the nearest element of every coordinate") {
  // x_original = (i + 0.5) / 2 - 0.5 = -0.25, 0.25, 0.75, ...
  check_row("", "2", "float32[1,1,1,8]{1,1,2,2,3,3,4,4}");
  // i / 2 = 0, 0.5, 1, 1.5, ...
  const std::string asymmetric = "coordinate_transformation_mode=\"asymmetric\"";
  check_row(asymmetric, "2", "float32[1,1,1,8]{1,1,2,2,3,3,4,4}");
  check_row(asymmetric + ", nearest_mode=\"round_prefer_ceil\"", "2",
            "float32[1,1,1,8]{1,2,2,3,3,4,4,4}");
  check_row(asymmetric + ", nearest_mode=\"ceil\"", "2", "float32[1,1,1,8]{1,2,2,3,3,4,4,4}");
  check_row(asymmetric + ", nearest_mode=\"floor\"", "2", "float32[1,1,1,8]{1,1,2,2,3,3,4,4}");
  // (i + 0.5) * 2 = 1, 3
  check_row("coordinate_transformation_mode=\"tf_half_pixel_for_nn\", nearest_mode=\"floor\"",
            "0.5", "float32[1,1,1,2]{2,4}", 11);
  // (i + 0.5) * 4 - 0.5 = 1.5; one output element of pytorch_half_pixel is read at 0.
  check_row("", "0.25", "float32[1,1,1,1]{2}");
  check_row("coordinate_transformation_mode=\"pytorch_half_pixel\"", "0.25", "float32[1,1,1,1]{1}");
}

TEST_CASE("Resize interpolates linearly") {
  check_row("mode=\"linear\"", "2", "float32[1,1,1,8]{1,1.25,1.75,2.25,2.75,3.25,3.75,4}");
  check_row("mode=\"linear\", coordinate_transformation_mode=\"asymmetric\"", "2",
            "float32[1,1,1,8]{1,1.5,2,2.5,3,3.5,4,4}");
  check_row("mode=\"linear\", coordinate_transformation_mode=\"align_corners\"", "1.75",
            "float32[1,1,1,7]{1,1.5,2,2.5,3,3.5,4}");
  // 6 of 6.5 elements around the middle: 1 - 6/6.5 + (i + 0.5) / 3.25 - 0.5.
  check_y(R"(initializer x: float32[2] = {0,1}
initializer s: float32[1] = {3.25}
y = Resize(x, _, s) {mode="linear", coordinate_transformation_mode="half_pixel_symmetric"}
)",
          "float32[6]{0,0.0384615,0.3461538,0.6538462,0.9615385,1}", 19);
  // A triangle of half-width 2 around 0.5 and 2.5, cells beyond the border repeating it.
  check_row("mode=\"linear\", antialias=1", "0.5", "float32[1,1,1,2]{1.625,3.375}");
  // The same without those cells: (0.75*1 + 0.75*2 + 0.25*3) / 1.75.
  check_row("mode=\"linear\", antialias=1, exclude_outside=1", "0.5",
            "float32[1,1,1,2]{1.7142857,3.2857143}");
  check_row("mode=\"linear\", antialias=1", "2",
            "float32[1,1,1,8]{1,1.25,1.75,2.25,2.75,3.25,3.75,4}");
}

TEST_CASE("Resize interpolates with cubic convolution") {
  // Weights of a = -0.75 at 0.5: -3/32, 19/32, 19/32, -3/32.
  check_row("mode=\"cubic\", coordinate_transformation_mode=\"asymmetric\"", "2",
            "float32[1,1,1,8]{1,1.40625,2,2.5,3,3.59375,4,4.09375}");
  // Of a = -0.5: -1/16, 9/16, 9/16, -1/16; 24/17, 61/17, 33/8.
  check_row(
      "mode=\"cubic\", cubic_coeff_a=-0.5, exclude_outside=1, "
      "coordinate_transformation_mode=\"asymmetric\"",
      "2", "float32[1,1,1,8]{1,1.4117647,2,2.5,3,3.5882353,4,4.125}");
}

TEST_CASE("Resize crops") {
  // From 0.25 * 4 to 1.25 * 4: 1, 2, 3, 4, 5 of 0..4, then outside.
  check_y(R"(initializer x: float32[5] = {10,11,12,13,14}
initializer roi: float32[2] = {0.25,1.25}
initializer sizes: int64[1] = {5}
y = Resize(x, roi, _, sizes) {mode="linear", coordinate_transformation_mode="tf_crop_and_resize",
  extrapolation_value=-1.0}
)",
          "float32[5]{11,12,13,14,-1}", 13);
  check_y(R"(initializer x: uint8[2,5] = {10,11,12,13,14,20,21,22,23,24}
initializer roi: float64[2] = {0.25,1.25}
initializer sizes: int64[1] = {3}
y = Resize(x, roi, _, sizes) {axes=[-1], coordinate_transformation_mode="tf_crop_and_resize",
  extrapolation_value=7.0}
)",
          "uint8[2,3]{11,13,7,21,23,7}", 18);
  check_y(R"(initializer x: float32[2,3] = {1,2,3,4,5,6}
initializer roi: float32[4] = {0.5,0.5,0.5,0.5}
initializer sizes: int64[2] = {1,1}
y = Resize(x, roi, _, sizes) {mode="linear", coordinate_transformation_mode="tf_crop_and_resize"}
)",
          "float32[1,1]{3.5}", 13);
}

TEST_CASE("Resize keeps the aspect ratio") {
  const auto sized = [](const char* policy, const char* shape) {
    const Computed computed(fmt::format(R"(initializer x: float32[2,4,6] = random(1)
initializer sizes: int64[2] = {{7,9}}
y = Resize(x, _, _, sizes) {{axes=[2,1], keep_aspect_ratio_policy="{}"}}
)",
                                        policy),
                            18);
    CHECK(to_string(computed["y"].dims()) == shape);
  };
  sized("stretch", "[2,9,7]");
  sized("not_larger", "[2,5,7]");    // 7/6: 4.67 and 7
  sized("not_smaller", "[2,9,14]");  // 9/4: 9 and 13.5
}

TEST_CASE("Resize of every element type") {
  const std::string scale = "initializer s: float32[1] = {2}\n";
  for (const char* type : {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
                           "float16", "bfloat16", "float64"}) {
    CAPTURE(type);
    const std::string x = fmt::format("initializer x: {}[2] = {{3,9}}\n", type) + scale;
    check_y(x + "y = Resize(x, _, s)\n", fmt::format("{}[4]{{3,3,9,9}}", type), 19);
    const bool whole = std::string(type).find("int") != std::string::npos;
    check_y(x + "y = Resize(x, _, s) {mode=\"linear\"}\n",
            std::string(type) + (whole ? "[4]{3,4,8,9}" : "[4]{3,4.5,7.5,9}"), 19);
  }
  check_y("initializer x: bool[2] = {1,0}\n" + scale + "y = Resize(x, _, s)\n", "bool[4]{1,1,0,0}");
  check_y("initializer x: string[2] = {\"a\",\"b\"}\n" + scale + "y = Resize(x, _, s)\n",
          "string[4]{\"a\",\"a\",\"b\",\"b\"}");
  // Overshoot of the cubic filter stays within the type.
  check_y(R"(initializer x: uint8[4] = {255,255,0,0}
initializer s: float32[1] = {2}
y = Resize(x, _, s) {mode="cubic", coordinate_transformation_mode="asymmetric"}
)",
          "uint8[8]{255,255,255,128,0,0,0,0}");
}

TEST_CASE("Upsample of every version and Resize before opset 11") {
  const std::string x = "initializer x: float32[1,1,1,2] = {1,3}\n";
  const std::string s = "initializer s: float32[4] = {1,1,2,2}\n";
  const std::string nearest = "float32[1,1,2,4]{1,1,3,3,1,1,3,3}";
  const std::string linear = "float32[1,1,2,4]{1,2,3,3,1,2,3,3}";
  check_y(x + "y = Upsample(x) {height_scale=2.0, width_scale=2.0}\n", nearest, 1);
  check_y(x + "y = Upsample(x) {height_scale=2.0, width_scale=2.0, mode=\"bilinear\"}\n", linear,
          1);
  check_y(x + "y = Upsample(x) {scales=[1.0,1.0,2.0,2.0]}\n", nearest, 7);
  check_y(x + s + "y = Upsample(x, s) {mode=\"linear\"}\n", linear, 9);
  check_y(x + s + "y = Resize(x, s) {mode=\"linear\"}\n", linear, 10);
  // Read at i / 0.6 = 0, 1.67: the element after it where an axis shrinks.
  check_y(row + "initializer s: float32[4] = {1,1,1,0.6}\ny = Resize(x, s)\n",
          "float32[1,1,1,2]{1,3}", 10);
}

// The separable definition element by element, in double.
double direct(const std::function<double(const std::vector<std::int64_t>&)>& x, const Dims& in,
              const Dims& out, const std::vector<std::int64_t>& at, bool cubic) {
  std::vector<std::vector<std::pair<std::int64_t, double>>> taps;
  for (std::size_t axis = 0; axis < in.size(); ++axis) {
    const double scale = static_cast<double>(out[axis]) / static_cast<double>(in[axis]);
    const double where = (static_cast<double>(at[axis]) + 0.5) / scale - 0.5;
    taps.emplace_back();
    for (std::int64_t i = -3; i < in[axis] + 3; ++i) {
      const double d = std::abs(static_cast<double>(i) - where);
      double weight = std::max(0.0, 1 - d);
      if (cubic && d <= 1) weight = 1.25 * d * d * d - 2.25 * d * d + 1;
      if (cubic && d > 1) weight = d < 2 ? -0.75 * (d * d * d - 5 * d * d + 8 * d - 4) : 0;
      if (weight != 0)
        taps.back().emplace_back(std::clamp<std::int64_t>(i, 0, in[axis] - 1), weight);
    }
  }
  std::vector<std::int64_t> index(in.size());
  const std::function<double(std::size_t)> sum = [&](std::size_t axis) -> double {
    if (axis == in.size()) return x(index);
    double total = 0;
    for (const auto& [i, weight] : taps[axis]) {
      index[axis] = i;
      total += weight * sum(axis + 1);
    }
    return total;
  };
  return sum(0);
}

TEST_CASE("Resize over any axes matches the definition") {
  struct Case {
    Dims in, out;
  };
  const Case cases[] = {
      {{2, 3, 5, 4}, {2, 3, 11, 7}},
      {{1, 2, 40, 9}, {1, 2, 100, 40}},
      {{2, 5, 4, 3}, {2, 9, 7, 3}},
      {{3, 4}, {7, 4}},
      {{3, 2, 4}, {4, 5, 6}},
      {{2, 3, 5, 4, 3}, {2, 3, 4, 9, 5}},
      {{2, 3, 4, 3, 3}, {3, 3, 7, 3, 5}},
      {{6, 1}, {3, 5}},
  };
  for (const Case& c : cases)
    for (const char* mode : {"linear", "cubic"}) {
      CAPTURE(to_string(c.in));
      const auto rank = static_cast<std::int64_t>(c.in.size());
      const std::string sizes = to_string(c.out);
      const Computed computed(
          fmt::format(R"(initializer x: float32{} = random(3)
initializer sizes: int64[{}] = {{{}}}
y = Resize(x, _, _, sizes) {{mode="{}"}}
)",
                      to_string(c.in), rank, sizes.substr(1, sizes.size() - 2), mode),
          19);
      const auto x = computed["x"].data<float>();
      const auto value = [&](const std::vector<std::int64_t>& index) -> double {
        std::int64_t offset = 0;
        for (std::size_t i = 0; i < index.size(); ++i) offset = offset * c.in[i] + index[i];
        return x[static_cast<std::size_t>(offset)];
      };
      std::vector<float> expected;
      for (std::int64_t i = 0; i < element_count(c.out); ++i) {
        std::vector<std::int64_t> at(c.out.size());
        std::int64_t rest = i;
        for (std::size_t k = at.size(); k-- > 0; rest /= c.out[k]) at[k] = rest % c.out[k];
        expected.push_back(
            static_cast<float>(direct(value, c.in, c.out, at, std::string_view(mode) == "cubic")));
      }
      check_close(computed["y"], Tensor::of<float>(c.out, expected), 2e-5);
    }
}

TEST_CASE("Resize keeps symbols where an axis stays") {
  const auto inferred = [](const std::string& body) {
    const auto model = parse_model("model ir=10 opset=19\ninput x: float32[n,3,h,8]\n" + body +
                                   "output y: float32\n");
    TypeInference inference(*model);
    inference.run();
    return to_string(inference.type(model->graph.find("y")));
  };
  CHECK(inferred("initializer s: float32[4] = {1,1,2,0.5}\ny = Resize(x, _, s)\n") ==
        "float32[n,3,?,4]");
  CHECK(inferred("initializer s: float32[1] = {1.3}\ny = Resize(x, _, s) {axes=[3]}\n") ==
        "float32[n,3,h,10]");
  CHECK(inferred("initializer s: int64[2] = {5,6}\ny = Resize(x, _, _, s) {axes=[2,3]}\n") ==
        "float32[n,3,5,6]");
  CHECK(inferred("input s: float32[4]\ny = Resize(x, _, s)\n") == "float32[?,?,?,?]");
  // Sizes of a shape computation.
  CHECK(inferred("s = Shape(x)\ny = Resize(x, _, _, s)\n") == "float32[n,3,h,8]");
}

TEST_CASE("Resize refuses what makes no sense") {
  const auto refused = [](const std::string& body, std::int64_t opset = 19) {
    CAPTURE(body);
    CHECK_THROWS_AS(Computed("initializer x: float32[2,3] = random(1)\n" + body, opset), Error);
  };
  const auto scaled = [&](const std::string& values, const std::string& attributes = "") {
    refused("initializer s: float32[2] = {" + values + "}\ny = Resize(x, _, s) {" + attributes +
            "}\n");
  };
  scaled("0,1");
  scaled("-1,1");
  scaled("nan,1");
  scaled("inf,1");
  scaled("1e30,1");
  scaled("1,2", "mode=\"area\"");
  scaled("1,2", "nearest_mode=\"up\"");
  scaled("1,2", "coordinate_transformation_mode=\"corner\"");
  scaled("1,2", "axes=[1]");
  scaled("1,2", "axes=[0,2]");
  scaled("1,2", "axes=[1,-1]");
  scaled("1,2", "coordinate_transformation_mode=\"tf_crop_and_resize\"");
  refused("initializer s: float32[3] = {1,1,1}\ny = Resize(x, _, s)\n");
  refused("y = Resize(x)\n");
  refused("initializer s: int64[2] = {-1,4}\ny = Resize(x, _, _, s)\n");
  refused(
      "initializer s: int64[2] = {4611686018427387904,4611686018427387904}\n"
      "y = Resize(x, _, _, s)\n");
  refused(R"(initializer s: float32[2] = {2,2}
initializer t: int64[2] = {4,6}
y = Resize(x, _, s, t)
)");
  refused(R"(initializer r: float32[4] = {0,0,inf,1}
initializer t: int64[2] = {4,6}
y = Resize(x, r, _, t) {coordinate_transformation_mode="tf_crop_and_resize"}
)");
  refused("initializer s: float32[2] = {0.5,1}\ny = Upsample(x, s)\n", 9);
  refused("y = Upsample(x) {height_scale=2.0}\n", 1);
  CHECK_THROWS_AS(Computed(R"(initializer x: float32[0,3] = {}
initializer t: int64[2] = {4,6}
y = Resize(x, _, _, t)
)"),
                  Error);
  CHECK_THROWS_AS(Computed(R"(initializer x: bool[2] = {0,1}
initializer s: float32[1] = {2}
y = Resize(x, _, s) {mode="linear"}
)"),
                  Error);
}

}  // namespace
}  // namespace onnxpress
