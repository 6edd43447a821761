#include "graph/ops/quantize_linear.h"

#include <algorithm>
#include <cmath>

#include "graph/base/convert.h"
#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/packed_codes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

constexpr std::int64_t piece = 16384;  // elements per task; whole bytes in every packed type

const std::byte* at(const std::byte* data, DType type, std::int64_t element) {
  return data + packed_bytes(type, static_cast<std::size_t>(element));
}

std::byte* at(std::byte* data, DType type, std::int64_t element) {
  return data + packed_bytes(type, static_cast<std::size_t>(element));
}

// Scales and zero points as numbers.
struct Grid {
  ScaleLayout layout;
  std::vector<float> scales;
  std::vector<double> zeros;  // empty: all 0

  Grid(const Tensor& x, const Tensor& scale, const Tensor* zero_point, const QuantizeAttrs& attrs)
      : layout(ScaleLayout::of(x.dims(), scale.dims(), attrs)), scales(scale.to_floats()) {
    require(is_float(scale.dtype()) || scale.dtype() == DType::int32,
            "expected a scale of a float type, found {}", name(scale.dtype()));
    if (zero_point == nullptr) return;
    require(zero_point->size() == scale.size(),
            "expected as many zero points as scales ({}), found {}", scale.size(),
            zero_point->size());
    const Tensor wide = zero_point->cast(DType::float64);
    const auto values = wide.data<double>();
    if (std::ranges::any_of(values, [](double zero) { return zero != 0; }))
      zeros.assign(values.begin(), values.end());
  }

  // body(position, scale, zero point) for elements [begin, end).
  template <class Body>
  void each(std::int64_t begin, std::int64_t end, Body&& body) const {
    std::int64_t row = begin / layout.inner;
    std::int64_t i = begin % layout.inner;
    for (std::int64_t element = begin; element < end; ++row, i = 0) {
      const std::int64_t start = layout.row_start(row);
      for (; i < layout.inner && element < end; ++i, ++element) {
        const auto index = static_cast<std::size_t>(start + i * layout.inner_step);
        body(element, scales[index], zeros.empty() ? 0.0 : zeros[index]);
      }
    }
  }

  // body(first element, count, index of its scale, whether all have that one) for neighbours in
  // [begin, end); otherwise the next element has the next scale.
  template <class Body>
  void each_run(std::int64_t begin, std::int64_t end, Body&& body) const {
    for (std::int64_t element = begin; element < end;) {
      const std::int64_t row = element / layout.inner, i = element % layout.inner;
      std::int64_t count = layout.inner - i;
      bool same = layout.inner_step == 0;
      // One element to a row: those of a block, or of neighbouring channels.
      if (layout.inner == 1 && layout.block > 1) {
        same = true;
        const std::int64_t at = row % layout.axis;
        count = std::min(layout.block - at % layout.block, layout.axis - at);
      } else if (layout.inner == 1 && layout.axis_step == 1) {
        same = false;
        count = layout.axis - row % layout.axis;
      }
      count = std::min(count, end - element);
      body(element, count, static_cast<std::size_t>(layout.row_start(row) + i * layout.inner_step), same);
      element += count;
    }
  }

  // (value - zero point) * scale, for codes that float32 holds exactly.
  void apply(float* values, std::int64_t count, std::size_t scale, bool same) const {
    const auto size = static_cast<std::size_t>(count);
    const float* const factors = scales.data() + scale;
    const double* const points = zeros.empty() ? nullptr : zeros.data() + scale;
    if (same) {
      const float factor = *factors, zero = points != nullptr ? static_cast<float>(*points) : 0.0F;
      for (std::size_t k = 0; k < size; ++k) values[k] = (values[k] - zero) * factor;
    } else if (points == nullptr) {
      for (std::size_t k = 0; k < size; ++k) values[k] *= factors[k];
    } else {
      for (std::size_t k = 0; k < size; ++k) values[k] = (values[k] - static_cast<float>(points[k])) * factors[k];
    }
  }
};

// Each value to the nearest of a narrower float type.
void round_to(DType type, std::vector<float>& values) {
  std::vector<std::byte> codes(packed_bytes(type, values.size()));
  auto* bytes = reinterpret_cast<std::byte*>(values.data());
  convert_elements(DType::float32, bytes, type, codes.data(), values.size());
  convert_elements(type, codes.data(), DType::float32, bytes, values.size());
}

void dequantize(KernelContext& context, const QuantizeAttrs& attrs, DType otherwise) {
  const Tensor& x = context.required_input(0);
  const Tensor& scale = context.required_input(1);
  const Tensor* zero_point = context.input(2);
  require(zero_point == nullptr || zero_point->dtype() == x.dtype(),
          "expected a zero point of type {}, found {}", name(x.dtype()),
          zero_point == nullptr ? "none" : name(zero_point->dtype()));
  DType type = attrs.output;
  if (type == DType::undefined) type = otherwise != DType::undefined ? otherwise : scale.dtype();
  const Grid grid(x, scale, zero_point, attrs);
  Tensor& y = context.output(0, type, x.dims());
  const std::byte* in = x.bytes().data();
  std::byte* out = y.mutable_bytes().data();
  const DType from = x.dtype();
  if (bits(from) <= 8 && type == DType::float32) {
    const PackedCodes codes(from, x.bytes());
    float* const values = reinterpret_cast<float*>(out);
    context.pool().parallel_for(x.size(), piece, [&](std::int64_t begin, std::int64_t end) {
      grid.each_run(begin, end, [&](std::int64_t first, std::int64_t count, std::size_t index, bool same) {
        codes.decode(first, count, values + first);
        grid.apply(values + first, count, index, same);
      });
    });
    return;
  }
  context.pool().parallel_for(x.size(), piece, [&](std::int64_t begin, std::int64_t end) {
    const auto count = static_cast<std::size_t>(end - begin);
    std::vector<double> codes(count);  // exact for every input type
    convert_elements(from, at(in, from, begin), DType::float64,
                     reinterpret_cast<std::byte*>(codes.data()), count);
    std::vector<float> values(count);
    grid.each(begin, end, [&](std::int64_t element, float factor, double zero) {
      const auto i = static_cast<std::size_t>(element - begin);
      values[i] = static_cast<float>(codes[i] - zero) * factor;
    });
    convert_elements(DType::float32, reinterpret_cast<const std::byte*>(values.data()), type,
                     at(out, type, begin), count);
  });
}

void quantize(KernelContext& context, const QuantizeAttrs& attrs) {
  const Tensor& x = context.required_input(0);
  const Tensor* zero_point = context.input(2);
  const DType type = zero_point != nullptr              ? zero_point->dtype()
                     : attrs.output != DType::undefined ? attrs.output
                                                        : DType::uint8;
  require(attrs.output == DType::undefined || attrs.output == type,
          "attribute 'output_dtype': expected {} as the zero point has it, found {}", name(type),
          name(attrs.output));
  require(is_integer(type) ? bits(type) <= 16 : is_float(type) && bits(type) <= 8,
          "expected a type to quantize to, found {}", name(type));
  const bool narrow = float_compute_type(attrs.precision) != attrs.precision;
  const Tensor& scale = context.required_input(1);
  const Grid grid(x, narrow ? scale.cast(attrs.precision) : scale, zero_point, attrs);
  Tensor& y = context.output(0, type, x.dims());
  const std::byte* in = x.bytes().data();
  std::byte* out = y.mutable_bytes().data();
  const DType from = x.dtype();
  const bool rounds = is_integer(type);
  const float low = rounds ? static_cast<float>(integer_min(type)) : 0;
  const float high = rounds ? static_cast<float>(integer_max(type)) : 0;
  context.pool().parallel_for(x.size(), piece, [&](std::int64_t begin, std::int64_t end) {
    const auto count = static_cast<std::size_t>(end - begin);
    std::vector<float> values(count);
    auto* bytes = reinterpret_cast<std::byte*>(values.data());
    convert_elements(from, at(in, from, begin), DType::float32, bytes, count);
    const auto to_grid = [&](float value, double zero) {
      if (rounds) value = std::nearbyint(value);  // halves to even
      value += static_cast<float>(zero);
      if (!rounds) return value;
      return value > low ? std::min(value, high) : low;  // NaN to the lowest
    };
    if (narrow) round_to(attrs.precision, values);
    grid.each(begin, end, [&](std::int64_t element, float factor, double zero) {
      float& value = values[static_cast<std::size_t>(element - begin)];
      value = narrow ? value / factor : to_grid(value / factor, zero);
    });
    if (narrow) {
      round_to(attrs.precision, values);
      grid.each(begin, end, [&](std::int64_t element, float, double zero) {
        float& value = values[static_cast<std::size_t>(element - begin)];
        value = to_grid(value, zero);
      });
    }
    convert_elements(DType::float32, bytes, type, at(out, type, begin), count, attrs.saturate);
  });
}

Kernel prepare_quantize(const PrepareContext& prepare) {
  return [attrs = QuantizeAttrs::from(prepare.node())](KernelContext& context) {
    quantize(context, attrs);
  };
}

// Before opset 19 the result was float32 whatever the scale.
DType fixed_result(const Node& node) {
  return node.domain().empty() && node.opset() < 19 ? DType::float32 : DType::undefined;
}

Kernel prepare_dequantize(const PrepareContext& prepare) {
  return [attrs = QuantizeAttrs::from(prepare.node()), result = fixed_result(prepare.node())](
             KernelContext& context) { dequantize(context, attrs, result); };
}

void check_scale(InferContext& context, const QuantizeAttrs& attrs) {
  const auto x = context.input_dims(0);
  const auto scale = context.input_dims(1);
  if (x && scale) ScaleLayout::of(*x, *scale, attrs);
}

void set_shape(InferContext& context, DType type) {
  const Shape* x = context.input_shape(0);
  context.set_output(0, type, x != nullptr ? std::optional(*x) : std::nullopt);
}

void infer_quantize(InferContext& context) {
  const QuantizeAttrs attrs = QuantizeAttrs::from(context.node());
  check_scale(context, attrs);
  DType type = attrs.output != DType::undefined ? attrs.output : DType::uint8;
  if (context.has_input(2)) type = context.input_dtype(2);
  set_shape(context, type);
}

void infer_dequantize(InferContext& context) {
  const QuantizeAttrs attrs = QuantizeAttrs::from(context.node());
  check_scale(context, attrs);
  DType type = attrs.output;
  if (type == DType::undefined) type = fixed_result(context.node());
  set_shape(context, type != DType::undefined ? type : context.input_dtype(1));
}

OperandAxes quantize_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  const Value* scale = node.input(1);
  if (x == nullptr || !x->type.shape || scale == nullptr || !scale->type.shape) return axes;
  const auto rank = static_cast<std::int64_t>(x->type.shape->size());
  for (std::int64_t i = 0; i < rank; ++i)
    axes[0].push_back({.kind = AxisRole::Kind::output, .output_axis = i});
  const QuantizeAttrs attrs = QuantizeAttrs::from(node);
  const Shape& shape = *scale->type.shape;
  const bool per_axis = shape.size() == 1 && !(shape[0].is_known() && shape[0].value() == 1);
  for (std::size_t i = 1; i < axes.size(); ++i) {
    if (per_axis)
      axes[i] = {{.kind = AxisRole::Kind::output,
                  .output_axis = attrs.axis < 0 ? attrs.axis + rank : attrs.axis}};
    if (attrs.block_size > 0) {
      axes[i] = axes[0];
      axes[i][static_cast<std::size_t>(normalize_axis(attrs.axis, axes[0].size()))] = {};
    }
  }
  return axes;
}

}  // namespace

QuantizeAttrs QuantizeAttrs::from(const Node& node) {
  QuantizeAttrs attrs{.axis = get_int(node, "axis", 1),
                      .block_size = get_int(node, "block_size", 0),
                      .saturate = get_bool(node, "saturate", true),
                      .output = static_cast<DType>(get_int(node, "output_dtype", 0)),
                      .precision = static_cast<DType>(get_int(node, "precision", 0)),
                      .per_axis = !node.domain().empty() || node.opset() >= 13};
  require(attrs.block_size >= 0, "attribute 'block_size': expected at least 0, found {}",
          attrs.block_size);
  require(attrs.output == DType::undefined || is_known(attrs.output),
          "attribute 'output_dtype': expected an element type, found {}",
          get_int(node, "output_dtype", 0));
  require(attrs.precision == DType::undefined || attrs.precision == DType::float32 ||
              attrs.precision == DType::float16 || attrs.precision == DType::bfloat16,
          "attribute 'precision': expected float32, float16 or bfloat16, found {}",
          get_int(node, "precision", 0));
  return attrs;
}

Attributes QuantizeAttrs::to_attributes() const {
  Attributes attributes;
  if (axis != 1) attributes["axis"] = axis;
  if (block_size != 0) attributes["block_size"] = block_size;
  if (!saturate) attributes["saturate"] = 0;
  if (output != DType::undefined) attributes["output_dtype"] = static_cast<std::int64_t>(output);
  if (precision != DType::undefined) attributes["precision"] = static_cast<std::int64_t>(precision);
  return attributes;
}

std::int64_t first_quantize_opset(DType type, bool per_axis, bool blocked) {
  std::int64_t opset = per_axis ? 13 : 10;
  if (blocked) opset = 21;
  switch (type) {
    case DType::int2:
    case DType::uint2:
      return 25;
    case DType::float4e2m1:
      return 23;
    case DType::int4:
    case DType::uint4:
    case DType::int16:
    case DType::uint16:
      return 21;
    default:
      return is_float(type) ? std::max<std::int64_t>(opset, 19) : opset;
  }
}

ScaleLayout ScaleLayout::of(const Dims& dims, const Dims& scale, const QuantizeAttrs& attrs) {
  if (attrs.block_size == 0 && (scale.empty() || scale == Dims{1}))
    return {.inner = element_count(dims)};
  require(attrs.per_axis, "expected one scale (per axis: from opset 13), found {}",
          to_string(scale));
  const auto at_axis = static_cast<std::size_t>(normalize_axis(attrs.axis, dims.size()));
  ScaleLayout layout{.axis = dims[at_axis],
                     .inner = element_count(std::span(dims).subspan(at_axis + 1))};
  if (attrs.block_size == 0) {
    require(scale == Dims{layout.axis}, "expected a scale or {} of them along axis {}, found {}",
            layout.axis, at_axis, to_string(scale));
    layout.axis_step = 1;
    return layout;
  }
  Dims expected = dims;
  expected[at_axis] = (layout.axis + attrs.block_size - 1) / attrs.block_size;
  require(scale == expected, "expected scales {} for blocks of {} along axis {}, found {}",
          to_string(expected), attrs.block_size, at_axis, to_string(scale));
  layout.block = attrs.block_size;
  layout.axis_step = layout.inner;
  layout.outer_step = expected[at_axis] * layout.inner;
  layout.inner_step = 1;
  return layout;
}

OPERATORS(quantize_linear) {
  for (const char* domain : {"", "com.microsoft"}) {
    const std::int64_t since = *domain == '\0' ? 10 : 1;
    registry.add(OpDef{.name = "QuantizeLinear",
                       .domain = domain,
                       .since = since,
                       .infer = infer_quantize,
                       .prepare = prepare_quantize,
                       .axes = quantize_axes});
    registry.add(OpDef{.name = "DequantizeLinear",
                       .domain = domain,
                       .since = since,
                       .infer = infer_dequantize,
                       .prepare = prepare_dequantize,
                       .axes = quantize_axes});
  }
}

}  // namespace onnxpress
