// IR to ONNX protobuf.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/files.h"
#include "graph/ir/model.h"
#include "graph/ir/runtime_value.h"

namespace onnxpress {

enum class ExternalData {
  as_read,  // external if the model came so, else inline; over 2 GB external
  never,    // inline; over 2 GB is an Error
  always,
};

struct WriteOptions {
  ExternalData external = ExternalData::as_read;
  // Tensors of fewer bytes stay in the model file even when data goes outside.
  std::size_t external_threshold = 1024;
  // Compute WriteResult::sha256.
  bool hash = false;
};

struct WriteResult {
  std::string sha256;  // of the model file's bytes, when asked for
  std::size_t file_bytes = 0;
  std::size_t total_bytes = 0;      // with external data
  std::filesystem::path data_file;  // empty when inline
  std::vector<std::string> notes;   // old data files that were left, and why
};

// What is written: fields in the order of their numbers, tensors as raw_data (strings as
// string_data, up to 1 MB of integers as varints where these are shorter), value_info for values
// whose type was declared (Value::type_in_file). Constants of function bodies, and of subgraphs up
// to IR 3, become Constant nodes; up to IR 3 other constants are also listed as inputs. Nothing is
// validated: see graph/onnx/validate.h.

// Bytes the model takes as one inline file, computed without writing.
std::size_t serialized_size(const Model& model);

// Stages `path`. External data is staged first, as `<stem>-<16 hex digits of its hash>.data` beside
// it. A data file of that pattern that the model now at `path` uses is removed at the end, unless
// another model of the folder (*.onnx*) names it or cannot be read: then `notes` say so.
// Nothing appears before staged.commit(). Throws Error.
WriteResult stage_model(const Model& model, const std::filesystem::path& path, StagedFiles& staged,
                        const WriteOptions& options = {});
// Stages and commits.
WriteResult write_model(const Model& model, const std::filesystem::path& path,
                        const WriteOptions& options = {});
// To a pipe, inline; over 2 GB is an Error before the first byte.
WriteResult write_model(const Model& model, int descriptor, bool hash = false);
// To memory (tests, reproducers).
std::string to_bytes(const Model& model);
// A TensorProto, SequenceProto or OptionalProto file, of tensors.
std::string value_to_bytes(const RuntimeValue& value, std::string_view name);
// A TensorProto file.
std::string tensor_to_bytes(const Tensor& tensor, std::string_view name);

}  // namespace onnxpress
