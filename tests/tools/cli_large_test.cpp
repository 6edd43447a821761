// Models large enough that the result is written while its outputs are compared.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>

#include "graph/base/hash.h"
#include "graph/ir/parse.h"
#include "graph/onnx/writer.h"
#include "tests/tools/in_scratch.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

void write_large(const fs::path& path) {
  write_model(*parse_model(R"(model ir=10 opset=21
input x: float32[n,4096]
initializer w: float32[4096,4200] = random(1)
initializer v: float32[4200,4] = random(2)
a = MatMul(x, w)
y: float32[n,4] = MatMul(a, v)
output y: float32[n,4]
)"),
              path);
}

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_CASE("the result of a large model is what is written by itself, and nothing where a gate is missed") {
  const Scratch scratch;
  write_large(scratch / "m.onnx");
  const std::vector<std::string> compress{"compress", "m.onnx", "--passes", "quantize_weights{bits=4}", "--quiet"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = compress;
    all.insert(all.end(), more.begin(), more.end());
    return in(scratch, all);
  };
  CHECK(with({"-o", "missed.onnx", "--min-ratio", "100", "--threads", "3"}).status == 1);
  CHECK(std::distance(fs::directory_iterator(scratch.path()), {}) == 1);

  CHECK(with({"-o", "beside.onnx", "--threads", "3"}).status == 0);
  CHECK(with({"-o", "alone.onnx", "--threads", "1"}).status == 0);
  CHECK(with({"-o", "told.onnx", "--threads", "3", "--report", "r.json"}).status == 0);
  const std::string written = contents(scratch / "beside.onnx");
  CHECK(written.size() > 8'000'000);
  CHECK(written == contents(scratch / "alone.onnx"));
  CHECK(written == contents(scratch / "told.onnx"));
  const auto report = nlohmann::ordered_json::parse(contents(scratch / "r.json"));
  CHECK(report["after"]["sha256"] == sha256(std::as_bytes(std::span(written))));
  const std::string given = contents(scratch / "m.onnx");
  CHECK(report["before"]["sha256"] == sha256(std::as_bytes(std::span(given))));
}

}  // namespace

}  // namespace onnxpress
