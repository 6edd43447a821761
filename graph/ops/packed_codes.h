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
    per_byte_ = 8 / width_;
    for (unsigned code = 0; code < 1u << bits(type); ++code) {
      const auto byte = static_cast<std::byte>(code);
      convert_elements(type, &byte, DType::float32, reinterpret_cast<std::byte*>(&numbers_[code]),
                       1);
    }
  }

  float operator[](std::int64_t index) const {
    const auto at = static_cast<std::size_t>(index);
    const auto byte = static_cast<unsigned>(data_[at / per_byte_]);
    return numbers_[byte >> at % per_byte_ * width_ & ((1u << width_) - 1)];
  }

 private:
  const std::byte* data_ = nullptr;
  unsigned width_ = 8, per_byte_ = 1;
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
