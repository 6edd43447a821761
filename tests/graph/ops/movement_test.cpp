#include "graph/ops/reshape.h"
#include "graph/ops/slice.h"
#include "graph/ops/transpose.h"
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

TEST_CASE("Reshape, Flatten, Squeeze and Unsqueeze in both forms") {
  const std::string x = "initializer x: int32[2,1,3] = {1,2,3,4,5,6}\n";
  check_y(x + "initializer s: int64[2] = {-1,2}\ny = Reshape(x, s)\n", "int32[3,2]{1,2,3,4,5,6}");
  check_y(x + "initializer s: int64[2] = {0,-1}\ny = Reshape(x, s)\n", "int32[2,3]{1,2,3,4,5,6}");
  check_y(x + "y = Reshape(x) {shape=[6]}\n", "int32[6]{1,2,3,4,5,6}", 4);
  check_y(
      "initializer x: int8[0,2] = {}\ninitializer s: int64[2] = {3,0}\ny = Reshape(x, s) "
      "{allowzero=1}\n",
      "int8[3,0]{}");
  check_y(x + "y = Flatten(x) {axis=2}\n", "int32[2,3]{1,2,3,4,5,6}");
  check_y(x + "y = Flatten(x) {axis=0}\n", "int32[1,6]{1,2,3,4,5,6}");
  check_y(x + "y = Squeeze(x) {axes=[1]}\n", "int32[2,3]{1,2,3,4,5,6}", 11);
  check_y(x + "y = Squeeze(x)\n", "int32[2,3]{1,2,3,4,5,6}");
  check_y(x + "initializer a: int64[2] = {-1,0}\ny = Unsqueeze(x, a)\n",
          "int32[1,2,1,3,1]{1,2,3,4,5,6}");
  check_y(x + "y = Unsqueeze(x) {axes=[1]}\n", "int32[2,1,1,3]{1,2,3,4,5,6}", 11);
  CHECK_THROWS_AS(Computed(x + "initializer s: int64[1] = {5}\ny = Reshape(x, s)\n"), Error);
  CHECK_THROWS_AS(Computed(x + "initializer a: int64[1] = {0}\ny = Squeeze(x, a)\n"), Error);
}

TEST_CASE("Transpose of every width") {
  for (const char* type : {"uint8", "float16", "int32", "float64", "int4", "bool"}) {
    CAPTURE(type);
    check_y(fmt::format("initializer x: {}[2,3] = {{0,1,1,1,0,0}}\ny = Transpose(x)\n", type),
            fmt::format("{}[3,2]{{0,1,1,0,1,0}}", type), 21);
  }
  check_y("initializer x: string[1,2] = {\"a\",\"b\"}\ny = Transpose(x)\n",
          "string[2,1]{\"a\",\"b\"}");
  check_y("initializer x: int32[1,2,3] = {1,2,3,4,5,6}\ny = Transpose(x) {perm=[2,0,1]}\n",
          "int32[3,1,2]{1,4,2,5,3,6}");
  check_close(transposed(parse_tensor("int4[3,1]{-8,7,1}"), {1, 0}),
              parse_tensor("int4[1,3]{-8,7,1}"));
  CHECK_THROWS_AS(Computed("initializer x: int32[1,2] = {1,2}\ny = Transpose(x) {perm=[0,0]}\n"),
                  Error);
}

TEST_CASE("Concat and Split in all forms") {
  check_y(R"(initializer a: int32[2,1] = {1,4}
initializer b: int32[2,2] = {2,3,5,6}
y = Concat(a, b) {axis=-1}
)",
          "int32[2,3]{1,2,3,4,5,6}");
  check_y(
      "initializer a: uint4[3] = {1,2,3}\ninitializer b: uint4[1] = {15}\ny = Concat(a, b) "
      "{axis=0}\n",
      "uint4[4]{1,2,3,15}", 21);
  const std::string x = "initializer x: int32[5] = {1,2,3,4,5}\n";
  const auto split = [&](const std::string& line, std::int64_t opset) {
    const Computed computed(x + line, opset);
    return to_string(computed["a"].dims()) + to_string(computed["b"].to_ints());
  };
  CHECK(split("a, b = Split(x) {split=[2,3]}\n", 11) == "[2][3,4,5]");
  CHECK(split("initializer s: int64[2] = {4,1}\na, b = Split(x, s)\n", 13) == "[4][5]");
  CHECK(split("a, b = Split(x) {num_outputs=2}\n", 18) == "[3][4,5]");
  CHECK_THROWS_AS(split("a, b = Split(x)\n", 13), Error);
}

TEST_CASE("Slice clamps, counts from the end and steps backwards") {
  const std::string x = "initializer x: int32[2,4] = {1,2,3,4,5,6,7,8}\n";
  check_y(x + "y = Slice(x) {axes=[1], ends=[3], starts=[1]}\n", "int32[2,2]{2,3,6,7}", 9);
  check_y(x + R"(initializer s: int64[2] = {-1,100}
initializer e: int64[2] = {-1000,-100}
initializer a: int64[2] = {0,1}
initializer t: int64[2] = {-1,-2}
y = Slice(x, s, e, a, t)
)",
          "int32[2,2]{8,6,4,2}");
  check_y(x + "initializer s: int64[1] = {5}\ninitializer e: int64[1] = {9}\ny = Slice(x, s, e)\n",
          "int32[0,4]{}");
  const SliceAttrs extreme{
      .starts = {INT64_MIN}, .ends = {INT64_MAX}, .axes = {0}, .steps = {INT64_MAX}};
  CHECK(extreme.range(0, 3).count == 1);
}

TEST_CASE("Gather and its relatives") {
  const std::string x = "initializer x: int32[2,3] = {1,2,3,4,5,6}\n";
  check_y(x + "initializer i: int64[2,1] = {-1,0}\ny = Gather(x, i) {axis=1}\n",
          "int32[2,2,1]{3,1,6,4}");
  check_y(x + "initializer i: int32[] = {1}\ny = Gather(x, i)\n", "int32[3]{4,5,6}");
  check_y(x + "initializer i: int64[1,3] = {1,0,-1}\ny = GatherElements(x, i)\n",
          "int32[1,3]{4,2,6}");
  check_y(x + "initializer i: int64[2,2] = {0,1,1,2}\ny = GatherND(x, i)\n", "int32[2]{2,6}");
  check_y(x + "initializer i: int64[2,1] = {0,2}\ny = GatherND(x, i) {batch_dims=1}\n",
          "int32[2]{1,6}");
  CHECK_THROWS_AS(Computed(x + "initializer i: int64[] = {2}\ny = Gather(x, i)\n"), Error);
}

TEST_CASE("Expand, Tile, Pad in all modes") {
  const std::string x = "initializer x: float32[1,3] = {1,2,3}\n";
  check_y(x + "initializer s: int64[2] = {2,1}\ny = Expand(x, s)\n", "float32[2,3]{1,2,3,1,2,3}");
  check_y(x + "initializer r: int64[2] = {2,2}\ny = Tile(x, r)\n",
          "float32[2,6]{1,2,3,1,2,3,1,2,3,1,2,3}");
  check_y(x + "y = Pad(x) {pads=[0,1,1,0], value=9.0}\n", "float32[2,4]{9,1,2,3,9,9,9,9}", 10);
  check_y(x + "initializer p: int64[4] = {0,2,0,2}\ny = Pad(x, p) {mode=\"reflect\"}\n",
          "float32[1,7]{3,2,1,2,3,2,1}");
  check_y(x + "initializer p: int64[4] = {1,-1,0,1}\ny = Pad(x, p) {mode=\"edge\"}\n",
          "float32[2,3]{2,3,3,2,3,3}");
  check_y(x + R"(initializer p: int64[2] = {1,1}
initializer c: float32[] = {0.5}
initializer a: int64[1] = {-1}
y = Pad(x, p, c, a)
)",
          "float32[1,5]{0.5,1,2,3,0.5}", 18);
  check_y(x + "initializer p: int64[4] = {0,2,0,1}\ny = Pad(x, p) {mode=\"wrap\"}\n",
          "float32[1,6]{2,3,1,2,3,1}", 19);
}

TEST_CASE("constants in every form") {
  check_y("y = Constant() {value=int8[2]{1,2}}\n", "int8[2]{1,2}");
  check_y("y = Constant() {value_float=1.5}\n", "float32[]{1.5}");
  check_y("y = Constant() {value_ints=[1,2]}\n", "int64[2]{1,2}");
  check_y("y = Constant() {value_strings=[\"a\"]}\n", "string[1]{\"a\"}");
  check_y("y = Constant() {sparse_value=sparse[3](float32[1]{5}, int64[1]{1})}\n",
          "float32[3]{0,5,0}");
  check_y("initializer s: int64[2] = {1,3}\ny = ConstantOfShape(s) {value=int4[1]{-3}}\n",
          "int4[1,3]{-3,-3,-3}", 21);
  check_y("initializer s: int64[0] = {}\ny = ConstantOfShape(s)\n", "float32[]{0}");
  check_y(
      "initializer a: int64[] = {10}\ninitializer b: int64[] = {4}\ninitializer d: int64[] = "
      "{-3}\ny = Range(a, b, d)\n",
      "int64[2]{10,7}");
  check_y("initializer x: float32[2,3,4] = zeros\ny = Shape(x) {end=-1, start=1}\n", "int64[1]{3}");
  check_y("initializer x: float32[2,3,4] = zeros\ny = Size(x)\n", "int64[]{24}");
}

TEST_CASE("DepthToSpace and SpaceToDepth") {
  const std::string x = "initializer x: int32[1,4,1,2] = {1,2,3,4,5,6,7,8}\n";
  check_y(x + "y = DepthToSpace(x) {blocksize=2}\n", "int32[1,1,2,4]{1,3,2,4,5,7,6,8}");
  check_y(
      x + "d = DepthToSpace(x) {blocksize=2, mode=\"CRD\"}\ny = SpaceToDepth(d) {blocksize=2}\n",
      "int32[1,4,1,2]{1,2,3,4,5,6,7,8}");
}

TEST_CASE("builders give the form of the opset") {
  CHECK(make_unsqueeze(11, {1}).attributes.contains("axes"));
  CHECK(make_unsqueeze(13, {1}).constants.size() == 1);
  CHECK(make_reshape(4, {1, -1}).attributes.contains("shape"));
  CHECK(make_slice(9, {{0}, {1}, {0}, {1}}).constants.empty());
  CHECK(make_slice(10, {{0}, {1}, {0}, {2}}).constants.size() == 4);
  CHECK_THROWS_AS(make_slice(9, {{0}, {1}, {0}, {2}}), Error);
}

}  // namespace
}  // namespace onnxpress
