// Straight-through gradients of QuantizeLinear and DequantizeLinear: rounding is taken for the
// identity inside the range of codes, and for a constant outside (Bengio, Leonard and Courville
// 2013, "Estimating or Propagating Gradients Through Stochastic Neurons").
#include <cmath>

#include "graph/base/dtype.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/quantize_linear.h"

namespace onnxpress {
namespace {

// Codes as numbers, and the scale and zero point of each element.
struct Grid {
  Tensor scales, zeros;  // float64; zeros are undefined when all are 0
  ScaleLayout layout;

  Grid(const Dims& dims, const Tensor& scale, const Tensor* zero_point, const QuantizeAttrs& attrs)
      : scales(scale.cast(DType::float64)),
        layout(ScaleLayout::of(dims, scale.dims(), attrs)) {
    if (zero_point != nullptr) zeros = zero_point->cast(DType::float64);
  }

  std::size_t index(std::int64_t element) const {
    return static_cast<std::size_t>(layout.row_start(element / layout.inner) +
                                    element % layout.inner * layout.inner_step);
  }
  double scale(std::size_t at) const { return scales.data<double>()[at]; }
  double zero(std::size_t at) const { return zeros.defined() ? zeros.data<double>()[at] : 0; }
};

// The gradient of codes (in units of steps) to that of what was quantized.
BackwardKernel prepare_quantize(const PrepareContext& plan) {
  const Type* codes = plan.output_type(0);
  require(codes != nullptr, "the type of the codes is not known");
  return [attrs = QuantizeAttrs::from(plan.node()), type = codes->elem](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    const Grid grid(x.dims(), context.required_input(1), context.input(2), attrs);
    const bool is_bounded = is_integer(type);
    const double low = is_bounded ? static_cast<double>(integer_min(type)) : 0;
    const double high = is_bounded ? static_cast<double>(integer_max(type)) : 0;
    Tensor dx = Tensor::uninitialized(dy.dtype(), x.dims());
    Tensor dscale;
    if (context.wants_gradient(1)) dscale = Tensor(DType::float64, grid.scales.dims());
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const g = dy.data<T>().data();
      const T* const in = x.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      const auto is_inside = [&](std::int64_t i, std::size_t at) {
        const double code = static_cast<double>(in[i]) / grid.scale(at) + grid.zero(at);
        return !is_bounded || (code >= low - 0.5 && code <= high + 0.5);
      };
      for_elements(context.pool(), x.size(), [&](std::int64_t i) {
        const std::size_t at = grid.index(i);
        out[i] = is_inside(i, at) ? static_cast<T>(static_cast<double>(g[i]) / grid.scale(at)) : T(0);
      });
      if (!dscale.defined()) return;
      const auto sums = dscale.mutable_data<double>();
      for (std::int64_t i = 0; i < x.size(); ++i) {
        const std::size_t at = grid.index(i);
        if (is_inside(i, at))
          sums[at] -= static_cast<double>(g[i]) * static_cast<double>(in[i]) /
                      (grid.scale(at) * grid.scale(at));
      }
    });
    if (context.wants_gradient(0)) context.forward_gradient(0, std::move(dx));
    if (dscale.defined()) context.forward_gradient(1, dscale.cast(context.input_dtype(1)));
  };
}

// y = (code - zero) scale.
BackwardKernel prepare_dequantize(const PrepareContext& plan) {
  return [attrs = QuantizeAttrs::from(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Grid grid(context.input_dims(0), context.required_input(1),
                    context.wants_gradient(1) ? context.input(2) : nullptr, attrs);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const g = dy.data<T>().data();
      if (context.wants_gradient(0)) {
        Tensor dx = Tensor::uninitialized(dy.dtype(), dy.dims());
        T* const out = dx.mutable_data<T>().data();
        for_elements(context.pool(), dy.size(), [&](std::int64_t i) {
          out[i] = static_cast<T>(static_cast<double>(g[i]) * grid.scale(grid.index(i)));
        });
        context.forward_gradient(0, std::move(dx));
      }
      if (!context.wants_gradient(1)) return;
      const Tensor codes = context.required_input(0).cast(DType::float64);
      Tensor dscale(DType::float64, grid.scales.dims());
      const auto sums = dscale.mutable_data<double>();
      for (std::int64_t i = 0; i < dy.size(); ++i) {
        const std::size_t at = grid.index(i);
        sums[at] += static_cast<double>(g[i]) *
                    (codes.data<double>()[static_cast<std::size_t>(i)] - grid.zero(at));
      }
      context.forward_gradient(1, dscale.cast(context.input_dtype(1)));
    });
  };
}

// The codes only where a scale is trained.
std::uint64_t codes_for_scale(std::uint64_t wanted) {
  return (wanted & bits_of(1)) != 0 ? bits_of(0, 1, 2) : bits_of(1);
}

}  // namespace

OPERATORS(quantize_gradient) {
  for (const char* domain : {"", "com.microsoft"}) {
    registry.add(GradientDef{.name = "QuantizeLinear",
                             .domain = domain,
                             .prepare = prepare_quantize,
                             .reads_inputs = bits_of(0, 1, 2),
                             .reads_outputs = 0});
    registry.add(GradientDef{.name = "DequantizeLinear",
                             .domain = domain,
                             .prepare = prepare_dequantize,
                             .reads_inputs = bits_of(0, 1, 2),
                             .reads_outputs = 0,
                             .reads_for = codes_for_scale});
  }
}

}  // namespace onnxpress
