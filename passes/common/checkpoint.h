// Tensors of a training under way on disk: a safetensors file (8 bytes of length, a JSON header,
// the tensors' bytes; huggingface.co/docs/safetensors), staged and synced before it replaces the
// one before.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "graph/exec/fit.h"

namespace onnxpress {

struct Checkpoint {
  // What the training is of: model, data, options. Another value of any of these is another
  // training.
  std::map<std::string, std::string> about;
  FitState state;
};

// float32, float64 and int64 tensors. Throws Error.
void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);
// Throws Error for a file that is none, or was cut off.
Checkpoint read_checkpoint(const std::filesystem::path& path);

// Throws Error naming all that differs when the checkpoint is not of the training `about`; the path is
// the message's.
void require_same_training(const std::filesystem::path& path, const Checkpoint& checkpoint,
                           const std::map<std::string, std::string>& about);

}  // namespace onnxpress
