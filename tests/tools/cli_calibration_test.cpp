// --calib-cache, and what is said of calibration data.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/tools/in_scratch.h"

namespace onnxpress {
namespace {

const std::string testdata = ONNXPRESS_TESTDATA;
const std::string cnn = testdata + "/digits_cnn.onnx";
const std::string mlp = testdata + "/digits_mlp.onnx";
const std::string train = testdata + "/digits_train.npz";
const std::string test = testdata + "/digits_test.npz";

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> command(const std::string& model, const std::string& out, const std::string& method,
                                 std::vector<std::string> more) {
  std::vector<std::string> arguments{"compress", model, "-o", out, "--passes", "quantize{calibration=" + method + "}",
                                     "--format", "json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST_CASE("a kept calibration gives the same model, by any method") {
  const Scratch scratch;
  for (const char* method : {"entropy", "mse"}) {
    const std::vector<std::string> cached{"--calib", train, "--calib-cache", "cache.json"};
    const CommandResult fresh = in(scratch, command(cnn, "fresh.onnx", method, {"--calib", train}));
    const CommandResult kept = in(scratch, command(cnn, "kept.onnx", method, cached));
    const CommandResult again = in(scratch, command(cnn, "again.onnx", method, cached));
    INFO(again.err);
    REQUIRE(fresh.status == 0);
    REQUIRE(kept.status == 0);
    REQUIRE(again.status == 0);
    CHECK(contents(scratch.path() / "kept.onnx") == contents(scratch.path() / "fresh.onnx"));
    CHECK(contents(scratch.path() / "again.onnx") == contents(scratch.path() / "fresh.onnx"));
  }
  const auto cache = nlohmann::json::parse(contents(scratch.path() / "cache.json"));
  CHECK(cache["schema"] == "onnxpress.calibration/1");
  CHECK(cache["models"].size() == 1);
}

TEST_CASE("the calibration of another model or other data is refused, and nothing is written") {
  const Scratch scratch;
  const std::vector<std::string> cached{"--calib", train, "--calib-cache", "cache.json"};
  REQUIRE(in(scratch, command(cnn, "a.onnx", "mse", cached)).status == 0);
  const std::string before = contents(scratch.path() / "cache.json");
  const CommandResult model = in(scratch, command(mlp, "b.onnx", "mse", cached));
  CHECK(model.status != 0);
  CHECK(has(model.err, "calibration cache 'cache.json': it belongs to another model: expected "));
  const CommandResult data =
      in(scratch, command(cnn, "b.onnx", "mse", {"--calib", test, "--calib-cache", "cache.json"}));
  CHECK(data.status != 0);
  CHECK(has(data.err, "it belongs to other data: expected "));
  CHECK(contents(scratch.path() / "cache.json") == before);
  CHECK_FALSE(std::filesystem::exists(scratch.path() / "b.onnx"));
}

TEST_CASE("--calib-cache belongs to --calib and is no other file of the run") {
  const Scratch scratch;
  const CommandResult alone = in(scratch, {"compress", cnn, "-o", "a.onnx", "--passes", "simplify", "--calib-cache", "c"});
  CHECK(alone.status == 2);
  CHECK(has(alone.err, "--calib-cache: expected --calib DATA, found none"));
  std::filesystem::copy_file(cnn, scratch.path() / "in.onnx");
  const CommandResult same =
      in(scratch, command("in.onnx", "a.onnx", "mse", {"--calib", train, "--calib-cache", "in.onnx"}));
  CHECK(same.status == 2);
  const CommandResult nowhere =
      in(scratch, command(cnn, "a.onnx", "mse", {"--calib", train, "--calib-cache", "no/such/folder"}));
  CHECK(nowhere.status == 2);
}

}  // namespace
}  // namespace onnxpress
