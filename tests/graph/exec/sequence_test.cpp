// Sequences and optionals on the engine: operators, control flow, graph inputs and outputs; Scan.
#include <doctest/doctest.h>

#include <string>

#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

RuntimeValue list(const std::vector<float>& values) {
  return Tensor::of<float>({static_cast<std::int64_t>(values.size())}, values);
}

// "[1 2] [] 3": elements of a sequence; "-" for an empty optional.
std::string text(const RuntimeValue& value) {
  if (value.kind() == Type::Kind::optional)
    return value.content() != nullptr ? fmt::format("?{}", text(*value.content())) : "-";
  if (value.is_tensor()) {
    std::string numbers;
    const Tensor wide = value.tensor().cast(DType::float64);
    for (const double number : wide.data<double>())
      numbers += fmt::format("{}{}", numbers.empty() ? "" : " ", number);
    return value.tensor().rank() == 0 ? numbers : fmt::format("[{}]", numbers);
  }
  std::string elements;
  for (const RuntimeValue& element : value.elements())
    elements += fmt::format("{}{}", elements.empty() ? "" : " ", text(element));
  return fmt::format("{{{}}}", elements);
}

// Outputs of two runs, which must agree.
std::string run(const std::string& body, const std::vector<RuntimeValue>& inputs,
                std::int64_t opset = 18) {
  CAPTURE(body);
  const auto model = parse_model(fmt::format("model ir=8 opset={}\n{}", opset, body));
  Engine engine(*model);
  std::string all;
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::string found;
    for (const RuntimeValue& output : engine.run(inputs))
      found += (found.empty() ? "" : "; ") + text(output);
    if (repeat > 0) CHECK(found == all);
    all = found;
  }
  return all;
}

TEST_CASE("sequences are made, changed and read") {
  const std::string x = "input x: float32[n]\n";
  const std::string made = x +
                           "a = Neg(x)\nb = Add(x, x)\ns = SequenceConstruct(a, x)\n"
                           "initializer first: int64[] = {0}\ninitializer last: int64[] = {-1}\n";
  const std::string out = "output y: sequence(float32[?])\n";
  CHECK(run(made + "y = SequenceInsert(s, b)\n" + out, {list({1, 2})}) == "{[-1 -2] [1 2] [2 4]}");
  CHECK(run(made + "y = SequenceInsert(s, b, first)\n" + out, {list({1})}) == "{[2] [-1] [1]}");
  CHECK(run(made + "y = SequenceInsert(s, b, last)\n" + out, {list({1})}) == "{[-1] [2] [1]}");
  CHECK(run(made + "y = SequenceErase(s)\n" + out, {list({1})}) == "{[-1]}");
  CHECK(run(made + "y = SequenceErase(s, first)\n" + out, {list({1})}) == "{[1]}");
  CHECK(run(made + "y = SequenceAt(s, last)\noutput y: float32[?]\n", {list({3})}) == "[3]");
  CHECK(run(made + "y = SequenceLength(s)\noutput y: int64[]\n", {list({3})}) == "2");
  CHECK(run(made + "e = SequenceEmpty()\ny = SequenceInsert(e, b)\n" + out, {list({1})}) ==
        "{[2]}");
  const auto refused = [&](const std::string& rest) {
    CAPTURE(rest);
    CHECK_THROWS_AS(run(made + rest + "output y: ?\n", {list({1})}), Error);
  };
  refused("initializer p: int64[] = {2}\ny = SequenceAt(s, p)\n");
  refused("initializer p: int64[] = {3}\ny = SequenceInsert(s, b, p)\n");
  refused("initializer p: int64[] = {-3}\ny = SequenceErase(s, p)\n");
  refused("c = Cast(x) {to=7}\ny = SequenceInsert(s, c)\n");
  refused("c = Cast(x) {to=7}\ny = SequenceConstruct(x, c)\n");
  refused("y = SequenceLength(x)\n");
  refused("y = Relu(s)\n");
  refused("e = SequenceEmpty()\ny = SequenceErase(e)\n");
}

TEST_CASE("values in a sequence outlive the arena that they were computed in") {
  // Memory of `a` serves later values while the sequence still holds it.
  const std::string body = R"(input x: float32[4]
a = Neg(x)
s = SequenceConstruct(a, a)
b = Add(x, x)
c = Add(b, b)
d = Add(c, c)
initializer p: int64[] = {1}
e = SequenceAt(s, p)
y = Add(d, e)
output y: float32[4]
output s: sequence(float32[4])
)";
  CHECK(run(body, {list({1, 2, 3, 4})}) == "[7 14 21 28]; {[-1 -2 -3 -4] [-1 -2 -3 -4]}");
}

TEST_CASE("tensors to sequences and back") {
  const std::string x = "input x: float32[2,3]\n";
  const RuntimeValue given = Tensor::of<float>({2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
  const std::string out = "output y: sequence(float32)\n";
  CHECK(run(x + "y = SplitToSequence(x)\n" + out, {given}) == "{[1 2 3] [4 5 6]}");
  CHECK(run(x + "initializer k: int64[] = {2}\ny = SplitToSequence(x, k) {axis=1}\n" + out,
            {given}) == "{[1 2 4 5] [3 6]}");
  CHECK(run(x + "initializer k: int32[3] = {1,0,2}\ny = SplitToSequence(x, k) {axis=-1}\n" + out,
            {given}) == "{[1 4] [] [2 3 5 6]}");
  CHECK(run(x + "s = SplitToSequence(x) {axis=1, keepdims=0}\ny = ConcatFromSequence(s) "
                "{axis=-1}\noutput y: float32[6]\n",
            {given}) == "[1 4 2 5 3 6]");
  CHECK(run(x + "s = SplitToSequence(x) {keepdims=0}\ny = ConcatFromSequence(s) {axis=-1, "
                "new_axis=1}\noutput y: float32[3,2]\n",
            {given}) == "[1 4 2 5 3 6]");
  for (const char* bad : {"int64[] = {0}", "int64[2] = {1,1}", "int64[2] = {4,-1}"})
    CHECK_THROWS_AS(
        run(x + "initializer k: " + bad + "\ny = SplitToSequence(x, k) {axis=1}\n" + out, {given}),
        Error);
  CHECK_THROWS_AS(run(x + "s = SequenceEmpty()\ny = ConcatFromSequence(s) {axis=0}\noutput y: "
                          "float32\n",
                      {given}),
                  Error);
  CHECK_THROWS_AS(run("input s: sequence(float32)\ny = ConcatFromSequence(s) {axis=0}\noutput y: "
                      "float32\n",
                      {RuntimeValue::sequence({list({1}), given})}),
                  Error);
}

TEST_CASE("sequences and optionals are inputs and outputs of graphs") {
  const std::string identity =
      "input s: sequence(float32[?])\ny = Identity(s)\noutput y: "
      "sequence(float32[?])\n";
  CHECK(run(identity, {RuntimeValue::sequence({list({1}), list({2, 3})})}) == "{[1] [2 3]}");
  CHECK(run(identity, {RuntimeValue::sequence({})}) == "{}");
  CHECK_THROWS_WITH_AS(run(identity, {list({1})}),
                       doctest::Contains("input 's': expected sequence(float32[?]), found"), Error);
  CHECK_THROWS_AS(run(identity, {RuntimeValue::sequence({Tensor::scalar(std::int64_t{1})})}),
                  Error);
  const auto model = parse_model("model ir=8 opset=18\n" + identity);
  Engine engine(*model);
  const std::vector<Tensor> tensors{list({1}).tensor()};
  CHECK_THROWS_AS(engine.run(tensors), Error);
  const auto giving = parse_model(
      "model ir=8 opset=18\ninput x: float32[2]\ny = SequenceConstruct(x)\noutput y: "
      "sequence(float32[2])\n");
  Engine gives(*giving);
  CHECK_THROWS_WITH_AS(gives.run(std::vector<Tensor>{list({1, 2}).tensor()}),
                       doctest::Contains("output 'y': expected a tensor, found sequence(float32)"),
                       Error);

  const std::string optional =
      "input o: optional(float32[?])\ny = OptionalHasElement(o)\noutput y: "
      "bool[]\noutput o: optional(float32[?])\n";
  CHECK(run(optional, {RuntimeValue::empty_optional()}) == "0; -");
  CHECK(run(optional, {RuntimeValue::filled_optional(list({5}))}) == "1; ?[5]");
}

TEST_CASE("optionals are filled, empty, asked and opened") {
  const std::string x = "input x: float32[n]\n";
  CHECK(run(x + "a = Neg(x)\no = Optional(a)\ny = OptionalGetElement(o)\nh = "
                "OptionalHasElement(o)\noutput y: float32[n]\noutput h: bool[]\n",
            {list({2})}) == "[-2]; 1");
  CHECK(run(x + "y = OptionalGetElement(x)\nh = OptionalHasElement(x)\ne = "
                "OptionalHasElement()\noutput y: float32[n]\noutput h: bool[]\noutput e: bool[]\n",
            {list({2})}) == "[2]; 1; 0");
  CHECK(run(x + "s = SequenceConstruct(x)\no = Optional(s)\noutput o: "
                "optional(sequence(float32[n]))\n",
            {list({2})}) == "?{[2]}");
  const std::string open =
      "input o: optional(float32[?])\ny = OptionalGetElement(o)\noutput y: float32[?]\n";
  CHECK(run(open, {RuntimeValue::filled_optional(list({5}))}) == "[5]");
  CHECK_THROWS_WITH_AS(run(open, {RuntimeValue::empty_optional()}),
                       doctest::Contains("found an empty one"), Error);
}

TEST_CASE("If and Loop carry sequences") {
  const std::string loop = R"(input n: int64[]
input x: float32[1]
initializer go: bool[] = {1}
empty = SequenceEmpty()
two = Add(x, x)
y = Loop(n, go, empty) {body=graph {
  input i: int64[]
  input k: bool[]
  input s: sequence(float32[?])
  k2 = Identity(k)
  f = Cast(i) {to=1}
  v = Mul(two, f)
  s2 = SequenceInsert(s, v)
  output k2
  output s2
}}
output y: sequence(float32[?])
)";
  CHECK(run(loop, {Tensor::scalar(std::int64_t{3}), list({1})}) == "{[0] [2] [4]}");
  CHECK(run(loop, {Tensor::scalar(std::int64_t{0}), list({1})}) == "{}");
  CHECK(run(loop, {Tensor::scalar(std::int64_t{12}), list({1})}).size() > 40);
  const std::string branch = R"(input c: bool[]
input x: float32[1]
a = Neg(x)
y = If(c) {then_branch=graph {
  t = SequenceConstruct(a, x)
  output t
}, else_branch=graph {
  e = SequenceEmpty()
  output e
}}
output y: sequence(float32[?])
)";
  CHECK(run(branch, {Tensor::scalar(true), list({1})}) == "{[-1] [1]}");
  CHECK(run(branch, {Tensor::scalar(false), list({1})}) == "{}");
}

TEST_CASE("SequenceMap runs its body for every element") {
  const std::string map = R"(input s: sequence(float32[?])
input t: sequence(float32[?])
input x: float32[1]
y, z = SequenceMap(s, t, x) {body=graph {
  input a: float32[?]
  input b: float32[?]
  input c: float32[?]
  u = Add(a, c)
  v = Shape(b)
  output u
  output v
}}
output y: sequence(float32[?])
output z: sequence(int64[1])
)";
  const RuntimeValue two = RuntimeValue::sequence({list({1}), list({2, 3})});
  CHECK(run(map, {two, two, list({10})}) == "{[11] [12 13]}; {[1] [2]}");
  CHECK(run(map, {RuntimeValue::sequence({}), RuntimeValue::sequence({}), list({10})}) == "{}; {}");
  CHECK_THROWS_AS(run(map, {two, RuntimeValue::sequence({list({1})}), list({10})}), Error);
}

TEST_CASE("Scan of opset 8 has a batch axis, lengths and directions") {
  const std::string body = R"( {body=graph {
  input s: float32[1]
  input e: float32[1]
  n = Add(s, e)
  o = Identity(n)
  output n
  output o
}, num_scan_inputs=1DIRECTIONS}
output y: float32[2,1]
output z: float32[2,3,1]
)";
  const std::string head = "input l: int64[2]\ninput s: float32[2,1]\ninput x: float32[2,3,1]\n";
  const auto scan = [&](const std::string& lengths, const std::string& directions) {
    std::string text = body;
    text.replace(text.find("DIRECTIONS"), 10, directions);
    return head + "y, z = Scan(" + lengths + ", s, x)" + text;
  };
  const auto given = [](std::vector<std::int64_t> lengths) {
    return std::vector<RuntimeValue>{
        Tensor::of<std::int64_t>({2}, lengths),
        Tensor::of<float>({2, 1}, std::vector<float>{0, 10}),
        Tensor::of<float>({2, 3, 1}, std::vector<float>{1, 2, 3, 4, 5, 6})};
  };
  CHECK(run(scan("_", ""), given({3, 3}), 8) == "[6 25]; [1 3 6 14 19 25]");
  CHECK(run(scan("l", ""), given({2, 1}), 8) == "[3 14]; [1 3 0 14 0 0]");
  CHECK(run(scan("l", ", directions=[1]"), given({3, 2}), 8) == "[6 19]; [3 5 6 15 19 0]");
  CHECK_THROWS_AS(run(scan("l", ""), given({4, 1}), 8), Error);
  CHECK_THROWS_AS(run(scan("l", ""), given({-1, 1}), 8), Error);
}

}  // namespace
}  // namespace onnxpress
