#include "graph/onnx/encode_wire.h"

#include <bit>

#include "graph/onnx/wire.h"

namespace onnxpress::wire {

namespace {

constexpr std::size_t copy_below = 512;

}  // namespace

void append_varint(std::string& bytes, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
}

void append_delimited(std::string& bytes, int number, std::string_view contents) {
  append_varint(bytes, delimited(number));
  append_varint(bytes, contents.size());
  bytes += contents;
}

void Message::add_varint(int number, std::uint64_t value) {
  append_varint(owned_, varint(number));
  append_varint(owned_, value);
}

void Message::add_float(int number, float value) {
  append_varint(owned_, fixed32(number));
  const auto bits = std::bit_cast<std::uint32_t>(value);
  owned_.append(reinterpret_cast<const char*>(&bits), sizeof bits);
}

void Message::add_message(int number, const Message& message) {
  append_varint(owned_, delimited(number));
  append_varint(owned_, message.size());
  const std::size_t shift = owned_.size();
  owned_ += message.owned_;
  for (const Reference& reference : message.references_)
    references_.push_back({reference.position + shift, reference.bytes});
  referred_bytes_ += message.referred_bytes_;
}

void Message::add_bytes(int number, std::span<const std::byte> bytes) {
  append_varint(owned_, delimited(number));
  append_varint(owned_, bytes.size());
  if (bytes.size() < copy_below) {
    owned_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return;
  }
  references_.push_back({owned_.size(), bytes});
  referred_bytes_ += bytes.size();
}

}  // namespace onnxpress::wire
