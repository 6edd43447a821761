// What the command says of outputs that cannot be judged, of sizes and of declared shapes.
#include <doctest/doctest.h>

#include <filesystem>
#include <limits>
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

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

CommandResult in(const Scratch& scratch, const std::vector<std::string>& arguments) {
  return run_onnxpress(arguments, {.folder = scratch.path()});
}

Report report_of(const CommandResult& result) {
  INFO(result.err);
  REQUIRE_FALSE(result.out.empty());
  return Report::parse(result.out);
}

// Three class scores a sample, all of them the square root of something below -1.
constexpr const char* all_nan = R"(model ir=8 opset=17
input x: float32[batch,4]
initializer w: float32[4,3] = random(1)
initializer one: float32[] = {1}
a = MatMul(x, w)
b = Mul(a, a)
c = Neg(b)
d = Sub(c, one)
y: float32[batch,3] = Sqrt(d)
output y: float32[batch,3]
)";

void write(const Scratch& scratch, const std::string& name, const char* text) {
  write_model(*parse_model(text), scratch / name);
}

Tensor counting(Dims dims) {
  Tensor tensor(DType::float32, std::move(dims));
  float next = 0;
  for (float& value : tensor.mutable_data<float>()) value = next++;
  return tensor;
}

}  // namespace

TEST_CASE("outputs that are all NaN verify nothing, and no gate is met by them") {
  const Scratch scratch;
  write(scratch, "m.onnx", all_nan);
  scratch.write_npz("d.npz", {{"x", counting({6, 4})}, {"y", Tensor(DType::int64, {6})}});
  const std::vector<std::string> compress{"compress", "m.onnx",   "-o",
                                          "out.onnx", "--passes", "prune_magnitude{sparsity=0.5}"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), compress.begin(), compress.end());
    return in(scratch, more);
  };
  const CommandResult generated = with({});
  CHECK(generated.status == 0);
  CHECK(
      first_line(generated.out).starts_with("COULD NOT BE JUDGED: no output has a finite number"));
  CHECK(has(generated.out, "WARNING: the original model, output 'y': "));
  CHECK(has(generated.out, "elements are NaN"));

  fs::remove(scratch / "out.onnx");
  const CommandResult required = with({"--require-verified"});
  CHECK(required.status == 1);
  CHECK_FALSE(fs::exists(scratch / "out.onnx"));

  const CommandResult gates =
      with({"--eval", "d.npz", "--max-drop", "1%", "--min-agreement", "10%", "--format", "json"});
  CHECK(gates.status == 1);
  const Report report = report_of(gates);
  CHECK(report["verified"] == false);
  for (const Report& gate : report["gates"]) {
    CHECK(gate["met"] == false);
    CHECK(has(gate["text"].get<std::string>(), "could not be judged"));
  }
  const Report& error = report["output_errors"]["outputs"][0];
  CHECK(error["non_finite_before"]["nan"] == 18);
  CHECK(error["non_finite_after"]["elements"] == 18);
  CHECK(error["top1_agreement"] == 0.0);
}

TEST_CASE("gates are not met where fused kernels hide NaN inside") {
  const Scratch scratch;
  write(scratch, "m.onnx", R"(model ir=8 opset=17
input x: float32[batch,4]
initializer w: float32[4,3] = random(1)
initializer one: float32[] = {1}
initializer v: float32[3,3] = random(2)
a = MatMul(x, w)
b = Mul(a, a)
c = Neg(b)
d = Sub(c, one)
e = Sqrt(d)
f = MatMul(e, v)
y: float32[batch,3] = Relu(f)
output y: float32[batch,3]
)");
  scratch.write_npz("d.npz", {{"x", counting({6, 4})}, {"y", Tensor(DType::int64, {6})}});
  const CommandResult result =
      in(scratch, {"compress", "m.onnx", "-o", "out.onnx", "--passes", "prune_magnitude{sparsity=0.5}", "--eval",
                   "d.npz", "--max-drop", "1%", "--min-agreement", "10%"});
  CHECK(result.status == 1);
  CHECK(has(result.err, "gate missed: --max-drop 1%: could not be judged"));
  CHECK(has(result.err, "gate missed: --min-agreement 10%: could not be judged"));
  CHECK_FALSE(fs::exists(scratch / "out.onnx"));
}

TEST_CASE("eval and run tell outputs that are no numbers in their first lines") {
  const Scratch scratch;
  write(scratch, "m.onnx", all_nan);
  scratch.write_npz("d.npz", {{"x", counting({6, 4})}, {"y", Tensor(DType::int64, {6})}});
  const CommandResult eval = in(scratch, {"eval", "m.onnx", "--data", "d.npz"});
  CHECK(eval.status == 0);
  CHECK(first_line(eval.out) == "COULD NOT BE JUDGED: no element of output 'y' is a finite number");
  CHECK(has(eval.out, "WARNING: output 'y': 18 of 18 elements are NaN"));
  const CommandResult run = in(scratch, {"run", "m.onnx", "-i", "d.npz", "-o", "out.npz"});
  CHECK(run.status == 0);
  CHECK(first_line(run.out) == "WARNING: output 'y': 18 of 18 elements are NaN");
  const CommandResult compare =
      in(scratch, {"compare", "m.onnx", "m.onnx", "--data", "d.npz", "--min-agreement", "50%"});
  CHECK(compare.status == 1);
  CHECK(first_line(compare.out).starts_with("COULD NOT BE JUDGED"));
}

TEST_CASE("some NaN is told and does not stop the rest from being judged") {
  const Scratch scratch;
  write(scratch, "m.onnx", R"(model ir=8 opset=17
input x: float32[batch,4]
initializer w: float32[4,3] = random(1)
a = MatMul(x, w)
y: float32[batch,3] = Add(a, a)
output y: float32[batch,3]
)");
  Tensor x = counting({6, 4});
  x.mutable_data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  scratch.write_npz("d.npz", {{"x", x}});
  const CommandResult result = in(scratch, {"compress", "m.onnx", "-o", "out.onnx", "--passes",
                                            "prune_magnitude{sparsity=0.2}", "--eval", "d.npz"});
  CHECK(result.status == 0);
  CHECK(first_line(result.out).starts_with("verified: "));
  CHECK(has(result.out, "WARNING: the original model, output 'y': 3 of 18 elements are NaN"));
  CHECK(has(result.out, "WARNING: the resulting model, output 'y': 3 of 18 elements are NaN"));
}

TEST_CASE("--require-verified says what is true when no pass changed the model") {
  const Scratch scratch;
  const CommandResult result = in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes",
                                            "eliminate_dead_code", "--require-verified"});
  CHECK(result.status == 0);
  CHECK(first_line(result.out) == "nothing to verify: no pass changed the model");
  CHECK(has(result.out, "no pass changed the model: there was nothing to compare"));
}

TEST_CASE("the rows of the attribution sum up to the whole change") {
  const Scratch scratch;
  const auto check = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{
        "compress", cnn,    "-o",       "out.onnx",
        "--format", "json", "--passes", "simplify,fuse,quantize_weights"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Report report = report_of(in(scratch, arguments));
    std::int64_t saved = 0, last = report["before"]["bytes"]["total"].get<std::int64_t>();
    REQUIRE(report["attribution"].size() == 5);
    CHECK(report["attribution"].front()["what"] == "re-encoding");
    for (const Report& row : report["attribution"]) {
      CHECK(row["bytes"]["before"] == last);
      last = row["bytes"]["after"].get<std::int64_t>();
      saved += row["bytes"]["before"].get<std::int64_t>() - last;
    }
    CHECK(last == report["after"]["bytes"]["total"]);
    CHECK(saved == report["before"]["bytes"]["total"].get<std::int64_t>() - last);
    for (const Report& pass : report["passes"]) CHECK(pass["verification_seconds"] >= 0.0);
  };
  check({});
  check({"--external-data", "always"});
}

TEST_CASE("compare tells opsets as they are, older ones too") {
  const Scratch scratch;
  constexpr const char* body = R"(
input x: float32[2]
y: float32[2] = Relu(x)
output y: float32[2]
)";
  write(scratch, "new.onnx", (std::string("model ir=8 opset=17") + body).c_str());
  write(scratch, "old.onnx", (std::string("model ir=7 opset=13") + body).c_str());
  const std::string out = in(scratch, {"compare", "new.onnx", "old.onnx"}).out;
  CHECK(has(out, "17 -> 13"));
  CHECK_FALSE(has(out, "upgraded"));
}

TEST_CASE("a declared shape that the rules contradict is a warning, and stays in the file") {
  const Scratch scratch;
  write(scratch, "m.onnx", R"(model ir=8 opset=17
input x: float32[2,4]
initializer w: float32[4,3] = random(1)
a: float32[7,3] = MatMul(x, w)
y = Relu(a)
output y: float32[2,5]
)");
  const CommandResult result = in(scratch, {"compress", "m.onnx", "-o", "out.onnx", "--passes",
                                            "prune_magnitude{sparsity=0.5}"});
  INFO(result.err);
  CHECK(result.status == 0);
  CHECK(has(result.err,
            "onnxpress: warning: output 'y' is declared float32[2,5], but computed as "
            "float32[2,3]"));
  CHECK(has(result.out, "WARNING: output 'y' is declared float32[2,5]"));
  const auto written = read_model(scratch / "out.onnx").model;
  CHECK(to_string(written->graph.outputs()[0]->type) == "float32[2,5]");
  scratch.write_npz("d.npz", {{"x", counting({2, 4})}});
  CHECK(in(scratch, {"run", "out.onnx", "-i", "d.npz", "-o", "out.npz"}).status == 0);
  CHECK(has(in(scratch, {"inspect", "m.onnx"}).err, "value 'a' is declared float32[7,3]"));
}

TEST_CASE("tables keep to 80 columns where there is no terminal") {
  const Scratch scratch;
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"passes"},
           {"passes", "quantize_weights"},
           {"passes", "prune_magnitude"},
           {"compress", cnn, "-o", "out.onnx", "--eval", test_npz, "--explain", "--passes",
            "simplify,fuse,prune_magnitude{sparsity=0.5},quantize_weights{bits=8}"}}) {
    const CommandResult result = in(scratch, arguments);
    REQUIRE(result.status == 0);
    bool is_table = false;
    std::istringstream lines(result.out);
    for (std::string line; std::getline(lines, line);) {
      if (line.empty()) is_table = false;
      is_table = is_table || line.starts_with("----");
      if (is_table) CHECK_MESSAGE(line.size() <= 80, line);
    }
  }
}

TEST_CASE("passes says what presets and effects promise") {
  const std::string out = run_onnxpress({"passes"}).out;
  CHECK(has(out, "lossless"));
  CHECK(has(out, "rounding: outputs"));
  const Report report = report_of(run_onnxpress({"passes", "--format", "json"}));
  CHECK(has(report["preset_effects"]["lossless"].get<std::string>(), "1e-5"));
  CHECK(report["effects"].size() == 4);
  CHECK(has(run_onnxpress({"passes", "quantize_weights", "--format", "json"}).out, "2^bits - 1 when"));
}

}  // namespace onnxpress
