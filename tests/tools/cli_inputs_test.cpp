// What is read is never overwritten; data and labels of other types; limits that make no sense.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "graph/ir/parse.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"
#include "tests/tools/in_scratch.h"

namespace onnxpress {

namespace fs = std::filesystem;
using Report = nlohmann::ordered_json;

namespace {

const std::string testdata = ONNXPRESS_TESTDATA;
const std::string cnn = testdata + "/digits_cnn.onnx";
const std::string test_npz = testdata + "/digits_test.npz";

std::string failure(const Scratch& scratch, const std::vector<std::string>& arguments) {
  const CommandResult result = in(scratch, arguments);
  CAPTURE(result.err);
  CHECK(result.status == 2);
  CHECK(result.out.empty());
  return result.err;
}

Tensor counting(DType type, Dims dims) {
  Tensor tensor(DType::float32, std::move(dims));
  float next = 0;
  for (float& value : tensor.mutable_data<float>()) value = next++ * 0.1f;
  return tensor.cast(type);
}

constexpr const char* small = R"(model ir=8 opset=17
input x: float32[batch,4]
initializer w: float32[4,3] = random(1)
y: float32[batch,3] = MatMul(x, w)
output y: float32[batch,3]
)";

}  // namespace

TEST_CASE("no output replaces what the run reads") {
  const Scratch scratch;
  scratch.write("m.onnx", contents(cnn));
  scratch.write("recipe.yaml", "passes: [simplify]\n");
  scratch.write("d.npz", contents(test_npz));
  fs::create_symlink("d.npz", scratch / "link.npz");
  fs::create_hard_link(scratch / "d.npz", scratch / "hard.npz");
  fs::create_symlink("m.onnx", scratch / "r.json");
  fs::create_hard_link(scratch / "recipe.yaml", scratch / "recipe.md");
  const std::string model = contents(scratch / "m.onnx"), data = contents(scratch / "d.npz");
  const auto refused = [&](const std::vector<std::string>& arguments) {
    CHECK(has(failure(scratch, arguments), "is read by this very run and would be overwritten"));
  };
  const std::vector<std::string> compress{"compress", "m.onnx", "--passes", "simplify"};
  const auto compressed = [&](std::vector<std::string> more) {
    more.insert(more.begin(), compress.begin(), compress.end());
    refused(more);
  };
  compressed({"-o", "d.npz", "--eval", "d.npz"});
  compressed({"-o", "link.npz", "--eval", "d.npz"});
  compressed({"-o", "hard.npz", "--calib", "d.npz"});
  compressed({"-o", "d.npz", "--eval", test_npz, "--labels", "d.npz"});
  compressed({"-o", "out.onnx", "--report", "r.json"});
  refused({"compress", "m.onnx", "-o", "recipe.yaml", "--recipe", "recipe.yaml"});
  refused(
      {"compress", "m.onnx", "-o", "out.onnx", "--recipe", "recipe.yaml", "--report", "recipe.md"});
  refused({"run", "m.onnx", "-i", "d.npz", "-o", "d.npz"});
  refused({"run", "m.onnx", "-i", "d.npz", "-o", "hard.npz"});
  refused({"run", "m.onnx", "-i", "d.npz", "-o", "out.npz", "--profile-trace", "d.npz"});
  refused({"eval", "m.onnx", "--data", "d.npz", "--report", "r.json"});
  refused({"inspect", "m.onnx", "--report", "r.json"});
  refused({"compare", cnn, "m.onnx", "--report", "r.json"});
  CHECK(contents(scratch / "m.onnx") == model);
  CHECK(contents(scratch / "d.npz") == data);
  CHECK(contents(scratch / "recipe.yaml") == "passes: [simplify]\n");
  CHECK_FALSE(fs::exists(scratch / "out.onnx"));
}

TEST_CASE("no output replaces a file of a data folder, the model's external data, or another") {
  const Scratch scratch;
  write_model(*parse_model(small), scratch / "m.onnx");
  scratch.write("set/input_0.pb", tensor_to_bytes(counting(DType::float32, {2, 4}), "x"));
  const std::string before = contents(scratch / "set/input_0.pb");
  CHECK(has(failure(scratch, {"run", "m.onnx", "-i", "set", "-o", "set"}), "would be overwritten"));
  CHECK(has(failure(scratch, {"compress", "m.onnx", "--passes", "simplify", "--eval", "set", "-o",
                              "set/input_0.pb"}),
            "would be overwritten"));
  CHECK(contents(scratch / "set/input_0.pb") == before);
  CHECK_FALSE(fs::exists(scratch / "set/output_0.pb"));

  REQUIRE(in(scratch, {"compress", cnn, "-o", "big.onnx", "--passes", "simplify", "--external-data",
                       "always"})
              .status == 0);
  const std::string file = read_model(scratch / "big.onnx").data_files.at(0).filename().string();
  CHECK(has(failure(scratch, {"compress", "big.onnx", "--passes", "simplify", "-o", file}),
            "would be overwritten"));
  CHECK(has(failure(scratch, {"compress", cnn, "--passes", "simplify", "-o", "out.onnx", "--report",
                              "a.json", "--report", "./a.json"}),
            "are the same file"));
}

TEST_CASE("in-place compression leaves external data that another model uses, and says so") {
  const Scratch scratch;
  REQUIRE(in(scratch,
             {"compress", cnn, "-o", "m.onnx", "--passes", "simplify", "--external-data", "always"})
              .status == 0);
  const fs::path data = read_model(scratch / "m.onnx").data_files.at(0);
  fs::copy_file(scratch / "m.onnx", scratch / "copy.onnx");
  const std::vector<std::string> halve{"compress", "m.onnx",   "-o",
                                       "m.onnx",   "--passes", "prune_magnitude{sparsity=0.5}"};
  const CommandResult kept = in(scratch, halve);
  REQUIRE(kept.status == 0);
  CHECK(fs::exists(data));
  CHECK(has(kept.out, "the old external data '" + data.filename().string() +
                          "' was left: 'copy.onnx' uses it too"));
  CHECK(in(scratch, {"eval", "copy.onnx", "--data", test_npz}).status == 0);

  const fs::path second = read_model(scratch / "m.onnx").data_files.at(0);
  REQUIRE(second != data);
  REQUIRE(in(scratch,
             {"compress", "m.onnx", "-o", "m.onnx", "--passes", "prune_magnitude{sparsity=0.9}"})
              .status == 0);
  CHECK_FALSE(fs::exists(second));
  CHECK(fs::exists(data));
}

TEST_CASE("floating-point data feeds floating-point inputs, and rounding is told once") {
  const Scratch scratch;
  write_model(*parse_model(small), scratch / "m.onnx");
  const auto run = [&](DType type) {
    scratch.write_npz("d.npz", {{"x", counting(type, {40, 4})}});
    return in(scratch, {"run", "m.onnx", "-i", "d.npz", "-o", "out.npz", "--format", "json"});
  };
  const CommandResult wide = run(DType::float64);
  CHECK(wide.status == 0);
  CHECK(wide.err == "onnxpress: note: input 'x' takes float32: float64 data was rounded\n");
  const Report report = Report::parse(wide.out);
  CHECK(report["data"]["input"]["notes"].size() == 1);
  CHECK(report["notes"].size() == 1);
  const CommandResult narrow = run(DType::float16);
  CHECK(narrow.status == 0);
  CHECK(narrow.err.empty());
  CHECK(run(DType::int32).status == 2);

  scratch.write("set/input_0.pb", tensor_to_bytes(counting(DType::float64, {2, 4}), "x"));
  const CommandResult set = in(scratch, {"run", "m.onnx", "-i", "set", "-o", "out.npz"});
  CHECK(set.status == 0);
  CHECK(has(set.err, "float64 data was rounded"));
}

TEST_CASE("labels of other types are class numbers where they can be") {
  const Scratch scratch;
  write_model(*parse_model(small), scratch / "m.onnx");
  const auto eval = [&](const Tensor& labels) {
    scratch.write_npz("d.npz", {{"x", counting(DType::float32, {3, 4})}, {"y", labels}});
    return in(scratch, {"eval", "m.onnx", "--data", "d.npz", "--format", "json"});
  };
  const auto correct = [&](const Tensor& labels) {
    const CommandResult result = eval(labels);
    INFO(result.err);
    REQUIRE(result.status == 0);
    const Report report = Report::parse(result.out);
    CHECK(report["evaluation"]["metrics"].contains("top1"));
    return report["evaluation"]["correct"].get<int>();
  };
  const std::vector<float> whole{0, 1, 2};
  const Tensor classes = Tensor::of<float>({3}, whole);
  CHECK(correct(classes) == correct(classes.cast(DType::int64)));
  CHECK(correct(classes.cast(DType::uint64)) == correct(classes.cast(DType::int64)));
  const std::vector<float> broken{0, 1, 1.5f};
  CHECK(has(eval(Tensor::of<float>({3}, broken)).err, "are not whole numbers"));
  const std::vector<std::uint64_t> huge{0, 1, 9223372036854775810u};
  CHECK(has(eval(Tensor::of<std::uint64_t>({3}, huge)).err,
            "label 9223372036854775810 of sample 2: expected 0 to 2"));
}

TEST_CASE("limits that make no sense are refused before any work") {
  const Scratch scratch;
  const auto limit = [&](const std::string& option, const std::string& value) {
    return failure(scratch, {"compress", "none.onnx", "-o", "out.onnx", "--passes", "simplify",
                             "--eval", "none.npz", option, value});
  };
  CHECK(has(limit("--min-ratio", "-3"), "--min-ratio: expected a number above 0, found '-3'"));
  CHECK(has(limit("--min-ratio", "0"), "above 0"));
  CHECK(
      has(limit("--min-agreement", "150%"), "--min-agreement: expected 0% to 100%, found '150%'"));
  CHECK(has(limit("--min-agreement", "-1%"), "0% to 100%"));
  CHECK(has(limit("--max-drop", "-1%"), "--max-drop: expected 0% or more, found '-1%'"));
  CHECK(has(limit("--max-latency-ratio", "0"), "above 0"));
  CHECK(has(limit("--max-size", "0"), "1 byte or more"));
  CHECK(has(failure(scratch, {"compress", cnn, "-o", "out.onnx", "--passes",
                              "prune_magnitude{threshold=0.1,scope=layer}"}),
            "means nothing with 'threshold'"));
}

TEST_CASE("nothing claims success before outputs are in place") {
  const Scratch scratch;
  fs::create_symlink("/dev/full", scratch / "full.onnx");
  const CommandResult device =
      in(scratch, {"compress", cnn, "-o", "full.onnx", "--passes", "simplify"});
  CHECK(device.status == 2);
  CHECK(device.out.empty());
  const CommandResult table =
      in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes", "simplify"},
         {.out_path = "/dev/full"});
  CHECK(table.status == 2);
  CHECK(has(table.err, "the report (all files are in place): cannot write to standard output"));
  CHECK(fs::exists(scratch / "out.onnx"));
}

}  // namespace onnxpress
