#include "passes/common/checkpoint.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "graph/base/error.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

struct File {
  fs::path folder = [] {
    std::string pattern = (fs::temp_directory_path() / "checkpoint.XXXXXX").string();
    return fs::path(mkdtemp(pattern.data()));
  }();
  fs::path path = folder / "state";
  ~File() { fs::remove_all(folder); }

  std::string bytes() const {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& bytes) const { std::ofstream(path, std::ios::binary) << bytes; }
};

Checkpoint sample() {
  return {.about = {{"model", "ab"}, {"seed", "7"}},
          .state = {{"w", Tensor::of<float>({2, 2}, {1, -2, 3.5, 0})},
                    {"sum", Tensor::of<double>({1}, {0.1})},
                    {"counts", Tensor::of<std::int64_t>({3}, {1, -1, 1LL << 40})},
                    {"none", Tensor(DType::float32, {0, 4})}}};
}

std::string failure(const auto& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("a checkpoint comes back as it was, as a safetensors file") {
  const File file;
  write_checkpoint(file.path, sample());
  const Checkpoint back = read_checkpoint(file.path);
  CHECK(back.about == sample().about);
  REQUIRE(back.state.size() == 4);
  for (const auto& [name, tensor] : sample().state) CHECK(tensor.equals(back.state.at(name)));
  const std::string bytes = file.bytes();
  CHECK(bytes.find("\"__metadata__\"") != std::string::npos);
  CHECK(bytes.find("\"dtype\":\"F32\"") != std::string::npos);
  CHECK(static_cast<unsigned char>(bytes[0]) % 8 == 0);  // the header's length: data is aligned
  write_checkpoint(file.path, sample());
  CHECK(file.bytes() == bytes);
}

TEST_CASE("files that are no checkpoint, or cut off, end in an error") {
  const File file;
  write_checkpoint(file.path, sample());
  const std::string whole = file.bytes();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    file.write(whole.substr(0, length));
    CHECK_THROWS_AS(read_checkpoint(file.path), Error);
  }
  std::string other = whole;
  other.replace(other.find("\"F32\""), 5, "\"F99\"");
  file.write(other);
  CHECK(failure([&] { read_checkpoint(file.path); }).find("F99") != std::string::npos);
  other = whole;
  other.replace(other.find("[2,2]"), 5, "[2,9]");
  file.write(other);
  CHECK_THROWS_AS(read_checkpoint(file.path), Error);
  other = whole;
  other.replace(other.find("checkpoint/1"), 12, "checkpoint/9");
  file.write(other);
  CHECK(failure([&] { read_checkpoint(file.path); }).find("expected schema 'onnxpress.checkpoint/1'") !=
        std::string::npos);
}

TEST_CASE("a checkpoint of another training is refused with what differs") {
  const std::map<std::string, std::string> about = {{"model", "ab"}, {"seed", "8"}};
  CHECK(failure([&] { require_same_training("f", sample(), about); }) ==
        "checkpoint 'f' is of another training: seed was 7, now it is 8");
  const std::map<std::string, std::string> more = {{"model", "cd"}, {"option epochs", "3"}, {"seed", "7"}};
  CHECK(failure([&] { require_same_training("f", sample(), more); }) ==
        "checkpoint 'f' is of another training: model was ab, now it is cd; option epochs was not kept, now it is 3");
  CHECK_NOTHROW(require_same_training("f", sample(), sample().about));
}

}  // namespace
}  // namespace onnxpress
