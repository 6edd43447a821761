// libFuzzer target: any bytes are either refused with an Error, or read and written in a form that
// reading and writing once more leaves as it is.
#include <cstdlib>
#include <span>
#include <string>

#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const onnxpress::ReadOptions options{.keep_overridable = size % 2 == 0};
  const auto rewrite = [&](std::span<const std::byte> bytes) {
    return onnxpress::to_bytes(*onnxpress::read_model(bytes, nullptr, {}, options).model);
  };
  std::string written;
  try {
    written = rewrite(std::as_bytes(std::span(data, size)));
  } catch (const onnxpress::Error&) {
    return 0;
  }
  if (rewrite(std::as_bytes(std::span(written))) != written) std::abort();
  return 0;
}
