// External-data files of a model: hostile locations, mapped once each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/base/files.h"

namespace onnxpress {

// What the external_data entries of a TensorProto say.
struct ExternalLocation {
  std::string location;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length;
};

// std::filesystem::weakly_canonical that throws Error.
std::filesystem::path resolved(const std::filesystem::path& path);

class ExternalFiles {
 public:
  // No folder: any external data is an Error.
  ExternalFiles() = default;
  // Files must lie under `model`'s folder or under the folder that `model` resolves to (caches
  // link models and their data).
  static ExternalFiles beside(const std::filesystem::path& model);
  static ExternalFiles in_folder(const std::filesystem::path& folder);

  struct Slice {
    std::span<const std::byte> bytes;
    std::shared_ptr<const MappedFile> file;
  };
  // The `needed` bytes at `where`. Throws Error: absolute or upward location, a file that is
  // missing or resolves to somewhere else, a range outside the file, a length other than `needed`.
  Slice slice(const ExternalLocation& where, std::size_t needed);

  // Resolved paths of the files used so far, sorted.
  std::vector<std::filesystem::path> paths() const;
  std::size_t total_bytes() const;

 private:
  std::filesystem::path resolve(const std::string& location) const;
  std::shared_ptr<const MappedFile> map(const std::string& location);

  std::vector<std::filesystem::path> folders_;  // the model's, then what it resolves to
  std::map<std::filesystem::path, std::shared_ptr<const MappedFile>> files_;
  std::map<std::string, std::shared_ptr<const MappedFile>> by_location_;
};

}  // namespace onnxpress
