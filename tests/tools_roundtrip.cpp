// onnxpress_roundtrip IN OUT: reads a model and writes it again, for tests and benchmarks.
#include <fmt/format.h>

#include <cstdio>

#include "graph/base/error.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: onnxpress_roundtrip IN OUT\n");
    return 2;
  }
  try {
    const onnxpress::ReadResult read = onnxpress::read_model(argv[1], {.keep_overridable = true});
    for (const std::string& note : read.notes) fmt::print(stderr, "{}: {}\n", argv[1], note);
    onnxpress::write_model(*read.model, argv[2]);
  } catch (const std::exception& error) {
    fmt::print(stderr, "onnxpress_roundtrip: {}\n", error.what());
    return 2;
  }
}
