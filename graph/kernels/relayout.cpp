#include "graph/kernels/relayout.h"

#include <algorithm>
#include <cstring>

namespace onnxpress {
namespace {

// Transposes `planes` matrices of [rows, columns] elements of `Width` bytes, in tiles that fit into
// registers and a few cache lines.
template <std::size_t Width>
void transpose(ThreadPool& pool, const std::byte* from, std::byte* to, std::int64_t planes,
               std::int64_t rows, std::int64_t columns) {
  struct Element {
    std::byte bytes[Width];
  };
  constexpr std::int64_t tile = 16;
  constexpr std::int64_t strip = 64;  // rows of one block
  const std::int64_t strips = (rows + strip - 1) / strip;
  const auto* source = reinterpret_cast<const Element*>(from);
  auto* target = reinterpret_cast<Element*>(to);
  const std::int64_t per_block = std::max<std::int64_t>(
      1, (std::int64_t{1} << 14) / std::max<std::int64_t>(1, columns * strip));
  pool.parallel_for(planes * strips, per_block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const Element* in = source + block / strips * rows * columns;
      Element* out = target + block / strips * rows * columns;
      const std::int64_t first = block % strips * strip, last = std::min(rows, first + strip);
      for (std::int64_t column = 0; column < columns; column += tile) {
        const std::int64_t column_end = std::min(columns, column + tile);
        for (std::int64_t c = column; c < column_end; ++c)
          for (std::int64_t r = first; r < last; ++r) out[c * rows + r] = in[r * columns + c];
      }
    }
  });
}

}  // namespace

Kernel make_relayout(DType type, const Dims& dims, Layout from, bool is_view) {
  Dims last = dims;
  std::rotate(last.begin() + 1, last.begin() + 2, last.end());
  const Dims target = from == Layout::row_major ? last : dims;
  if (is_view)
    return [target](KernelContext& context) {
      context.forward_output(0, context.required_input(0).reshaped(target));
    };
  const std::int64_t channels = dims[1], cells = element_count(std::span(dims).subspan(2));
  const bool to_last = from == Layout::row_major;
  const std::size_t width = packed_bytes(type, 1);
  require(bits(type) % 8 == 0, "cannot change the layout of {}", name(type));
  return [=](KernelContext& context) {
    const std::byte* source = context.required_input(0).aligned_bytes();
    std::byte* result = context.output(0, type, target).mutable_bytes().data();
    const std::int64_t rows = to_last ? channels : cells, columns = to_last ? cells : channels;
    switch (width) {
      case 1:
        return transpose<1>(context.pool(), source, result, dims[0], rows, columns);
      case 2:
        return transpose<2>(context.pool(), source, result, dims[0], rows, columns);
      case 4:
        return transpose<4>(context.pool(), source, result, dims[0], rows, columns);
      case 8:
        return transpose<8>(context.pool(), source, result, dims[0], rows, columns);
      default:
        fail("cannot change the layout of {}", name(type));
    }
  };
}

}  // namespace onnxpress
