// Packed codes of at most 8 bits read as numbers.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>

#include "graph/base/convert.h"
#include "graph/base/error.h"

namespace onnxpress {

// Elements of packed data of any type of at most 8 bits, as float32.
class PackedCodes {
 public:
  PackedCodes() = default;
  // `data` must outlive this. Throws Error for wider types.
  PackedCodes(DType type, std::span<const std::byte> data) : data_(data.data()) {
    require(is_known(type) && bits(type) >= 2 && bits(type) <= 8 && type != DType::boolean,
            "expected a type of at most 8 bits, found {}", name(type));
    width_ = static_cast<unsigned>(bits(type));
    per_byte_ = static_cast<std::int64_t>(8 / width_);
    for (unsigned code = 0; code < 1u << bits(type); ++code) {
      const auto byte = static_cast<std::byte>(code);
      convert_elements(type, &byte, DType::float32, reinterpret_cast<std::byte*>(&numbers_[code]),
                       1);
    }
  }

  float operator[](std::int64_t index) const {
    const auto byte = static_cast<unsigned>(data_[index / per_byte_]);
    return numbers_[byte >> static_cast<unsigned>(index % per_byte_) * width_ & ((1u << width_) - 1)];
  }

  // out[i] = element first + i.
  void decode(std::int64_t first, std::int64_t count, float* out) const {
    for (; first % per_byte_ != 0 && count > 0; --count) *out++ = (*this)[first++];
    const std::byte* bytes = data_ + first / per_byte_;
    if (width_ == 8) return decode_as<8>(bytes, count, out);
    if (width_ == 4) return decode_as<4>(bytes, count, out);
    decode_as<2>(bytes, count, out);
  }

  // out[i] = (element first + i - zero) * scale, elements of 2, 4 or 8 unsigned bits and `first` at
  // a whole byte.
  void read(std::int64_t first, std::int64_t count, float zero, float scale, float* out) const {
    const std::byte* const bytes = data_ + first / per_byte_;
    const auto size = static_cast<std::size_t>(count);
    if (width_ == 2) return read_as<2>(bytes, size, zero, scale, out);
    if (width_ == 4) return read_as<4>(bytes, size, zero, scale, out);
    read_as<8>(bytes, size, zero, scale, out);
  }

 private:
  template <unsigned width>
  void decode_as(const std::byte* bytes, std::int64_t count, float* out) const {
    constexpr std::int64_t per_byte = 8 / width;
    constexpr unsigned mask = (1u << width) - 1;
    for (; count >= per_byte; count -= per_byte) {
      const auto byte = static_cast<unsigned>(*bytes++);
      for (unsigned part = 0; part < per_byte; ++part) *out++ = numbers_[byte >> part * width & mask];
    }
    for (std::int64_t i = 0; i < count; ++i)
      out[i] = numbers_[static_cast<unsigned>(*bytes) >> static_cast<unsigned>(i) * width & mask];
  }

  template <unsigned width>
  static void read_as(const std::byte* bytes, std::size_t count, float zero, float scale,
                      float* out) {
    constexpr std::size_t per_byte = 8 / width;
    const auto number = [=](std::size_t byte, std::size_t part) {
      const unsigned code = static_cast<unsigned>(bytes[byte]) >> (part * width);
      return (static_cast<float>(static_cast<int>(code & ((1u << width) - 1))) - zero) * scale;
    };
    const std::size_t whole = count / per_byte;
    for (std::size_t byte = 0; byte < whole; ++byte)
      for (std::size_t part = 0; part < per_byte; ++part)
        out[byte * per_byte + part] = number(byte, part);
    for (std::size_t i = whole * per_byte; i < count; ++i) out[i] = number(whole, i % per_byte);
  }

  const std::byte* data_ = nullptr;
  unsigned width_ = 8;
  std::int64_t per_byte_ = 1;
  std::array<float, 256> numbers_{};
};

// The unsigned type of `width` bits, which must be 2, 4 or 8.
inline DType unsigned_type(std::int64_t width) {
  require(width == 2 || width == 4 || width == 8, "attribute 'bits': expected 2, 4 or 8, found {}",
          width);
  return width == 2 ? DType::uint2 : width == 4 ? DType::uint4 : DType::uint8;
}

// What the operators of com.microsoft demand of a block size.
inline void check_block_size(std::int64_t size) {
  require(size >= 16 && size <= std::int64_t{1} << 40 &&
              std::has_single_bit(static_cast<std::uint64_t>(size)),
          "attribute 'block_size': expected a power of two of at least 16, found {}", size);
}

}  // namespace onnxpress
