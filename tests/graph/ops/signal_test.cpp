// DFT and STFT against the definition, windows and mel weights against values of their formulas.
#include <complex>
#include <numbers>

#include "graph/ops/fft.h"
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

using Complex = std::complex<double>;

std::vector<Complex> direct_dft(const std::vector<Complex>& x, bool inverse) {
  std::vector<Complex> y(x.size());
  const double turn = (inverse ? 2 : -2) * std::numbers::pi / static_cast<double>(x.size());
  for (std::size_t k = 0; k < x.size(); ++k)
    for (std::size_t n = 0; n < x.size(); ++n)
      y[k] += x[n] * std::polar(1.0, turn * static_cast<double>(n * k % x.size()));
  return y;
}

TEST_CASE("a Fourier transform of any length equals its definition") {
  for (const bool inverse : {false, true})
    for (const std::int64_t length : {1, 2, 3, 5, 8, 12, 17, 31, 64, 97, 100, 256, 1000}) {
      CAPTURE(length);
      std::vector<Complex> x;
      for (std::int64_t n = 0; n < length; ++n)
        x.emplace_back(std::sin(1.0 + static_cast<double>(n * n % 37)),
                       std::cos(static_cast<double>(3 * n % 29)));
      const std::vector<Complex> expected = direct_dft(x, inverse);
      FourierTransform(length, inverse).run(x.data());
      double error = 0;
      for (std::size_t k = 0; k < x.size(); ++k)
        error = std::max(error, std::abs(x[k] - expected[k]));
      CHECK(error < 1e-11 * static_cast<double>(length));
    }
  CHECK_THROWS_AS(FourierTransform(0, false), Error);
  CHECK_THROWS_AS(FourierTransform(std::int64_t{1} << 40, false), Error);
}

TEST_CASE("DFT: axes, sides, lengths, both versions") {
  const std::string x = "initializer x: float32[1,4,1] = {1,2,3,4}\n";
  check_y(x + "y = DFT(x)\n", "float32[1,4,2]{10,0,-2,2,-2,0,-2,-2}", 20);
  check_y(x + "y = DFT(x) {onesided=1}\n", "float32[1,3,2]{10,0,-2,2,-2,0}", 20);
  check_y(x + "y = DFT(x) {axis=1}\n", "float32[1,4,2]{10,0,-2,2,-2,0,-2,-2}", 17);
  check_y(x + "initializer n: int64[] = {2}\ny = DFT(x, n)\n", "float32[1,2,2]{3,0,-1,0}", 17);
  check_y(x + "initializer a: int64[] = {-3}\ny = DFT(x, _, a)\n",
          "float32[1,4,2]{1,0,2,0,3,0,4,0}", 20);
  check_y("initializer x: float32[1,4,2] = {10,0,-2,2,-2,0,-2,-2}\ny = DFT(x) {inverse=1}\n",
          "float32[1,4,2]{1,0,2,0,3,0,4,0}", 20);
  check_y("initializer x: float64[1,3,2] = {10,0,-2,2,-2,0}\ny = DFT(x) {inverse=1, onesided=1}\n",
          "float64[1,4,1]{1,2,3,4}", 20);
  check_y("initializer x: float16[1,2,1] = {1,2}\ny = DFT(x)\n", "float16[1,2,2]{3,0,-1,0}", 20);
}

TEST_CASE("DFT refuses what it cannot transform") {
  const std::string x = "initializer x: float32[1,4,1] = {1,2,3,4}\n";
  CHECK_THROWS_AS(Computed(x + "y = DFT(x) {axis=2}\n", 17), Error);
  CHECK_THROWS_AS(Computed(x + "y = DFT(x) {axis=7}\n", 17), Error);
  CHECK_THROWS_AS(Computed(x + "initializer n: int64[] = {0}\ny = DFT(x, n)\n", 20), Error);
  CHECK_THROWS_AS(Computed(x + "initializer n: int64[] = {-5}\ny = DFT(x, n)\n", 20), Error);
  CHECK_THROWS_AS(Computed(x + "initializer n: int64[2] = {4,4}\ny = DFT(x, n)\n", 20), Error);
  CHECK_THROWS_AS(Computed("initializer x: float32[1,3] = ones\ny = DFT(x)\n", 20), Error);
}

TEST_CASE("STFT transforms windowed frames") {
  const std::string x =
      "initializer x: float32[1,6,1] = {1,2,3,4,5,6}\n"
      "initializer s: int64[] = {2}\n";
  check_y(x + "initializer n: int64[] = {4}\ny = STFT(x, s, _, n)\n",
          "float32[1,2,3,2]{10,0,-2,2,-2,0,18,0,-2,2,-2,0}");
  check_y(x + "initializer w: float32[2] = {1,0.5}\ny = STFT(x, s, w) {onesided=0}\n",
          "float32[1,3,2,2]{2,0,0,0,5,0,1,0,8,0,2,0}");
  CHECK_THROWS_AS(Computed(x + "initializer n: int64[] = {7}\ny = STFT(x, s, _, n)\n"), Error);
  CHECK_THROWS_AS(Computed(x + "initializer z: int64[] = {0}\ny = STFT(x, z)\n"), Error);
  CHECK_THROWS_AS(Computed(x + "initializer n: int64[] = {4}\ninitializer w: float32[2] = ones\n"
                               "y = STFT(x, s, w, n)\n"),
                  Error);
}

TEST_CASE("windows") {
  const std::string n = "initializer n: int64[] = {4}\n";
  check_y(n + "y = HannWindow(n)\n", "float32[4]{0,0.5,1,0.5}");
  check_y(n + "y = HannWindow(n) {periodic=0}\n", "float32[4]{0,0.75,0.75,0}");
  check_y(n + "y = HammingWindow(n) {output_datatype=11}\n",
          "float64[4]{0.08695652173913043,0.5434782608695652,1,0.5434782608695652}");
  check_y(n + "y = BlackmanWindow(n) {output_datatype=10}\n", "float16[4]{0,0.34,1,0.34}");
  check_y("initializer n: int32[1] = {0}\ny = HannWindow(n)\n", "float32[0]{}");
  CHECK_THROWS_AS(Computed("initializer n: int64[] = {-1}\ny = HannWindow(n)\n"), Error);
  CHECK_THROWS_AS(Computed(n + "y = HannWindow(n) {output_datatype=8}\n"), Error);
}

TEST_CASE("mel weights") {  // one triangle, between bins 0, 0 and 2
  const auto body = [](double low, double high) {
    return fmt::format(
        "initializer b: int64[] = {{1}}\ninitializer l: int64[] = {{8}}\n"
        "initializer r: int64[] = {{8000}}\ninitializer f: float32[] = {{{}}}\n"
        "initializer g: float32[] = {{{}}}\ny = MelWeightMatrix(b, l, r, f, g)\n",
        low, high);
  };
  check_y(body(0, 4000), "float32[5,1]{1,0.5,0,0,0}");
  CHECK_THROWS_AS(Computed(body(0, 40000)), Error);
  CHECK_THROWS_AS(Computed(body(-800, 4000)), Error);
}

}  // namespace
}  // namespace onnxpress
