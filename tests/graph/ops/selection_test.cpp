// TopK, Unique, NonZero, Compress, OneHot, EyeLike, Trilu, ReverseSequence, BitCast.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

std::string outputs(const Computed& computed, const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    const Tensor& tensor = computed[name];
    text += to_string(tensor.dims()) + ":";
    const Tensor wide = tensor.cast(DType::float64);
    for (const double value : wide.data<double>()) text += fmt::format(" {}", value);
    text += "; ";
  }
  return text;
}

TEST_CASE("TopK of every opset, ties by the lower index, NaN above all") {
  const std::string x = "initializer x: float32[2,3] = {1,3,3,nan,-1,0}\n";
  const std::vector<std::string> both{"v", "i"};
  CHECK(outputs(Computed(x + "v, i = TopK(x) {k=2}\n", 1), both) ==
        "[2,2]: 3 3 nan 0; [2,2]: 1 2 0 2; ");
  const std::string k = x + "initializer k: int64[1] = {2}\n";
  CHECK(outputs(Computed(k + "v, i = TopK(x, k)\n", 10), both) ==
        "[2,2]: 3 3 nan 0; [2,2]: 1 2 0 2; ");
  CHECK(outputs(Computed(k + "v, i = TopK(x, k) {largest=0}\n", 11), both) ==
        "[2,2]: 1 3 -1 0; [2,2]: 0 1 1 2; ");
  CHECK(outputs(Computed(R"(initializer x: int8[3,2] = {1,-2,3,-4,5,-6}
initializer k: int64[1] = {1}
v, i = TopK(x, k) {axis=0, largest=0}
)",
                         24),
                both) == "[1,2]: 1 -6; [1,2]: 0 2; ");
  CHECK(outputs(Computed("initializer x: bfloat16[3] = {1,3,2}\ninitializer k: int64[1] = {0}\nv, "
                         "i = TopK(x, k)\n",
                         24),
                both) == "[0]:; [0]:; ");
  for (const char* bad : {"{4}", "{-1}"})
    CHECK_THROWS_AS(Computed(x + "initializer k: int64[1] = " + bad + "\nv, i = TopK(x, k)\n"),
                    Error);
  CHECK_THROWS_AS(Computed(x + "initializer k: int64[2] = {1,1}\nv, i = TopK(x, k)\n"), Error);
  CHECK_THROWS_AS(Computed(x + "v, i = TopK(x)\n", 1), Error);
}

TEST_CASE("Unique of elements and of slices") {
  const std::vector<std::string> all{"y", "i", "r", "c"};
  const std::string x = "initializer x: int32[6] = {2,1,1,3,4,3}\n";
  CHECK(outputs(Computed(x + "y, i, r, c = Unique(x) {sorted=0}\n"), all) ==
        "[4]: 2 1 3 4; [4]: 0 1 3 4; [6]: 0 1 1 2 3 2; [4]: 1 2 2 1; ");
  CHECK(outputs(Computed(x + "y, i, r, c = Unique(x)\n"), all) ==
        "[4]: 1 2 3 4; [4]: 1 0 3 4; [6]: 1 0 0 2 3 2; [4]: 2 1 2 1; ");
  CHECK(outputs(Computed(R"(initializer x: float16[2,4,2] = {1,1,0,1,2,1,0,1,1,1,0,1,2,1,0,1}
y, i, r, c = Unique(x) {axis=1}
)"),
                all) == "[2,3,2]: 0 1 1 1 2 1 0 1 1 1 2 1; [3]: 1 0 2; [4]: 1 0 2 0; [3]: 2 1 1; ");
  CHECK(outputs(Computed("initializer x: float32[4] = {nan,1,nan,-0.0}\ny, i, r, c = Unique(x)\n"),
                all) == "[3]: -0 1 nan; [3]: 3 1 0; [4]: 2 1 2 0; [3]: 1 1 2; ");
  check_y("initializer x: string[3] = {\"b\",\"a\",\"b\"}\ny = Unique(x)\n",
          "string[2]{\"a\",\"b\"}");
  CHECK(outputs(Computed("initializer x: int8[0] = {}\ny, i, r, c = Unique(x)\n"), all) ==
        "[0]:; [0]:; [0]:; [0]:; ");
  CHECK_THROWS_AS(Computed(x + "y = Unique(x) {axis=1}\n"), Error);
}

TEST_CASE("NonZero and Compress") {
  check_y("initializer x: float32[2,2] = {0.5,0,nan,-0.0}\ny = NonZero(x)\n",
          "int64[2,2]{0,1,0,0}");
  check_y("initializer x: string[2] = {\"\",\"a\"}\ny = NonZero(x)\n", "int64[1,1]{1}");
  check_y("initializer x: bool[] = {1}\ny = NonZero(x)\n", "int64[0,1]{}");
  const std::string x = "initializer x: int32[3,2] = {1,2,3,4,5,6}\n";
  check_y(x + "initializer c: bool[2] = {0,1}\ny = Compress(x, c) {axis=0}\n", "int32[1,2]{3,4}");
  check_y(x + "initializer c: bool[2] = {0,1}\ny = Compress(x, c) {axis=-1}\n",
          "int32[3,1]{2,4,6}");
  check_y(x + "initializer c: bool[5] = {0,1,0,0,1}\ny = Compress(x, c)\n", "int32[2]{2,5}");
  for (const char* bad : {"bool[4] = {0,0,0,0}", "bool[1,1] = {1}", "int32[1] = {1}"})
    CHECK_THROWS_AS(Computed(x + "initializer c: " + bad + "\ny = Compress(x, c) {axis=0}\n"),
                    Error);
}

TEST_CASE("OneHot wraps indices from opset 11 on") {
  const std::string x = R"(initializer i: int64[3] = {0,-1,7}
initializer d: float32[] = {3}
initializer v: int8[2] = {2,5}
)";
  check_y(x + "y = OneHot(i, d, v)\n", "int8[3,3]{5,2,2,2,2,5,2,2,2}", 11);
  check_y(x + "y = OneHot(i, d, v)\n", "int8[3,3]{5,2,2,2,2,2,2,2,2}", 9);
  check_y(x + "y = OneHot(i, d, v) {axis=0}\n", "int8[3,3]{5,2,2,2,2,2,2,5,2}");
  check_y(R"(initializer i: float32[2] = {1.9,0}
initializer d: int32[1] = {2}
initializer v: string[2] = {"off","on"}
y = OneHot(i, d, v)
)",
          R"(string[2,2]{"off","on","on","off"})");
  CHECK_THROWS_AS(Computed(x + "y = OneHot(i, d, v) {axis=2}\n"), Error);
  CHECK_THROWS_AS(Computed(x + "y = OneHot(i, d, i)\n"), Error);
  CHECK_THROWS_AS(Computed(x + "initializer n: int64[] = {-1}\ny = OneHot(i, n, v)\n"), Error);
  CHECK_THROWS_AS(
      Computed(x + "initializer n: int64[] = {4611686018427387904}\ny = OneHot(i, n, v)\n"), Error);
}

TEST_CASE("EyeLike and Trilu") {
  const std::string x = "initializer x: int32[2,3] = {1,2,3,4,5,6}\n";
  check_y(x + "y = EyeLike(x)\n", "int32[2,3]{1,0,0,0,1,0}");
  check_y(x + "y = EyeLike(x) {dtype=1, k=1}\n", "float32[2,3]{0,1,0,0,0,1}");
  check_y(x + "y = EyeLike(x) {dtype=9, k=-1}\n", "bool[2,3]{0,0,0,1,0,0}");
  check_y(x + "y = EyeLike(x) {k=9223372036854775807}\n", "int32[2,3]{0,0,0,0,0,0}");
  CHECK_THROWS_AS(Computed(x + "y = EyeLike(x) {dtype=8}\n"), Error);
  CHECK_THROWS_AS(Computed("initializer x: int32[2] = {1,2}\ny = EyeLike(x)\n"), Error);

  check_y(x + "y = Trilu(x)\n", "int32[2,3]{1,2,3,0,5,6}");
  check_y(x + "y = Trilu(x) {upper=0}\n", "int32[2,3]{1,0,0,4,5,0}");
  const auto diagonal = [&](const char* k) { return x + "initializer k: int64[] = {" + k + "}\n"; };
  check_y(diagonal("1") + "y = Trilu(x, k)\n", "int32[2,3]{0,2,3,0,0,6}");
  check_y(diagonal("-1") + "y = Trilu(x, k) {upper=0}\n", "int32[2,3]{0,0,0,4,0,0}");
  check_y(diagonal("9223372036854775807") + "y = Trilu(x, k) {upper=0}\n",
          "int32[2,3]{1,2,3,4,5,6}");
  check_y(diagonal("-9223372036854775808") + "y = Trilu(x, k)\n", "int32[2,3]{1,2,3,4,5,6}");
  check_y("initializer x: string[1,2] = {\"a\",\"b\"}\ny = Trilu(x) {upper=0}\n",
          "string[1,2]{\"a\",\"\"}");
  CHECK_THROWS_AS(Computed("initializer x: int32[2] = {1,2}\ny = Trilu(x)\n"), Error);
}

TEST_CASE("ReverseSequence along both axes") {
  const std::string x = R"(initializer x: int32[2,3] = {1,2,3,4,5,6}
initializer l: int64[2] = {3,2}
)";
  check_y(x + "y = ReverseSequence(x, l) {batch_axis=0, time_axis=1}\n", "int32[2,3]{3,2,1,5,4,6}");
  check_y(R"(initializer x: int32[2,3] = {1,2,3,4,5,6}
initializer l: int64[3] = {2,1,0}
y = ReverseSequence(x, l)
)",
          "int32[2,3]{4,2,3,1,5,6}");
  CHECK_THROWS_AS(Computed(x + "y = ReverseSequence(x, l)\n"), Error);
  CHECK_THROWS_AS(Computed(x + "y = ReverseSequence(x, l) {batch_axis=1, time_axis=1}\n"), Error);
  CHECK_THROWS_AS(Computed(R"(initializer x: int32[1,1] = {1}
initializer l: int64[1] = {2}
y = ReverseSequence(x, l)
)"),
                  Error);
}

TEST_CASE("BitCast keeps the bits") {
  check_y("initializer x: float32[2] = {1,-0.0}\ny = BitCast(x) {to=6}\n",
          "int32[2]{1065353216,-2147483648}", 26);
  check_y("initializer x: int4[3] = {-1,1,-8}\ny = BitCast(x) {to=21}\n", "uint4[3]{15,1,8}", 26);
  check_y("initializer x: uint8[3] = {0,1,255}\ny = BitCast(x) {to=9}\n", "bool[3]{0,1,1}", 26);
  for (const char* to : {"7", "8", "99"})
    CHECK_THROWS_AS(
        Computed(fmt::format("initializer x: int32[1] = {{1}}\ny = BitCast(x) {{to={}}}\n", to),
                 26),
        Error);
}

TEST_CASE("CumSum and CumProd in all directions") {
  const std::string x = R"(initializer x: int32[2,3] = {1,2,3,4,5,6}
initializer a: int64[] = {-1}
initializer b: int32[1] = {0}
)";
  check_y(x + "y = CumSum(x, a)\n", "int32[2,3]{1,3,6,4,9,15}");
  check_y(x + "y = CumSum(x, b)\n", "int32[2,3]{1,2,3,5,7,9}");
  check_y(x + "y = CumSum(x, a) {exclusive=1}\n", "int32[2,3]{0,1,3,0,4,9}");
  check_y(x + "y = CumSum(x, a) {exclusive=1, reverse=1}\n", "int32[2,3]{5,3,0,11,6,0}");
  check_y(x + "y = CumProd(x, a)\n", "int32[2,3]{1,2,6,4,20,120}", 26);
  check_y(x + "y = CumProd(x, a) {exclusive=1, reverse=1}\n", "int32[2,3]{6,3,1,30,6,1}", 26);
  check_y("initializer x: bfloat16[2] = {1.5,2}\ninitializer a: int32[] = {0}\ny = CumSum(x, a)\n",
          "bfloat16[2]{1.5,3.5}");
  check_y(
      "initializer x: int64[2] = {9223372036854775807,1}\ninitializer a: int32[] = {0}\ny = "
      "CumSum(x, a)\n",
      "int64[2]{9223372036854775807,-9223372036854775808}");
  CHECK_THROWS_AS(Computed(x + "initializer c: int64[] = {2}\ny = CumSum(x, c)\n"), Error);
  CHECK_THROWS_AS(Computed(x + "initializer c: int64[2] = {0,1}\ny = CumSum(x, c)\n"), Error);
}

}  // namespace
}  // namespace onnxpress
