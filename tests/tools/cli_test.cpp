// The contract of the command line, on the built program.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "graph/exec/engine.h"
#include "graph/ir/parse.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"
#include "tests/tools/in_scratch.h"
#include "tools/data/data.h"
#include "tools/data/npz.h"

namespace onnxpress {

namespace fs = std::filesystem;
using Report = nlohmann::ordered_json;

namespace {

const std::string testdata = ONNXPRESS_TESTDATA;
const std::string cnn = testdata + "/digits_cnn.onnx";
const std::string test_npz = testdata + "/digits_test.npz";

Report report_of(const CommandResult& result) {
  INFO(result.err);
  REQUIRE_FALSE(result.out.empty());
  return Report::parse(result.out);
}

void check_golden(const std::string& name, const std::string& text) {
  const fs::path path = fs::path(ONNXPRESS_SOURCE) / "tests/tools/golden" / name;
  if (std::getenv("ONNXPRESS_UPDATE_GOLDEN") != nullptr)
    std::ofstream(path, std::ios::binary) << text;
  CHECK_MESSAGE(contents(path) == text, name << " differs; ONNXPRESS_UPDATE_GOLDEN=1 rewrites it");
}

}  // namespace

TEST_CASE("help is what it was") {
  for (const std::string verb :
       {"", "compress", "inspect", "eval", "run", "compare", "analyze", "finetune", "distill", "passes"}) {
    std::vector<std::string> arguments{"--help"};
    if (!verb.empty()) arguments.insert(arguments.begin(), verb);
    const CommandResult result = run_onnxpress(arguments);
    CHECK(result.status == 0);
    CHECK(result.err.empty());
    check_golden("help" + (verb.empty() ? "" : "_" + verb) + ".txt", result.out);
  }
  CHECK(run_onnxpress({"--version"}).out.starts_with("onnxpress "));
}

TEST_CASE("compress: the whole path, with reports and gates met") {
  const Scratch scratch;
  const CommandResult result =
      in(scratch, {"compress",
                   cnn,
                   "-o",
                   "out.onnx",
                   "--passes",
                   "simplify,fuse,prune_magnitude{sparsity=0.5},quantize_weights{bits=8}",
                   "--eval",
                   test_npz,
                   "--report",
                   "r.json",
                   "--report",
                   "r.md",
                   "--report",
                   "r.txt",
                   "--max-drop",
                   "1%",
                   "--min-ratio",
                   "3",
                   "--min-agreement",
                   "98%"});
  INFO(result.out << result.err);
  REQUIRE(result.status == 0);
  CHECK(result.out.starts_with(
      "verified: outputs compared after every pass on samples of digits_test.npz"));
  const Report report = Report::parse(contents(scratch / "r.json"));
  CHECK(report["schema"] == "onnxpress.report/1");
  CHECK(report["pipeline"] ==
        "simplify,fuse,prune_magnitude{sparsity=0.5},quantize_weights{bits=8}");
  CHECK(report["status"] == 0);
  CHECK(report["written"] == true);
  CHECK(report["verified"] == true);
  CHECK(report["after"]["bytes"]["total"] == fs::file_size(scratch / "out.onnx"));
  CHECK(report["before"]["bytes"]["total"] == fs::file_size(cnn));
  CHECK(report["accuracy"]["after"]["samples"] == 500);
  CHECK(report["passes"].size() == 4);
  CHECK(report["gates"].size() == 3);
  CHECK(has(contents(scratch / "r.md"), "| size | "));
  CHECK(has(contents(scratch / "r.txt"), "Gates"));

  // The accuracy of the file that was written is the accuracy of the report.
  const Report again =
      report_of(in(scratch, {"eval", "out.onnx", "--data", test_npz, "--format", "json"}));
  CHECK(again["evaluation"]["correct"] == report["accuracy"]["after"]["correct"]);
  CHECK(again["model"]["sha256"] == report["after"]["sha256"]);
}

TEST_CASE("a missed gate ends with 1, says by how much and writes reports only") {
  const Scratch scratch;
  std::vector<std::string> arguments{
      "compress", cnn,      "-o",         "out.onnx", "--passes", "prune_magnitude{sparsity=0.99}",
      "--eval",   test_npz, "--max-drop", "0%",       "--report", "r.json"};
  const CommandResult result = in(scratch, arguments);
  CHECK(result.status == 1);
  CHECK(has(result.err, "onnxpress: gate missed: --max-drop 0%: top1 fell by "));
  CHECK(has(result.err, " more than allowed\n"));
  CHECK_FALSE(fs::exists(scratch / "out.onnx"));
  const Report report = Report::parse(contents(scratch / "r.json"));
  CHECK(report["status"] == 1);
  CHECK(report["written"] == false);
  CHECK(report["gates"][0]["met"] == false);

  arguments.push_back("--write-anyway");
  CHECK(in(scratch, arguments).status == 1);
  CHECK(fs::exists(scratch / "out.onnx"));

  const CommandResult piped =
      in(scratch, {"compress", cnn, "-o", "-", "--passes", "simplify", "--max-size", "1KB"});
  CHECK(piped.status == 1);
  CHECK(piped.out.empty());
}

TEST_CASE("models go through pipes") {
  const Scratch scratch;
  const CommandResult compressed =
      in(scratch, {"compress", "-", "-o", "-", "--passes", "simplify"}, {.input = contents(cnn)});
  INFO(compressed.err);
  REQUIRE(compressed.status == 0);
  CHECK(has(compressed.err, "pipeline: simplify"));
  const CommandResult inspected =
      in(scratch, {"inspect", "-", "--format", "json"}, {.input = compressed.out});
  CHECK(inspected.status == 0);
  CHECK(report_of(inspected)["model"]["bytes"]["total"] == compressed.out.size());
  REQUIRE(in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes", "simplify", "--quiet"})
              .out.empty());
  CHECK(contents(scratch / "out.onnx") == compressed.out);
}

TEST_CASE("the output may be the input, and the same bytes come out on any thread count") {
  const Scratch scratch;
  const std::string pipeline =
      "simplify,fuse,prune_magnitude{sparsity=0.5},quantize_weights{bits=8}";
  scratch.write("m.onnx", contents(cnn));
  REQUIRE(
      in(scratch, {"compress", "m.onnx", "-o", "m.onnx", "--passes", pipeline, "--threads", "1"})
          .status == 0);
  REQUIRE(in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes", pipeline, "--threads", "3"})
              .status == 0);
  CHECK(contents(scratch / "m.onnx") == contents(scratch / "out.onnx"));
  CHECK(contents(scratch / "m.onnx") != contents(cnn));
}

TEST_CASE("external data is written beside the model and counted") {
  const Scratch scratch;
  const CommandResult result =
      in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes", "simplify", "--external-data",
                   "always", "--format", "json"});
  REQUIRE(result.status == 0);
  const Report report = report_of(result);
  std::uintmax_t total = 0;
  for (const auto& entry : fs::directory_iterator(scratch.path())) total += entry.file_size();
  CHECK(report["after"]["bytes"]["external"] > 0);
  CHECK(report["after"]["bytes"]["total"] == total);
  REQUIRE(in(scratch, {"compress", "out.onnx", "-o", "out.onnx", "--passes", "simplify"}).status ==
          0);
  CHECK(in(scratch, {"eval", "out.onnx", "--data", test_npz}).status == 0);
}

TEST_CASE("a recipe gives defaults that options override") {
  const Scratch scratch;
  scratch.write("r.yaml", "passes:\n  - simplify\n  - prune_magnitude: {sparsity: 0.25}\neval: " +
                              test_npz + "\nmax-drop: 0%\nseed: 5\nreport: [a.json, b.md]\n");
  const CommandResult result = in(scratch, {"compress", cnn, "-o", "out.onnx", "--recipe", "r.yaml",
                                            "--max-drop", "50%", "--format", "json"});
  INFO(result.err);
  REQUIRE(result.status == 0);
  const Report report = report_of(result);
  CHECK(report["pipeline"] == "simplify,prune_magnitude{sparsity=0.25}");
  CHECK(report["gates"][0]["limit"] == "50%");
  CHECK(report["environment"]["seed"] == 5);
  CHECK(fs::exists(scratch / "a.json"));
  CHECK(fs::exists(scratch / "b.md"));
  scratch.write("bad.yaml", "passes: [simplify]\nmax-drp: 0%\n");
  const CommandResult bad = in(scratch, {"compress", cnn, "-o", "o.onnx", "--recipe", "bad.yaml"});
  CHECK(bad.status == 2);
  CHECK(has(bad.err, "unknown setting 'max-drp'; did you mean 'max-drop'?"));
}

TEST_CASE("--explain lists near misses") {
  const Scratch scratch;
  const CommandResult result = in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes",
                                            "simplify,fuse", "--explain", "--format", "json"});
  REQUIRE(result.status == 0);
  CHECK(report_of(result).contains("near_misses"));
}

TEST_CASE("--explain of a pass, a member of a group or a rule, and of nothing known") {
  const Scratch scratch;
  const auto explain = [&](const std::string& name, const std::string& passes) {
    return in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes", passes, "--explain=" + name,
                        "--format", "json"});
  };
  for (const std::string name : {"fuse", "fold_affine", "fold_into_previous", "simplify_shapes"})
    CHECK(explain(name, "simplify,fuse").status == 0);
  const CommandResult unknown = explain("fold_afine", "simplify,fuse");
  CHECK(unknown.status == 2);
  CHECK(has(unknown.err, "no pass or rule of the pipeline is called 'fold_afine'; did you mean "
                         "'fold_affine'?"));
  CHECK(explain("fold_affine", "simplify").status == 2);
  const CommandResult quiet = in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes", "simplify",
                                           "--explain", "--quiet"});
  CHECK(quiet.status == 2);
  CHECK(has(quiet.err, "--explain with --quiet lists nothing"));
}

TEST_CASE("run writes what the engine computes, as .npz and as .pb") {
  const Scratch scratch;
  REQUIRE(in(scratch, {"run", cnn, "--input", test_npz, "-o", "out.npz", "--batch", "7"}).status ==
          0);
  const auto arrays = open_npz(scratch / "out.npz");
  REQUIRE(arrays.size() == 1);
  CHECK(arrays[0]->info().name == "logits");
  CHECK(arrays[0]->info().dims == Dims{500, 10});
  Tensor stored(DType::float32, {500, 10});
  arrays[0]->read(stored.mutable_bytes());
  fs::create_directory(scratch / "set");
  REQUIRE(in(scratch, {"run", cnn, "--input", test_npz, "-o", "set", "--batch", "7"}).status == 0);
  CHECK(read_tensor(scratch / "set/output_0.pb").tensor.equals(stored));
}

TEST_CASE("run reads and writes sequences and optionals") {
  const Scratch scratch;
  const auto model = parse_model(R"(model ir=8 opset=18
input s: sequence(float32[?])
y = SequenceErase(s)
n = SequenceLength(s)
o = Optional(n)
output y: sequence(float32[?])
output o: optional(int64[])
)");
  write_model(*model, scratch / "m.onnx");
  const Tensor first = parse_tensor("float32[2]{1,2}"), second = parse_tensor("float32[1]{3}");
  scratch.write("set/input_0.pb",
                value_to_bytes(RuntimeValue::sequence({first, second, first}), "s"));
  REQUIRE(in(scratch, {"run", "m.onnx", "--input", "set", "-o", "out.npz"}).status == 0);
  const auto arrays = open_npz(scratch / "out.npz");
  REQUIRE(arrays.size() == 3);
  CHECK(arrays[0]->info().name == "y.0");
  CHECK(arrays[1]->info().name == "y.1");
  CHECK(arrays[1]->info().dims == Dims{1});
  CHECK(arrays[2]->info().name == "o");
  fs::create_directory(scratch / "results");
  REQUIRE(in(scratch, {"run", "m.onnx", "--input", "set", "-o", "results"}).status == 0);
  const auto outputs = model->graph.outputs();
  CHECK(read_value(scratch / "results/output_0.pb", outputs[0]->type)
            .equals(RuntimeValue::sequence({first, second})));
  CHECK(read_value(scratch / "results/output_1.pb", outputs[1]->type)
            .equals(RuntimeValue::filled_optional(Tensor::scalar(std::int64_t{3}))));
}

TEST_CASE("compare works without data, with data and with random data") {
  const Scratch scratch;
  REQUIRE(in(scratch, {"compress", cnn, "-o", "out.onnx", "--passes",
                       "simplify,fuse,quantize_weights{bits=8}"})
              .status == 0);
  const Report sizes = report_of(in(scratch, {"compare", cnn, "out.onnx", "--format", "json"}));
  CHECK(sizes["output_errors"].is_null());
  CHECK(sizes["before"]["bytes"]["total"] > sizes["after"]["bytes"]["total"]);
  const Report data =
      report_of(in(scratch, {"compare", cnn, "out.onnx", "--data", test_npz, "--format", "json",
                             "--max-drop", "1%", "--max-latency-ratio", "1000"}));
  CHECK(data["accuracy"]["metric"] == "top1");
  CHECK(data["output_errors"]["outputs"][0]["samples"] == 500);
  CHECK(data["latency"]["runs"] >= 5);
  CHECK(data["status"] == 0);
  const CommandResult random = in(scratch, {"compare", cnn, "out.onnx", "--random", "4"});
  CHECK(random.status == 0);
  CHECK(has(random.out.substr(0, random.out.find('\n')), "random data"));
  CHECK(in(scratch, {"compare", cnn, "out.onnx", "--min-ratio", "100"}).status == 1);
}

TEST_CASE("passes lists every pass, and one with its options") {
  const Scratch scratch;
  const Report all = report_of(in(scratch, {"passes", "--format", "json"}));
  CHECK(all["passes"].size() >= 6);
  CHECK(has(in(scratch, {"passes"}).out, "prune_magnitude"));
  CHECK(has(in(scratch, {"passes", "prune_magnitude"}).out, "sparsity"));
  CHECK(has(in(scratch, {"passes", "simplify", "--format", "md"}).out, "### simplify"));
}

TEST_CASE("inspect counts MACs for a given input shape") {
  const Scratch scratch;
  const auto macs = [&](const std::string& shape) {
    return report_of(in(
        scratch, {"inspect", cnn, "--format", "json", "--input-shape", shape}))["model"]["macs"]
        .get<std::int64_t>();
  };
  CHECK(macs("x=1x1x8x8") > 0);
  CHECK(macs("x=4x1x8x8") == 4 * macs("x=1x1x8x8"));
}

TEST_CASE("an interrupted run leaves the old output or the new one") {
  const Scratch scratch;
  const std::vector<std::string> arguments{
      "compress", cnn,        "-o",
      "out.onnx", "--passes", "simplify,prune_magnitude{sparsity=0.5}",
      "--report", "r.json",   "--quiet"};
  REQUIRE(in(scratch, arguments).status == 0);
  const std::string finished = contents(scratch / "out.onnx"), old = "the old output";
  int killed = 0;
  for (int i = 0; i < 40; ++i) {
    scratch.write("out.onnx", old);
    fs::remove(scratch / "r.json");
    const CommandResult result = in(scratch, arguments, {.kill_after_us = i * 4000});
    killed += result.status == 128 + 9 ? 1 : 0;
    const std::string found = contents(scratch / "out.onnx");
    CHECK((found == old || found == finished));
    if (result.status == 0) CHECK(found == finished);
    for (const auto& entry : fs::directory_iterator(scratch.path())) {
      const std::string name = entry.path().filename().string();
      CHECK((name == "out.onnx" || name == "r.json"));
    }
    if (fs::exists(scratch / "r.json")) CHECK(Report::accept(contents(scratch / "r.json")));
  }
  CHECK(killed > 0);
}

TEST_CASE("our engine equals ONNX Runtime on the models of testdata") {
  for (const std::string name : {"digits_mlp", "digits_cnn", "digits_dwcnn"}) {
    CAPTURE(name);
    const auto model = read_model(testdata + "/" + name + ".onnx").model;
    const std::string expected = testdata + "/expected/" + name + ".npz";
    const auto data = open_data(expected, *model, {.batch = 32});
    Batch batch;
    REQUIRE(data->next(batch));
    const std::vector<Tensor> outputs = Engine(*model).run(batch.inputs);
    for (const auto& array : open_npz(expected)) {
      const auto& graph_outputs = model->graph.outputs();
      for (std::size_t i = 0; i < graph_outputs.size(); ++i) {
        if (graph_outputs[i]->name() != array->info().name) continue;
        Tensor wanted(array->info().dtype, array->info().dims);
        array->read(wanted.mutable_bytes());
        REQUIRE(outputs[i].dims() == wanted.dims());
        const auto a = outputs[i].to_floats(), b = wanted.to_floats();
        const auto [low, high] = std::minmax_element(b.begin(), b.end());
        float worst = 0;
        for (std::size_t k = 0; k < a.size(); ++k) worst = std::max(worst, std::abs(a[k] - b[k]));
        CHECK(worst <= 1e-4f * (*high - *low));
      }
    }
  }
}

TEST_CASE("eval finds the accuracy that ONNX Runtime has") {
  const Report known = Report::parse(contents(testdata + "/expected/accuracy.json"))["models"];
  for (const std::string name : {"digits_mlp", "digits_cnn", "digits_dwcnn"}) {
    CAPTURE(name);
    const Report report = report_of(run_onnxpress(
        {"eval", testdata + "/" + name + ".onnx", "--data", test_npz, "--format", "json"}));
    CHECK(report["evaluation"]["correct"] == known[name]["correct"]);
    CHECK(report["evaluation"]["metrics"]["cross_entropy"]["value"].get<double>() ==
          doctest::Approx(known[name]["cross_entropy"].get<double>()).epsilon(1e-3));
    CHECK(report["evaluation"]["metrics"]["top1"]["interval95"].size() == 2);
  }
}

}  // namespace onnxpress
