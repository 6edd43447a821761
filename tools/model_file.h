// Models as files: reading them, and what a report says of the bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/onnx/reader.h"

namespace onnxpress {

// Bytes of a model file; `total` counts its external data.
struct ModelFile {
  std::string path;    // as given; "-" for a pipe; empty when nothing was written
  std::string sha256;  // of the model file; empty when nobody wanted it
  std::int64_t file = 0, external = 0, total = 0;
  std::optional<std::int64_t> deflated;  // what shipping it would take (deflated_size)
};

enum class DeflatedSize { automatic, on, off };  // automatic: up to deflate_limit bytes
inline constexpr std::int64_t deflate_limit = 32'000'000;

struct LoadedModel {
  std::unique_ptr<Model> model;
  ModelFile file;
  std::vector<std::string> notes;
  std::vector<std::string> warnings;    // declared shapes that are wrong
  std::vector<std::string> data_files;  // external data that it reads
  std::future<std::string> sha256;      // with Hashing::beside, for `file`
};

enum class Hashing { at_once, beside, never };  // beside: while the caller goes on, where there are CPUs

// Reads a model; "-" is standard input. Throws Error.
LoadedModel load_model(const std::string& path, DeflatedSize deflated,
                       bool keep_overridable = false, Hashing hashing = Hashing::at_once);

// Bytes of `pieces` by zlib at level 6, every MiB by itself: one of these after the other is about
// what one stream would take.
std::int64_t deflated_size(std::span<const std::span<const std::byte>> pieces);

}  // namespace onnxpress
