#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("DeformConv without offsets is Conv") {
  struct Case {
    const char *x, *w, *offset;
    const char* attributes;
  };
  const Case cases[] = {
      {"2,4,6,5", "6,4,3,2", "2,12,4,4", ""},
      {"1,4,7,7", "6,2,3,3", "1,36,4,4", "group=2, offset_group=2, strides=[2,2], pads=[1,1,1,1]"},
      {"1,2,9", "3,2,3", "1,3,5", "dilations=[2]"},
      {"1,2,3,4,3", "2,2,2,2,2", "1,24,2,3,2", ""},
  };
  for (const Case& c : cases) {
    CAPTURE(c.x);
    std::string attributes = c.attributes;
    std::string conv = attributes;
    if (const auto at = conv.find("offset_group=2, "); at != std::string::npos) conv.erase(at, 16);
    const std::string given = fmt::format(R"(initializer x: float32[{}] = random(1)
initializer w: float32[{}] = random(2)
initializer b: float32[{}] = random(3)
initializer o: float32[{}] = zeros
)",
                                          c.x, c.w, c.w[0], c.offset);
    const Computed computed(given + "y = DeformConv(x, w, o, b) {" + attributes + "}\n" +
                                "z = Conv(x, w, b) {" + conv + "}\n",
                            19);
    check_close(computed["y"], computed["z"], 1e-5);
  }
}

TEST_CASE("DeformConv moves and weights its taps") {
  const std::string x = "initializer x: float32[1,1,3,3] = {0,1,2,3,4,5,6,7,8}\n";
  const std::string w = "initializer w: float32[1,1,1,1] = {2}\n";
  // One tap at (y + dy, x + dx), where 3y + x is read.
  const auto moved = [&](const std::string& dy, const std::string& dx, const std::string& mask,
                         const std::string& expected) {
    check_y(x + w + "initializer o: float32[1,2,3,3] = {" + dy + "," + dx +
                "}\ninitializer m: float32[1,1,3,3] = {" + mask +
                "}\ny = DeformConv(x, w, o, _, m)\n",
            expected, 19);
  };
  const std::string none = "0,0,0,0,0,0,0,0,0";
  const std::string ones = "1,1,1,1,1,1,1,1,1";
  moved("1,1,1,0,0,0,-1,-1,-1", none, ones, "float32[1,1,3,3]{6,8,10,6,8,10,6,8,10}");
  moved("0.5,0,0,0,0,0,0,0,0", "0.5,0,0,0,0,0,0,0,0", "0.5,0,0,0,0,0,0,0,1",
        "float32[1,1,3,3]{2,0,0,0,0,0,0,0,16}");
  // Half outside, then wholly; not a number is outside too.
  moved("0,0,0,0,0,0,0,0,0.5", none, ones, "float32[1,1,3,3]{0,2,4,6,8,10,12,14,8}");
  moved("nan,inf,1e30,-1e30,-1,0,0,0,1", none, ones, "float32[1,1,3,3]{0,0,0,0,2,10,12,14,0}");
}

TEST_CASE("DeformConv of half precision, and its type") {
  check_y(R"(initializer x: float16[1,1,2,2] = {1,2,3,4}
initializer w: float16[1,1,2,2] = {1,1,1,1}
initializer o: float16[1,8,1,1] = zeros
initializer b: float16[1] = {0.5}
y = DeformConv(x, w, o, b)
)",
          "float16[1,1,1,1]{10.5}", 22);
  const auto model = parse_model(R"(model ir=10 opset=19
input x: float32[n,4,h,8]
input w: float32[6,4,3,3]
input o: float32[n,18,k,6]
y = DeformConv(x, w, o)
output y: float32
)");
  TypeInference inference(*model);
  inference.run();
  CHECK(to_string(inference.type(model->graph.find("y"))) == "float32[n,6,k,6]");
}

TEST_CASE("DeformConv refuses what makes no sense") {
  const auto refused = [](const std::string& x, const std::string& w, const std::string& o,
                          const std::string& attributes, const std::string& mask = "") {
    CAPTURE(o);
    const std::string given = fmt::format(
        "initializer x: float32[{}] = random(1)\ninitializer w: float32[{}] = "
        "random(2)\ninitializer o: float32[{}] = zeros\n{}",
        x, w, o, mask.empty() ? "" : "initializer m: float32[" + mask + "] = ones\n");
    CHECK_THROWS_AS(Computed(given + "y = DeformConv(x, w, o" + (mask.empty() ? "" : ", _, m") +
                                 ") {" + attributes + "}\n",
                             19),
                    Error);
  };
  refused("1,2,4,4", "3,2,2,2", "1,8,4,4", "");
  refused("1,2,4,4", "3,2,2,2", "1,4,3,3", "");
  refused("1,2,4,4", "3,1,2,2", "1,8,3,3", "");
  refused("1,2,4,4", "3,2,2,2", "1,8,3,3", "group=0");
  refused("1,2,4,4", "3,2,2,2", "1,8,3,3", "offset_group=3");
  refused("1,2,4,4", "3,2,2,2", "1,8,3,3", "offset_group=0");
  refused("1,2,4,4", "3,2,2,2", "1,8,3,3", "offset_group=4611686018427387904");
  refused("1,2,4,4", "3,2,5,5", "1,8,3,3", "");
  refused("1,2,4,4", "3,2,2,2", "1,8,3,3", "", "1,8,3,3");
}

}  // namespace
}  // namespace onnxpress
