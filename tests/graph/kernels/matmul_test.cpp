#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

TEST_CASE("matrix products on oneDNN equal the reference") {
  const std::vector<std::pair<std::string, std::string>> shapes{
      {"3,5", "5,7"},     {"64,33", "33,65"},  {"1,128", "128,10"}, {"2,3,5", "5,7"},
      {"2,3,5", "2,5,7"}, {"2,3,5", "1,5,7"},  {"1,3,5", "4,5,7"},  {"2,1,3,5", "4,5,7"},
      {"5", "5,7"},       {"3,5", "5"},        {"5", "5"},          {"2,3,5", "5"},
      {"5", "2,5,7"},     {"2,2,3,3,5", "5,4"}};
  for (const auto& [a, b] : shapes)
    for (const bool constant : {true, false})
      check_rows(
          fmt::format("input a: float32[{}]\n{} b: float32[{}]{}\ny = MatMul(a, b)\noutput y\n", a,
                      constant ? "initializer" : "input", b, constant ? " = random(2)" : ""),
          reassociated);
}

TEST_CASE("Gemm on oneDNN equals the reference") {
  for (const int trans_a : {0, 1})
    for (const int trans_b : {0, 1})
      for (const char* alpha : {"1.0", "0.5"})
        for (const char* bias : {"", "7", "1,7", "1", ""})
          for (const char* beta : {"1.0", "2.0"}) {
            std::string text =
                fmt::format("input a: float32[{}]\ninitializer b: float32[{}] = random(2)\n",
                            trans_a ? "9,4" : "4,9", trans_b ? "7,9" : "9,7");
            const bool has_bias = *bias != '\0';
            if (has_bias) text += fmt::format("initializer c: float32[{}] = random(3)\n", bias);
            text += fmt::format(
                "y = Gemm(a, b{}) {{transA={}, transB={}, alpha={}, beta={}}}\noutput y\n",
                has_bias ? ", c" : "", trans_a, trans_b, alpha, beta);
            check_rows(text, reassociated);
          }
  check_rows(
      "input a: float32[4,9]\ninput b: float32[9,7]\ninput c: float32[7]\n"
      "y = Gemm(a, b, c)\noutput y\n",
      reassociated);
}

TEST_CASE("MatMulNBits on oneDNN equals the reference") {
  const auto nbits = [](int bits, int rows, int columns, int depth, const char* inputs) {
    const int blocks = (depth + 31) / 32;
    const auto bytes = [](int count) {
      std::string text;
      for (int i = 0; i < count; ++i) text += fmt::format("{}{}", i ? "," : "", i * 37 % 256);
      return text;
    };
    const int zero_bytes = (blocks * bits + 7) / 8;
    return fmt::format(
        "input a: float32[{},{}]\ninitializer w: uint8[{},{},{}] = {{{}}}\n"
        "initializer s: float32[{},{}] = random(1)\ninitializer z: uint8[{},{}] = {{{}}}\n"
        "initializer f: float32[{},{}] = random(2)\ninitializer b: float32[{}] = random(3)\n"
        "y = com.microsoft.MatMulNBits(a, w, s{}) {{K={}, N={}, bits={}, block_size=32}}\n"
        "output y\n",
        rows, depth, columns, blocks, 4 * bits, bytes(columns * blocks * 4 * bits), columns, blocks,
        columns, zero_bytes, bytes(columns * zero_bytes), columns, blocks, columns, inputs, depth,
        columns, bits);
  };
  for (const int bits : {2, 4, 8})
    for (const char* inputs : {"", ", z", ", f", ", _, _, b", ", z, _, b"}) {
      check_rows(nbits(bits, 3, 5, 70, inputs), reassociated);
      check_rows(nbits(bits, 17, 41, 64, inputs), reassociated);
    }
  check_rows(  // several tiles of columns
      "input a: float32[2,32800]\ninitializer w: uint8[19,1025,16] = ones\n"
      "initializer s: float32[19,1025] = random(1)\n"
      "y = com.microsoft.MatMulNBits(a, w, s) {K=32800, N=19, block_size=32}\noutput y\n",
      reassociated);
  const std::string open =
      "input a: float32[2,32]\ninput s: float32[1,1]\n"
      "initializer w: uint8[1,1,16] = zeros\n"
      "y = com.microsoft.MatMulNBits(a, w, s) {K=32, N=1, block_size=32}\noutput y\n";
  CHECK_FALSE(is_supported(open));  // scales that are not constant
}

TEST_CASE("products that oneDNN does not take go to the reference") {
  const std::string a = "input a: float32[4,9]\ninput b: float32[9,7]\n";
  CHECK_FALSE(is_supported(a + "y = Gemm(a, b) {alpha=0.5}\noutput y\n"));
  CHECK_FALSE(is_supported(a + "input c: float32[4,7]\ny = Gemm(a, b, c)\noutput y\n"));
  CHECK_FALSE(is_supported(a + "input c: float32[7]\ny = Gemm(a, b, c) {beta=2.0}\noutput y\n"));
  CHECK_FALSE(
      is_supported("input a: float32[4,0]\ninput b: float32[0,7]\ny = MatMul(a, b)\noutput y\n"));
}

}  // namespace
}  // namespace onnxpress::rows
