#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

// Codes in [low, low + count).
std::string codes(const std::string& declaration, int length, int low, int count) {
  std::string text = fmt::format("initializer {} = {{", declaration);
  Random random(static_cast<std::uint64_t>(length));
  for (int i = 0; i < length; ++i)
    text += fmt::format("{}{}", i ? "," : "",
                        low + static_cast<int>(random.below(static_cast<std::uint64_t>(count))));
  return text + "}\n";
}

// `count` scales, or one for all.
std::string scales(int count, bool per_channel) {
  std::string text = fmt::format("initializer ws: float32[{}] = {{", per_channel ? count : 1);
  for (int i = 0; i < (per_channel ? count : 1); ++i)
    text += fmt::format("{}{:.4f}", i ? "," : "", 0.01 + 0.003 * i);
  return text + "}\n";
}

// What a node multiplies and how: activations of either sign, zero points, scales, bias.
struct Codes {
  bool is_signed, per_channel, has_bias, has_zero_points;
};

std::vector<Codes> kinds() {
  std::vector<Codes> result;
  for (int bits = 0; bits < 16; ++bits)
    result.push_back({(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0});
  return result;
}

// Activations, weights below what would saturate pairs of products in int16, scales, bias.
std::string operands(const Codes& kind, const char* x, int x_size, const std::string& w, int w_size,
                     int channels) {
  const char* const type = kind.is_signed ? "int8" : "uint8";
  const int low = kind.is_signed ? -128 : 0;
  const int zero = kind.has_zero_points ? 7 : 0;
  return codes(fmt::format("x: {}[{}]", type, x), x_size, low, 256) +
         codes(fmt::format("w: int8[{}]", w), w_size, -60, 121) +
         codes(fmt::format("b: int32[{}]", channels), channels, -3000, 6000) +
         scales(channels, kind.per_channel) +
         fmt::format(
             "initializer xs: float32[] = {{0.02}}\ninitializer xz: {0}[] = {{{1}}}\n"
             "initializer wz: int8[] = {{0}}\ninitializer ys: float32[] = {{0.4}}\n"
             "initializer yz: {0}[] = {{{2}}}\n",
             type, zero, 3 * zero);
}

// Codes one apart where sums in float32 fall on other sides of a half; most are the same.
void check_codes(const std::string& text) {
  CAPTURE(text);
  const Case test(text);
  REQUIRE(test.is_supported());
  const Tensor fast = test.run_fast(), reference = test.run_reference();
  REQUIRE(fast.dtype() == reference.dtype());
  REQUIRE(fast.dims() == reference.dims());
  const auto a = fast.to_ints(), b = reference.to_ints();
  std::size_t different = 0;
  std::int64_t largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    different += a[i] != b[i];
    largest = std::max(largest, std::abs(a[i] - b[i]));
  }
  CHECK(largest <= 1);
  CHECK(different * 50 <= a.size());
}

TEST_CASE("QLinearConv on oneDNN equals the reference") {
  for (const int group : {1, 2, 4})
    for (const Codes& kind : kinds())
      check_codes(
          operands(kind, "1,4,6,5", 120, fmt::format("8,{},3,3", 4 / group), 288 / group, 8) +
          fmt::format("y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz{}) "
                      "{{group={}, pads=[1,0,1,2]}}\noutput y\n",
                      kind.has_bias ? ", b" : "", group));
}

TEST_CASE("QGemm on oneDNN equals the reference") {
  for (const int transposed : {0, 1})
    for (const Codes& kind : kinds()) {
      const std::string start =
          operands(kind, "5,24", 120, transposed ? "10,24" : "24,10", 240, 10) +
          fmt::format("y = com.microsoft.QGemm(x, xs, xz, w, ws, wz, {}",
                      kind.has_bias ? "b" : "_");
      const std::string end = fmt::format(") {{transB={}}}\noutput y\n", transposed);
      check_codes(start + ", ys, yz" + end);
      check_rows(start + end, reassociated);
    }
}

}  // namespace
}  // namespace onnxpress::rows
