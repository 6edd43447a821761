// The protobuf wire format, writing: small bytes owned, tensor bytes referred to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace onnxpress::wire {

void append_varint(std::string& bytes, std::uint64_t value);
// A length-delimited field.
void append_delimited(std::string& bytes, int number, std::string_view contents);

// One message as a rope: owned bytes in one string, with references to bytes elsewhere put in
// between. Its size is known at once, so that it can be nested without being written first.
class Message {
 public:
  void add_varint(int number, std::uint64_t value);
  void add_int(int number, std::int64_t value) {
    add_varint(number, static_cast<std::uint64_t>(value));
  }
  void add_float(int number, float value);
  void add_string(int number, std::string_view text) { append_delimited(owned_, number, text); }
  // Nothing for an empty string.
  void add_optional_string(int number, std::string_view text) {
    if (!text.empty()) add_string(number, text);
  }
  void add_message(int number, const Message& message);
  // Bytes that must stay where they are until the message is written. Few bytes are copied.
  void add_bytes(int number, std::span<const std::byte> bytes);
  // Whole fields, verbatim.
  void add_fields(std::string_view fields) { owned_ += fields; }

  std::size_t size() const { return owned_.size() + referred_bytes_; }
  bool empty() const { return size() == 0; }
  // All bytes in order, in few pieces.
  template <class Fn>
  void for_each_piece(Fn&& fn) const {
    const auto owned = std::as_bytes(std::span(owned_));
    std::size_t begin = 0;
    for (const Reference& reference : references_) {
      if (reference.position > begin) fn(owned.subspan(begin, reference.position - begin));
      fn(reference.bytes);
      begin = reference.position;
    }
    if (begin < owned.size()) fn(owned.subspan(begin));
  }

 private:
  struct Reference {
    std::size_t position;  // in `owned_`, before which it stands
    std::span<const std::byte> bytes;
  };

  std::string owned_;
  std::vector<Reference> references_;
  std::size_t referred_bytes_ = 0;
};

}  // namespace onnxpress::wire
