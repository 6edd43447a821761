// The IDX format of MNIST (Y. LeCun): magic, big-endian dims, big-endian elements.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "tools/data/array.h"

namespace onnxpress {

// Throws Error: bad magic, unknown element code, sizes that contradict the file's.
std::unique_ptr<ArrayReader> open_idx(const std::filesystem::path& path);

// The labels beside an images file by MNIST's naming ("train-images-idx3-ubyte" has
// "train-labels-idx1-ubyte"; a dot before "idx" is understood), if that file exists.
std::optional<std::filesystem::path> idx_labels_beside(const std::filesystem::path& images);

}  // namespace onnxpress
