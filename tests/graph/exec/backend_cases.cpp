#include "tests/graph/exec/backend_cases.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "graph/base/error.h"
#include "graph/exec/engine.h"
#include "graph/onnx/reader.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

constexpr double relative_tolerance = 1e-3, absolute_tolerance = 1e-7;  // of ONNX's own runner

// What is wrong with `found`, or nothing.
std::string difference_of_tensors(const Tensor& found, const Tensor& expected) {
  if (found.dtype() != expected.dtype() || found.dims() != expected.dims())
    return fmt::format("expected {}{}, found {}{}", name(expected.dtype()),
                       to_string(expected.dims()), name(found.dtype()), to_string(found.dims()));
  if (found.dtype() == DType::string)
    return found.strings() == expected.strings() ? "" : "strings differ";
  if (is_complex(found.dtype())) return found.equals(expected) ? "" : "complex numbers differ";
  const Tensor a = found.cast(DType::float64), b = expected.cast(DType::float64);
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const double x = a.data<double>()[static_cast<std::size_t>(i)];
    const double y = b.data<double>()[static_cast<std::size_t>(i)];
    const bool equal = x == y || (std::isnan(x) && std::isnan(y)) ||
                       std::abs(x - y) <= absolute_tolerance + relative_tolerance * std::abs(y);
    if (!equal) return fmt::format("element {}: expected {}, found {}", i, y, x);
  }
  return "";
}

std::string difference(const RuntimeValue& found, const RuntimeValue& expected) {
  if (found.kind() != expected.kind())
    return fmt::format("expected {}, found {}", to_string(type_of(expected)),
                       to_string(type_of(found)));
  if (found.is_tensor()) return difference_of_tensors(found.tensor(), expected.tensor());
  if (found.kind() == Type::Kind::optional) {
    const RuntimeValue *a = found.content(), *b = expected.content();
    if (a == nullptr || b == nullptr) return a == b ? "" : "one optional is empty";
    return difference(*a, *b);
  }
  const auto& a = found.elements();
  const auto& b = expected.elements();
  if (a.size() != b.size())
    return fmt::format("expected {} elements, found {}", b.size(), a.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    if (const std::string what = difference(a[i], b[i]); !what.empty())
      return fmt::format("element {} of the sequence: {}", i, what);
  return "";
}

// The values of a test set; bfloat16, which numpy lacks, is stored as uint16 in them.
std::vector<RuntimeValue> read_set(const fs::path& folder, const std::string& kind,
                                   std::span<Value* const> declared) {
  std::vector<RuntimeValue> values;
  for (;;) {
    const fs::path path = folder / fmt::format("{}_{}.pb", kind, values.size());
    if (!fs::exists(path)) return values;
    const Type type = values.size() < declared.size() ? declared[values.size()]->type : Type();
    RuntimeValue value = read_value(path, type);
    if (value.is_tensor() && type.elem == DType::bfloat16 &&
        value.tensor().dtype() == DType::uint16) {
      Tensor bits = Tensor::uninitialized(DType::bfloat16, value.tensor().dims());
      std::ranges::copy(value.tensor().bytes(), bits.mutable_bytes().begin());
      value = bits;
    }
    values.push_back(std::move(value));
  }
}

// What is wrong with a run of each test set, or nothing.
std::string run_sets(const Model& model, const fs::path& folder, const EngineOptions& options) {
  Engine engine(model, options);
  int sets = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (!entry.is_directory()) continue;
    ++sets;
    const std::vector<RuntimeValue> expected =
        read_set(entry.path(), "output", model.graph.outputs());
    const std::vector<RuntimeValue> found =
        engine.run(read_set(entry.path(), "input", model.required_inputs()));
    if (found.size() != expected.size())
      return fmt::format("expected {} outputs, found {}", expected.size(), found.size());
    for (std::size_t i = 0; i < found.size(); ++i)
      if (const std::string what = difference(found[i], expected[i]); !what.empty())
        return fmt::format("output {}: {}", i, what);
  }
  return sets == 0 ? "it has no test set" : "";
}

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text;
}

bool matches(const BackendManifest::Entry& entry, const std::string& label) {
  return entry.pattern == label || fnmatch(entry.pattern.c_str(), label.c_str(), 0) == 0;
}

}  // namespace

std::string backend_label(const fs::path& folder) {
  return (folder.parent_path().filename() / folder.filename()).string();
}

BackendResult run_backend_case(const fs::path& folder) {
  using Status = BackendResult::Status;
  try {
    const ReadResult read = read_model(folder / "model.onnx", {.keep_overridable = true});
    const std::vector<std::string> missing = Engine::unsupported(*read.model);
    if (!missing.empty())
      return {Status::unsupported, fmt::format("unsupported: {}", fmt::join(missing, ", "))};
    for (const bool reference : {true, false})
      if (std::string what = run_sets(*read.model, folder, {.reference = reference}); !what.empty())
        return {Status::failed, one_line(std::move(what))};
  } catch (const std::exception& error) {
    return {Status::failed, one_line(error.what())};
  }
  return {};
}

BackendManifest::BackendManifest(const fs::path& path) : path_(path) {
  std::ifstream file(path);
  require(file.good(), "cannot read {}", path.string());
  for (std::string line; std::getline(file, line); lines_.push_back(line)) {
    if (line.empty() || line[0] == '#') continue;
    const std::size_t colon = line.find(": ");
    require(colon != std::string::npos, "{}: expected 'group/case: why', found '{}'", path.string(),
            line);
    entries_[lines_.size()] = {line.substr(0, colon), line.substr(colon + 2)};
  }
}

const BackendManifest::Entry* BackendManifest::find(const std::string& label) const {
  const Entry* found = nullptr;
  for (const auto& [line, entry] : entries_) {
    if (entry.pattern == label) return &entry;
    if (!found && matches(entry, label)) found = &entry;
  }
  return found;
}

std::vector<std::string> BackendManifest::deviations(const BackendResults& results) const {
  std::vector<std::string> found;
  for (const auto& [label, result] : results) {
    const Entry* entry = find(label);
    const bool passed = result.status == BackendResult::Status::passed;
    if (passed && entry && !entry->may_pass())
      found.push_back(fmt::format("{} passes but is listed: {}", label, entry->reason));
    if (!passed && !entry) found.push_back(fmt::format("{}: {}", label, result.reason));
  }
  return found;
}

void BackendManifest::update(const BackendResults& results) const {
  const auto is_wanted = [&](const Entry& entry) {
    bool ran = false;
    for (const auto& [label, result] : results) {
      if (find(label) != &entry) continue;
      if (result.status != BackendResult::Status::passed) return true;
      ran = true;
    }
    return !ran || entry.may_pass();
  };
  std::string text;
  for (std::size_t line = 0; line < lines_.size(); ++line) {
    const auto entry = entries_.find(line);
    if (entry == entries_.end() || is_wanted(entry->second)) text += lines_[line] + '\n';
  }
  for (const auto& [label, result] : results)
    if (result.status != BackendResult::Status::passed && !find(label))
      text += fmt::format("{}: {}\n", label, result.reason);
  std::ofstream file(path_, std::ios::trunc);
  file << text;
  require(file.flush().good(), "cannot write {}", path_.string());
}

}  // namespace onnxpress
