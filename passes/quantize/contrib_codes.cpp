#include "passes/quantize/contrib_codes.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "graph/base/convert.h"
#include "passes/common/weight_pieces.h"

namespace onnxpress {
namespace {

// What makes numbers from 0 on of the codes in a byte.
std::uint8_t sign_bits(DType type) {
  if (!is_signed_integer(type)) return 0;
  unsigned mask = 0;
  for (unsigned bit = static_cast<unsigned>(bits(type)) - 1; bit < 8; bit += static_cast<unsigned>(bits(type)))
    mask |= 1U << bit;
  return static_cast<std::uint8_t>(mask);
}

struct Shape2 {
  std::int64_t rows, columns, row_bytes;  // of the result

  Shape2(const Tensor& matrix, const CodeRows& wanted)
      : rows(matrix.dim(wanted.turned ? 1 : 0)), columns(matrix.dim(wanted.turned ? 0 : 1)) {
    const std::int64_t padded = (columns + wanted.multiple - 1) / wanted.multiple * wanted.multiple;
    row_bytes = (padded * bits(matrix.dtype()) + 7) / 8;
  }
};

std::vector<std::uint8_t> numbers_of(const Tensor& matrix) {
  const auto count = static_cast<std::size_t>(matrix.size());
  std::vector<std::uint8_t> numbers(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t code = is_sub_byte(matrix.dtype())
                                  ? get_packed(matrix.bytes().data(), matrix.dtype(), i)
                                  : std::to_integer<std::uint8_t>(matrix.bytes()[i]);
    const auto half = static_cast<std::uint8_t>(1U << static_cast<unsigned>(bits(matrix.dtype()) - 1));
    numbers[i] = is_signed_integer(matrix.dtype()) ? code ^ half : code;
  }
  return numbers;
}

// Rows that lie as they are wanted.
Tensor in_order(const Tensor& matrix, const Shape2& shape, ThreadPool* pool) {
  Tensor packed = Tensor::uninitialized(DType::uint8, {shape.rows, shape.row_bytes});
  std::uint8_t* const out = packed.mutable_data<std::uint8_t>().data();
  const std::byte* const in = matrix.bytes().data();
  const std::uint8_t flip = sign_bits(matrix.dtype());
  constexpr std::int64_t bytes_at_once = std::int64_t{1} << 18;
  run_blocks(packed.size(), bytes_at_once, pool, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out[i] = std::to_integer<std::uint8_t>(in[i]) ^ flip;
  });
  return packed;
}

// Columns of 4-bit codes as rows, in tiles that stay in the processor's nearest cache.
class Turned4 {
 public:
  Turned4(const Tensor& matrix, const CodeRows& wanted)
      : shape_(matrix, wanted),
        in_(reinterpret_cast<const std::uint8_t*>(matrix.bytes().data())),
        flip_(sign_bits(matrix.dtype())),
        filler_(static_cast<std::uint8_t>((wanted.filler * 0x11U) ^ flip_)) {}

  Tensor run(ThreadPool* pool) {
    Tensor packed = Tensor::uninitialized(DType::uint8, {shape_.rows, shape_.row_bytes});
    out_ = packed.mutable_data<std::uint8_t>().data();
    run_blocks(shape_.rows, tile_rows, pool, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t byte = 0; byte < shape_.row_bytes; byte += tile_bytes)
        turn(begin, end - begin, byte, std::min(tile_bytes, shape_.row_bytes - byte));
    });
    return packed;
  }

 private:
  static constexpr std::int64_t tile_rows = 128, tile_bytes = 32;

  // Codes of two rows of the matrix, two neighbours in a byte of each, become a byte for each column;
  // those of even columns first, then those of odd ones.
  void join(std::int64_t row, std::int64_t column, std::int64_t pairs, std::uint8_t* target) const {
    std::array<std::uint8_t, tile_rows / 2> beyond;
    if (row + 1 >= shape_.columns) beyond.fill(filler_);
    const auto from = [&](std::int64_t r) {
      return r < shape_.columns ? in_ + (r * shape_.rows + column) / 2 : beyond.data();
    };
    const std::uint8_t* const low = from(row);
    const std::uint8_t* const high = from(row + 1);
    for (std::int64_t i = 0; i < pairs; ++i) {
      const auto a = static_cast<std::uint8_t>(low[i] ^ flip_), b = static_cast<std::uint8_t>(high[i] ^ flip_);
      target[i] = static_cast<std::uint8_t>((a & 0x0FU) | (static_cast<unsigned>(b) << 4U));
      target[tile_rows / 2 + i] = static_cast<std::uint8_t>((a >> 4U) | (b & 0xF0U));
    }
  }

  void turn(std::int64_t row, std::int64_t rows, std::int64_t byte, std::int64_t bytes) const {
    std::array<std::uint8_t, tile_rows * tile_bytes> tile;
    for (std::int64_t b = 0; b < bytes; ++b) join(2 * (byte + b), row, rows / 2, tile.data() + b * tile_rows);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::uint8_t* const column = tile.data() + r % 2 * (tile_rows / 2) + r / 2;
      std::uint8_t* const target = out_ + (row + r) * shape_.row_bytes + byte;
      for (std::int64_t b = 0; b < bytes; ++b) target[b] = column[b * tile_rows];
    }
  }

  Shape2 shape_;
  const std::uint8_t* in_;
  std::uint8_t flip_, filler_;
  std::uint8_t* out_ = nullptr;
};

}  // namespace

Tensor contrib_codes(const Tensor& matrix, const CodeRows& rows, ThreadPool* pool) {
  const Shape2 shape(matrix, rows);
  const bool is_full = shape.columns % rows.multiple == 0 && shape.columns * bits(matrix.dtype()) % 8 == 0;
  if (!rows.turned && is_full) return in_order(matrix, shape, pool);
  // Rows of the matrix that begin at a whole byte.
  if (rows.turned && bits(matrix.dtype()) == 4 && shape.rows % 2 == 0) return Turned4(matrix, rows).run(pool);
  return plain_contrib_codes(matrix, rows);
}

Tensor plain_contrib_codes(const Tensor& matrix, const CodeRows& rows) {
  const Shape2 shape(matrix, rows);
  const std::vector<std::uint8_t> numbers = numbers_of(matrix);
  const std::int64_t row_step = rows.turned ? 1 : shape.columns, column_step = rows.turned ? shape.rows : 1;
  const std::int64_t width = bits(matrix.dtype());
  Tensor packed(DType::uint8, {shape.rows, shape.row_bytes});
  std::uint8_t* out = packed.mutable_data<std::uint8_t>().data();
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t byte = 0; byte < shape.row_bytes; ++byte) {
      unsigned value = 0;
      for (std::int64_t part = 0; part < 8 / width; ++part) {
        const std::int64_t column = byte * (8 / width) + part;
        const unsigned code = column < shape.columns
                                  ? numbers[static_cast<std::size_t>(row * row_step + column * column_step)]
                                  : rows.filler;
        value |= code << static_cast<unsigned>(part * width);
      }
      *out++ = static_cast<std::uint8_t>(value);
    }
  }
  return packed;
}

}  // namespace onnxpress
