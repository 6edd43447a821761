#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

// Boxes 0 and 1 share 0.9 of 1.1, 2 lies apart, 3 is 2 with its corners swapped.
const std::string boxes =
    "initializer b: float32[1,4,4] = "
    "{0,0,1,1, 0,0.1,1,1.1, 0,10,1,11, 1,11,0,10}\n";

void check_chosen(const std::string& scores, const std::string& inputs, const std::string& call,
                  const std::string& expected, const std::string& attributes = "") {
  check_y(boxes + "initializer s: float32[1,1,4] = {" + scores + "}\n" + inputs +
              "y = NonMaxSuppression(b, s" + call + ") {" + attributes + "}\n",
          "int64" + expected, 11);
}

TEST_CASE("NonMaxSuppression takes the best boxes that overlap little") {
  const std::string limits = "initializer m: int64[1] = {9}\ninitializer t: float32[1] = {0.5}\n";
  check_chosen("0.9,0.8,0.7,0.6", limits, ", m, t", "[2,3]{0,0,0, 0,0,2}");
  check_chosen("0.6,0.8,0.7,0.9", limits, ", m, t", "[2,3]{0,0,3, 0,0,1}");
  // Of equal scores the first.
  check_chosen("0.5,0.5,0.5,0.5", limits, ", m, t", "[2,3]{0,0,0, 0,0,2}");
  check_chosen("0.9,nan,0.7,nan", limits, ", m, t", "[2,3]{0,0,0, 0,0,2}");
  // Scores must be above the threshold; scalars will do.
  check_chosen("0.9,0.8,0.7,0.6",
               "initializer m: int64[] = {9}\ninitializer t: float32[] = {0.5}\n"
               "initializer u: float32[] = {0.7}\n",
               ", m, t, u", "[1,3]{0,0,0}");
  // Any overlap at all excludes when no threshold is given; touching does not count.
  check_chosen("0.9,0.8,0.7,0.6", "initializer m: int64[1] = {9}\n", ", m", "[2,3]{0,0,0, 0,0,2}");
  check_chosen("0.9,0.8,0.7,0.6",
               "initializer m: int64[1] = {1}\ninitializer t: float32[1] = {0.9}\n", ", m, t",
               "[1,3]{0,0,0}");
  // No limit means none.
  check_chosen("0.9,0.8,0.7,0.6", "", "", "[0,3]{}");
}

TEST_CASE("NonMaxSuppression by batch and class, with centers") {
  check_y(R"(initializer b: float32[2,2,4] = {0,0,2,2, 0.1,0,2,2, 0,0,2,2, 9,9,2,2}
initializer s: float32[2,2,2] = {1,2, 2,1, 1,2, 2,1}
initializer m: int64[1] = {5}
initializer t: float32[1] = {0.5}
y = NonMaxSuppression(b, s, m, t) {center_point_box=1}
)",
          "int64[6,3]{0,0,1, 0,1,0, 1,0,1, 1,0,0, 1,1,0, 1,1,1}", 10);
}

TEST_CASE("NonMaxSuppression refuses what makes no sense") {
  const auto refused = [](const std::string& b, const std::string& s, const std::string& inputs,
                          const std::string& call) {
    CAPTURE(call);
    CHECK_THROWS_AS(
        Computed("initializer b: float32[" + b + "] = random(1)\ninitializer s: " + "float32[" + s +
                     "] = random(2)\n" + inputs + "y = NonMaxSuppression(b, s" + call + ")\n",
                 11),
        Error);
  };
  refused("1,4,4", "1,1,3", "", "");
  refused("1,4,3", "1,1,4", "", "");
  refused("2,4,4", "1,1,4", "", "");
  refused("4,4", "1,1,4", "", "");
  refused("1,4,4", "1,1,4", "initializer m: int64[2] = {1,2}\n", ", m");
  refused("1,4,4", "1,1,4", "initializer m: int64[1] = {1}\ninitializer t: float32[1] = {1.5}\n",
          ", m, t");
  refused("1,4,4", "1,1,4", "initializer m: int64[1] = {1}\ninitializer t: float32[1] = {nan}\n",
          ", m, t");
}

}  // namespace
}  // namespace onnxpress
