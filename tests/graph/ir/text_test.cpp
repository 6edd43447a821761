#include <doctest/doctest.h>

#include "graph/ir/model.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

void check_canonical(const std::string& text) {
  const std::string printed = to_text(*parse_model(text));
  CHECK(printed == text);
}

TEST_CASE("canonical text is a fixed point") {
  check_canonical("model ir=8\n");
  check_canonical(R"(model ir=10 opset=21 com.microsoft=1
metadata "author" = "some \"body\"\nelse"
input x: float32[batch,3]
input any: float32
input unknown
input scale: float32[] = {2}
input odd: float32[n] = float32[2]{1,2}
input sparse_default: float32[4] = sparse[4](float32[1]{1}, int64[1]{0})
initializer w: float32[3,2] = {1,2.5,-3,1e-05,inf,nan}
initializer empty: int64[0] = {}
initializer words: string[2] = {"a b","c\"d"}
initializer flags: bool[2] = {1,0}
initializer big: uint64[1] = {18446744073709551615}
initializer exact: float64[1] = {0.1}
initializer half: float16[2] = {0.099975586,65504}
initializer nibbles: int4[3] = {-8,7,1}
initializer crumbs: uint2[3] = {3,0,1}
initializer eight: float8e4m3fn[2] = {448,-0.5}
initializer s = sparse[2,5](float32[2]{1,2}, int64[2,2]{0,1,1,2})
h = Gemm(x, w, _, x) {alpha=0.5, name="t\\x", transB=0} "fc1"
a, _, b: float32[batch,2] = com.microsoft.Triple()
() = Sink(h) "sink"
z = Op:overload(h)
output h: float32[batch,2]
output z
output w
)");
}

TEST_CASE("every kind of attribute") {
  check_canonical(R"(model ir=8 opset=17
input x: float32[2]
y = Op(x) {a=1, b=1.0, c="s", d=float32[2]{1,2}, e=graph {
  t = Relu(x)
  output t
}, f=[1.0,2.5], g=[1,-2], h=["a","b"], i=[float32[1]{1},string[]{"x"}], j=[graph {
  output x
},graph "named" {
  output x
}], k=sparse[3](float32[1]{1}, int64[1]{2})}
v = Op(x) {l=[sparse[3](float32[1]{1}, int64[1]{2})], m=type float32[n,?]}
u = Op(x) {n=[type sequence(map(int64,string)),type optional(int8[])], o=none}
z = Op(x) {a=floats[], b=ints[], c=strings[], d=tensors[], e=graphs[], f=sparses[], g=types[]}
w = Op(x) {a=inf, b=-inf, c=1e+20, d=nan}
output y
)");
}

TEST_CASE("names that need quotes") {
  check_canonical(R"(model ir=8 opset=17
input "a b"
input /layer1/conv.0:out-1
input "_"
input "ends:"
input onnx::Conv_12: float32[2]
"x=y" = Relu("a b")
output = "odd op"(onnx::Conv_12, _, "_", "ends:") {"k v"=1}
input = Relu(output)
initializer: float32 = Relu(input)
output output
output "x=y"
)");
}

TEST_CASE("nested graphs are indented and see the values around them") {
  check_canonical(R"(model ir=8 opset=17
input c: bool[]
initializer w: float32[1] = {1}
y = If(c) {else_branch=graph "other" {
  input c: float32[2]
  d = If(c) {then_branch=graph {
    e = Add(c, w)
    output e
  }} "inner"
  output d
}, then_branch=graph {
  initializer k: float32[1] = {1}
  output k
}} "outer"
output y: float32[?]
)");
}

TEST_CASE("functions") {
  check_canonical(R"(model ir=10 opset=21 local=1
input x
y = local.Scaled:fast(x) {alpha=2.0}
output y
function local.Scaled:fast(alpha, beta=1.0, gamma=[1,2]) opset=21 com.microsoft=1 {
  input v
  a = Elu(v) {alpha=@alpha(float)}
  r = com.microsoft.Op(a) {b=@beta(float), g=@gamma(ints)}
  output r
}
)");
}

TEST_CASE("free form is read too") {
  const auto model = parse_model(R"(
# A comment.
model ir=8 opset=17   # and another

input x: float32[ 2 , n ]
initializer w: FLOAT[2] = zeros
initializer o: int8[2] = ones
  y = Op( x,
          w ) { list = [1, 2.5],   # mixed numbers are floats
                empty = ints [ ] }
output y
)");
  CHECK(to_text(*model) == R"(model ir=8 opset=17
input x: float32[2,n]
initializer w: float32[2] = {0,0}
initializer o: int8[2] = {1,1}
y = Op(x, w) {empty=ints[], list=[1.0,2.5]}
output y
)");
}

TEST_CASE("types can be left out and are marked as declared when given") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
a: float32[2] = Relu(x)
b = Relu(a)
output b: float32[2]
)");
  CHECK(model->graph.find("x")->type_in_file);
  CHECK(model->graph.find("a")->type_in_file);
  CHECK(model->graph.find("b")->type == model->graph.find("a")->type);
  CHECK(to_text(*model, false) == R"(model ir=8 opset=17
input x: float32[2]
a = Relu(x)
b = Relu(a)
output b: float32[2]
)");
  CHECK(to_text(model->graph).starts_with("input x: float32[2]\na: float32[2] ="));
}

TEST_CASE("large tensors show a hash of their contents") {
  const auto text = [](const char* value) {
    const std::string start = "model ir=8\ninitializer w: float32[9] = ";
    return to_text(parse_model(start + value)->graph);
  };
  const std::string zeros = text("zeros");
  CHECK(zeros.starts_with("initializer w: float32[9] = {#"));
  CHECK(zeros.size() == std::string("initializer w: float32[9] = {#01234567}\n").size());
  CHECK(text("random(1)") != zeros);
  CHECK(text("random(1)") == text("random(1)"));
  CHECK(text("random(1)") != text("random(2)"));
  CHECK_THROWS_WITH_AS(parse_model("model ir=8\n" + zeros),
                       "line 2: a tensor's contents are not in the text, only their hash", Error);
}

TEST_CASE("random tensors stay in their range") {
  for (const float value : parse_tensor("float32[1000] random(1)").to_floats()) {
    CHECK(value >= -1);
    CHECK(value < 1);
  }
  bool low = false;
  bool high = false;
  for (const std::int64_t value : parse_tensor("int4[1000] random(1)").to_ints()) {
    low |= value == -8;
    high |= value == 7;
  }
  CHECK(low);
  CHECK(high);
  for (const std::int64_t value : parse_tensor("int64[100] random(1,3,5)").to_ints()) {
    CHECK(value >= 3);
    CHECK(value <= 5);
  }
  CHECK_THROWS_AS(parse_tensor("int8[1] random(1,0,200)"), Error);
  CHECK_THROWS_AS(parse_tensor("int8[1] random(1,5,3)"), Error);
  CHECK_THROWS_AS(parse_tensor("bool[1] random(1)"), Error);
}

TEST_CASE("types and tensors alone") {
  for (const char* text :
       {"float32[batch,3]", "int8", "?", "sequence(float32[?])", "map(string,sequence(int64))",
        "optional(sequence(float32[2]))", "sparse(float32[2,2])", "opaque(\"d\",\"n\")",
        "float32[\"a,b\",n + 1]"})
    CHECK(to_string(parse_type(text)) == text);
  CHECK(parse_tensor("int8[2,2]{1,2,3,4}").equals(Tensor::of<std::int8_t>({2, 2}, {1, 2, 3, 4})));
  CHECK_THROWS_AS(parse_type("float33[2]"), Error);
  CHECK_THROWS_AS(parse_type("float32[2] more"), Error);
  CHECK_THROWS_AS(parse_tensor("float32[2]{1}"), Error);
  CHECK_THROWS_AS(parse_tensor("float32[n]{1}"), Error);
  CHECK_THROWS_AS(parse_tensor("int8[1]{128}"), Error);
  CHECK_THROWS_AS(parse_tensor("int8[1]{1.5}"), Error);
  CHECK_THROWS_AS(parse_tensor("bool[1]{2}"), Error);
  CHECK_THROWS_AS(parse_tensor("complex64[1]{1}"), Error);
  CHECK_THROWS_AS(parse_tensor("int64[1]{99999999999999999999}"), Error);
}

TEST_CASE("errors name the line") {
  const auto error_of = [](const std::string& text) {
    try {
      parse_model(text);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(error_of("") == "line 1: expected a line 'model ir=... opset=...', found the end");
  const std::string head = "model ir=8 opset=17\ninput x: float32[2]\n";
  CHECK(error_of(head + "y = Relu(q)\n") == "line 3: no value is named 'q'");
  CHECK(error_of(head + "x = Relu(x)\n") == "line 3: duplicate value name 'x'");
  CHECK(error_of(head + "y = Relu(x) z\n") == "line 3: expected the end of the line, found 'z'");
  CHECK(error_of(head + "y = Relu(x\n") == "line 3: expected ')', found the end of the line");
  CHECK(error_of(head + "y Relu(x)\n") == "line 3: expected '=', found 'Relu(x)'");
  CHECK(error_of(head + "y = Relu(x) {a=}\n") ==
        "line 3: expected an attribute's value, found '}'");
  CHECK(error_of(head + "y = Relu(x) {a=1, a=2}\n") == "line 3: duplicate attribute 'a'");
  CHECK(error_of(head + "y = Relu(x) {a=[1,\"b\"]}\n") ==
        "line 3: the items of a list differ in kind");
  CHECK(error_of(head + "y = Relu(x) {a=12345678901234567890}\n") ==
        "line 3: '12345678901234567890' is not a number in range");
  CHECK(error_of(head + "y = If(x) {b=graph {\n  t = Relu(q)\n}}\n") ==
        "line 4: no value is named 'q'");
  CHECK(error_of(head + "initializer w = {1}\n") ==
        "line 3: a value of type ? needs its element type and shape");
  CHECK(error_of(head + "y = Relu(x) \"open\n") ==
        "line 4: expected a closing quote, found the end");
  CHECK(error_of(head + "y = If(x) {b=graph {\n") == "line 4: expected '}', found the end");
}

TEST_CASE("values out of order print as they are") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2]
a = Relu(x)
b = Relu(a)
)");
  Graph& graph = model->graph;
  graph.move_before(graph.find("b")->producer(), graph.find("a")->producer());
  CHECK(to_text(graph) == "input x: float32[2]\nb = Relu(a)\na = Relu(x)\n");
}

}  // namespace
}  // namespace onnxpress
