#include "graph/ops/gather_block_quantized.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/packed_codes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using Attrs = GatherBlockQuantizedAttrs;

// How the data is read: bytes of uint8 hold several codes along the last axis.
struct Layout {
  DType code;                 // of an element
  std::int64_t per_byte = 1;  // codes to an element of the data's type
  std::size_t gather_axis, quantize_axis;
  std::int64_t block_size;  // 0: one block

  static Layout of(const Attrs& attrs, DType data, std::size_t rank) {
    Layout layout{
        .code = data,
        .gather_axis = static_cast<std::size_t>(normalize_axis(attrs.gather_axis, rank)),
        .quantize_axis = static_cast<std::size_t>(normalize_axis(attrs.quantize_axis, rank)),
        .block_size = attrs.block_size};
    if (data == DType::uint8) {
      layout.code = unsigned_type(attrs.bits);
      layout.per_byte = 8 / attrs.bits;
      require(layout.gather_axis == 0 && layout.quantize_axis + 1 == rank && rank >= 2,
              "expected uint8 data gathered along its first axis and quantized along its last, "
              "found axes {} and {} of rank {}",
              layout.gather_axis, layout.quantize_axis, rank);
    } else if (!is_float(data)) {
      require(data == DType::int4 || data == DType::uint4, "element type {} is not supported here",
              name(data));
      require(attrs.bits == 4, "attribute 'bits': expected 4 for {}, found {}", name(data),
              attrs.bits);
    }
    if (!is_float(data) || attrs.block_size != 0) check_block_size(attrs.block_size);
    return layout;
  }

  template <class D>
  std::vector<D> output(const std::vector<D>& data, const std::vector<D>& indices) const {
    const auto at = static_cast<std::ptrdiff_t>(gather_axis);
    std::vector<D> dims(data.begin(), data.begin() + at);
    dims.insert(dims.end(), indices.begin(), indices.end());
    dims.insert(dims.end(), data.begin() + at + 1, data.end());
    return dims;
  }
};

Dims unpacked_dims(const Layout& layout, Dims dims) {
  dims.back() *= layout.per_byte;
  return dims;
}

// Scales (or zero points) of elements: by axis, what an index adds to the position.
struct Blocks {
  std::vector<std::int64_t> strides;
  std::int64_t block_size;

  Blocks(const Layout& layout, const Dims& data, const Dims& scales) {
    block_size = layout.block_size != 0 ? layout.block_size
                                        : std::max<std::int64_t>(1, data[layout.quantize_axis]);
    Dims expected = data;
    std::int64_t& blocks = expected[layout.quantize_axis];
    blocks = (blocks + block_size - 1) / block_size;
    bool fits = scales.size() == data.size();
    for (std::size_t i = 0; fits && i < scales.size(); ++i)
      fits = scales[i] == expected[i] ||
             (is_float(layout.code) && i != layout.quantize_axis && scales[i] == 1);
    require(fits, "expected scales {}, found {}", to_string(expected), to_string(scales));
    strides = broadcast_strides(scales, expected);
  }
};

void check_zero_points(const Layout& layout, const Dims& scales, const Tensor& zero_points,
                       DType data) {
  require(!is_float(data) && zero_points.dtype() == data,
          "expected zero points of the data's integer type, found {} for {}",
          name(zero_points.dtype()), name(data));
  Dims expected = scales;
  std::int64_t& last = expected[layout.quantize_axis];
  last = (last + layout.per_byte - 1) / layout.per_byte;
  require(zero_points.dims() == expected, "expected zero points {}, found {}", to_string(expected),
          to_string(zero_points.dims()));
}

void gather(KernelContext& context, const Attrs& attrs) {
  const Tensor& data = context.required_input(0);
  const Tensor& scales = context.required_input(2);
  const Tensor* zero_points = context.input(3);
  const Layout layout = Layout::of(attrs, data.dtype(), data.rank());
  const Dims dims = unpacked_dims(layout, data.dims());
  const Blocks blocks(layout, dims, scales.dims());
  const PackedCodes codes(layout.code, data.bytes());
  const std::vector<float> factors = scales.to_floats();
  PackedCodes zeros;
  const float middle =
      data.dtype() == DType::uint8 ? static_cast<float>(std::int64_t{1} << (attrs.bits - 1)) : 0;
  // Zero points of packed rows begin at a whole byte.
  const std::int64_t row_scales = scales.rank() > 0 ? scales.dims().back() : 1;
  std::int64_t row_zeros = row_scales;
  if (zero_points != nullptr) {
    check_zero_points(layout, scales.dims(), *zero_points, data.dtype());
    zeros = PackedCodes(layout.code, zero_points->bytes());
    if (layout.per_byte > 1) row_zeros = zero_points->dims().back() * layout.per_byte;
  }
  const std::vector<std::int64_t> chosen = context.required_input(1).to_ints();
  const auto count = static_cast<std::int64_t>(chosen.size());
  const std::int64_t size = dims[layout.gather_axis];
  const std::int64_t run = element_count(std::span(dims).subspan(layout.gather_axis + 1));
  const std::int64_t outer = element_count(std::span(dims).first(layout.gather_axis));
  for (const std::int64_t index : chosen)
    require(-size <= index && index < size, "index {} is out of range for {} elements", index,
            size);
  Tensor values =
      Tensor::uninitialized(DType::float32, layout.output(dims, context.required_input(1).dims()));
  const std::span<float> out = values.mutable_data<float>();
  context.pool().parallel_for(outer * count, 1, [&](std::int64_t row, std::int64_t) {
    const std::int64_t index = chosen[static_cast<std::size_t>(row % count)];
    const std::int64_t first = (row / count * size + (index < 0 ? index + size : index)) * run;
    for (std::int64_t i = 0; i < run; ++i) {
      std::int64_t rest = first + i;
      std::int64_t at = 0;
      for (std::size_t axis = dims.size(); axis-- > 0; rest /= dims[axis]) {
        const std::int64_t k = rest % dims[axis];
        at += (axis == layout.quantize_axis ? k / blocks.block_size : k) * blocks.strides[axis];
      }
      const float zero =
          zero_points == nullptr ? middle : zeros[at / row_scales * row_zeros + at % row_scales];
      out[static_cast<std::size_t>(row * run + i)] =
          (codes[first + i] - zero) * factors[static_cast<std::size_t>(at)];
    }
  });
  context.forward_output(0, values.cast(scales.dtype()));
}

Kernel prepare(const PrepareContext& prepare) {
  return [attrs = Attrs::from(prepare.node())](KernelContext& context) { gather(context, attrs); };
}

void infer(InferContext& context) {
  const Shape* data = context.input_shape(0);
  const Shape* indices = context.input_shape(1);
  std::optional<Shape> shape;
  if (data != nullptr && indices != nullptr && context.input_dtype(0) != DType::undefined) {
    const Layout layout =
        Layout::of(Attrs::from(context.node()), context.input_dtype(0), data->size());
    shape = layout.output(*data, *indices);
    if (layout.per_byte > 1) {
      Dim& last = shape->back();
      require(last.value() < std::int64_t{1} << 60, "axis {} is too long to unpack", last.value());
      last = last.is_known() ? Dim(last.value() * layout.per_byte) : Dim();
    }
  }
  context.set_output(0, context.input_dtype(2), std::move(shape));
}

}  // namespace

GatherBlockQuantizedAttrs GatherBlockQuantizedAttrs::from(const Node& node) {
  return {get_int(node, "gather_axis", 0), get_int(node, "quantize_axis", 1),
          get_int(node, "block_size", 128), get_int(node, "bits", 4)};
}

Attributes GatherBlockQuantizedAttrs::to_attributes() const {
  Attributes attributes;
  attributes["gather_axis"] = gather_axis;
  attributes["quantize_axis"] = quantize_axis;
  attributes["block_size"] = block_size;
  attributes["bits"] = bits;
  return attributes;
}

OPERATORS(gather_block_quantized) {
  registry.add(OpDef{.name = "GatherBlockQuantized",
                     .domain = "com.microsoft",
                     .infer = infer,
                     .prepare = prepare});
}

}  // namespace onnxpress
