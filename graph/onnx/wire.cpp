#include "graph/onnx/wire.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

namespace onnxpress::wire {

static_assert(std::endian::native == std::endian::little,
              "tensor bytes are used as they lie in the file");

namespace {

template <class... Args>
[[noreturn]] void malformed(fmt::format_string<Args...> format, Args&&... args) {
  throw WireError(fmt::format(format, std::forward<Args>(args)...));
}

std::uint64_t little_endian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), bytes.size());
  return value;
}

}  // namespace

float Field::float32() const { return std::bit_cast<float>(static_cast<std::uint32_t>(value)); }

void Field::keep_in(std::string& unknown_fields) const {
  unknown_fields.append(reinterpret_cast<const char*>(whole.data()), whole.size());
}

std::span<const std::byte> Reader::take(std::uint64_t count) {
  if (count > rest_.size())
    malformed("truncated at byte {}: expected {} more bytes, found {}", offset(), count,
              rest_.size());
  const auto taken = rest_.first(static_cast<std::size_t>(count));
  rest_ = rest_.subspan(taken.size());
  return taken;
}

std::uint64_t Reader::read_varint() {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    const auto byte = std::to_integer<std::uint64_t>(take(1)[0]);
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  malformed("malformed varint before byte {}", offset());
}

void Reader::skip_group(std::uint32_t number) {
  std::vector<std::uint32_t> open{number};
  while (!open.empty()) {
    const std::uint64_t inner = read_varint();
    switch (static_cast<WireType>(inner & 7)) {
      case WireType::varint:
        read_varint();
        break;
      case WireType::fixed64:
        take(8);
        break;
      case WireType::length_delimited:
        take(read_varint());
        break;
      case WireType::fixed32:
        take(4);
        break;
      case WireType::group_start:
        open.push_back(static_cast<std::uint32_t>(inner >> 3));
        if (depth_ + static_cast<int>(open.size()) > max_depth)
          malformed("groups nested more than {} deep before byte {}", max_depth, offset());
        break;
      case WireType::group_end:
        if (inner >> 3 != open.back()) malformed("unpaired group end before byte {}", offset());
        open.pop_back();
        break;
      default:
        malformed("unknown wire type {} before byte {}", inner & 7, offset());
    }
  }
}

bool Reader::next(Field& field) {
  if (rest_.empty()) return false;
  const std::byte* begin = rest_.data();
  const std::uint64_t tag = read_varint();
  if (tag >> 3 == 0 || tag > 0xffffffff)
    malformed("field number {} before byte {}", tag >> 3, offset());
  field.tag = static_cast<std::uint32_t>(tag);
  field.value = 0;
  const std::byte* value = rest_.data();
  switch (static_cast<WireType>(tag & 7)) {
    case WireType::varint:
      field.value = read_varint();
      field.payload = {value, rest_.data()};
      break;
    case WireType::fixed64:
      field.payload = take(8);
      field.value = little_endian(field.payload);
      break;
    case WireType::length_delimited:
      field.payload = take(read_varint());
      break;
    case WireType::group_start:
      skip_group(field.tag >> 3);
      field.payload = {value, rest_.data()};
      break;
    case WireType::group_end:
      malformed("unpaired group end before byte {}", offset());
    case WireType::fixed32:
      field.payload = take(4);
      field.value = little_endian(field.payload);
      break;
    default:
      malformed("unknown wire type {} before byte {}", tag & 7, offset());
  }
  field.whole = {begin, rest_.data()};
  return true;
}

Reader Reader::nested(const Field& field) const {
  if (depth_ >= max_depth) malformed("messages nested more than {} deep", max_depth);
  return Reader(field.payload, origin_, depth_ + 1);
}

std::size_t count_varints(std::span<const std::byte> packed) {
  return static_cast<std::size_t>(std::count_if(packed.begin(), packed.end(), [](std::byte byte) {
    return (byte & std::byte{0x80}) == std::byte{0};
  }));
}

}  // namespace onnxpress::wire
