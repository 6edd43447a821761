#include "graph/onnx/external_files.h"

#include <algorithm>

#include "graph/base/error.h"
#include "graph/onnx/mapped_pages.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

bool is_under(const fs::path& path, const fs::path& folder) {
  const auto [end, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end() && rest != path.end();
}

fs::path folder_of(const fs::path& file) {
  const fs::path folder = file.parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

}  // namespace

fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path result = fs::weakly_canonical(path, error);
  require(!error, "cannot resolve {}: {}", path.string(), error.message());
  return result;
}

ExternalFiles ExternalFiles::in_folder(const fs::path& folder) {
  ExternalFiles files;
  if (!folder.empty()) files.folders_ = {resolved(folder)};
  return files;
}

ExternalFiles ExternalFiles::beside(const fs::path& model) {
  ExternalFiles files = in_folder(folder_of(model));
  const fs::path meant = folder_of(resolved(model));
  if (meant != files.folders_.front()) files.folders_.push_back(meant);
  return files;
}

fs::path ExternalFiles::resolve(const std::string& location) const {
  const fs::path relative(location);
  require(!location.empty() && location.find('\0') == std::string::npos && relative.is_relative(),
          "expected a relative path to external data, found '{}'", location);
  for (const fs::path& part : relative)
    require(part != "..", "external data location '{}' leaves the model's folder", location);
  require(!folders_.empty(), "external data '{}' has no folder to be looked up in", location);

  for (const fs::path& folder : folders_) {
    std::error_code error;
    const fs::path file = fs::weakly_canonical(folder / relative, error);
    if (error || !fs::exists(file, error)) continue;
    const bool inside = std::any_of(folders_.begin(), folders_.end(), [&](const fs::path& allowed) {
      return is_under(file, allowed);
    });
    require(inside, "external data location '{}' resolves to '{}', outside the model's folder '{}'",
            location, file.string(), folder.string());
    return file;
  }
  fail("external data file '{}' is not in '{}'", location, folders_.front().string());
}

std::shared_ptr<const MappedFile> ExternalFiles::map(const std::string& location) {
  std::shared_ptr<const MappedFile>& known = by_location_[location];
  if (known) return known;
  const fs::path path = resolve(location);
  std::shared_ptr<const MappedFile>& file = files_[path];
  if (!file) {
    file = MappedFile::open(path);
    remember_mapping(file);
  }
  return known = file;
}

ExternalFiles::Slice ExternalFiles::slice(const ExternalLocation& where, std::size_t needed) {
  const std::shared_ptr<const MappedFile> file = map(where.location);
  const std::size_t size = file->bytes().size();
  require(where.length.value_or(needed) == needed, "needs {} bytes, external data '{}' gives {}",
          needed, where.location, where.length.value_or(needed));
  require(where.offset <= size && needed <= size - where.offset,
          "needs {} bytes at {} of external data '{}', which has {}", needed, where.offset,
          where.location, size);
  return {file->bytes().subspan(static_cast<std::size_t>(where.offset), needed), file};
}

std::vector<fs::path> ExternalFiles::paths() const {
  std::vector<fs::path> result;
  for (const auto& [path, file] : files_) result.push_back(path);
  return result;
}

std::size_t ExternalFiles::total_bytes() const {
  std::size_t total = 0;
  for (const auto& [path, file] : files_) total += file->bytes().size();
  return total;
}

}  // namespace onnxpress
