// MatMulNBits with constant weights: tiles of columns are dequantized by all threads, then
// multiplied by oneDNN, so that memory stays that of the packed weights.
#include "graph/ops/matmul_nbits.h"

#include <algorithm>
#include <memory>

#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

constexpr std::int64_t tile_elements = 1 << 18;  // what a core's second-level cache holds
constexpr std::int64_t columns_per_task = 8;

bool supports(const PrepareContext& context) {
  if (!onednn::is_float_operand(context.input_type(0)) ||
      !onednn::is_float_operand(context.output_type(0)))
    return false;
  for (std::size_t i = 1; i <= 4; ++i)
    if (context.input_type(i) != nullptr && context.constant_input(i) == nullptr) return false;
  return context.input_type(5) == nullptr || onednn::is_float_operand(context.input_type(5));
}

Kernel prepare(const PrepareContext& context) {
  const MatMulNBitsAttrs attrs = MatMulNBitsAttrs::from(context.node());
  const auto weights = std::make_shared<const NBitsWeights>(
      attrs, *context.constant_input(1), *context.constant_input(2), context.constant_input(3),
      context.constant_input(4));
  const Dims dims = onednn::dims_of(context.output_type(0));
  const std::int64_t rows = element_count(std::span(dims).first(dims.size() - 1));
  const std::int64_t width =
      std::min(attrs.columns, std::max(columns_per_task, tile_elements / attrs.depth));
  return [=](KernelContext& inner) {
    const std::int64_t depth = attrs.depth;
    const std::int64_t columns = attrs.columns;
    const float* const a = inner.required_input(0).data<float>().data();
    float* const y = inner.output(0, DType::float32, dims).mutable_data<float>().data();
    const Tensor* bias = inner.input(5);
    require(bias == nullptr || bias->dims() == Dims{columns}, "expected {} biases, found {}",
            columns, bias == nullptr ? "none" : to_string(bias->dims()));
    if (bias != nullptr)
      for (std::int64_t row = 0; row < rows; ++row)
        std::ranges::copy(bias->data<float>(), y + row * columns);
    std::vector<float> tile(static_cast<std::size_t>(width * depth));
    for (std::int64_t begin = 0; begin < columns; begin += width) {
      const std::int64_t count = std::min(width, columns - begin);
      inner.pool().parallel_for(
          count, columns_per_task, [&](std::int64_t first, std::int64_t last) {
            weights->dequantize(begin + first, begin + last, tile.data() + first * depth);
          });
      const dnnl::status status =
          dnnl::sgemm('N', 'T', rows, count, depth, 1.0f, a, depth, tile.data(), depth,
                      bias != nullptr ? 1.0f : 0.0f, y + begin, columns);
      require(status == dnnl::status::success, "oneDNN: sgemm failed (status {})",
              static_cast<int>(status));
    }
  };
}

}  // namespace

OPERATORS(onednn_matmul_nbits) {
  registry.add(KernelDef{.name = "MatMulNBits",
                         .domain = "com.microsoft",
                         .backend = "onednn",
                         .supports = supports,
                         .prepare = prepare});
}

}  // namespace onnxpress
