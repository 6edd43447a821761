// Every model of the ONNX backend cases: read, write, read; never larger than before.
#include <filesystem>

#include "tests/graph/onnx/support.h"

namespace onnxpress::test {

namespace fs = std::filesystem;

TEST_CASE("all backend models survive a round trip") {
  REQUIRE_MESSAGE(fs::is_directory(ONNXPRESS_ONNX_TESTDATA),
                  "the ONNX backend cases are missing: ", ONNXPRESS_ONNX_TESTDATA,
                  " (Debian package libonnx-testdata)");
  std::size_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(ONNXPRESS_ONNX_TESTDATA)) {
    if (entry.path().extension() != ".onnx") continue;
    CAPTURE(entry.path().string());
    for (const bool keep_overridable : {false, true}) {
      const ReadOptions options{.keep_overridable = keep_overridable};
      const ReadResult first = read_model(entry.path(), options);
      const std::string bytes = to_bytes(*first.model);
      CHECK(bytes.size() == serialized_size(*first.model));
      CHECK(bytes.size() <= first.file_bytes);
      const ReadResult second = read_bytes(bytes, options);
      CHECK(structural_hash(*second.model, true) == structural_hash(*first.model, true));
      CHECK(to_bytes(*second.model) == bytes);
      onnx::ModelProto proto;
      CHECK(proto.ParseFromString(bytes));
    }
    ++count;
  }
  CHECK(count > 1000);
}

}  // namespace onnxpress::test
