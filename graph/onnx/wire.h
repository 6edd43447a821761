// The protobuf wire format over bytes in memory: bounds-checked reading without copies.
//
// Source: protobuf "Encoding" (https://protobuf.dev/programming-guides/encoding/).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "graph/base/error.h"

namespace onnxpress::wire {

// The bytes are not well-formed protobuf: truncated, or never were one.
class WireError : public Error {
 public:
  using Error::Error;
};

enum class WireType : std::uint32_t {
  varint = 0,
  fixed64 = 1,
  length_delimited = 2,
  group_start = 3,
  group_end = 4,
  fixed32 = 5,
};

// Field number and wire type as one number, for `switch`. A field that comes with another wire
// type than its own matches no case, and so is kept like an unknown one, as protobuf does.
constexpr std::uint32_t tag(int number, WireType type) {
  return static_cast<std::uint32_t>(number) << 3 | static_cast<std::uint32_t>(type);
}
constexpr std::uint32_t varint(int number) { return tag(number, WireType::varint); }
constexpr std::uint32_t fixed32(int number) { return tag(number, WireType::fixed32); }
constexpr std::uint32_t fixed64(int number) { return tag(number, WireType::fixed64); }
constexpr std::uint32_t delimited(int number) { return tag(number, WireType::length_delimited); }

// One field as it lies in memory.
struct Field {
  std::uint32_t tag = 0;
  std::uint64_t value = 0;             // varint, fixed32, fixed64
  std::span<const std::byte> payload;  // contents if length-delimited, else the encoded value
  std::span<const std::byte> whole;    // with tag and length

  std::string_view text() const {
    return {reinterpret_cast<const char*>(payload.data()), payload.size()};
  }
  std::string string() const { return std::string(text()); }
  std::int64_t integer() const { return static_cast<std::int64_t>(value); }
  float float32() const;
  // Appends the field verbatim.
  void keep_in(std::string& unknown_fields) const;
};

// Walks the fields of one message.
class Reader {
 public:
  // Messages (and groups) nested deeper than this are refused; protobuf's own default.
  static constexpr int max_depth = 100;

  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes), origin_(bytes.data()) {}

  // The next field, or false at the end of the message. Throws WireError.
  bool next(Field& field);
  // The message inside a length-delimited field. Throws WireError when nested too deeply.
  Reader nested(const Field& field) const;
  bool at_end() const { return rest_.empty(); }
  // One bare varint (packed fields). Throws WireError.
  std::uint64_t read_varint();

 private:
  Reader(std::span<const std::byte> bytes, const std::byte* origin, int depth)
      : rest_(bytes), origin_(origin), depth_(depth) {}
  std::span<const std::byte> take(std::uint64_t count);
  void skip_group(std::uint32_t number);
  std::size_t offset() const { return static_cast<std::size_t>(rest_.data() - origin_); }

  std::span<const std::byte> rest_;
  const std::byte* origin_;
  int depth_ = 1;
};

// Varints in a packed field: bytes whose high bit is clear.
std::size_t count_varints(std::span<const std::byte> packed);

}  // namespace onnxpress::wire
