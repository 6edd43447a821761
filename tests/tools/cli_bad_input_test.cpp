// Bad input ends with status 2, one clear line, and no output.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "tests/tools/command.h"
#include "tests/tools/data/scratch.h"
#include "tests/tools/wire.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

const std::string testdata = ONNXPRESS_TESTDATA;
const std::string cnn = testdata + "/digits_cnn.onnx";
const std::string test_npz = testdata + "/digits_test.npz";

std::map<std::string, std::string> listing(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    files[entry.path().string()] = entry.is_regular_file() ? contents(entry.path()) : "";
  return files;
}

// Runs in `scratch` and checks the contract of status 2; returns the message.
std::string failure(const Scratch& scratch, const std::vector<std::string>& arguments,
                    CommandOptions options = {}) {
  options.folder = scratch.path();
  const auto before = listing(scratch.path());
  const CommandResult result = run_onnxpress(arguments, options);
  CAPTURE(result.err);
  CHECK(result.status == 2);
  CHECK(result.out.empty());
  CHECK(result.err.starts_with("onnxpress: error: "));
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(listing(scratch.path()) == before);
  return result.err;
}

std::string compress_failure(const Scratch& scratch, const std::string& model) {
  scratch.write("in.onnx", model);
  return failure(scratch, {"compress", "in.onnx", "-o", "out.onnx", "--passes", "simplify",
                           "--report", "r.json"});
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Tensor floats(Dims dims) { return Tensor(DType::float32, std::move(dims)); }

}  // namespace

TEST_CASE("files that are no models") {
  const Scratch scratch;
  compress_failure(scratch, "");
  std::string noise(5000, '\0');
  std::uint32_t state = 1;
  for (char& c : noise) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  compress_failure(scratch, noise);
  const std::string whole = contents(cnn);
  for (const std::size_t length :
       {whole.size() - 1, whole.size() / 2, std::size_t{100}, std::size_t{9}}) {
    CAPTURE(length);
    compress_failure(scratch, whole.substr(0, length));
  }
  CHECK(has(failure(scratch, {"inspect", "none.onnx"}), "none.onnx"));
  CHECK(has(failure(scratch, {"inspect", "."}), "."));
}

TEST_CASE("models whose structure is wrong") {
  const Scratch scratch;
  CHECK(has(compress_failure(scratch, wire::model(wire::node("Add", {"x", "b"}, {"a"}) +
                                                  wire::node("Relu", {"a"}, {"b"}) +
                                                  wire::node("Relu", {"b"}, {"y"}))),
            "cycl"));
  const std::string twice = compress_failure(
      scratch, wire::model(wire::node("Relu", {"x"}, {"y"}) + wire::node("Neg", {"x"}, {"y"})));
  CHECK(has(twice, "'y'"));
  const std::uint64_t huge = std::uint64_t{1} << 40;
  CHECK(has(compress_failure(scratch, wire::model(wire::float_initializer("w", {huge, huge}, "") +
                                                  wire::node("Add", {"x", "w"}, {"y"}))),
            "'w'"));
  CHECK(has(compress_failure(scratch, wire::model(wire::float_initializer("w", {4}, "12345678") +
                                                  wire::node("Add", {"x", "w"}, {"y"}))),
            "'w'"));
  CHECK(has(compress_failure(scratch, wire::model(wire::node("Add", {"x", "nowhere"}, {"y"}))),
            "'nowhere'"));
}

TEST_CASE("external data that is missing, too short or outside the folder") {
  const Scratch scratch;
  const auto with = [&](const std::vector<std::pair<std::string, std::string>>& where) {
    return compress_failure(scratch, wire::model(wire::external_initializer("w", 4, where) +
                                                 wire::node("Add", {"x", "w"}, {"y"})));
  };
  scratch.write("short.bin", "12345678");
  scratch.write("good.bin", "0123456789abcdef");
  fs::create_directory(scratch / "elsewhere");
  const Scratch outside;
  outside.write("data.bin", "0123456789abcdef");
  fs::create_symlink(outside / "data.bin", scratch / "link.bin");
  CHECK(has(with({{"location", "none.bin"}}), "none.bin"));
  CHECK(has(with({{"location", "short.bin"}}), "short.bin"));
  CHECK(has(with({{"location", "good.bin"}, {"offset", "8"}, {"length", "16"}}), "good.bin"));
  CHECK(has(with({{"location", "../" + outside.path().filename().string() + "/data.bin"}}),
            "data.bin"));
  CHECK(has(with({{"location", (outside / "data.bin").string()}}), "data.bin"));
  CHECK(has(with({{"location", "link.bin"}}), "link.bin"));
  CHECK(has(with({{"location", "elsewhere"}}), "elsewhere"));
}

TEST_CASE("data that does not fit the model") {
  const Scratch scratch;
  const auto with = [&](const std::vector<std::pair<std::string, Tensor>>& arrays) {
    scratch.write_npz("d.npz", arrays);
    failure(scratch, {"eval", cnn, "--data", "d.npz"});
    return failure(scratch,
                   {"compress", cnn, "-o", "out.onnx", "--passes", "simplify", "--eval", "d.npz"});
  };
  const Tensor x = floats({2, 1, 8, 8}), y(DType::int64, {2});
  CHECK(has(with({{"x", Tensor(DType::uint8, {2, 1, 8, 8})}, {"y", y}}),
            "input 'x' expects float32, data has uint8: give --input-scale 1/255 to convert"));
  CHECK(has(with({{"x", floats({2, 1, 8, 9})}, {"y", y}}),
            "expects shape [samples,1,8,8], data has [2,1,8,9]"));
  CHECK(
      has(with({{"x", x}, {"y", Tensor::of<std::int64_t>({2}, std::vector<std::int64_t>{3, 10})}}),
          "10"));
  CHECK(has(with({{"x", x}, {"y", Tensor(DType::int64, {3})}}), "different sample counts"));
  CHECK(has(with({{"a", x}, {"b", x}, {"y", y}}), "('a', 'b')"));
  const std::string whole = contents(test_npz);
  scratch.write("cut.npz", whole.substr(0, whole.size() / 2));
  CHECK(has(failure(scratch, {"eval", cnn, "--data", "cut.npz"}), "not a complete .npz archive"));
  CHECK(has(failure(scratch, {"eval", cnn, "--data", "none.npz"}), "none.npz"));
}

TEST_CASE("usage: nearest names, exact values") {
  const Scratch scratch;
  const auto compress = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"compress", cnn, "-o", "out.onnx"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return failure(scratch, arguments);
  };
  CHECK(has(failure(scratch, {}),
            "expected a verb: compress, inspect, eval, run, compare, analyze, finetune, distill, passes"));
  CHECK(
      has(failure(scratch, {"comprss", cnn}), "unknown verb 'comprss'; did you mean 'compress'?"));
  CHECK(
      has(compress({"--pases", "simplify"}), "unknown option '--pases'; did you mean '--passes'?"));
  CHECK(has(compress({"--passes", "simplfy"}), "did you mean 'simplify'?"));
  CHECK(has(compress({"--passes", "prune_magnitude{sparsty=0.5}"}), "did you mean 'sparsity'?"));
  CHECK(has(compress({"--passes", "prune_magnitude{sparsity=2}"}), "sparsity"));
  CHECK(has(compress({"--passes", "prune_magnitude{sparsity=0.5,select='nothing*'}"}), "nothing*"));
  CHECK(has(compress({"--passes", "quantize_weights{select='nothing*'}"}), "nothing*"));
  CHECK(has(compress({"--passes", "simplify", "--max-size", "2XB"}),
            "--max-size: expected a size such as 500KB or 2MiB, found '2XB'"));
  CHECK(has(compress({"--passes", "simplify", "--max-drop", "1%"}), "--max-drop needs --eval"));
  CHECK(has(compress({"--passes", "simplify", "--min-agreement", "1%"}),
            "--min-agreement needs --eval"));
  CHECK(has(compress({"--passes", "simplify", "--report", "r.html"}),
            "expected a name ending in .json, .md or .txt"));
  CHECK(has(compress({"--passes", "simplify", "--metric", "top2"}), "unknown metric 'top2'"));
  CHECK(has(compress({"--passes", "simplify", "--format", "xml"}),
            "--format: expected table, json, md, found 'xml'"));
  CHECK(has(compress({"--passes", "simplify", "--threads", "0"}),
            "--threads: expected a whole number from 1"));
  CHECK(has(compress({}), "expected one of --passes, --recipe and --preset, found none"));
  CHECK(has(compress({"--passes", "simplify", "extra.onnx"}), "unexpected argument 'extra.onnx'"));
  CHECK(has(failure(scratch, {"compress", cnn, "--passes", "simplify"}), "expected -o OUT"));
  CHECK(has(failure(scratch, {"passes", "simplfy"}), "did you mean 'simplify'?"));
  CHECK(has(failure(scratch, {"passes", "eval"}), "unknown pass 'eval'"));  // a verb's name
  CHECK(has(failure(scratch, {"inspect", cnn, "--input-shape", "z=1x1"}), "no input 'z'"));
  CHECK(has(failure(scratch, {"inspect", cnn, "--input-shape", "x=0x1x8x8"}), "at least 1"));
  CHECK(has(failure(scratch, {"inspect", cnn, "--input-shape", "x=999999999999x1x8x8"}),
            "at most"));
  CHECK(has(failure(scratch, {"inspect", cnn, "--plugin", "none.so"}), "none.so"));
}

TEST_CASE("outputs that cannot be written") {
  const Scratch scratch;
  scratch.write("file", "");
  const auto compress = [&](const std::string& out, const std::string& report,
                            CommandOptions options = {}) {
    return failure(
        scratch, {"compress", cnn, "-o", out, "--passes", "simplify", "--report", report}, options);
  };
  CHECK(has(compress("file/out.onnx", "r.json"), "file"));
  CHECK(has(compress("/proc/out.onnx", "r.json"), "/proc"));
  CHECK(has(compress("none/out.onnx", "r.json"), "none"));
  CHECK(has(compress("out.onnx", "none/r.json"), "none"));
  CHECK(has(compress(".", "r.json"), "."));
  compress("out.onnx", "r.json", {.file_size = 50'000});
  failure(scratch,
          {"compress", cnn, "-o", "-", "--passes", "simplify", "--quiet", "--report", "r.json"},
          {.out_path = "/dev/full"});
}

TEST_CASE("a reader of standard output that has gone ends the run: quietly, but for a model") {
  const Scratch scratch;
  const auto run = [&](const std::vector<std::string>& arguments) {
    const CommandResult result =
        run_onnxpress(arguments, {.folder = scratch.path(), .close_output = true});
    CHECK(result.status == 2);
    CHECK(fs::is_empty(scratch.path()));
    return result.err;
  };
  CHECK(run({"inspect", cnn, "--format", "json"}).empty());
  CHECK(run({"compress", cnn, "-o", "out.onnx", "--passes", "simplify", "--report", "r.json"})
            .empty());
  CHECK(run({"compress", cnn, "-o", "-", "--passes", "simplify", "--quiet", "--report", "r.json"})
            .find("standard output was closed by its reader") != std::string::npos);
}

}  // namespace onnxpress
