// IR to ONNX protobuf.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "graph/base/files.h"
#include "graph/ir/model.h"

namespace onnxpress {

enum class ExternalData {
  as_read,   // external if the model came so, else inline; over 2 GB external
  never,     // inline; over 2 GB is an Error
  always,
};

struct WriteOptions {
  ExternalData external = ExternalData::as_read;
  // Tensors of fewer bytes stay in the model file even when data goes outside.
  std::size_t external_threshold = 1024;
};

struct WriteResult {
  std::string sha256;                // of the model file's bytes
  std::size_t file_bytes = 0;
  std::size_t total_bytes = 0;       // with external data
  std::filesystem::path data_file;   // empty when inline
};

// Bytes the model would take as one inline file (with `external_bytes` of tensor data outside
// counted too), computed without writing.
std::size_t serialized_size(const Model& model);

// Stages `path` (and, for external data, first a file beside it whose name carries a content hash).
// Nothing appears before staged.commit(). Throws Error.
WriteResult stage_model(const Model& model, const std::filesystem::path& path,
                        StagedFiles& staged, const WriteOptions& options = {});
// Stages and commits.
WriteResult write_model(const Model& model, const std::filesystem::path& path,
                        const WriteOptions& options = {});
// To a pipe; over 2 GB is an Error before the first byte.
WriteResult write_model(const Model& model, int descriptor);
// To memory (tests, reproducers).
std::string to_bytes(const Model& model);
// A TensorProto file.
std::string tensor_to_bytes(const Tensor& tensor, const std::string& name);

}  // namespace onnxpress
