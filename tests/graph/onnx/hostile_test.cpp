// Files that are no models, or no longer: an Error, never a crash.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "graph/base/random.h"
#include "tests/graph/base/temporary_folder.h"
#include "tests/graph/onnx/support.h"

namespace onnxpress::test {

namespace fs = std::filesystem;

namespace {

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.good());
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string error_for(const std::string& bytes) {
  return error_of([&] { read_bytes(bytes); });
}

// True when it is a model, false when it is refused.
bool survives(const std::string& bytes) {
  try {
    const ReadResult result = read_bytes(bytes);
    to_bytes(*result.model);
    return true;
  } catch (const Error& error) {
    CHECK_FALSE(error.message().empty());
    return false;
  }
}

const fs::path nodes = fs::path(ONNXPRESS_ONNX_TESTDATA) / "node";

// Models with subgraphs, sequence types, strings and many inputs.
const char* const sources[] = {
    "test_loop13_seq",          "test_if_seq",
    "test_scan9_sum",           "test_tfidfvectorizer_tf_only_bigrams_skip0",
    "test_lstm_with_peepholes", "test_sequence_map_add_2_sequences_expanded"};

}  // namespace

TEST_CASE("what is no model is said to be none") {
  CHECK_CONTAINS(error_for(""), "not an ONNX model: empty");
  CHECK_CONTAINS(error_for("# A text file\n"), "not an ONNX model: ");
  CHECK_CONTAINS(error_for("{\"json\": true}"), "not an ONNX model: ");
  CHECK_CONTAINS(error_for("<html></html>"), "not an ONNX model: ");
  CHECK_CONTAINS(error_for("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
                 "not an ONNX model: a Git LFS pointer");
  CHECK_CONTAINS(error_for(std::string(100, '\0')), "not an ONNX model: field number 0");
  onnx::ModelProto model;
  model.set_ir_version(8);
  CHECK_CONTAINS(read_error(model), "not an ONNX model: no graph");
}

TEST_CASE("missing files, folders and devices") {
  const TemporaryFolder folder;
  CHECK(error_of([&] { read_model(folder / "missing.onnx"); }) ==
        fmt::format("cannot open {}: No such file or directory",
                    (folder / "missing.onnx").native()));
  CHECK_CONTAINS(error_of([&] { read_model(folder / ""); }), "expected a regular file");
  folder.write("empty.onnx", "");
  CHECK_CONTAINS(error_of([&] { read_model(folder / "empty.onnx"); }), "not an ONNX model: empty");
}

TEST_CASE("a model cut anywhere is refused") {
  for (const fs::path& path :
       {nodes / "test_if_seq" / "model.onnx", fs::path(ONNXPRESS_TESTDATA) / "digits_mlp.onnx"}) {
    const std::string whole = contents(path);
    REQUIRE(survives(whole));
    // Cut between two fields after the graph and the operator sets, it is a model still.
    std::size_t accepted = 0;
    for (std::size_t size = 0; size < whole.size(); ++size)
      accepted += survives(whole.substr(0, size));
    CHECK(accepted <= 2);
  }
}

TEST_CASE("flipped bytes never crash the reader") {
  Random random(20260117);
  for (const char* source : sources) {
    CAPTURE(source);
    const std::string whole = contents(nodes / source / "model.onnx");
    std::size_t refused = 0;
    for (int round = 0; round < 1500; ++round) {
      std::string damaged = whole;
      const std::uint64_t flips = 1 + random.below(4);
      for (std::uint64_t i = 0; i < flips; ++i)
        damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
      refused += !survives(damaged);
    }
    CHECK(refused > 100);
  }
}

TEST_CASE("random bytes never crash the reader") {
  Random random(7);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes(1 + random.below(200), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.below(256));
    survives(bytes);
    survives(small_model().SerializeAsString() + bytes);
  }
}

TEST_CASE("nesting is bounded") {
  SUBCASE("subgraphs") {
    std::string graph = bytes_field(2, "deepest");
    for (int depth = 0; depth < 1000; ++depth) {
      const std::string attribute = bytes_field(1, "body") + bytes_field(6, graph);
      graph = bytes_field(1, bytes_field(4, "Loop") + bytes_field(5, attribute));
    }
    CHECK_CONTAINS(error_for(varint_field(1, 8) + bytes_field(7, graph)),
                   "not an ONNX model: messages nested more than 100 deep");
  }
  SUBCASE("types") {
    std::string type;
    for (int depth = 0; depth < 10000; ++depth) type = bytes_field(4, bytes_field(1, type));
    const std::string input = bytes_field(1, "x") + bytes_field(2, type);
    CHECK_CONTAINS(error_for(varint_field(1, 8) + bytes_field(7, bytes_field(11, input))),
                   "messages nested more than 100 deep");
  }
  SUBCASE("unknown groups") {
    const std::string start = varint(50 << 3 | 3);
    std::string groups;
    for (int depth = 0; depth < 100000; ++depth) groups += start;
    CHECK_CONTAINS(error_for(groups), "groups nested more than 100 deep");
  }
  SUBCASE("as deep as allowed") {
    std::string graph = bytes_field(2, "deepest");
    for (int depth = 0; depth < 30; ++depth) {
      const std::string attribute = bytes_field(1, "body") + bytes_field(6, graph);
      graph = bytes_field(1, bytes_field(4, "Loop") + bytes_field(5, attribute));
    }
    CHECK(
        survives(varint_field(1, 8) + bytes_field(8, varint_field(2, 17)) + bytes_field(7, graph)));
  }
}

TEST_CASE("long chains of function calls") {
  onnx::ModelProto model = small_model();
  constexpr int count = 20000;
  for (int i = 0; i < count; ++i) {
    onnx::FunctionProto& function = *model.add_functions();
    function.set_domain("f");
    function.set_name(std::to_string(i));
    onnx::NodeProto& node = *function.add_node();
    node.set_domain("f");
    node.set_op_type(std::to_string((i + 1) % count));
  }
  CHECK_CONTAINS(read_error(model), "calls itself");
  model.mutable_functions(count - 1)->clear_node();
  CHECK(read(model).model->functions.size() == count);
}

TEST_CASE("standard input") {
  const TemporaryFolder folder;
  folder.write("m.onnx", small_model().SerializeAsString());
  const int saved = ::dup(STDIN_FILENO);
  const int file = ::open((folder / "m.onnx").c_str(), O_RDONLY);
  REQUIRE(::dup2(file, STDIN_FILENO) == STDIN_FILENO);
  const ReadResult result = read_model("-");
  CHECK(result.model->graph.node_count() == 2);
  CHECK(result.file_bytes == small_model().ByteSizeLong());
  REQUIRE(::lseek(STDIN_FILENO, 0, SEEK_SET) == 0);
  const std::string error = error_of([] { read_model("-", {.stream_limit = 10}); });
  CHECK_CONTAINS(error, "reading standard input: ");
  ::close(file);
  REQUIRE(::dup2(saved, STDIN_FILENO) == STDIN_FILENO);
  ::close(saved);
}

}  // namespace onnxpress::test
