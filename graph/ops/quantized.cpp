#include "graph/ops/quantized.h"

#include <algorithm>
#include <array>

#include "graph/base/convert.h"
#include "graph/ops/broadcasting.h"

namespace onnxpress {
namespace {

constexpr std::int64_t piece = 16384;

// The spreads as operands of an elementwise operation whose result has `dims`.
template <std::size_t count>
class SpreadPlan {
 public:
  SpreadPlan(const Dims& dims, std::array<const Spread*, count> spreads)
      : spreads_(spreads), plan_(dims, checked(dims, spreads)) {}

  // body(element, values of the spreads) for every element, in parallel.
  template <class Body>
  void run(ThreadPool& pool, Body&& body) const {
    plan_.run(pool, [&](std::int64_t start, const std::int64_t* offsets, std::int64_t run) {
      std::array<float, count> values;
      for (std::int64_t i = 0; i < run; ++i) {
        for (std::size_t k = 0; k < count; ++k) {
          const std::int64_t at = offsets[k] + i * plan_.inner_stride(k);
          values[k] = spreads_[k]->values[static_cast<std::size_t>(at)];
        }
        body(static_cast<std::size_t>(start + i), values);
      }
    });
  }

 private:
  static std::vector<Dims> checked(const Dims& dims,
                                   const std::array<const Spread*, count>& spreads) {
    std::vector<Dims> operands;
    for (const Spread* spread : spreads) {
      require(broadcast(spread->dims, dims) == dims,
              "expected scales and zero points that broadcast to {}, found {}", to_string(dims),
              to_string(spread->dims));
      operands.push_back(spread->dims);
    }
    return operands;
  }

  std::array<const Spread*, count> spreads_;
  BroadcastPlan plan_;
};

const Tensor& one_element(const Tensor& tensor, std::size_t index) {
  require(tensor.size() == 1, "input {}: expected one element, found {}", index,
          to_string(tensor.dims()));
  return tensor;
}

}  // namespace

IntegerGrid::IntegerGrid(DType type, float zero_point) : zero(zero_point) {
  require(is_integer(type) && bits(type) <= 16, "expected a type to quantize to, found {}",
          name(type));
  low = static_cast<float>(integer_min(type));
  high = static_cast<float>(integer_max(type));
}

float scalar_scale(const KernelContext& context, std::size_t index) {
  const Tensor& scale = one_element(context.required_input(index), index);
  require(is_float(scale.dtype()), "input {}: expected a scale, found {}", index,
          name(scale.dtype()));
  return scale.to_floats()[0];
}

float scalar_zero_point(const KernelContext& context, std::size_t index, DType type) {
  const Tensor* zero = context.input(index);
  if (zero == nullptr) return 0;
  require(zero->dtype() == type, "input {}: expected a zero point of type {}, found {}", index,
          name(type), name(zero->dtype()));
  return one_element(*zero, index).to_floats()[0];
}

Spread::Spread(const Tensor& tensor, std::size_t axis, std::size_t rank)
    : values(tensor.to_floats()) {
  if (tensor.size() == 1) return;
  if (tensor.rank() != 1) {
    require(tensor.rank() == rank, "expected scales or zero points of 0, 1 or {} axes, found {}",
            rank, to_string(tensor.dims()));
    dims = tensor.dims();
    return;
  }
  require(axis < rank, "expected one scale and zero point for a tensor of rank {}, found {}", rank,
          tensor.size());
  dims.assign(rank - axis, 1);
  dims[0] = tensor.size();
}

Tensor centred(ThreadPool& pool, const Tensor& x, const Spread& zero_points) {
  const DType type = x.dtype();
  require(bits(type) == 8 && type != DType::boolean, "expected an 8-bit type, found {}",
          name(type));
  Tensor result = x.cast(DType::float64);
  double* const out = result.mutable_data<double>().data();
  const SpreadPlan<1> plan(x.dims(), {&zero_points});
  plan.run(pool, [out](std::size_t i, const std::array<float, 1>& zero) { out[i] -= zero[0]; });
  return result;
}

void put_int32(KernelContext& context, std::size_t index, const Tensor& sums) {
  Tensor& y = context.output(index, DType::int32, sums.dims());
  std::ranges::transform(sums.data<double>(), y.mutable_data<std::int32_t>().begin(), to_int32);
}

void Requantization::put(KernelContext& context, const Tensor& sums) const {
  require(bits(type) == 8 && type != DType::boolean, "expected an 8-bit type, found {}",
          name(type));
  const bool rounds = is_integer(type);
  const IntegerGrid grid(rounds ? type : DType::int8);
  const SpreadPlan<4> plan(sums.dims(), {&a_scale, &b_scale, &y_scale, &y_zero_point});
  Tensor& y = context.output(0, type, sums.dims());
  std::byte* const out = y.mutable_bytes().data();
  const double* const in = sums.data<double>().data();
  plan.run(context.pool(), [&](std::size_t i, const std::array<float, 4>& spread) {
    const float sum =
        integer_sums ? static_cast<float>(to_int32(in[i])) : static_cast<float>(in[i]);
    const float scaled = sum * (spread[0] * spread[1] / spread[2]);
    if (!rounds) {
      const float value = scaled + spread[3];
      convert_elements(DType::float32, reinterpret_cast<const std::byte*>(&value), type, out + i,
                       1);
      return;
    }
    IntegerGrid shifted = grid;
    shifted.zero = spread[3];
    out[i] = static_cast<std::byte>(byte_of(shifted.code(scaled)));
  });
}

void Dequantization::put(KernelContext& context, const Tensor& sums) const {
  const SpreadPlan<3> plan(sums.dims(), {&a_scale, &b_scale, &bias});
  const bool is_narrow = type != DType::float32;
  Tensor wide;
  if (is_narrow) wide = Tensor::uninitialized(DType::float32, sums.dims());
  Tensor& y = is_narrow ? wide : context.output(0, DType::float32, sums.dims());
  const std::span<float> out = y.mutable_data<float>();
  const double* const in = sums.data<double>().data();
  plan.run(context.pool(), [&](std::size_t i, const std::array<float, 3>& spread) {
    out[i] = static_cast<float>(to_int32(in[i])) * (spread[0] * spread[1]) + spread[2];
  });
  if (is_narrow) context.forward_output(0, wide.cast(type));
}

DynamicRange DynamicRange::of(std::span<const float> values) {
  float low = 0;
  float high = 0;
  for (const float value : values) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  DynamicRange range;
  if (low == high) return range;
  range.scale = (high - low) / 255.0f;
  const float zero = -low / range.scale;
  range.zero_point = static_cast<std::uint8_t>(IntegerGrid(DType::uint8).code(zero));
  return range;
}

Tensor quantized(ThreadPool& pool, const Tensor& x, const DynamicRange& range) {
  const std::span<const float> in = x.data<float>();
  Tensor y = Tensor::uninitialized(DType::uint8, x.dims());
  const std::span<std::uint8_t> out = y.mutable_data<std::uint8_t>();
  const IntegerGrid grid(DType::uint8, range.zero_point);
  pool.parallel_for(x.size(), piece, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      out[i] = static_cast<std::uint8_t>(grid.code(in[i] / range.scale));
  });
  return y;
}

Tensor transposed_batches(ThreadPool& pool, const Tensor& x, std::int64_t rows, Dims dims) {
  Tensor result = Tensor::uninitialized(DType::float64, std::move(dims));
  if (x.size() == 0) return result;
  const std::int64_t columns = x.size() / x.dim(0) / rows;
  const double* const in = x.data<double>().data();
  double* const out = result.mutable_data<double>().data();
  pool.parallel_for(x.dim(0), 1, [=](std::int64_t batch, std::int64_t) {
    const std::int64_t first = batch * rows * columns;
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j)
        out[first + j * rows + i] = in[first + i * columns + j];
  });
  return result;
}

CodeTable::CodeTable(DType type, Quantization from, Quantization to,
                     const std::function<float(float)>& function) {
  const IntegerGrid grid(type, to.zero_point);
  const bool is_signed = is_signed_integer(type);
  for (int i = 0; i < 256; ++i) {
    const float code = static_cast<float>(is_signed && i > 127 ? i - 256 : i);
    const float value = function(from.scale * (code - from.zero_point));
    codes_.push_back(byte_of(grid.code(value / to.scale)));
  }
}

void CodeTable::put(KernelContext& context, const Tensor& x) const {
  const std::span<const std::uint8_t> in = codes_of(x);
  Tensor& y = context.output(0, x.dtype(), x.dims());
  const std::span<std::uint8_t> out = mutable_codes_of(y);
  context.pool().parallel_for(x.size(), piece, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      out[i] = codes_[in[i]];
  });
}

void put_codes(KernelContext& context, const Tensor& values,
               const std::function<float(double)>& code) {
  Tensor& y = context.output(0, context.required_input(0).dtype(), values.dims());
  const std::span<std::uint8_t> out = mutable_codes_of(y);
  const std::span<const double> in = values.data<double>();
  context.pool().parallel_for(values.size(), piece, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      out[i] = byte_of(code(in[i]));
  });
}

CodeTable::Quantization quantization_at(const KernelContext& context, std::size_t scale,
                                        DType type) {
  return {scalar_scale(context, scale), scalar_zero_point(context, scale + 1, type)};
}

std::span<const std::uint8_t> codes_of(const Tensor& tensor) {
  require(tensor.dtype() == DType::uint8 || tensor.dtype() == DType::int8,
          "expected int8 or uint8, found {}", name(tensor.dtype()));
  return {reinterpret_cast<const std::uint8_t*>(tensor.bytes().data()), tensor.bytes().size()};
}

std::span<std::uint8_t> mutable_codes_of(Tensor& tensor) {
  const std::span<std::byte> bytes = tensor.mutable_bytes();
  return {reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size()};
}

}  // namespace onnxpress
