// analyze: one layer quantized at a time.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
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

Report analysis_of(const Scratch& scratch, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "analyze");
  for (const char* more : {"--format", "json"}) arguments.emplace_back(more);
  const CommandResult result = in(scratch, arguments);
  INFO(result.err);
  REQUIRE(result.status == 0);
  return Report::parse(result.out)["analysis"];
}

}  // namespace

TEST_CASE("analyze ranks layers by what quantizing each alone does") {
  const Scratch scratch;
  const Report analysis =
      analysis_of(scratch, {cnn, "--calib", train, "--samples", "64", "--scheme", "weights", "--bits", "4", "--passes", "simplify,fuse"});
  CHECK(analysis["samples"] == 64);
  CHECK(analysis["bits"] == 4);
  const Report& layers = analysis["layers"];
  REQUIRE(layers.size() >= 5);
  std::set<std::string> nodes;
  double before = -1e9, share = 0;
  for (const Report& layer : layers) {
    nodes.insert(layer["node"].get<std::string>());
    CHECK(layer["output_snr_db"].get<double>() >= before);
    before = layer["output_snr_db"].get<double>();
    share += layer["share"].get<double>();
    CHECK(layer["failure"] == "");
    CHECK(layer["local_snr_db"].get<double>() > 5);
    CHECK(layer["weight_snr_db"].get<double>() > 5);
  }
  CHECK(nodes.size() == layers.size());
  CHECK(share == doctest::Approx(1));
  // All together hurt more than the worst alone, and the overrides help.
  CHECK(analysis["all"]["snr_db"].get<double>() < layers[0]["output_snr_db"].get<double>() + 1);
  CHECK(analysis["with_overrides"]["snr_db"].get<double>() > analysis["all"]["snr_db"].get<double>());
  CHECK(has(analysis["overrides"].get<std::string>(), layers[0]["selector"].get<std::string>() + "=8"));
}

TEST_CASE("the overrides that analyze prints are what quantize takes") {
  const Scratch scratch;
  const Report analysis = analysis_of(scratch, {mlp, "--calib", train, "--samples", "64", "--scheme", "weights", "--bits", "3"});
  const CommandResult result = in(scratch, {"compress", mlp, "-o", "q.onnx", "--passes",
                                            "quantize{scheme=weights,bits=3," + analysis["overrides"].get<std::string>() + "}", "--format", "json"});
  INFO(result.err);
  REQUIRE(result.status == 0);
  std::set<int> widths;
  const Report report = Report::parse(result.out);
  for (const Report& layer : report["passes"].back()["layers"]) widths.insert(layer["bits"].get<int>());
  CHECK(widths.contains(8));
}

TEST_CASE("analyze lists what stays in float, and spares nothing where that would be everything") {
  const Scratch scratch;
  const Report analysis = analysis_of(
      scratch, {testdata + "/digits_lstm.onnx", "--calib", train, "--samples", "32", "--scheme", "weights", "--bits", "4"});
  const bool is_listed = std::ranges::any_of(analysis["left"], [](const Report& left) {
    return has(left["node"].get<std::string>(), "(LSTM)") && has(left["reason"].get<std::string>(), "reaches it through Slice");
  });
  CHECK(is_listed);
  REQUIRE(analysis["layers"].size() == 1);
  CHECK(analysis["layers"][0]["share"].get<double>() == doctest::Approx(1));
  CHECK(analysis["overrides"] == "");
}

TEST_CASE("analyze as a table and as Markdown") {
  const Scratch scratch;
  const std::vector<std::string> arguments{"analyze", mlp, "--calib", train, "--samples", "32", "--scheme", "weights", "--bits", "2"};
  const CommandResult table = in(scratch, arguments);
  INFO(table.err);
  REQUIRE(table.status == 0);
  CHECK(has(table.out, "One layer quantized at a time"));
  CHECK(has(table.out, "overrides="));
  std::vector<std::string> more = arguments;
  more.insert(more.end(), {"--report", "r.md", "--quiet"});
  const CommandResult quiet = in(scratch, more);
  CHECK(quiet.status == 0);
  CHECK(quiet.out.empty());
  CHECK(std::filesystem::exists(scratch / "r.md"));
}

TEST_CASE("analyze refuses what it cannot do") {
  const Scratch scratch;
  const auto refused = [&](std::vector<std::string> arguments, const std::string& words) {
    arguments.insert(arguments.begin(), "analyze");
    const CommandResult result = in(scratch, arguments);
    CAPTURE(result.err);
    CHECK(result.status == 2);
    CHECK(has(result.err, words));
  };
  refused({}, "expected a model");
  refused({mlp}, "expected --calib");
  refused({mlp, "--calib", train, "--bits", "auto"}, "found auto");
  refused({mlp, "--calib", train, "--scheme", "statik"}, "statik");
  refused({mlp, "--calib", train, "--options", "gran=tensor"}, "gran");
  refused({mlp, "--calib", train, "--options", "bits=8},simplify{"}, "options of quantize");
}

}  // namespace onnxpress
