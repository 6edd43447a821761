// Files of values: what is written as tensors, sequences and optionals is read back.
#include <doctest/doctest.h>

#include "graph/base/error.h"
#include "graph/ir/parse.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"
#include "tests/graph/base/temporary_folder.h"

namespace onnxpress {
namespace {

Type type_from(const std::string& text) {
  const auto model =
      parse_model("model ir=8 opset=18\ninput x: " + text + "\noutput x: " + text + "\n");
  return model->graph.inputs()[0]->type;
}

TEST_CASE("tensors, sequences and optionals come back as they were") {
  const TemporaryFolder folder;
  const Tensor tensor = parse_tensor("float32[2]{1,2}");
  const RuntimeValue sequence =
      RuntimeValue::sequence({tensor, parse_tensor("float32[1,1]{3}"), tensor});
  const RuntimeValue strings = RuntimeValue::sequence({parse_tensor("string[1]{\"a\"}")});
  const std::pair<std::string, RuntimeValue> cases[] = {
      {"float32[2]", tensor},
      {"sequence(float32)", sequence},
      {"sequence(float32)", RuntimeValue::sequence({})},
      {"sequence(string)", strings},
      {"optional(float32)", RuntimeValue::empty_optional()},
      {"optional(float32)", RuntimeValue::filled_optional(tensor)},
      {"optional(sequence(float32))", RuntimeValue::filled_optional(sequence)},
  };
  for (const auto& [written, value] : cases) {
    const std::string type = written;
    CAPTURE(type);
    folder.write("v.pb", value_to_bytes(value, "v"));
    const RuntimeValue found = read_value(folder / "v.pb", type_from(type));
    CHECK(found.equals(value));
    CHECK(to_string(type_of(found)) == to_string(type_of(value)));
  }
  folder.write("v.pb", value_to_bytes(sequence, "v"));
  CHECK_THROWS_AS(read_value(folder / "missing.pb", type_from("sequence(float32)")), Error);
  CHECK_THROWS_AS(
      value_to_bytes(RuntimeValue::filled_optional(RuntimeValue::empty_optional()), "v"), Error);
  CHECK_THROWS_AS(value_to_bytes(RuntimeValue::sequence({sequence}), "v"), Error);
}

TEST_CASE("a value knows its kind, its type and its equals") {
  const Tensor tensor = parse_tensor("float32[2]{1,2}");
  const RuntimeValue sequence = RuntimeValue::sequence({tensor, parse_tensor("float32[1]{3}")});
  const RuntimeValue optional = RuntimeValue::filled_optional(sequence);
  CHECK_FALSE(RuntimeValue().defined());
  CHECK(RuntimeValue::sequence({}).defined());
  CHECK(to_string(type_of(tensor)) == "float32[2]");
  CHECK(to_string(type_of(sequence)) == "sequence(float32)");
  CHECK(to_string(type_of(RuntimeValue::sequence({}))) == "sequence(?)");
  CHECK(to_string(type_of(RuntimeValue::sequence({tensor, parse_tensor("int8[]{1}")}))) ==
        "sequence(?)");
  CHECK(to_string(type_of(optional)) == "optional(sequence(float32))");
  CHECK(sequence.equals(RuntimeValue::sequence({tensor, parse_tensor("float32[1]{3}")})));
  CHECK_FALSE(sequence.equals(RuntimeValue::sequence({tensor})));
  CHECK_FALSE(sequence.equals(optional));
  CHECK_THROWS_WITH_AS(sequence.tensor(), "expected a tensor, found a sequence", Error);
  CHECK_THROWS_WITH_AS(optional.elements(), "expected a sequence, found an optional", Error);
  CHECK_THROWS_WITH_AS(RuntimeValue(tensor).content(), "expected an optional, found a tensor",
                       Error);
  CHECK_THROWS_AS(to_tensors({tensor, sequence}), Error);
}

}  // namespace
}  // namespace onnxpress
