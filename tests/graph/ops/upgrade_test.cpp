#include "graph/ops/upgrade.h"

#include <doctest/doctest.h>

#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

std::string upgraded(std::string_view text, std::int64_t target) {
  const std::unique_ptr<Model> model = parse_model(text);
  upgrade_opset(*model, target);
  return to_text(*model);
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("attributes that became inputs") {
  const std::string text = upgraded(R"(model ir=6 opset=11
input x: float32[2,3,4]
a = Unsqueeze(x) {axes=[0]}
b = Squeeze(a) {axes=[0]}
c = ReduceSum(b) {axes=[1], keepdims=1}
d = ReduceMean(c) {axes=[2]}
e, f = Split(x) {axis=1, split=[1,2]}
output d: float32[2,1,1]
output e: float32[2,1,4]
output f: float32[2,2,4]
)", 18);
  CHECK(contains(text, "opset=18"));
  CHECK(contains(text, "= Unsqueeze(x, a_axes)"));
  CHECK(contains(text, "initializer a_axes: int64[1] = {0}"));
  CHECK(contains(text, "= Squeeze(a, b_axes)"));
  CHECK(contains(text, "= ReduceSum(b, c_axes) {keepdims=1}"));
  CHECK(contains(text, "= ReduceMean(c, d_axes)"));
  CHECK(contains(text, "initializer e_split: int64[2] = {1,2}"));
  CHECK_FALSE(contains(text, "num_outputs"));
}

TEST_CASE("Split without sizes says how many outputs from opset 18") {
  const std::string text = upgraded(R"(model ir=8 opset=17
input x: float32[4]
a, b = Split(x) {axis=0}
output a: float32[2]
output b: float32[2]
)", 18);
  CHECK(contains(text, "num_outputs=2"));
}

TEST_CASE("Clip, Pad, Slice and TopK take inputs") {
  const std::string text = upgraded(R"(model ir=4 opset=9
input x: float32[2,3]
a = Clip(x) {max=6.0, min=0.0}
b = Pad(a) {pads=[0,1,0,1], value=2.0}
c = Slice(b) {axes=[1], ends=[4], starts=[1]}
d, e = TopK(c) {axis=1, k=2}
output d: float32[2,2]
output e: int64[2,2]
)", 13);
  CHECK(contains(text, "= Clip(x, a_min, a_max)"));
  CHECK(contains(text, "initializer a_max: float32[] = {6}"));
  CHECK(contains(text, "= Pad(a, b_pads, b_value)"));
  CHECK(contains(text, "= Slice(b, c_starts, c_ends, c_axes)"));
  CHECK(contains(text, "= TopK(c, d_k) {axis=1}"));
}

TEST_CASE("Softmax keeps its meaning across opset 13") {
  SUBCASE("over the last axis") {
    CHECK(contains(upgraded(R"(model ir=7 opset=12
input x: float32[n,5]
y = Softmax(x)
output y: float32[n,5]
)", 13), "= Softmax(x) {axis=1}"));
  }
  SUBCASE("over several axes") {
    const std::string text = upgraded(R"(model ir=7 opset=12
input x: float32[n,3,4,5]
y = Softmax(x)
output y: float32[n,3,4,5]
)", 13);
    CHECK(contains(text, "= Flatten(x) {axis=1}"));
    CHECK(contains(text, "{axis=-1}"));
    CHECK(contains(text, "= Reshape("));
  }
}

TEST_CASE("legacy broadcasting is lined up") {
  const std::string text = upgraded(R"(model ir=3 opset=6
input x: float32[2,3,4,5]
initializer b: float32[3] = {1,2,3}
y = Add(x, b) {axis=1, broadcast=1}
output y: float32[2,3,4,5]
)", 7);
  CHECK(contains(text, "= Unsqueeze(b) {axes=[1,2]}"));
  CHECK_FALSE(contains(text, "broadcast"));
}

TEST_CASE("Resize before opset 11 keeps the side that nearest took") {
  const auto resize = [](const std::string& scales, const std::string& attributes = "") {
    return upgraded("model ir=5 opset=10\ninput x: float32[4,6]\n" + scales +
                        "y = Resize(x, s) {" + attributes + "}\noutput y: float32[?,?]\n",
                    11);
  };
  const std::string grows = resize("initializer s: float32[2] = {2,1}\n");
  // The region of interest may be left out from opset 13 on.
  CHECK(contains(grows, "initializer y_roi: float32[0]"));
  CHECK(contains(grows, "= Resize(x, y_roi, s)"));
  CHECK(contains(grows, "coordinate_transformation_mode=\"asymmetric\""));
  CHECK(contains(grows, "nearest_mode=\"floor\""));
  CHECK(contains(resize("initializer s: float32[2] = {0.5,1}\n"), "nearest_mode=\"ceil\""));
  CHECK_THROWS_AS(resize("initializer s: float32[2] = {0.5,2}\n"), Error);
  CHECK_THROWS_AS(resize("input s: float32[2]\n"), Error);
  CHECK(contains(resize("input s: float32[2]\n", "mode=\"linear\""), "= Resize(x, y_roi, s)"));
}

TEST_CASE("Upsample becomes a Resize that rounds down, whatever its scales") {
  const std::string text = "model ir=4 opset=9\ninput x: float32[4,6]\ninput s: float32[2]\n"
                           "y = Upsample(x, s)\noutput y: float32[?,?]\n";
  const std::string found = upgraded(text, 13);
  CHECK(contains(found, "= Resize(x, _, s)"));
  CHECK(contains(found, "nearest_mode=\"floor\""));
  CHECK(contains(upgraded(text, 10), "= Resize(x, s)"));
}

TEST_CASE("tf_half_pixel_for_nn is half_pixel with another rounding") {
  const auto resize = [](const std::string& attributes) {
    return upgraded("model ir=6 opset=11\ninput x: float32[4,6]\ninitializer s: float32[2] = {0.6,1.7}\n"
                    "initializer r: float32[0] = {}\ny = Resize(x, r, s) {coordinate_transformation_mode="
                    "\"tf_half_pixel_for_nn\"" + attributes + "}\noutput y: float32[2,10]\n", 13);
  };
  const std::string down = resize(", nearest_mode=\"floor\"");
  CHECK(contains(down, "coordinate_transformation_mode=\"half_pixel\""));
  CHECK(contains(down, "nearest_mode=\"round_prefer_ceil\""));
  CHECK(contains(resize(""), "nearest_mode=\"ceil\""));
  CHECK_THROWS_WITH_AS(resize(", nearest_mode=\"ceil\""), doctest::Contains("nearest_mode 'ceil'"), Error);
  CHECK_THROWS_WITH_AS(resize(", mode=\"linear\""), doctest::Contains("other than 'nearest'"), Error);
}

TEST_CASE("RoiAlign keeps the pixel grid that was its default") {
  CHECK(contains(upgraded(R"(model ir=5 opset=10
input x: float32[1,1,4,4]
input r: float32[1,4]
initializer b: int64[1] = {0}
y = RoiAlign(x, r, b)
output y: float32[1,1,1,1]
)", 16), "coordinate_transformation_mode=\"output_half_pixel\""));
}

TEST_CASE("a mask of Dropout stays a float") {
  const std::string text = upgraded(R"(model ir=3 opset=7
input x: float32[4]
y, m = Dropout(x) "drop"
z = Mul(y, m)
output z: float32[4]
)", 13);
  CHECK(contains(text, "= Cast(m_mask) {to=1}") == false);
  CHECK(contains(text, "{to=1}"));
  CHECK(contains(text, "\"drop\""));
}

TEST_CASE("Scan over batches is a Scan of Scans") {
  const std::string text = upgraded(R"(model ir=3 opset=8
input s: float32[2,3]
input x: float32[2,5,3]
f, y = Scan(_, s, x) {body=graph {
  input a: float32[3]
  input b: float32[3]
  c = Add(a, b)
  d = Unsqueeze(c) {axes=[0]}
  e = Squeeze(d) {axes=[0]}
  g = Identity(e)
  output c: float32[3]
  output g: float32[3]
}, num_scan_inputs=1, directions=[1]} "scan"
output f: float32[2,3]
output y: float32[2,5,3]
)", 13);
  CHECK(contains(text, "opset=13"));
  CHECK(contains(text, "\"scan_batch\""));
  CHECK(contains(text, "\"scan\""));
  CHECK(contains(text, "scan_input_directions=[0,0]"));
  CHECK(contains(text, "scan_input_directions=[1]"));
  CHECK_THROWS_WITH_AS(upgraded(R"(model ir=3 opset=8
input l: int64[2]
input s: float32[2,3]
input x: float32[2,5,3]
f = Scan(l, s, x) {body=graph {
  input a: float32[3]
  input b: float32[3]
  c = Add(a, b)
  output c: float32[3]
}, num_scan_inputs=1}
output f: float32[2,3]
)", 9), doctest::Contains("lengths of its sequences"), Error);
}

TEST_CASE("GroupNormalization's computed scales are repeated for the channels") {
  const std::string text = upgraded(R"(model ir=8 opset=18
input x: float32[1,6,4]
input s: float32[3]
initializer b: float32[3] = {1,2,3}
y = GroupNormalization(x, s, b) {num_groups=3}
output y: float32[1,6,4]
)", 21);
  CHECK(contains(text, "= Tile("));
  CHECK(contains(text, "initializer b_1: float32[6] = {1,1,2,2,3,3}"));
}

TEST_CASE("an attribute that refers to the function's becomes a Constant that does") {
  const std::string text = upgraded(R"(model ir=8 opset=17 local=1
input x: float32[1,4]
y = local.F(x) {axes=[1]}
output y: float32[1,1]
function local.F(axes) opset=17 {
  input v
  r = ReduceMean(v) {axes=@axes(ints)}
  output r
}
)", 18);
  CHECK(contains(text, "= Constant() {value_ints=@axes"));
  CHECK(contains(text, "= ReduceMean(v, "));
}

TEST_CASE("LpPool's exponent becomes an integer where it is one") {
  const auto pool = [](const std::string& p) {
    return upgraded("model ir=3 opset=1\ninput x: float32[1,1,4]\ny = GlobalLpPool(x) {p=" + p +
                        "}\noutput y: float32[1,1,1]\n",
                    2);
  };
  CHECK(contains(pool("3.0"), "{p=3}"));
  CHECK_THROWS_AS(pool("1.5"), Error);
}

TEST_CASE("nodes in subgraphs and functions are rewritten") {
  const std::string text = upgraded(R"(model ir=8 opset=12 local=1
input c: bool[]
input x: float32[1,4]
y = If(c) {else_branch=graph {
  a = Squeeze(x) {axes=[0]}
  output a: float32[4]
}, then_branch=graph {
  b = local.F(x)
  output b: float32[4]
}}
output y: float32[4]
function local.F() opset=12 {
  input v
  r = Squeeze(v) {axes=[0]}
  output r
}
)", 13);
  CHECK(contains(text, "= Squeeze(x, a_axes)"));
  CHECK(contains(text, "Constant() {value=int64[1]{0}}"));
  CHECK(contains(text, "= Squeeze(v, "));
  CHECK_FALSE(contains(text, "opset=12"));
}

TEST_CASE("what cannot be raised is named and the model stays as it was") {
  const std::unique_ptr<Model> model = parse_model(R"(model ir=4 opset=8
input x: float32[2,3]
initializer s: float32[3] = {1,1,1}
y = BatchNormalization(x, s, s, s, s) {spatial=0} "norm"
output y: float32[2,3]
)");
  const Hash128 before = structural_hash(*model, true);
  CHECK_THROWS_WITH_AS(upgrade_opset(*model, 13), doctest::Contains("node 'norm' (BatchNormalization)"), Error);
  CHECK(structural_hash(*model, true) == before);
  CHECK(upgrade_obstacles(*model, 13).size() == 1);
  CHECK_THROWS_WITH_AS(upgrade_opset(*model, 7), doctest::Contains("at opset 8"), Error);
  CHECK_THROWS_WITH_AS(upgrade_opset(*model, 28), doctest::Contains("from 1 to 27"), Error);
}

TEST_CASE("an operator that ai.onnx does not have is an obstacle") {
  const std::unique_ptr<Model> model = parse_model(R"(model ir=8 opset=13
input x: float32[2]
y = NoSuchOperator(x)
output y: float32[2]
)");
  CHECK(upgrade_obstacles(*model, 14).at(0).find("not an operator of ai.onnx") != std::string::npos);
}

TEST_CASE("the IR version follows the opset") {
  CHECK(ir_version_of_opset(8) == 3);
  CHECK(ir_version_of_opset(13) == 7);
  CHECK(ir_version_of_opset(20) == 9);
  CHECK(ir_version_of_opset(21) == 10);
  CHECK(ir_version_of_opset(25) == 13);
  const std::unique_ptr<Model> model = parse_model("model ir=7 opset=13\ninput x: float32[2]\ny = Relu(x)\noutput y: float32[2]\n");
  upgrade_opset(*model, 25);
  CHECK(model->ir_version == 13);
  CHECK(model->graph.opset() == 25);
}

}  // namespace
}  // namespace onnxpress
