// The ONNX backend cases on the engine: running one, and the list of those that do not pass.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace onnxpress {

struct BackendResult {
  enum class Status { passed, failed, unsupported };
  Status status = Status::passed;
  std::string reason;  // one line: what differs, the error, or the operators without a kernel
};

// "node/test_abs": the last two parts of a case's folder.
std::string backend_label(const std::filesystem::path& folder);

// Runs model.onnx on every test set of `folder`, on the reference kernels and on those a plan
// chooses, and compares with the tolerances of ONNX's own runner.
BackendResult run_backend_case(const std::filesystem::path& folder);

using BackendResults = std::map<std::string, BackendResult>;  // by label

// Cases that do not pass, with reasons, one a line: "node/test_x: why". In names * and ? stand for
// any characters, as in a shell. A reason that begins with "in some releases: " allows the case to
// pass. Lines that begin with # are comments.
class BackendManifest {
 public:
  struct Entry {
    std::string pattern, reason;
    bool may_pass() const { return reason.starts_with("in some releases: "); }
  };

  explicit BackendManifest(const std::filesystem::path& path);

  // The entry of a case: one with its very name before one that matches; null when it has none.
  const Entry* find(const std::string& label) const;
  // Cases that are listed but pass, and those that are not listed and do not.
  std::vector<std::string> deviations(const BackendResults& results) const;
  // Rewrites the file: entries whose cases all pass go, cases that are not listed and do not pass
  // are added. Comments, reasons, and entries whose cases are not among `results` stay.
  void update(const BackendResults& results) const;

 private:
  std::filesystem::path path_;
  std::vector<std::string> lines_;
  std::map<std::size_t, Entry> entries_;  // by line
};

}  // namespace onnxpress
