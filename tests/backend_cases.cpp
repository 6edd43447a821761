// onnxpress_backend_cases [--manifest FILE [--update]] FOLDER...: runs ONNX backend cases.
//
// Prints for every folder "group/case: pass", ": fail: REASON" or ": unsupported: OPERATORS", then
// the counts. With --manifest the status is 1, and what deviates is printed last, when a listed
// case passes or one that is not listed does not; --update rewrites the list instead.
#include "tests/graph/exec/backend_cases.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

namespace {

using onnxpress::BackendResult;
using Status = BackendResult::Status;

std::string verdict(const BackendResult& result) {
  if (result.status == Status::passed) return "pass";
  return result.status == Status::failed ? "fail: " + result.reason : result.reason;
}

int run(const std::vector<std::filesystem::path>& folders,
        const std::optional<onnxpress::BackendManifest>& manifest, bool update) {
  onnxpress::BackendResults results;
  std::map<Status, int> counts;
  for (const std::filesystem::path& folder : folders) {
    const BackendResult result = onnxpress::run_backend_case(folder);
    fmt::print("{}: {}\n", onnxpress::backend_label(folder), verdict(result));
    ++counts[result.status];
    results[onnxpress::backend_label(folder)] = result;
  }
  fmt::print("{} pass, {} fail, {} unsupported\n", counts[Status::passed], counts[Status::failed],
             counts[Status::unsupported]);
  if (!manifest) return 0;
  if (update) {
    manifest->update(results);
    return 0;
  }
  const std::vector<std::string> deviations = manifest->deviations(results);
  for (const std::string& deviation : deviations) fmt::print("DEVIATES {}\n", deviation);
  return deviations.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::vector<std::filesystem::path> folders;
    std::optional<onnxpress::BackendManifest> manifest;
    bool update = false;
    for (int i = 1; i < argc; ++i) {
      const std::string_view word = argv[i];
      if (word == "--manifest" && i + 1 < argc)
        manifest.emplace(argv[++i]);
      else if (word == "--update")
        update = true;
      else
        folders.emplace_back(word);
    }
    if (folders.empty() || (update && !manifest)) {
      fmt::print(stderr, "usage: onnxpress_backend_cases [--manifest FILE [--update]] FOLDER...\n");
      return 2;
    }
    return run(folders, manifest, update);
  } catch (const std::exception& error) {
    fmt::print(stderr, "onnxpress_backend_cases: {}\n", error.what());
    return 2;
  }
}
