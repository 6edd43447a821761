// OneHot, EyeLike.
#include <algorithm>
#include <cstring>

#include "graph/ops/attributes.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

std::int64_t checked_depth(const Tensor& given) {
  require(given.size() == 1, "expected one depth, found {}", to_string(given.dims()));
  const std::int64_t depth = given.cast(DType::int64).to_ints()[0];
  require(depth >= 0, "expected a depth of at least 0, found {}", depth);
  return depth;
}

// Indices in [-depth, depth) count (before opset 11 only those of [0, depth)); others leave their
// row all off.
Kernel prepare_one_hot(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return [given = get_int(node, "axis", -1), wraps = node.opset() >= 11](KernelContext& context) {
    const Tensor indices = context.required_input(0).cast(DType::int64);
    const std::int64_t depth = checked_depth(context.required_input(1));
    const Tensor& values = context.required_input(2);
    require(values.dims() == Dims{2}, "expected values [off, on], found dims {}",
            to_string(values.dims()));
    Dims dims = indices.dims();
    const std::int64_t axis = normalize_axis(given, indices.rank() + 1);
    dims.insert(dims.begin() + axis, depth);
    const std::int64_t inner =
        element_count(std::span(dims).subspan(static_cast<std::size_t>(axis) + 1));
    const std::int64_t total = element_count(dims);
    const auto chosen = indices.data<std::int64_t>();
    ElementSink sink(context, 0, values.dtype(), dims);
    for (std::int64_t i = 0; i < total; ++i) sink.put(i, values, 0);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      std::int64_t index = chosen[i];
      if (wraps && index < 0 && index >= -depth) index += depth;
      if (index < 0 || index >= depth) continue;
      const auto place = static_cast<std::int64_t>(i);
      sink.put((place / inner * depth + index) * inner + place % inner, values, 1);
    }
    sink.finish();
  };
}

void infer_one_hot(InferContext& context) {
  std::optional<Shape> shape;
  if (const Shape* indices = context.input_shape(0)) {
    shape = *indices;
    Dim depth;
    if (const Tensor* given = context.input_value(1)) depth = checked_depth(*given);
    shape->insert(
        shape->begin() + normalize_axis(get_int(context.node(), "axis", -1), indices->size() + 1),
        depth);
  }
  context.set_output(0, context.input_dtype(2), std::move(shape));
}

DType eye_type(const Node& node, DType input) {
  const auto given = find_int(node, "dtype");
  if (!given) return input;
  const auto type = static_cast<DType>(*given);
  require(is_known(type), "attribute 'dtype': expected an element type, found {}", *given);
  return type;
}

Kernel prepare_eye_like(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return [&node, k = get_int(node, "k", 0)](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    require(x.rank() == 2, "expected a matrix, found {}", to_string(x.dims()));
    const DType type = eye_type(node, x.dtype());
    require(bits(type) >= 8 && !is_complex(type), "element type {} is not supported here",
            name(type));
    const Tensor one = Tensor::scalar(1.0f).cast(type);
    const auto width = one.byte_size();
    Tensor& y = context.output(0, type, x.dims());
    std::byte* target = y.mutable_bytes().data();
    std::fill_n(target, y.byte_size(), std::byte{0});
    const std::int64_t columns = x.dim(1);
    for (std::int64_t row = 0; row < x.dim(0); ++row) {
      std::int64_t column = 0;
      if (__builtin_add_overflow(row, k, &column) || column < 0 || column >= columns) continue;
      std::memcpy(target + static_cast<std::size_t>(row * columns + column) * width,
                  one.bytes().data(), width);
    }
  };
}

void infer_eye_like(InferContext& context) {
  const Shape* x = context.input_shape(0);
  if (x != nullptr) require(x->size() == 2, "expected a matrix, found {}", to_string(*x));
  context.set_output(0, eye_type(context.node(), context.input_dtype(0)),
                     x != nullptr ? *x : Shape(2));
}

}  // namespace

OPERATORS(one_hot) {
  registry.add(
      OpDef{.name = "OneHot", .since = 9, .infer = infer_one_hot, .prepare = prepare_one_hot});
  registry.add(
      OpDef{.name = "EyeLike", .since = 9, .infer = infer_eye_like, .prepare = prepare_eye_like});
}

}  // namespace onnxpress
