// QLinearSoftmax: a softmax over 8-bit codes, quantized again.
#include <algorithm>
#include <array>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/quantized.h"
#include "graph/ops/registry.h"
#include "graph/ops/softmax.h"

namespace onnxpress {
namespace {

// The attribute `opset` says which Softmax it stands for.
SoftmaxAttrs attributes_of(const Node& node) {
  const bool flattens = require_int(node, "opset") < 13;
  return {.axis = get_int(node, "axis", flattens ? 1 : -1), .flattens = flattens};
}

// x, scale, zero point, y's scale, zero point. exp(scale * (x - largest)) has one value for each
// difference of codes; the reciprocal of y's scale is rounded down, as ONNX Runtime does.
Kernel prepare(const PrepareContext& prepare) {
  return [attrs = attributes_of(prepare.node())](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const std::span<const std::uint8_t> in = codes_of(x);
    const std::span<std::uint8_t> out = mutable_codes_of(context.output(0, x.dtype(), x.dims()));
    const float scale = scalar_scale(context, 1);
    const auto to = quantization_at(context, 3, x.dtype());
    const float factor = std::floor(1 / to.scale);
    const std::span<const std::int64_t> dims = x.dims();
    const auto axis = static_cast<std::size_t>(normalize_axis(attrs.axis, dims.size()));
    if (x.size() == 0) return;
    const std::int64_t size = attrs.flattens ? element_count(dims.subspan(axis)) : dims[axis];
    const std::int64_t step = attrs.flattens ? 1 : element_count(dims.subspan(axis + 1));
    std::array<float, 256> powers;  // by how far a code is below the largest
    for (std::size_t i = 0; i < powers.size(); ++i)
      powers[i] = static_cast<float>(std::exp(-static_cast<double>(i) * double{scale}));
    const IntegerGrid grid(x.dtype(), to.zero_point);
    // Signed codes in the order of unsigned ones.
    const std::uint8_t flip = is_signed_integer(x.dtype()) ? 0x80 : 0;
    const std::int64_t block = std::max<std::int64_t>(1, 4096 / size);
    context.pool().parallel_for(x.size() / size, block, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t start = row / step * size * step + row % step;
        const auto at = [&](std::int64_t k) { return static_cast<std::size_t>(start + k * step); };
        std::uint8_t largest = 0;
        for (std::int64_t k = 0; k < size; ++k)
          largest = std::max(largest, static_cast<std::uint8_t>(in[at(k)] ^ flip));
        const auto power = [&](std::int64_t k) {
          return powers[static_cast<std::size_t>(largest - (in[at(k)] ^ flip))];
        };
        float sum = 0;
        for (std::int64_t k = 0; k < size; ++k) sum += power(k);
        for (std::int64_t k = 0; k < size; ++k)
          out[at(k)] = byte_of(grid.code(power(k) * factor / sum));
      }
    });
  };
}

}  // namespace

OPERATORS(qlinear_softmax) {
  registry.add(OpDef{.name = "QLinearSoftmax",
                     .domain = "com.microsoft",
                     .infer = infer_same_as_first,
                     .prepare = prepare});
}

}  // namespace onnxpress
