#include "tools/data/array.h"

#include <algorithm>
#include <array>

#include "graph/base/files.h"
#include "graph/base/hash.h"

namespace onnxpress {

namespace fs = std::filesystem;

void ArrayReader::skip(std::size_t bytes) {
  std::array<std::byte, 65536> scratch;
  while (bytes > 0) {
    const std::size_t step = std::min(bytes, scratch.size());
    read(std::span(scratch).first(step));
    bytes -= step;
  }
}

namespace {

// Hashes a mapped file piece by piece and gives the pages back.
void add_file(Sha256& hash, const fs::path& path) {
  constexpr std::size_t piece = std::size_t{16} << 20;
  const auto file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  for (std::size_t offset = 0; offset < bytes.size(); offset += piece) {
    const std::size_t length = std::min(piece, bytes.size() - offset);
    hash.add(bytes.subspan(offset, length));
    file->release(offset, length);
  }
}

}  // namespace

std::string hash_of_data(const fs::path& path) {
  Sha256 hash;
  if (!fs::is_directory(path)) {
    add_file(hash, path);
    return hash.finish();
  }
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file()) files.push_back(entry.path().lexically_relative(path));
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const std::string name = file.generic_string() + '\0';
    hash.add(std::as_bytes(std::span(name)));
    add_file(hash, path / file);
  }
  return hash.finish();
}

}  // namespace onnxpress
