#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("Det") {
  check_y("initializer x: float32[2,2] = {0,1,2,3}\ny = Det(x)\n", "float32[]{-2}");
  check_y("initializer x: float64[3,1,1] = {3,-4,0}\ny = Det(x)\n", "float64[3]{3,-4,0}");
  check_y("initializer x: float32[3,3] = {0,2,0,3,0,0,0,0,4}\ny = Det(x)\n", "float32[]{-24}");
  check_y("initializer x: float32[3,3] = {1,2,3,2,4,6,7,8,9}\ny = Det(x)\n", "float32[]{0}");
  check_y("initializer x: float16[1,2,2] = {1,2,3,4}\ny = Det(x)\n", "float16[1]{-2}", 22);
  check_y("initializer x: float32[2,0,0] = {}\ny = Det(x)\n", "float32[2]{1,1}");
  for (const char* dims : {"2,3", "4", "2,3,2"})
    CHECK_THROWS_AS(
        Computed(fmt::format("initializer x: float32[{}] = random(1)\ny = Det(x)\n", dims)), Error);
}

TEST_CASE("the determinant of a product is the product of determinants") {
  const Computed computed(R"(initializer a: float64[4,5,5] = random(1)
initializer b: float64[4,5,5] = random(2)
c = MatMul(a, b)
d = Det(c)
e = Det(a)
f = Det(b)
g = Mul(e, f)
)");
  check_close(computed["d"], computed["g"], 1e-12);
}

}  // namespace
}  // namespace onnxpress
