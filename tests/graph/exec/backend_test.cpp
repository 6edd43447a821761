// The ONNX backend cases of libonnx-testdata on the engine.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/graph/exec/backend_cases.h"

#ifndef ONNXPRESS_ONNX_TESTDATA
#define ONNXPRESS_ONNX_TESTDATA "/usr/share/libonnx-testdata/data"
#endif

namespace onnxpress {
namespace {

namespace fs = std::filesystem;
using Status = BackendResult::Status;

TEST_CASE("ONNX backend cases pass, or are listed with the reason why not") {
  const BackendManifest known(ONNXPRESS_SOURCE "/tests/graph/exec/backend_known_failures.txt");
  // Releases other than the one the list was made with.
  const BackendManifest newest(ONNXPRESS_SOURCE "/tests/python/newest_known_failures.txt");
  BackendResults results;
  std::map<Status, int> counts;
  for (const char* group : {"node", "simple", "pytorch-converted", "pytorch-operator"})
    for (const fs::directory_entry& entry :
         fs::directory_iterator(fs::path(ONNXPRESS_ONNX_TESTDATA) / group)) {
      BackendResult result = run_backend_case(entry.path());
      ++counts[result.status];
      const std::string label = backend_label(entry.path());
      if (result.status == Status::passed || known.find(label) || !newest.find(label))
        results[label] = std::move(result);
    }
  MESSAGE(counts[Status::passed], " cases pass, ", counts[Status::failed], " fail, ",
          counts[Status::unsupported], " have unsupported operators");
  if (std::getenv("ONNXPRESS_LIST_UNSUPPORTED") != nullptr)
    for (const auto& [label, result] : results)
      if (result.status == Status::unsupported) MESSAGE(label, ": ", result.reason);
  CHECK(counts[Status::passed] > 0);
  for (const std::string& deviation : known.deviations(results)) CHECK_MESSAGE(false, deviation);
}

TEST_CASE("the list of backend cases: names, patterns, and what update() leaves") {
  const fs::path path = fs::temp_directory_path() / fmt::format("onnxpress-list-{}", ::getpid());
  const std::string text =
      "# why\n"
      "node/test_str*: strings\n"
      "node/test_strnorm: a bug\n"
      "node/test_now_passes: a bug\n"
      "node/test_sometimes: in some releases: rounding\n"
      "node/test_elsewhere: not in this release\n";
  std::ofstream(path) << text;
  const BackendManifest manifest(path);
  CHECK(manifest.find("node/test_strnorm")->reason == "a bug");
  CHECK(manifest.find("node/test_string_split")->reason == "strings");
  CHECK(manifest.find("node/test_st") == nullptr);

  const BackendResults results{
      {"node/test_now_passes", {}},
      {"node/test_sometimes", {}},
      {"node/test_new", {Status::failed, "output 0: differs"}},
      {"node/test_fine", {}},
      {"node/test_strnorm", {Status::unsupported, "unsupported: StringNormalizer"}},
      {"node/test_string_split", {Status::unsupported, "unsupported: StringSplit"}}};
  CHECK(manifest.deviations(results) ==
        std::vector<std::string>{"node/test_new: output 0: differs",
                                 "node/test_now_passes passes but is listed: a bug"});
  manifest.update(results);
  std::ifstream updated(path);
  CHECK(std::string(std::istreambuf_iterator<char>(updated), {}) ==
        "# why\n"
        "node/test_str*: strings\n"
        "node/test_strnorm: a bug\n"
        "node/test_sometimes: in some releases: rounding\n"
        "node/test_elsewhere: not in this release\n"
        "node/test_new: output 0: differs\n");
  CHECK(BackendManifest(path).deviations(results).empty());
  fs::remove(path);
}

}  // namespace
}  // namespace onnxpress
