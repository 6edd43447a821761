#include "graph/kernels/depthwise_codes.h"

#include <algorithm>

#include "graph/kernels/scratch_memory.h"

#if defined(__x86_64__)
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of the undefined operands in GCC 12's own header
#endif
#include <hwy/base.h>
#endif

namespace onnxpress {
namespace {

constexpr std::int64_t lanes = 64;           // channels of a block
constexpr std::int64_t vectors = 4;          // of 16 sums each, for one block
constexpr std::int64_t taps = 4;             // products that one instruction adds to a sum
constexpr std::int64_t cell = lanes * taps;  // bytes of four rows of one column

// The channel of the block that lane `lane` of vector `vector` sums. Bytes are interleaved, and sums packed again,
// within 128 bits.
std::int64_t channel_of(std::int64_t vector, std::int64_t lane) { return lane / 4 * 16 + vector * 4 + lane % 4; }

}  // namespace

DepthwiseCodes::DepthwiseCodes(const DepthwiseSetup& setup)
    : geometry_(setup.geometry),
      channels_(setup.channels),
      quads_((setup.geometry.kernel[1] + taps - 1) / taps),
      columns_((setup.geometry.output[2] - 1) * setup.geometry.stride[2] +
               (setup.geometry.kernel[2] - 1) * setup.geometry.dilation[2] + 1),
      x_zero_(setup.x_zero),
      y_zero_(setup.y_zero),
      x_flip_(setup.x_flip),
      y_flip_(setup.y_flip) {
  const bool fits_twice =
      geometry_.dilation[1] == 1 && geometry_.kernel[1] + geometry_.stride[1] <= taps * quads_;
  rows_at_once_ = fits_twice ? 2 : 1;
  first_inside_ = std::clamp<std::int64_t>(geometry_.pad[2], 0, columns_);
  end_inside_ = std::clamp(geometry_.pad[2] + geometry_.input[2], first_inside_, columns_);
  for (std::int64_t first = 0; first < channels_; first += lanes) blocks_.push_back(make_block(setup, first));
}

// Weights lie as [row of outputs][column][four rows][vector][lane][row].
DepthwiseCodes::Block DepthwiseCodes::make_block(const DepthwiseSetup& setup, std::int64_t first) const {
  const std::int64_t rows = geometry_.kernel[1], width = geometry_.kernel[2];
  const std::int64_t count = std::min(lanes, channels_ - first);
  Block block{.first = first, .mask = ~std::uint64_t{0} >> (lanes - count)};
  block.weights.resize(static_cast<std::size_t>(rows_at_once_ * width * quads_ * cell));
  block.biases.resize(lanes);
  block.scales.resize(lanes);
  for (std::int64_t i = 0; i < lanes; ++i) {
    const std::int64_t channel = first + channel_of(i / 16, i % 16);
    if (channel >= channels_) continue;
    std::int64_t sum = 0;
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t column = 0; column < width; ++column) {
        const std::int8_t w = setup.weights[static_cast<std::size_t>((channel * rows + row) * width + column)];
        sum += w;
        for (std::int64_t output = 0; output < rows_at_once_; ++output) {
          const std::int64_t gathered = row + output * geometry_.stride[1];
          const std::int64_t quad = (output * width + column) * quads_ + gathered / taps;
          block.weights[static_cast<std::size_t>(quad * cell + i * taps + gathered % taps)] = w;
        }
      }
    const auto at = static_cast<std::size_t>(i), of = static_cast<std::size_t>(channel);
    // Sums wrap around as those of the instructions do.
    block.biases[at] = static_cast<std::int32_t>((setup.biases.empty() ? 0 : setup.biases[of]) - setup.x_zero * sum);
    block.scales[at] = setup.scales[setup.scales.size() == 1 ? 0 : of];
  }
  return block;
}

void DepthwiseCodes::run(ThreadPool& pool, const std::uint8_t* x, std::uint8_t* y, std::int64_t images) const {
  const std::int64_t rows = geometry_.output[1], row_bytes = geometry_.output[2] * channels_;
  const std::int64_t image_bytes = geometry_.input_size() * channels_;
  const std::int64_t steps = (rows + rows_at_once_ - 1) / rows_at_once_;
  const std::int64_t steps_of_task = std::max<std::int64_t>(1, 32768 / (row_bytes * rows_at_once_));
  pool.parallel_for(images * steps, steps_of_task, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t image = i / steps, row = i % steps * rows_at_once_;
      run_rows(x + image * image_bytes, y + (image * rows + row) * row_bytes, row,
               std::min(rows_at_once_, rows - row));
    }
  });
}

#if defined(__x86_64__)

// Nothing of the standard library is used between these: what it would instantiate runs everywhere.
HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512vnni")
namespace {

inline void interleave(const __m512i (&rows)[taps], std::uint8_t* target) {
  const __m512i low_pairs = _mm512_unpacklo_epi8(rows[0], rows[1]), low_rest = _mm512_unpacklo_epi8(rows[2], rows[3]);
  const __m512i high_pairs = _mm512_unpackhi_epi8(rows[0], rows[1]), high_rest = _mm512_unpackhi_epi8(rows[2], rows[3]);
  auto* const to = reinterpret_cast<__m512i*>(target);
  _mm512_store_si512(to, _mm512_unpacklo_epi16(low_pairs, low_rest));
  _mm512_store_si512(to + 1, _mm512_unpackhi_epi16(low_pairs, low_rest));
  _mm512_store_si512(to + 2, _mm512_unpacklo_epi16(high_pairs, high_rest));
  _mm512_store_si512(to + 3, _mm512_unpackhi_epi16(high_pairs, high_rest));
}

inline __m512i rounded(__m512i sums, const float* scales) {
  const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(scales));
  // The conversion gives the least integer for what is too large as well as for what is too small.
  return _mm512_cvtps_epi32(_mm512_min_ps(scaled, _mm512_set1_ps(65536)));
}

}  // namespace

// The bytes of the window's rows beside each other, for each column that the outputs read: [column][four
// rows][vector][lane][row]. Cells outside of the image hold the zero point.
void DepthwiseCodes::gather_columns(const Operands& block, const std::uint8_t* image, std::int64_t y,
                                    std::uint8_t* columns) const {
  const __m512i zero_point = _mm512_set1_epi8(static_cast<char>(x_zero_));
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(x_flip_));
  const std::int64_t top = y * geometry_.stride[1] - geometry_.pad[1], row_bytes = geometry_.input[2] * channels_;
  for (std::int64_t quad = 0; quad < quads_; ++quad) {
    const std::uint8_t* rows[taps];  // nullptr: outside of the image
    for (std::int64_t i = 0; i < taps; ++i) {
      const std::int64_t at = top + (quad * taps + i) * geometry_.dilation[1];
      rows[i] = at >= 0 && at < geometry_.input[1] ? image + at * row_bytes + block.first : nullptr;
    }
    std::uint8_t* target = columns + quad * cell;
    const std::int64_t step = quads_ * cell;
    const __m512i outside[taps] = {zero_point, zero_point, zero_point, zero_point};
    std::int64_t column = 0;
    for (; column < first_inside_; ++column, target += step) interleave(outside, target);
    for (std::int64_t x = column - geometry_.pad[2]; column < end_inside_; ++column, ++x, target += step) {
      __m512i bytes[taps];
      for (std::int64_t i = 0; i < taps; ++i)
        bytes[i] = rows[i] != nullptr
                       ? _mm512_xor_si512(_mm512_maskz_loadu_epi8(block.mask, rows[i] + x * channels_), flip)
                       : zero_point;
      interleave(bytes, target);
    }
    for (; column < columns_; ++column, target += step) interleave(outside, target);
  }
}

// `rows` of outputs from the same gathered columns, of which `count` are written. `width`: columns of a window that
// is not dilated and has one four of rows; 0: any window.
template <int rows, int width>
void DepthwiseCodes::add_products(const Operands& block, const std::uint8_t* columns, std::uint8_t* output,
                                  std::int64_t count) const {
  const __m512i zero_point = _mm512_set1_epi16(y_zero_), flip = _mm512_set1_epi8(static_cast<char>(y_flip_));
  const std::int64_t quads = width > 0 ? 1 : quads_, window = width > 0 ? width : geometry_.kernel[2];
  const std::int64_t dilated = (width > 0 ? 1 : geometry_.dilation[2]) * quads * cell, row = window * quads * cell;
  const std::int64_t step = geometry_.stride[2] * quads * cell, row_bytes = geometry_.output[2] * channels_;
  const float* const scales = block.scales;
  for (std::int64_t x = 0; x < geometry_.output[2]; ++x, columns += step) {
    __m512i sums[rows][vectors];
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < vectors; ++i) sums[r][i] = _mm512_loadu_si512(block.biases + i * 16);
    for (std::int64_t column = 0; column < window; ++column)
      for (std::int64_t quad = 0; quad < quads; ++quad) {
        const std::uint8_t* const bytes = columns + column * dilated + quad * cell;
        const std::int8_t* const weights = block.weights + (column * quads + quad) * cell;
        for (int i = 0; i < vectors; ++i) {
          const __m512i gathered = _mm512_load_si512(bytes + i * 64);
          for (int r = 0; r < rows; ++r)
            sums[r][i] = _mm512_dpbusd_epi32(sums[r][i], gathered, _mm512_loadu_si512(weights + r * row + i * 64));
        }
      }
    for (int r = 0; r < rows && r < count; ++r) {
      const __m512i low = _mm512_packs_epi32(rounded(sums[r][0], scales), rounded(sums[r][1], scales + 16));
      const __m512i high = _mm512_packs_epi32(rounded(sums[r][2], scales + 32), rounded(sums[r][3], scales + 48));
      const __m512i codes =
          _mm512_packus_epi16(_mm512_adds_epi16(low, zero_point), _mm512_adds_epi16(high, zero_point));
      _mm512_mask_storeu_epi8(output + r * row_bytes + x * channels_, block.mask, _mm512_xor_si512(codes, flip));
    }
  }
}

HWY_POP_ATTRIBUTES

bool DepthwiseCodes::is_fast_for(std::int64_t channels, const WindowGeometry& geometry) {
  static const bool has_instructions = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                                       __builtin_cpu_supports("avx512vnni");
  const std::int64_t blocks = (channels + lanes - 1) / lanes;
  return has_instructions && geometry.kernel[0] == 1 && geometry.input[0] == 1 && geometry.kernel[1] <= 2 * taps &&
         3 * channels >= 2 * blocks * lanes;
}

#else

bool DepthwiseCodes::is_fast_for(std::int64_t, const WindowGeometry&) { return false; }
void DepthwiseCodes::gather_columns(const Operands&, const std::uint8_t*, std::int64_t, std::uint8_t*) const {}
template <int rows, int width>
void DepthwiseCodes::add_products(const Operands&, const std::uint8_t*, std::uint8_t*, std::int64_t) const {}

#endif

void DepthwiseCodes::run_rows(const std::uint8_t* image, std::uint8_t* output, std::int64_t y,
                              std::int64_t count) const {
  auto* const columns =
      reinterpret_cast<std::uint8_t*>(scratch_memory(static_cast<std::size_t>(columns_ * quads_ * cell)));
  const bool is_common = quads_ == 1 && geometry_.kernel[2] == 3 && geometry_.dilation[2] == 1;
  for (const Block& block : blocks_) {
    const Operands operands{.first = block.first,
                            .mask = block.mask,
                            .weights = block.weights.data(),
                            .biases = block.biases.data(),
                            .scales = block.scales.data()};
    gather_columns(operands, image, y, columns);
    std::uint8_t* const target = output + block.first;
    if (rows_at_once_ == 2)
      is_common ? add_products<2, 3>(operands, columns, target, count)
                : add_products<2, 0>(operands, columns, target, count);
    else
      is_common ? add_products<1, 3>(operands, columns, target, count)
                : add_products<1, 0>(operands, columns, target, count);
  }
}

}  // namespace onnxpress
