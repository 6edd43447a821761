// ONNX protobuf to IR.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/ir/model.h"
#include "graph/ir/runtime_value.h"

namespace onnxpress {

struct ReadOptions {
  // Leave initializers that are also graph inputs overridable (IR 3 habit). Otherwise they become
  // constants, which a note counts where the file need not have listed them (IR >= 4).
  bool keep_overridable = false;
  // Bytes accepted from standard input.
  std::size_t stream_limit = std::size_t{2} << 30;
};

struct ReadResult {
  std::unique_ptr<Model> model;
  std::vector<std::string> notes;  // "12 initializers were also inputs: now constants"
  std::vector<std::filesystem::path> data_files;  // external-data files, resolved, sorted
  std::size_t file_bytes = 0;                     // model file
  std::size_t total_bytes = 0;                    // model file and external-data files

  // SHA-256 of the model file itself (not its external data), computed at each call.
  std::string sha256() const;

  std::span<const std::byte> bytes;   // the model file
  std::shared_ptr<const void> owner;  // keeps them
};

// Maps and parses; tensor bytes stay in the file. "-" reads standard input (external data is then
// an error: there is no folder). Structure is validated (graph/onnx/validate.h). Nodes that are not
// in topological order are sorted. Throws Error.
ReadResult read_model(const std::filesystem::path& path, const ReadOptions& options = {});
// From memory that `owner` keeps alive; `folder` resolves external data (empty: none allowed).
ReadResult read_model(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                      const std::filesystem::path& folder, const ReadOptions& options = {});

// A TensorProto, SequenceProto or OptionalProto file does not say which of them it is: its reader
// must know the type (of the model's input).
//
// A TensorProto file (input_0.pb of a test set).
NamedTensor read_tensor(const std::filesystem::path& path);
// Elements of a SequenceProto file; Error unless they are tensors.
std::vector<NamedTensor> read_tensor_sequence(const std::filesystem::path& path);
// An OptionalProto file: nothing, or one tensor, or the elements of a sequence of tensors.
std::optional<std::vector<NamedTensor>> read_optional_tensors(const std::filesystem::path& path);
// Whichever of the three `type` says; a tensor when it says nothing.
RuntimeValue read_value(const std::filesystem::path& path, const Type& type);

}  // namespace onnxpress
