// Softmax and layer normalization of float32 rows.
#include <algorithm>

#include "graph/kernels/elementwise_loops.h"
#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/attributes.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/registry.h"
#include "graph/ops/softmax.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;

// Elements of one block of rows.
constexpr std::int64_t block_elements = 8192;

// Elements from the axis of Softmax on, when they are the rows it works on.
std::optional<std::int64_t> softmax_size(const PrepareContext& context) {
  const SoftmaxAttrs attrs = SoftmaxAttrs::from(context.node());
  const Dims dims = dims_of(context.input_type(0));
  if (dims.empty()) return std::nullopt;
  const auto rank = static_cast<std::int64_t>(dims.size());
  if (attrs.axis < -rank || attrs.axis >= rank) return std::nullopt;
  const std::int64_t axis = attrs.axis < 0 ? attrs.axis + rank : attrs.axis;
  const std::int64_t size = element_count(std::span(dims).subspan(static_cast<std::size_t>(axis)));
  if (!attrs.flattens && size != dims[static_cast<std::size_t>(axis)]) return std::nullopt;
  return size;
}

bool supports_softmax(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && softmax_size(context);
}

Kernel prepare_softmax(const PrepareContext& context) {
  return [size = *softmax_size(context)](KernelContext& call) {
    const Tensor& x = call.required_input(0);
    const float* in = x.data<float>().data();
    float* out = call.output(0, DType::float32, x.dims()).mutable_data<float>().data();
    const std::int64_t block = std::max<std::int64_t>(1, block_elements / size);
    call.pool().parallel_for(x.size() / size, block, [&](std::int64_t begin, std::int64_t end) {
      softmax_loop(in + begin * size, out + begin * size, end - begin, size);
    });
  };
}

// The axes that LayerNormalization normalizes over.
Dims normalized_dims(const PrepareContext& context) {
  const Dims dims = dims_of(context.input_type(0));
  return Dims(dims.begin() + normalize_axis(get_int(context.node(), "axis", -1), dims.size()),
              dims.end());
}

bool supports_layer_norm(const PrepareContext& context) {
  for (std::size_t i = 0; i < context.node().output_count(); ++i)
    if (i > 0 && context.output_type(i)) return false;  // mean, inverse deviation
  if (!is_float_operand(context.input_type(0)) || dims_of(context.input_type(0)).empty())
    return false;
  const Dims row = normalized_dims(context);
  const auto is_row = [&](const Type* type) {
    return is_float_operand(type) && without_leading_ones(dims_of(type), row.size()) == row;
  };
  return is_row(context.input_type(1)) && (!context.input_type(2) || is_row(context.input_type(2)));
}

template <bool is_rms>
Kernel prepare_layer_norm(const PrepareContext& context) {
  const float epsilon = get_float(context.node(), "epsilon", 1e-5f);
  return [size = element_count(normalized_dims(context)), epsilon](KernelContext& call) {
    const Tensor& x = call.required_input(0);
    const float* scale = call.required_input(1).data<float>().data();
    const Tensor* shift = call.input(2);
    const float* bias = shift ? shift->data<float>().data() : nullptr;
    const float* in = x.data<float>().data();
    float* out = call.output(0, DType::float32, x.dims()).mutable_data<float>().data();
    const std::int64_t block = std::max<std::int64_t>(1, block_elements / size);
    call.pool().parallel_for(x.size() / size, block, [&](std::int64_t begin, std::int64_t end) {
      layer_norm_loop(in + begin * size, scale, bias, out + begin * size, end - begin, size,
                      epsilon, is_rms);
    });
  };
}

}  // namespace

OPERATORS(row_kernels) {
  registry.add(KernelDef{.name = "Softmax",
                         .backend = "vector",
                         .supports = supports_softmax,
                         .prepare = prepare_softmax});
  registry.add(KernelDef{.name = "LayerNormalization",
                         .backend = "vector",
                         .supports = supports_layer_norm,
                         .prepare = prepare_layer_norm<false>});
  registry.add(KernelDef{.name = "RMSNormalization",
                         .backend = "vector",
                         .supports = supports_layer_norm,
                         .prepare = prepare_layer_norm<true>});
}

}  // namespace onnxpress
