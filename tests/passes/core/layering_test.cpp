// Every #include line against the rows of the design.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const std::vector<std::string> rows = {
    "graph/base", "graph/ir",    "graph/ops",     "graph/kernels", "graph/onnx", "graph/rewrite",
    "graph/exec", "passes/core", "passes/common", "passes",        "tools"};

// The row a path is of: the longest one that it starts with.
std::optional<std::size_t> row_of(const std::string& path) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (path.starts_with(rows[i] + '/') && (!best || rows[i].size() > rows[*best].size())) best = i;
  return best;
}

// passes/<family>/..., or empty.
std::string family_of(const std::string& path) {
  if (row_of(path) != row_of("passes/x")) return {};
  return path.substr(0, path.find('/', std::string("passes/").size()));
}

// What is wrong with `file` including `included` (as written), or nothing.
std::optional<std::string> objection(const std::string& file, const std::string& included,
                                     bool quoted) {
  const bool is_protobuf =
      included.starts_with("google/protobuf/") || included.starts_with("onnx/");
  if (!quoted && is_protobuf && !file.starts_with("graph/onnx/"))
    return "only graph/onnx sees protobuf";
  if (!quoted && included.starts_with("Eigen/") && file.starts_with("graph/ir/"))
    return "graph/ir sees no Eigen";
  if (!quoted || included.starts_with("generated/")) return std::nullopt;
  const auto from = row_of(file);
  const auto to = row_of(included);
  if (!from) return "a file outside the rows";
  if (!to) return "a quoted include is written from the root of the project";
  if (*to > *from) return "an upward edge";
  const std::string other = family_of(included);
  if (!other.empty() && !family_of(file).empty() && other != family_of(file))
    return "a family includes another";
  return std::nullopt;
}

TEST_CASE("the rules of the layering test") {
  CHECK_FALSE(objection("graph/exec/engine.h", "graph/rewrite/pattern.h", true));
  CHECK(objection("graph/rewrite/patch.cpp", "graph/exec/engine.h", true) == "an upward edge");
  CHECK(objection("passes/common/a.h", "passes/fuse/b.h", true) == "an upward edge");
  CHECK(objection("passes/fuse/a.h", "passes/prune/b.h", true) == "a family includes another");
  CHECK_FALSE(objection("passes/fuse/a.cpp", "passes/fuse/a.h", true));
  CHECK_FALSE(objection("passes/fuse/a.cpp", "passes/common/a.h", true));
  CHECK(objection("passes/fuse/a.cpp", "a.h", true).has_value());
  CHECK(objection("graph/ir/a.cpp", "onnx/onnx_pb.h", false).has_value());
  CHECK_FALSE(objection("graph/onnx/a.cpp", "onnx/onnx_pb.h", false));
  CHECK_FALSE(objection("graph/base/a.cpp", "vector", false));
}

TEST_CASE("no file includes from a row below its own") {
  const fs::path root = ONNXPRESS_SOURCE;
  std::size_t includes = 0;
  for (const char* top : {"graph", "passes", "tools"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".h" && extension != ".cpp") continue;
      const std::string file = fs::relative(entry.path(), root).generic_string();
      std::ifstream stream(entry.path());
      for (std::string line; std::getline(stream, line);) {
        if (!line.starts_with("#include ") || line.size() < 12) continue;
        const bool quoted = line[9] == '"';
        const std::size_t end = line.find_first_of("\">", 10);
        REQUIRE(end != std::string::npos);
        const std::string included = line.substr(10, end - 10);
        ++includes;
        CAPTURE(file);
        CAPTURE(included);
        CHECK(objection(file, included, quoted).value_or("") == "");
      }
    }
  }
  CHECK(includes > 100);
}

// Two types of one name in namespace onnxpress make one program with undefined behaviour, and no
// linker tells.
TEST_CASE("a type is defined in one header") {
  const fs::path root = ONNXPRESS_SOURCE;
  std::map<std::string, std::string> defined;
  for (const char* top : {"graph", "passes", "tools"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / top)) {
      if (entry.path().extension() != ".h") continue;
      const std::string file = fs::relative(entry.path(), root).generic_string();
      std::ifstream stream(entry.path());
      std::string space;
      for (std::string line; std::getline(stream, line);) {
        if (line.starts_with("namespace ")) space = line;
        for (const std::string keyword : {"struct ", "class ", "enum class "}) {
          if (!line.starts_with(keyword) || line.find('{') == std::string::npos) continue;
          const std::size_t end = line.find_first_of(" :{<", keyword.size());
          const std::string name = space + ' ' + line.substr(keyword.size(), end - keyword.size());
          const auto [first, is_new] = defined.emplace(name, file);
          CAPTURE(name);
          CHECK((is_new || first->second == file));
        }
      }
    }
  }
  CHECK(defined.size() > 50);
}

}  // namespace
