// --input-shape, activation memory, --profile, operators without a kernel.
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "graph/ir/parse.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"
#include "tests/tools/command.h"
#include "tests/tools/data/scratch.h"

namespace onnxpress {

namespace fs = std::filesystem;
using Report = nlohmann::ordered_json;

namespace {

const std::string testdata = ONNXPRESS_TESTDATA;
const std::string cnn = testdata + "/digits_cnn.onnx";
const std::string test_npz = testdata + "/digits_test.npz";

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

CommandResult in(const Scratch& scratch, const std::vector<std::string>& arguments) {
  return run_onnxpress(arguments, {.folder = scratch.path()});
}

Report report_of(const CommandResult& result) {
  INFO(result.err);
  REQUIRE_FALSE(result.out.empty());
  return Report::parse(result.out);
}

// Two inputs that share the symbol "time"; nothing is known of the middle axis of the second.
constexpr const char* sequence = R"(model ir=8 opset=17
input x: float32[batch,time,4]
input mask: float32[batch,time,1]
initializer w: float32[4,8] = random(1)
a = MatMul(x, w)
b = Relu(a)
y: float32[batch,time,8] = Mul(b, mask)
output y: float32[batch,time,8]
)";

}  // namespace

TEST_CASE("inspect counts MACs and activations for open dims as 1, or as --input-shape says") {
  const Scratch scratch;
  write_model(*parse_model(sequence), scratch / "m.onnx");
  const CommandResult table = in(scratch, {"inspect", "m.onnx"});
  CHECK(has(table.out, "with batch = 1, time = 1"));
  const auto model = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"inspect", "m.onnx", "--format", "json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return report_of(in(scratch, arguments))["model"];
  };
  CHECK(model({})["macs"] == 4 * 8);
  CHECK(model({})["open_dims"] == Report::array({"batch", "time"}));
  const Report fixed = model({"--input-shape", "x=2x5x4"});
  CHECK(fixed["macs"] == 2 * 5 * 4 * 8);
  CHECK(fixed["open_dims"].empty());  // the mask has the same symbols
  // x [2,5,4] and the mask, then a and b together: that is more than b, the mask and y.
  CHECK(fixed["activation_bytes"] == 4 * (2 * 5 * 1 + 2 * (2 * 5 * 8)));
  CHECK(fixed["activations_unknown"] == 0);
}

TEST_CASE("open dims that cannot be 1 stay unknown, and inspect says what counts them") {
  const Scratch scratch;
  write_model(*parse_model(R"(model ir=8 opset=17
input x: float32[1,2,time]
initializer w: float32[4,2,5] = random(1)
y: float32[1,4,out] = Conv(x, w)
output y: float32[1,4,out]
)"),
              scratch / "m.onnx");
  const CommandResult open = in(scratch, {"inspect", "m.onnx"});
  CHECK(has(open.out, "0 + 1 unknown (--input-shape counts all: open are time)"));
  const Report fixed = report_of(
      in(scratch, {"inspect", "m.onnx", "--input-shape", "x=1x2x9", "--format", "json"}))["model"];
  CHECK(fixed["macs"] == 5 * 4 * 2 * 5);
  CHECK(fixed["macs_unknown"] == 0);
}

TEST_CASE("--input-shape that does not fit is status 2 with every verb") {
  const Scratch scratch;
  write_model(*parse_model(sequence), scratch / "m.onnx");
  const auto refused = [&](const std::vector<std::string>& shapes, const std::string& words) {
    for (const auto& verb : std::vector<std::vector<std::string>>{
             {"inspect", "m.onnx"},
             {"compare", "m.onnx", "m.onnx", "--random", "1"},
             {"compress", "m.onnx", "-o", "out.onnx", "--passes", "simplify"}}) {
      std::vector<std::string> arguments = verb;
      for (const std::string& shape : shapes) {
        arguments.push_back("--input-shape");
        arguments.push_back(shape);
      }
      const CommandResult result = in(scratch, arguments);
      CAPTURE(result.err);
      CHECK(result.status == 2);
      CHECK(has(result.err, words));
    }
  };
  refused({"z=1x1"}, "no input 'z'");
  refused({"masc=1x1x1"}, "did you mean 'mask'?");
  refused({"x=1x2x5"}, "input 'x' is declared");
  refused({"x=1x2"}, "input 'x' is declared");
  refused({"x=1x2x4", "mask=1x3x1"}, "'time' is 2 in input 'x' and 3 in input 'mask'");
  refused({"x=1x2x4", "x=1x2x4"}, "given twice");
  refused({"x=1x-2x4"}, "expected dims");
}

TEST_CASE("--input-shape decides what generated inputs look like and leaves the file's shapes") {
  const Scratch scratch;
  write_model(*parse_model(sequence), scratch / "m.onnx");
  const Report random = report_of(in(scratch, {"compare", "m.onnx", "m.onnx", "--random", "3",
                                               "--input-shape", "x=6x5x4", "--format", "json"}));
  CHECK(random["output_errors"]["outputs"][0]["samples"] == 18);
  CHECK(random["before"]["macs"] == 6 * 5 * 4 * 8);
  const Report compressed = report_of(in(
      scratch, {"compress", "m.onnx", "-o", "out.onnx", "--passes", "prune_magnitude{sparsity=0.5}",
                "--input-shape", "x=6x5x4", "--format", "json"}));
  CHECK(compressed["before"]["macs"] == 6 * 5 * 4 * 8);
  CHECK(compressed["passes"][0]["macs"]["after"] == 6 * 5 * 4 * 8);
  CHECK(compressed["passes"][0]["errors"][0]["samples"] == 4 * 6);
  const auto written = read_model(scratch / "out.onnx").model;
  CHECK(to_string(written->graph.inputs()[0]->type) == "float32[batch,time,4]");
}

TEST_CASE("run --profile shows operators and nodes, --profile-trace writes Chrome's format") {
  const Scratch scratch;
  const CommandResult table =
      in(scratch, {"run", cnn, "-i", test_npz, "-o", "out.npz", "--profile"});
  CHECK(table.status == 0);
  CHECK(has(table.out, "Time by operator"));
  CHECK(has(table.out, "Slowest nodes"));
  const CommandResult result =
      in(scratch, {"run", cnn, "-i", test_npz, "-o", "out.npz", "--profile", "--profile-trace",
                   "trace.json", "--format", "json"});
  const Report profile = report_of(result)["profile"];
  double share = 0, node_seconds = 0;
  std::int64_t calls = 0;
  bool convolves = false;
  for (const Report& row : profile["operators"]) {
    share += row["share"].get<double>();
    calls += row["calls"].get<std::int64_t>();
    if (row["operator"] == "Conv") {
      convolves = true;
      CHECK(row["gflops"].get<double>() > 0);
    }
  }
  for (const Report& row : profile["nodes"]) node_seconds += row["seconds"].get<double>();
  CHECK(convolves);
  CHECK(share == doctest::Approx(1));
  CHECK(calls == profile["steps"]);
  CHECK(node_seconds <= profile["seconds"].get<double>() * 1.0001);
  const Report trace = Report::parse(contents(scratch / "trace.json"));
  REQUIRE(trace["traceEvents"].size() == profile["steps"]);
  double last = 0;
  for (const Report& event : trace["traceEvents"]) {
    CHECK(event["ph"] == "X");
    CHECK(event["ts"].get<double>() >= last);
    CHECK(event["dur"].get<double>() >= 0);
    last = event["ts"].get<double>();
  }
}

TEST_CASE("an operator without a kernel: which, where, and what works without it") {
  const Scratch scratch;
  std::unique_ptr<Model> model = parse_model(R"(model ir=8 opset=17
input x: float32[2,4]
initializer w: float32[4,300] = random(1)
a = MatMul(x, w)
y: float32[2,300] = Relu(a) "odd"
output y: float32[2,300]
)");
  model->opsets["my.domain"] = 3;
  for (Node* node : model->graph.nodes())
    if (node->name == "odd") model->graph.set_operator(node, "Foo", "my.domain");
  write_model(*model, scratch / "m.onnx");
  scratch.write_npz("d.npz",
                    {{"x", Tensor(DType::float32, {2, 4})}, {"y", Tensor(DType::int64, {2})}});
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"run", "m.onnx", "-i", "d.npz", "-o", "out.npz"},
           {"eval", "m.onnx", "--data", "d.npz"},
           {"compare", "m.onnx", "m.onnx", "--data", "d.npz"},
           {"compress", "m.onnx", "-o", "o.onnx", "--passes", "simplify", "--eval", "d.npz"}}) {
    const CommandResult result = in(scratch, arguments);
    CAPTURE(result.err);
    CHECK(result.status == 2);
    CHECK(has(result.err, "the engine has no kernel for Foo of my.domain 3 (node 'odd'"));
    CHECK(has(result.err, "without running the model there are inspect"));
  }
  CHECK(in(scratch, {"inspect", "m.onnx"}).status == 0);
  const CommandResult quantized =
      in(scratch, {"compress", "m.onnx", "-o", "out.onnx", "--passes", "quantize_weights"});
  CHECK(quantized.status == 0);
  CHECK(quantized.out.starts_with("NOT VERIFIED: "));
}

}  // namespace onnxpress
