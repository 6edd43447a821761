#include "tools/data/idx.h"

#include <map>

#include "graph/base/error.h"
#include "tools/data/mapped_array.h"

namespace onnxpress {

std::unique_ptr<ArrayReader> open_idx(const std::filesystem::path& path) {
  static const std::map<int, DType> codes{
      {0x08, DType::uint8}, {0x09, DType::int8},    {0x0b, DType::int16},
      {0x0c, DType::int32}, {0x0d, DType::float32}, {0x0e, DType::float64},
  };
  auto file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  const auto byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes[i]); };
  require(bytes.size() >= 4 && byte(0) == 0 && byte(1) == 0, "'{}' is not an IDX file",
          path.string());
  const auto code = codes.find(static_cast<int>(byte(2)));
  require(code != codes.end(), "'{}': unknown IDX element code {:#04x}", path.string(), byte(2));
  const std::size_t rank = byte(3);
  require(rank >= 1 && bytes.size() >= 4 + 4 * rank, "'{}': the IDX header ends too early",
          path.string());
  ArrayInfo info{.name = "", .dtype = code->second, .dims = {}};
  for (std::size_t axis = 0; axis < rank; ++axis) {
    const std::size_t at = 4 + 4 * axis;
    info.dims.push_back(byte(at) << 24 | byte(at + 1) << 16 | byte(at + 2) << 8 | byte(at + 3));
  }
  return open_mapped_array(std::move(file), std::move(info), 4 + 4 * rank, /*big_endian=*/true);
}

std::optional<std::filesystem::path> idx_labels_beside(const std::filesystem::path& images) {
  std::string name = images.filename().string();
  const std::size_t word = name.find("images");
  if (word == std::string::npos) return std::nullopt;
  name.replace(word, 6, "labels");
  if (const std::size_t rank = name.find("idx3"); rank != std::string::npos)
    name.replace(rank, 4, "idx1");
  std::filesystem::path labels = images.parent_path() / name;
  if (!std::filesystem::is_regular_file(labels)) return std::nullopt;
  return labels;
}

}  // namespace onnxpress
