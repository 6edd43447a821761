// The ONNX backend cases of libonnx-testdata on the engine.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "graph/base/convert.h"
#include "graph/exec/engine.h"
#include "graph/onnx/reader.h"

#ifndef ONNXPRESS_ONNX_TESTDATA
#define ONNXPRESS_ONNX_TESTDATA "/usr/share/libonnx-testdata/data"
#endif

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

std::string run_sets(const Model& model, const fs::path& folder, const EngineOptions& options) {
  Engine engine(model, options);
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (!entry.is_directory()) continue;
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
  return "";
}

// Case names with reasons: "node/test_x: why".
std::map<std::string, std::string> known_failures() {
  std::map<std::string, std::string> known;
  std::ifstream file(ONNXPRESS_SOURCE "/tests/graph/exec/backend_known_failures.txt");
  REQUIRE(file);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::size_t colon = line.find(": ");
    REQUIRE_MESSAGE(colon != std::string::npos, line);
    known[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return known;
}

TEST_CASE("ONNX backend cases whose operators are all supported pass") {
  const std::map<std::string, std::string> known = known_failures();
  std::set<std::string> listed_that_fail, listed_that_pass;
  std::map<std::string, int> unsupported;
  int passed = 0, skipped = 0;
  for (const char* group : {"node", "simple", "pytorch-converted", "pytorch-operator"}) {
    std::vector<fs::path> folders;
    for (const fs::directory_entry& entry :
         fs::directory_iterator(fs::path(ONNXPRESS_ONNX_TESTDATA) / group))
      folders.push_back(entry.path());
    std::ranges::sort(folders);
    for (const fs::path& folder : folders) {
      const std::string label = fmt::format("{}/{}", group, folder.filename().string());
      std::string what;
      try {
        const ReadResult read = read_model(folder / "model.onnx", {.keep_overridable = true});
        const std::vector<std::string> missing = Engine::unsupported(*read.model);
        if (!missing.empty()) {
          for (const std::string& op : missing) ++unsupported[op];
          ++skipped;
          continue;
        }
        for (const bool reference : {true, false})
          if (what.empty()) what = run_sets(*read.model, folder, {.reference = reference});
      } catch (const Error& error) {
        what = error.what();
      }
      if (known.contains(label)) {
        (what.empty() ? listed_that_pass : listed_that_fail).insert(label);
      } else {
        CHECK_MESSAGE(what.empty(), label, ": ", what);
        passed += what.empty();
      }
    }
  }
  MESSAGE(passed, " cases passed, ", listed_that_fail.size(), " known failures, ", skipped,
          " not supported");
  if (std::getenv("ONNXPRESS_LIST_UNSUPPORTED") != nullptr)
    for (const auto& [op, count] : unsupported) MESSAGE(op, ": ", count);
  for (const std::string& label : listed_that_pass)
    CHECK_MESSAGE(known.at(label).starts_with("in some releases: "), label,
                  " is listed but passes");
}

}  // namespace
}  // namespace onnxpress
