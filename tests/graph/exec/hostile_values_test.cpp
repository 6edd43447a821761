// Values that no sensible model has: each must end in an Error, or in what the operator's
// specification says, whether it is known when the model is planned or only when it runs.
#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

// How the operands a, b, c, ... reach the node.
enum class Operands { inputs, unranked_inputs, initializers };

struct Call {
  std::unique_ptr<Model> model;
  std::vector<Tensor> inputs;

  Tensor run() const { return Engine(*model, {.threads = 2}).run(inputs)[0]; }
};

// y of `node`, whose operands are given as text ("int64[2]{1,2}", "int8[9] ones").
Call call_of(const std::string& node, const std::vector<std::string>& operands, Operands how) {
  std::string text = "model ir=9 opset=19\n";
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const char operand = static_cast<char>('a' + i);
    const std::string& given = operands[i];
    const std::string type = given.substr(0, given.find(']') + 1);
    if (how == Operands::initializers) {
      text += fmt::format("initializer {}: {} = {}\n", operand, type, given.substr(type.size()));
      continue;
    }
    const bool ranked = how == Operands::inputs;
    text += fmt::format("input {}: {}\n", operand, ranked ? type : type.substr(0, type.find('[')));
    inputs.push_back(parse_tensor(given));
  }
  text += fmt::format("y = {}\noutput y\n", node);
  return {parse_model(text), std::move(inputs)};
}

const Operands every_way[] = {Operands::inputs, Operands::unranked_inputs, Operands::initializers};

void check_refused(const std::string& node, const std::vector<std::string>& operands) {
  for (const Operands how : every_way) {
    CAPTURE(node);
    CAPTURE(fmt::format("{}", fmt::join(operands, " ")));
    CAPTURE(static_cast<int>(how));
    const Call call = call_of(node, operands, how);
    CHECK_THROWS_AS(call.run(), Error);
  }
}

void check_result(const std::string& node, const std::vector<std::string>& operands,
                  const std::string& expected) {
  for (const Operands how : every_way) {
    CAPTURE(node);
    CAPTURE(static_cast<int>(how));
    const Tensor y = call_of(node, operands, how).run();
    const Tensor wanted = parse_tensor(expected);
    CHECK(to_string(y.dims()) == to_string(wanted.dims()));
    CHECK(y.equals(wanted));
  }
}

const std::string matrix = "float32[2,3]{1,2,3,4,5,6}";
const std::string lowest = "-9223372036854775808";
const std::string highest = "9223372036854775807";
const std::string half = "4611686018427387904";  // 2^62

std::string pair(const std::string& first, const std::string& second) {
  return fmt::format("int64[2]{{{},{}}}", first, second);
}
std::string one(const std::string& value) { return fmt::format("int64[1]{{{}}}", value); }
std::string scalar(const std::string& value) { return fmt::format("int64[]{{{}}}", value); }

TEST_CASE("shapes that overflow or are negative are refused") {
  for (const auto& [first, second] : std::vector<std::pair<std::string, std::string>>{
           {half, "4"}, {highest, highest}, {"-2", "3"}, {lowest, "1"}, {"0", lowest}}) {
    const std::string shape = pair(first, second);
    check_refused("Reshape(a, b)", {matrix, shape});
    check_refused("Expand(a, b)", {"float32[1,1]{1}", shape});
    check_refused("Tile(a, b)", {matrix, shape});
    check_refused("ConstantOfShape(a)", {shape});
    check_refused("Resize(a, _, _, b)", {matrix, shape});
  }
  check_refused("Reshape(a, b)", {matrix, pair("-1", "-1")});
  check_refused("Reshape(a, b)", {matrix, pair("4", "-1")});
  check_refused("Expand(a, b)", {"float32[1,1]{1}", pair("-1", "3")});
  check_refused("Tile(a, b)", {matrix, one("2")});
  // 2^52 elements, and an empty tensor whose other axes are too long.
  check_refused("ConstantOfShape(a)", {one("4503599627370496")});
  const std::string empty_but_long =
      "int64[4]{1099511627776,0,1099511627776,1099511627776}";  // 2^40 each
  check_refused("ConstantOfShape(a)", {empty_but_long});
  check_refused("Reshape(a, b) {allowzero=1}",
                {"float32[0]{}", "int64[3]{0,1099511627776,1099511627776}"});
  check_refused("ConstantOfShape(a) {value=string[1]{\"s\"}}", {one("1152921504606846976")});
}

TEST_CASE("ranges, pads, scales and depths that overflow are refused") {
  check_refused("Range(a, b, c)", {scalar("0"), scalar(highest), scalar("1")});
  check_refused("Range(a, b, c)", {scalar(lowest), scalar(highest), scalar("1")});
  check_refused("Range(a, b, c)", {scalar("0"), scalar("5"), scalar("0")});
  check_refused("Range(a, b, c)", {"float32[]{0}", "float32[]{inf}", "float32[]{1}"});
  check_refused("Range(a, b, c)", {"float32[]{nan}", "float32[]{1}", "float32[]{1}"});
  for (const std::string mode : {"constant", "edge", "reflect", "wrap"}) {
    const std::string pad = fmt::format("Pad(a, b) {{mode=\"{}\"}}", mode);
    const std::string vector = "float32[3]{1,2,3}";
    check_refused(pad, {vector, pair(highest, highest)});
    check_refused(pad, {vector, pair(lowest, highest)});
    check_refused(pad, {vector, pair(lowest, lowest)});
    check_refused(pad, {vector, pair("-2", "-2")});
    check_refused(pad, {vector, one("1")});
  }
  for (const std::string scale : {"1e30", "-1.0", "0.0", "inf", "nan"})
    check_refused("Resize(a, _, b)", {matrix, fmt::format("float32[2]{{{},1.0}}", scale)});
  for (const std::string& depth : {highest, lowest, std::string("-1")})
    check_refused("OneHot(a, b, c)", {pair("0", "1"), scalar(depth), "float32[2]{0,1}"});
  check_refused("TopK(a, b)", {matrix, one(highest)});
  check_refused("TopK(a, b)", {matrix, one(lowest)});
}

TEST_CASE("indices and axes out of range are refused") {
  for (const std::string& index : {std::string("2"), std::string("-3"), lowest, highest}) {
    check_refused("Gather(a, b)", {matrix, one(index)});
    check_refused("GatherElements(a, b)", {matrix, fmt::format("int64[1,1]{{{}}}", index)});
    check_refused("GatherND(a, b)", {matrix, fmt::format("int64[1,1]{{{}}}", index)});
    check_refused("ScatterElements(a, b, c)",
                  {matrix, fmt::format("int64[1,1]{{{}}}", index), "float32[1,1]{9}"});
    check_refused("ScatterND(a, b, c)",
                  {matrix, fmt::format("int64[1,1]{{{}}}", index), "float32[1,3]{7,8,9}"});
  }
  for (const std::string& axis : {std::string("2"), std::string("-3"), lowest, highest}) {
    check_refused(fmt::format("Gather(a, b) {{axis={}}}", axis), {matrix, one("0")});
    check_refused("ReduceSum(a, b)", {matrix, one(axis)});
    check_refused("CumSum(a, b)", {matrix, scalar(axis)});
    check_refused(fmt::format("Softmax(a) {{axis={}}}", axis), {matrix});
  }
  check_refused(fmt::format("GatherND(a, b) {{batch_dims={}}}", highest),
                {matrix, "int64[2,1]{0,0}"});
  check_refused("Slice(a, b, c, d, e)", {matrix, one("0"), one("2"), one("0"), one("0")});
  check_refused("Slice(a, b, c)", {matrix, one("0"), pair("1", "2")});
}

TEST_CASE("operands that do not broadcast are refused") {
  for (const std::string op : {"Add", "Mul", "Pow", "PRelu"})
    check_refused(op + "(a, b)", {matrix, "float32[2]{1,2}"});
  check_refused("PRelu(a, b)", {"float32[3] ones", "float32[4,3] ones"});
  check_refused("Where(a, b, c)", {"bool[2]{1,0}", matrix, matrix});
  check_refused("Expand(a, b)", {matrix, pair("2", "2")});
  check_refused("MatMul(a, b)", {matrix, matrix});
}

TEST_CASE("operands of a length that does not fit the data are refused") {
  const std::string image = "float32[1,3,4,4] ones";
  const std::string three = "float32[3] ones";
  for (const std::string wrong : {"float32[2] ones", "float32[4] ones", "float32[0]{}"}) {
    check_refused("Conv(a, b, c)", {image, "float32[3,3,1,1] ones", wrong});
    check_refused("ConvTranspose(a, b, c)", {image, "float32[3,3,1,1] ones", wrong});
    check_refused("Gemm(a, b, c)", {matrix, "float32[3,3] ones", wrong});
    check_refused("InstanceNormalization(a, b, c)", {image, wrong, three});
    check_refused("InstanceNormalization(a, b, c)", {image, three, wrong});
    check_refused("LayerNormalization(a, b)", {matrix, wrong});
    check_refused("LayerNormalization(a, b, c)", {matrix, three, wrong});
    for (int place = 0; place < 4; ++place) {
      std::vector<std::string> operands{image, three, three, three, three};
      operands[static_cast<std::size_t>(place) + 1] = wrong;
      check_refused("BatchNormalization(a, b, c, d, e)", operands);
    }
    check_refused("DequantizeLinear(a, b)", {"int8[2,3] ones", wrong});
    check_refused("QuantizeLinear(a, b)", {matrix, wrong});
    check_refused("QLinearConv(a, b, c, d, e, f, g, h)",
                  {"uint8[1,3,4,4] ones", "float32[]{1}", "uint8[]{1}", "int8[3,3,1,1] ones", wrong,
                   "int8[]{0}", "float32[]{1}", "uint8[]{1}"});
    check_refused("QLinearMatMul(a, b, c, d, e, f, g, h)",
                  {"uint8[2,3] ones", "float32[]{1}", "uint8[]{1}", "int8[3,3] ones", wrong,
                   "int8[]{0}", "float32[]{1}", "uint8[]{1}"});
  }
  check_refused("Conv(a, b)", {image, "float32[3,2,1,1] ones"});
  check_refused("MatMulInteger(a, b, c, d)",
                {"uint8[2,3] ones", "int8[3,3] ones", "uint8[]{1}", "int8[2] ones"});
  const std::string sequence = "float32[2,1,3] ones";
  for (const auto& [op, gates] :
       std::vector<std::pair<std::string, int>>{{"LSTM", 4}, {"GRU", 3}, {"RNN", 1}}) {
    const auto sized = [&](int rows, int columns) {
      return fmt::format("float32[1,{},{}] ones", gates * rows, columns);
    };
    const auto bias = [&](int size) { return fmt::format("float32[1,{}] ones", 2 * gates * size); };
    const std::string call = op + "(a, b, c, d, e, f) {hidden_size=2}";
    const std::string lengths = "int32[1]{2}";
    const std::string state = "float32[1,1,2] ones";
    for (const Operands how : every_way) {
      const Call fitting =
          call_of(call, {sequence, sized(2, 3), sized(2, 2), bias(2), lengths, state}, how);
      CHECK(fitting.run().dims() == Dims{2, 1, 1, 2});
    }
    check_refused(call, {sequence, sized(1, 3), sized(2, 2), bias(2), lengths, state});
    check_refused(call, {sequence, sized(2, 4), sized(2, 2), bias(2), lengths, state});
    check_refused(call, {sequence, sized(2, 3), sized(2, 1), bias(2), lengths, state});
    check_refused(call, {sequence, sized(2, 3), sized(2, 2), bias(1), lengths, state});
    check_refused(call, {sequence, sized(2, 3), sized(2, 2), bias(2), "int32[1]{3}", state});
    check_refused(call, {sequence, sized(2, 3), sized(2, 2), bias(2), "int32[1]{-1}", state});
    check_refused(call, {sequence, sized(2, 3), sized(2, 2), bias(2), "int32[2]{2,2}", state});
    check_refused(call,
                  {sequence, sized(2, 3), sized(2, 2), bias(2), lengths, "float32[1,1,1] ones"});
  }
}

TEST_CASE("integer division by zero is refused, that of the lowest by -1 wraps around") {
  for (const std::string type : {"int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"}) {
    const std::vector<std::string> operands = {type + "[2]{7,0}", type + "[2]{2,0}"};
    check_refused("Div(a, b)", operands);
    check_refused("Mod(a, b)", operands);
    check_refused("Mod(a, b) {fmod=1}", operands);
  }
  check_result("Div(a, b)", {pair(lowest, "7"), pair("-1", "-2")}, pair(lowest, "-3"));
  check_result("Mod(a, b)", {pair(lowest, "7"), pair("-1", "-2")}, pair("0", "-1"));
  check_result("Mod(a, b) {fmod=1}", {pair(lowest, "7"), pair("-1", "-2")}, pair("0", "1"));
  check_result("Div(a, b)", {"int32[1]{-2147483648}", "int32[1]{-1}"}, "int32[1]{-2147483648}");
  check_result("Abs(a)", {one(lowest)}, one(lowest));
  check_result("Neg(a)", {one(lowest)}, one(lowest));
}

TEST_CASE("extreme values that mean something are taken") {
  const std::string vector = "int64[3]{1,2,3}";
  const std::string reversed = "int64[3]{3,2,1}";
  check_result("Slice(a, b, c)", {vector, one(lowest), one(highest)}, vector);
  check_result("Slice(a, b, c, d, e)", {vector, one(highest), one(lowest), one("0"), one("-1")},
               reversed);
  check_result("Slice(a, b, c, d, e)", {vector, one("0"), one(highest), one("0"), one(highest)},
               one("1"));
  check_result("Slice(a, b, c, d, e)", {vector, one("-1"), one(lowest), one("0"), one(lowest)},
               one("3"));
  check_result("Range(a, b, c)", {scalar(lowest), scalar(highest), scalar(half)},
               fmt::format("int64[4]{{{},-4611686018427387904,0,{}}}", lowest, half));
  check_result("Range(a, b, c)", {scalar(highest), scalar("9223372036854775806"), scalar("-1")},
               one(highest));
  check_result("OneHot(a, b, c)", {pair(lowest, highest), scalar("2"), pair("0", "1")},
               "int64[2,2]{0,0,0,0}");
}

// As an axis of an input that has no elements.
TEST_CASE("an empty input with an axis of the longest length is refused") {
  const auto model = parse_model(fmt::format(R"(model ir=9 opset=19
input a: float32[0,{}]
initializer s: int64[1] = {{-1}}
initializer e: int64[1] = {{{}}}
initializer x: int64[1] = {{1}}
initializer t: int64[1] = {{-1}}
y = Slice(a, s, e, x, t)
output y
)",
                                             highest, lowest));
  CHECK_THROWS_AS(Tensor(DType::float32, Dims{0, std::numeric_limits<std::int64_t>::max()}), Error);
  Engine engine(*model);
  CHECK_THROWS_AS(engine.run(std::vector<Tensor>{Tensor(DType::float32, {0, 3})}), Error);
}

}  // namespace
}  // namespace onnxpress
