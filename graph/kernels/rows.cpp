// Softmax and layer normalization of float32 rows.
#include "graph/kernels/float_rows.h"

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

Kernel prepare_softmax(const PrepareContext& context) {
  return [size = *softmax_row_size(context)](KernelContext& call) {
    const Tensor& x = call.required_input(0);
    const float* in = x.data<float>().data();
    float* out = call.output(0, DType::float32, x.dims()).mutable_data<float>().data();
    call.pool().parallel_for(x.size() / size, row_block(size), [&](std::int64_t begin, std::int64_t end) {
      softmax_loop(in + begin * size, out + begin * size, end - begin, size);
    });
  };
}

template <bool is_rms>
Kernel prepare_layer_norm(const PrepareContext& context) {
  const float epsilon = get_float(context.node(), "epsilon", 1e-5f);
  return [size = element_count(layer_norm_row(context)), epsilon](KernelContext& call) {
    const Tensor& x = call.required_input(0);
    const float* scale = call.required_input(1).data<float>().data();
    const Tensor* shift = call.input(2);
    const float* bias = shift ? shift->data<float>().data() : nullptr;
    const float* in = x.data<float>().data();
    float* out = call.output(0, DType::float32, x.dims()).mutable_data<float>().data();
    call.pool().parallel_for(x.size() / size, row_block(size), [&](std::int64_t begin, std::int64_t end) {
      layer_norm_loop(in + begin * size, scale, bias, out + begin * size, end - begin, size,
                      epsilon, is_rms);
    });
  };
}

}  // namespace

std::optional<std::int64_t> softmax_row_size(const PrepareContext& context) {
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

bool has_softmax_rows(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && softmax_row_size(context);
}

Dims layer_norm_row(const PrepareContext& context) {
  const Dims dims = dims_of(context.input_type(0));
  return Dims(dims.begin() + normalize_axis(get_int(context.node(), "axis", -1), dims.size()),
              dims.end());
}

bool has_layer_norm_rows(const PrepareContext& context) {
  for (std::size_t i = 0; i < context.node().output_count(); ++i)
    if (i > 0 && context.output_type(i)) return false;  // mean, inverse deviation
  if (!is_float_operand(context.input_type(0)) || dims_of(context.input_type(0)).empty())
    return false;
  const Dims row = layer_norm_row(context);
  const auto is_row = [&](const Type* type) {
    return is_float_operand(type) && without_leading_ones(dims_of(type), row.size()) == row;
  };
  return is_row(context.input_type(1)) && (!context.input_type(2) || is_row(context.input_type(2)));
}

OPERATORS(row_kernels) {
  registry.add(KernelDef{.name = "Softmax",
                         .backend = "vector",
                         .supports = has_softmax_rows,
                         .prepare = prepare_softmax});
  registry.add(KernelDef{.name = "LayerNormalization",
                         .backend = "vector",
                         .supports = has_layer_norm_rows,
                         .prepare = prepare_layer_norm<false>});
  registry.add(KernelDef{.name = "RMSNormalization",
                         .backend = "vector",
                         .supports = has_layer_norm_rows,
                         .prepare = prepare_layer_norm<true>});
}

}  // namespace onnxpress
