// com.microsoft's DynamicQuantizeLSTM against LSTM on the weights that its codes stand for.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

// x [5,2,6] in [-1,1]; hidden size 4, `directions`; scales per column or (`whole`) per direction.
std::string operands(int directions, bool whole, const std::string& type) {
  const std::string columns = whole ? "" : ",16";
  const std::string d = std::to_string(directions);
  const std::string low = type == "int8" ? "-127" : "0";
  return "initializer x: float32[5,2,6] = random(1)\n"
         "initializer w: " + type + "[" + d + ",6,16] = random(2," + low + ",127)\n"
         "initializer r: " + type + "[" + d + ",4,16] = random(3," + low + ",127)\n"
         "initializer b: float32[" + d + ",32] = random(4)\n"
         "initializer ws: float32[" + d + columns + "] = random(5,0.002,0.006)\n"
         "initializer rs: float32[" + d + columns + "] = random(6,0.002,0.006)\n"
         "initializer wz: " + type + "[" + d + columns + "] = random(7,0,60)\n"
         "initializer rz: " + type + "[" + d + columns + "] = random(8,0,60)\n";
}

// The weight in floats, as LSTM has it.
std::string floats(const std::string& name, int directions, bool whole) {
  const std::string d = std::to_string(directions);
  return "initializer " + name + "d: int64[3] = {" + d + ",1," + (whole ? "1" : "16") + "}\n" +
         name + "f = Cast(" + name + ") {to=1}\n" + name + "zf = Cast(" + name + "z) {to=1}\n" +
         name + "zb = Reshape(" + name + "zf, " + name + "d)\n" + name + "sb = Reshape(" + name + "s, " + name + "d)\n" +
         name + "c = Sub(" + name + "f, " + name + "zb)\n" + name + "m = Mul(" + name + "c, " + name + "sb)\n" +
         name + "t = Transpose(" + name + "m) {perm=[0,2,1]}\n";
}

TEST_CASE("DynamicQuantizeLSTM is LSTM up to the rounding of what is multiplied") {
  for (const int directions : {1, 2})
    for (const bool whole : {true, false})
      for (const char* type : {"int8", "uint8"}) {
        const std::string attributes = fmt::format("hidden_size=4, direction=\"{}\"", directions == 2 ? "bidirectional" : "reverse");
        const std::string text = operands(directions, whole, type) + floats("w", directions, whole) + floats("r", directions, whole) +
                                 "y, h, c = com.microsoft.DynamicQuantizeLSTM(x, w, r, b, _, _, _, _, ws, wz, rs, rz) {" + attributes +
                                 "}\nyf, hf, cf = LSTM(x, wt, rt, b) {" + attributes + "}\n";
        CAPTURE(text);
        const Computed computed(text, 17);
        for (const auto& [found, expected] : {std::pair("y", "yf"), std::pair("h", "hf"), std::pair("c", "cf")}) {
          const auto a = computed[found].to_floats(), e = computed[expected].to_floats();
          REQUIRE(computed[found].dims() == computed[expected].dims());
          double worst = 0;
          for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(e[i])));
          CHECK(worst <= 0.02);
          CHECK(worst > 0);
        }
      }
}

TEST_CASE("DynamicQuantizeLSTM refuses operands that do not fit") {
  const std::string good = operands(1, false, "int8");
  const auto fails = [&](const std::string& text, const std::string& inputs, const std::string& message) {
    try {
      const Computed computed(text + "y = com.microsoft.DynamicQuantizeLSTM(" + inputs + ") {hidden_size=4}\n", 17);
      FAIL_CHECK("no error; expected: " << message);
    } catch (const Error& error) {
      CHECK_MESSAGE(std::string(error.what()).find(message) != std::string::npos, error.what());
    }
  };
  fails(good + "initializer z: uint8[1,16] = zeros\n", "x, w, r, b, _, _, _, _, ws, z, rs, rz", "zero points of type int8");
  fails(good + "initializer s: float32[3] = ones\n", "x, w, r, b, _, _, _, _, s, wz, rs, rz", "expected scales");
  fails(good, "x, w, r, b, _, _, _, _, ws, wz", "");
}

}  // namespace
}  // namespace onnxpress
