// Arithmetic that the quantized operators share.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "graph/ops/infer.h"
#include "graph/ops/kernel.h"

namespace onnxpress {

// Rounding to an integer type: to nearest, ties to even, saturating; NaN gives the smallest value.
struct IntegerGrid {
  float low = 0, high = 0;
  float zero = 0;

  // Throws Error unless `type` is an integer type of at most 16 bits.
  explicit IntegerGrid(DType type, float zero_point = 0);
  // The code of a value already divided by the scale.
  float code(float scaled) const {
    const float shifted = std::nearbyint(scaled) + zero;
    return shifted > low ? (shifted < high ? shifted : high) : low;
  }
};

// The byte that holds an 8-bit code.
inline std::uint8_t byte_of(float code) {
  return static_cast<std::uint8_t>(static_cast<int>(code) & 0xff);
}

// The one element of scale input `index`; throws Error when there are more or it is omitted.
float scalar_scale(const KernelContext& context, std::size_t index);
// The one element of zero point input `index`, 0 when omitted; throws Error when there are more or
// it is not of type `type`.
float scalar_zero_point(const KernelContext& context, std::size_t index, DType type);

// Numbers (scales or zero points) under dims that broadcast to the tensor that they belong to.
struct Spread {
  std::vector<float> values{0};
  Dims dims;

  Spread() = default;
  explicit Spread(float value) : values{value} {}
  // One number for all, one per slice of axis `axis` of `rank` (1-D), or already of `rank` axes.
  Spread(const Tensor& tensor, std::size_t axis, std::size_t rank);
};

// x less its zero points, as float64: sums of products of such 8-bit numbers are exact there for
// any depth that fits into memory, so to_int32 of a sum is what int32 accumulation gives.
Tensor centred(ThreadPool& pool, const Tensor& x, const Spread& zero_points);
// The low 32 bits of an exact integer.
inline std::int32_t to_int32(double sum) {
  return static_cast<std::int32_t>(
      static_cast<std::uint32_t>(static_cast<std::uint64_t>(static_cast<std::int64_t>(sum))));
}
// Exact sums as int32.
void put_int32(KernelContext& context, std::size_t index, const Tensor& sums);

// Output 0 of type `type`: float32(sum) * (a * b / y) to the grid of `type` (integers and float8)
// plus the zero points, all in float32. Sums of integers are taken as int32.
struct Requantization {
  Spread a_scale, b_scale, y_scale, y_zero_point;
  DType type = DType::undefined;
  bool integer_sums = true;

  void put(KernelContext& context, const Tensor& sums) const;
};

// Output 0 of a float type, computed in float32: float32(int32 sum) * (a * b) + bias.
struct Dequantization {
  Spread a_scale, b_scale, bias;
  DType type = DType::float32;

  void put(KernelContext& context, const Tensor& sums) const;
};

// Scale and zero point for a range of float32 data in uint8, as DynamicQuantizeLinear chooses.
struct DynamicRange {
  float scale = 1;
  std::uint8_t zero_point = 0;

  static DynamicRange of(std::span<const float> values);
};
// x quantized to uint8.
Tensor quantized(ThreadPool& pool, const Tensor& x, const DynamicRange& range);

// A batch of matrices [batch, rows, columns] transposed to [batch, columns, rows], under new dims:
// between channels first and channels last. float64 only.
Tensor transposed_batches(ThreadPool& pool, const Tensor& x, std::int64_t rows, Dims dims);
// Dims with the last axis moved to position 1, and back.
template <class D>
std::vector<D> channels_first(const std::vector<D>& dims) {
  std::vector<D> result = dims;
  if (dims.size() < 2) return result;
  result.insert(result.begin() + 1, dims.back());
  result.pop_back();
  return result;
}
template <class D>
std::vector<D> channels_last(const std::vector<D>& dims) {
  std::vector<D> result = dims;
  if (dims.size() < 2) return result;
  result.erase(result.begin() + 1);
  result.push_back(dims[1]);
  return result;
}

// 8-bit codes by 8-bit codes: quantize(function(dequantize(code))) in float32.
class CodeTable {
 public:
  struct Quantization {
    float scale = 1, zero_point = 0;
  };
  CodeTable(DType type, Quantization from, Quantization to,
            const std::function<float(float)>& function);
  // The entry for a code's byte.
  std::uint8_t operator[](std::uint8_t code) const { return codes_[code]; }
  // Output 0 with every element of x looked up.
  void put(KernelContext& context, const Tensor& x) const;

 private:
  std::vector<std::uint8_t> codes_;
};

// Output 0, of input 0's 8-bit type: code(value) for every value, which is in the type's range.
void put_codes(KernelContext& context, const Tensor& values,
               const std::function<float(double)>& code);

// The scale and zero point inputs that start at `scale`, both scalar.
CodeTable::Quantization quantization_at(const KernelContext& context, std::size_t scale,
                                        DType type);
// The bytes of an 8-bit tensor; throws Error for other types.
std::span<const std::uint8_t> codes_of(const Tensor& tensor);
std::span<std::uint8_t> mutable_codes_of(Tensor& tensor);

}  // namespace onnxpress
