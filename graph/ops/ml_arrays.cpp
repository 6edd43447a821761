// ArrayFeatureExtractor, Binarizer (ai.onnx.ml).
#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Elements of the last axis; of a list they are one row.
Kernel prepare_array_feature_extractor(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    require(x.rank() >= 1, "expected at least 1 axis, found a scalar");
    const std::vector<std::int64_t> indices = context.required_input(1).to_ints();
    const std::int64_t size = x.dims().back();
    for (const std::int64_t index : indices)
      require(0 <= index && index < size, "index {} is out of range for {} elements", index, size);
    const auto count = static_cast<std::int64_t>(indices.size());
    Dims dims = x.dims();
    dims.back() = count;
    const std::int64_t rows = element_count(std::span(dims).first(dims.size() - 1));
    if (dims.size() == 1) dims.insert(dims.begin(), 1);
    ElementSink sink(context, 0, x.dtype(), dims);
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t i = 0; i < count; ++i)
        sink.put(row * count + i, x, row * size + indices[static_cast<std::size_t>(i)]);
    sink.finish();
  };
}

void infer_array_feature_extractor(InferContext& context) {
  std::optional<Shape> shape;
  if (const Shape* x = context.input_shape(0)) {
    require(!x->empty(), "expected at least 1 axis, found a scalar");
    const Shape* indices = context.input_shape(1);
    shape = *x;
    shape->back() = indices != nullptr ? product(*indices) : Dim();
    if (shape->size() == 1) shape->insert(shape->begin(), 1);
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

Kernel prepare_binarizer(const PrepareContext& prepare) {
  return [threshold = get_float(prepare.node(), "threshold", 0)](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    dispatch<float, double, std::int32_t, std::int64_t>(
        x.dtype(), [&]<class T>(std::type_identity<T>) {
          const auto from = x.data<T>();
          const auto to = context.output(0, x.dtype(), x.dims()).template mutable_data<T>();
          const auto limit = static_cast<double>(threshold);
          std::ranges::transform(from, to.begin(), [&](T value) {
            return static_cast<T>(static_cast<double>(value) > limit ? 1 : 0);
          });
        });
  };
}

}  // namespace

OPERATORS(ml_arrays) {
  registry.add(OpDef{.name = "ArrayFeatureExtractor",
                     .domain = "ai.onnx.ml",
                     .infer = infer_array_feature_extractor,
                     .prepare = prepare_array_feature_extractor});
  registry.add(OpDef{.name = "Binarizer",
                     .domain = "ai.onnx.ml",
                     .infer = infer_same_as_first,
                     .prepare = prepare_binarizer,
                     .axes = broadcast_axes});
}

}  // namespace onnxpress
