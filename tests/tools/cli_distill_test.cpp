// onnxpress distill, and the pass in pipelines.
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/tools/in_scratch.h"

namespace onnxpress {

using Report = nlohmann::ordered_json;

namespace {

const std::string testdata = ONNXPRESS_TESTDATA;
const std::string cnn = testdata + "/digits_cnn.onnx";
const std::string mlp = testdata + "/digits_mlp.onnx";
const std::string train = testdata + "/digits_train.npz";
const std::string test = testdata + "/digits_test.npz";

Report report_of(const Scratch& scratch, std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--format", "json", "-o", "out.onnx", "--seed", "3", "--threads", "1"});
  const CommandResult result = in(scratch, arguments);
  INFO(result.err);
  REQUIRE(result.status == 0);
  return Report::parse(result.out);
}

std::string refusal(const Scratch& scratch, std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"-o", "out.onnx"});
  const CommandResult result = in(scratch, arguments);
  CHECK(result.status == 2);
  CHECK_FALSE(std::filesystem::exists(scratch.path() / "out.onnx"));
  return result.err;
}

double top1(const Report& pass) { return pass["evaluation"]["metrics"]["top1"]["value"].get<double>(); }

std::vector<std::string> notes_of(const Report& report) {
  std::vector<std::string> notes;
  for (const Report& pass : report["passes"])
    for (const Report& note : pass["notes"]) notes.push_back(note);
  return notes;
}

}  // namespace

TEST_CASE("a student derived from its teacher gets better by distillation, and the teacher runs once") {
  const Scratch scratch;
  const std::vector<std::string> distil = {
      "distill", "--teacher", cnn,        "--student", "auto:width=0.35", "--train", train,
      "--eval",  test,        "--epochs", "3",         "--teacher-cache", "kept"};
  const Report first = report_of(scratch, distil);
  CHECK(first["kind"] == "distill");
  CHECK(first["teachers"][0]["path"] == cnn);
  // After derive_student alone, and at the end.
  const Report& passes = first["passes"];
  REQUIRE(passes.back()["pass"] == "distill");
  const double derived = top1(passes[passes.size() - 2]);
  const double distilled = top1(passes.back());
  CHECK(derived < 0.9);
  CHECK(distilled > 0.95);
  CHECK(first["after"]["parameters"].get<double>() < 0.25 * first["before"]["parameters"].get<double>());
  CHECK(std::filesystem::exists(scratch.path() / "kept"));
  const Report second = report_of(scratch, distil);
  const std::vector<std::string> before = notes_of(first), after = notes_of(second);
  const auto says = [](const std::vector<std::string>& notes, const std::string& part) {
    for (const std::string& note : notes)
      if (has(note, part)) return true;
    return false;
  };
  CHECK(says(before, "ran once on 1297 samples"));
  CHECK(says(after, "what it makes of 1297 samples was read from 'kept'"));
  CHECK(first["after"]["sha256"] == second["after"]["sha256"]);
}

TEST_CASE("a folder for what teachers give is made where there is none") {
  const Scratch scratch;
  report_of(scratch, {"distill", "--teacher", cnn + "," + mlp, "--student", "auto:width=0.5", "--train", train,
                      "--epochs", "1", "--teacher-cache", "made/here"});
  CHECK(std::distance(std::filesystem::directory_iterator(scratch / "made" / "here"), {}) == 2);
}

TEST_CASE("a given student, several teachers and data without labels") {
  const Scratch scratch;
  const CommandResult untrained =
      in(scratch, {"compress", mlp, "-o", "small.onnx", "--passes", "derive_student{width=0.3}"});
  REQUIRE(untrained.status == 0);
  const Report report = report_of(
      scratch, {"distill", "--teacher", cnn + "," + mlp, "--teacher-weights", "2,1", "--student", "small.onnx",
                "--train", train, "--alpha", "1", "--epochs", "4", "--learning-rate", "0.005", "--eval", test});
  CHECK(report["teachers"].size() == 2);
  CHECK(report["passes"].back()["training"]["loss"].get<std::string>() ==
        "0.666667*distillation(logits) at temperature 4+0.333333*distillation(logits) at "
        "temperature 4");
  CHECK(top1(report["passes"].back()) > 0.9);
}

TEST_CASE("a teacher reads the data its own way") {
  const Scratch scratch;
  // The teacher expects what the data holds; the student its sixteenfold.
  const Report report = report_of(
      scratch, {"distill", "--teacher", cnn, "--teacher-input-scale", "1", "--student", mlp, "--input-scale", "16",
                "--train", train, "--alpha", "1", "--learning-rate", "0.005", "--epochs", "3", "--eval", test});
  CHECK(report["teacher_preprocessing"]["teacher-input-scale"] == "1");
  CHECK(top1(report["passes"].back()) > 0.9);
}

TEST_CASE("a pipeline distils what pruning has made of the model from the original") {
  const Scratch scratch;
  const Report report =
      report_of(scratch, {"compress", mlp, "--passes", "prune_magnitude{sparsity=0.8},distill{epochs=4}", "--train",
                          train, "--eval", test});
  const Report& passes = report["passes"];
  CHECK(top1(passes[1]) > top1(passes[0]) + 0.01);
  CHECK(report["after"]["sparsity"].get<double>() > 0.7);
}

TEST_CASE("distill refuses what does not fit before any work") {
  const Scratch scratch;
  const std::string bert = testdata + "/tiny_bert.onnx";
  CHECK(has(refusal(scratch, {"distill", "--student", mlp, "--train", train}), "expected --teacher MODEL"));
  CHECK(has(refusal(scratch, {"distill", "--teacher", cnn, "--train", train}), "expected --student MODEL"));
  CHECK(has(refusal(scratch, {"distill", "--teacher", cnn, "--student", mlp}), "give --train DATA"));
  CHECK(has(refusal(scratch, {"distill", "--teacher", cnn, "--student", "auto:wide=0.5", "--train", train}),
            "unknown option 'wide'; it has width, depth, select"));
  CHECK(has(refusal(scratch, {"distill", "--teacher", mlp, "--student", mlp, "--train", train}),
            "is the model that would be trained"));
  CHECK(has(refusal(scratch, {"distill", "--teacher", bert, "--student", mlp, "--train", train}),
            "--teacher '" + bert + "'"));
  CHECK(has(
      refusal(scratch, {"distill", "--teacher", cnn, "--teacher-weights", "1,2", "--student", mlp, "--train", train}),
      "--teacher-weights: expected 1, found 2"));
  CHECK(has(
      refusal(scratch, {"distill", "--teacher", cnn, "--teacher-weights", "2", "--student", mlp, "--train", train}),
      "--teacher-weights: expected several teachers, found one"));
  CHECK(has(refusal(scratch, {"compress", mlp, "--passes", "prune_magnitude{sparsity=0.5},distill", "--train", train,
                              "--teacher-layout", "nhwc"}),
            "--teacher-layout: expected --teacher MODEL, found none"));
  CHECK(has(refusal(scratch, {"compress", mlp, "--passes", "simplify", "--teacher", cnn}), "--teacher: no pass"));
  CHECK(has(refusal(scratch, {"distill", "--teacher", cnn, "--student", "auto:width=1", "--train", train}),
            "--student: expected width or depth below 1, found 1 and 1"));
  scratch.write("kept", "mine");
  CHECK(has(refusal(scratch, {"distill", "--teacher", cnn, "--student", mlp, "--train", train, "--teacher-cache",
                              "kept/here/"}),
            "--teacher-cache: cannot make the folder 'kept/here/': '" + (scratch / "kept").string() + "' is a file"));
  CHECK(has(refusal(scratch, {"distill", "--teacher", cnn + "," + mlp, "--student", "auto:width=0.5", "--train", train,
                              "--teacher-cache", "kept"}),
            "--teacher-cache: expected a folder for several teachers, found the file 'kept'"));
  CHECK(has(
      refusal(scratch, {"distill", "--teacher", cnn, "--student", mlp, "--train", train, "--teacher-cache", "kept"}),
      "expected a file of kept samples, found something else"));
}

}  // namespace onnxpress
