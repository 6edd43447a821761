// finetune, and passes that train within compress.
#include <doctest/doctest.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/tools/in_scratch.h"

namespace onnxpress {

namespace fs = std::filesystem;
using Report = nlohmann::ordered_json;

namespace {

const std::string testdata = ONNXPRESS_TESTDATA;
const std::string mlp = testdata + "/digits_mlp.onnx";
const std::string train = testdata + "/digits_train.npz";
const std::string test = testdata + "/digits_test.npz";

Report report_of(const CommandResult& result, int status = 0) {
  INFO(result.err);
  REQUIRE(result.status == status);
  return Report::parse(result.out);
}

}  // namespace

TEST_CASE("finetune restores what pruning cost, and its report has the curves") {
  const Scratch scratch;
  const CommandResult pruned =
      in(scratch, {"compress", mlp, "-o", "pruned.onnx", "--passes", "prune_magnitude{sparsity=0.9}"});
  REQUIRE(pruned.status == 0);
  const Report report =
      report_of(in(scratch, {"finetune",     "pruned.onnx", "-o",       "tuned.onnx", "--train",         train,
                             "--eval",       test,          "--epochs", "8",          "--learning-rate", "0.01",
                             "--batch-size", "64",          "--format", "json",       "--report",        "r.md",
                             "--report",     "r.txt"}));
  CHECK(report["kind"] == "finetune");
  CHECK(report["pipeline"] == "finetune{epochs=8,batch_size=64,learning_rate=0.01}");
  CHECK(report["data"]["train"]["samples"] == 1297);
  const double before = report["accuracy"]["before"]["metrics"]["top1"]["value"].get<double>();
  const double after = report["accuracy"]["after"]["metrics"]["top1"]["value"].get<double>();
  CHECK(before < 0.8);
  CHECK(after > 0.9);
  CHECK(report["after"]["zeros"] == report["before"]["zeros"]);
  const Report& training = report["passes"][0]["training"];
  CHECK(training["loss"] == "cross_entropy(logits)");
  CHECK(training["held_out_samples"] == 129);
  REQUIRE(training["epochs"].size() == 9);
  CHECK(training["epochs"][8]["loss"].get<double>() < training["epochs"][1]["loss"].get<double>());
  for (const char* file : {"r.md", "r.txt"}) {
    const std::string text = contents(scratch / file);
    CHECK(has(text, "Training of finetune"));
    CHECK(has(text, "held-out loss"));
    CHECK(has(text, "best"));
  }
}

TEST_CASE("compress runs passes that train") {
  const Scratch scratch;
  const Report report =
      report_of(in(scratch, {"compress", mlp, "-o", "small.onnx", "--passes",
                             "prune_magnitude{sparsity=0.8},finetune{epochs=3},quantize_weights{bits=8}", "--train",
                             train, "--eval", test, "--max-drop", "3%", "--min-ratio", "3", "--format", "json"}));
  CHECK(report["passes"].size() == 3);
  CHECK(report["headline"].get<std::string>().find("samples of digits_test.npz") != std::string::npos);
}

TEST_CASE("a run that is killed and resumed gives the bytes of one that was not") {
  const Scratch scratch;
  const std::vector<std::string> arguments{"finetune",
                                           mlp,
                                           "--train",
                                           train,
                                           "--epochs",
                                           "60",
                                           "--seed",
                                           "5",
                                           "--ema",
                                           "0.9",
                                           "--dropout",
                                           "0.2",
                                           "--quiet",
                                           "--threads",
                                           "1",
                                           "-o",
                                           "resumed.onnx",
                                           "--checkpoint",
                                           "state",
                                           "--checkpoint-updates",
                                           "7",
                                           "--log",
                                           "resumed.jsonl"};
  bool killed = false;
  for (int wait_us = 40'000; wait_us < 3'000'000 && !killed; wait_us = wait_us * 3 / 2) {
    fs::remove(scratch / "state");
    const CommandResult result = in(scratch, arguments, {.kill_after_us = wait_us});
    REQUIRE(result.status != 0);  // else it was done before it could be killed
    killed = fs::exists(scratch / "state");
  }
  REQUIRE(killed);
  CHECK_FALSE(fs::exists(scratch / "resumed.onnx"));
  std::vector<std::string> resumed = arguments;
  resumed.emplace_back("--resume");
  REQUIRE(in(scratch, resumed).status == 0);
  const CommandResult whole = in(scratch, {"finetune", mlp, "--train", train, "--epochs", "60", "--seed", "5", "--ema",
                                           "0.9", "--dropout", "0.2", "--quiet", "--threads", "1", "-o", "whole.onnx",
                                           "--log", "whole.jsonl"});
  REQUIRE(whole.status == 0);
  CHECK(contents(scratch / "resumed.onnx") == contents(scratch / "whole.onnx"));
  const auto records = [&](const char* file) {
    std::vector<Report> found;
    std::istringstream lines(contents(scratch / file));
    for (std::string line; std::getline(lines, line);) {
      found.push_back(Report::parse(line));
      found.back().erase("seconds");
    }
    return found;
  };
  CHECK(records("resumed.jsonl") == records("whole.jsonl"));
  // A checkpoint is not overwritten by a run that does not go on from it.
  const CommandResult refused = in(scratch, arguments);
  CHECK(refused.status == 2);
  CHECK(has(refused.err, "is there already"));
}

TEST_CASE("a log to standard output has it to itself") {
  const Scratch scratch;
  const std::vector<std::string> arguments{"finetune", mlp, "--train", train, "--epochs", "1", "--log", "-"};
  std::vector<std::string> to_file = arguments, to_pipe = arguments;
  to_file.insert(to_file.end(), {"-o", "o.onnx"});
  const CommandResult logged = in(scratch, to_file);
  REQUIRE(logged.status == 0);
  std::istringstream lines(logged.out);
  std::int64_t steps = 0;
  for (std::string line; std::getline(lines, line);) steps += Report::parse(line)["type"] == "step";
  CHECK(steps == 37);  // of 32 samples, 1168 in all
  CHECK(has(logged.err, "Training of finetune"));
  CHECK_FALSE(fs::exists(scratch / "-"));
  to_pipe.insert(to_pipe.end(), {"-o", "-"});
  const CommandResult both = in(scratch, to_pipe);
  CHECK(both.status == 2);
  CHECK(both.out.empty());
  CHECK(has(both.err, "--log -: expected another file: standard output takes the model (-o -)"));
}

TEST_CASE("what cannot be trained is status 2, a loss that is not finite status 1") {
  const Scratch scratch;
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"finetune", mlp, "-o", "o.onnx"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = in(scratch, arguments);
    CHECK_FALSE(fs::exists(scratch / "o.onnx"));
    return result;
  };
  Tensor y(DType::int64, {40}), x(DType::float32, {40, 1, 8, 8});
  y.mutable_data<std::int64_t>()[17] = 10;
  scratch.write_npz("outside.npz", {{"x", x}, {"y", y}});
  const CommandResult outside = run({"--train", "outside.npz", "--log", "log", "--tensorboard", "board"});
  CHECK_FALSE((fs::exists(scratch / "log") || fs::exists(scratch / "board")));
  CHECK(outside.status == 2);
  CHECK(has(outside.err, "label 10 of sample 17: expected 0 to 9: output 'logits' has 10 classes"));
  const CommandResult full = run({"--train", train, "--epochs", "1", "--log", "/dev/full"});
  CHECK(full.status == 2);
  CHECK(has(full.err, "pass finetune: cannot write '/dev/full': No space left on device"));
  const CommandResult nothing = run({});
  CHECK(nothing.status == 2);
  CHECK(has(nothing.err, "give --train DATA"));
  const CommandResult wrong = run({"--train", train, "--epochs", "none"});
  CHECK(wrong.status == 2);
  CHECK(has(wrong.err, "--epochs"));
  const CommandResult twice = run({"--train", train, "--epochs", "1", "--epochs", "2"});
  CHECK(twice.status == 2);
  CHECK(has(twice.err, "finetune: --epochs is given 2 times: expected one value, found 1, 2"));
  const CommandResult bare = run({"--train", train, "--epochs"});
  CHECK(bare.status == 2);
  CHECK(has(bare.err, "finetune: --epochs: expected N, found nothing"));
  y.mutable_data<std::int64_t>()[17] = 0;
  x.mutable_data<float>()[64 * 30] = std::numeric_limits<float>::quiet_NaN();
  scratch.write_npz("nan.npz", {{"x", x}, {"y", y}});
  const CommandResult missing = run({"--train", "nan.npz"});
  CHECK(missing.status == 2);
  CHECK(has(missing.err, "sample 30: input 'x' has a value that is not a number (nan)"));
  x.mutable_data<float>()[64 * 30] = std::numeric_limits<float>::infinity();
  scratch.write_npz("infinite.npz", {{"x", x}, {"y", y}});
  const CommandResult infinite = run({"--train", "infinite.npz", "--hold-out", "0"});
  CHECK(infinite.status == 1);
  CHECK(has(infinite.err, "step 1: the loss is nan: the first NaN is of node '/3/Gemm' (Gemm), the first infinity of 'x'"));
  const CommandResult compress =
      in(scratch, {"compress", mlp, "-o", "o.onnx", "--passes", "simplify", "--train", train});
  CHECK(compress.status == 2);
  CHECK(has(compress.err, "no pass of the pipeline trains"));
  const CommandResult same =
      in(scratch, {"finetune", mlp, "-o", "o.onnx", "--train", train, "--eval", train, "--epochs", "1"});
  CHECK(same.status == 0);
  CHECK(has(same.err, "--eval is what was trained on"));
}

}  // namespace onnxpress
