#include "tools/data/mapped_array.h"

#include <algorithm>
#include <cstring>

#include "graph/base/error.h"

namespace onnxpress {

namespace {

class MappedArray : public ArrayReader {
 public:
  MappedArray(std::shared_ptr<const MappedFile> file, ArrayInfo info, std::size_t offset,
              bool big_endian)
      : ArrayReader(std::move(info)),
        file_(std::move(file)),
        begin_(offset),
        position_(offset),
        swap_bytes_(big_endian ? static_cast<std::size_t>(bits(this->info().dtype)) / 8 : 1) {}

  void rewind() override { position_ = begin_; }

  void read(std::span<std::byte> target) override {
    require_left(target.size());
    if (target.empty()) return;
    std::memcpy(target.data(), file_->bytes().data() + position_, target.size());
    if (swap_bytes_ > 1)
      for (std::size_t i = 0; i + swap_bytes_ <= target.size(); i += swap_bytes_)
        std::reverse(target.begin() + static_cast<std::ptrdiff_t>(i),
                     target.begin() + static_cast<std::ptrdiff_t>(i + swap_bytes_));
    file_->release(position_, target.size());
    position_ += target.size();
  }

  void skip(std::size_t bytes) override {
    require_left(bytes);
    position_ += bytes;
  }

 private:
  void require_left(std::size_t bytes) const {
    require(bytes <= file_->bytes().size() - position_, "'{}' ends too early",
            file_->path().string());
  }

  std::shared_ptr<const MappedFile> file_;
  std::size_t begin_, position_, swap_bytes_;
};

}  // namespace

std::unique_ptr<ArrayReader> open_mapped_array(std::shared_ptr<const MappedFile> file,
                                               ArrayInfo info, std::size_t offset,
                                               bool big_endian) {
  const auto count = static_cast<std::size_t>(element_count(info.dims));
  const std::size_t found = file->bytes().size() - std::min(offset, file->bytes().size());
  const std::size_t expected = packed_bytes(info.dtype, count);
  require(found == expected, "'{}': expected {} bytes of data for {}{}, found {}",
          file->path().string(), expected, name(info.dtype), to_string(info.dims), found);
  return std::make_unique<MappedArray>(std::move(file), std::move(info), offset, big_endian);
}

}  // namespace onnxpress
