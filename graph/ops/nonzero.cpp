// NonZero, Compress.
#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Which elements are not 0; of strings those that are not empty.
std::vector<bool> nonzero(const Tensor& x) {
  std::vector<bool> result;
  result.reserve(static_cast<std::size_t>(x.size()));
  if (x.dtype() == DType::string) {
    for (const std::string& text : x.strings()) result.push_back(!text.empty());
  } else if (is_complex(x.dtype())) {
    const DType part = x.dtype() == DType::complex64 ? DType::float32 : DType::float64;
    const Tensor parts = Tensor::view(part, {x.size(), 2}, x.bytes(), nullptr).cast(DType::boolean);
    const auto flags = parts.data<bool>();
    for (std::size_t i = 0; i < flags.size(); i += 2) result.push_back(flags[i] || flags[i + 1]);
  } else {
    const Tensor flags = x.cast(DType::boolean);
    result.assign(flags.data<bool>().begin(), flags.data<bool>().end());
  }
  return result;
}

// Of a scalar that is not 0 the output is [0, 1].
Kernel prepare_nonzero(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const std::vector<bool> flags = nonzero(x);
    const std::int64_t count = std::ranges::count(flags, true);
    Tensor& y = context.output(0, DType::int64, {static_cast<std::int64_t>(x.rank()), count});
    std::int64_t* target = y.mutable_data<std::int64_t>().data();
    for (std::size_t i = 0; i < flags.size(); ++i) {
      if (!flags[i]) continue;
      auto rest = static_cast<std::int64_t>(i);
      for (std::size_t axis = x.rank(); axis-- > 0; rest /= x.dim(axis))
        target[static_cast<std::int64_t>(axis) * count] = rest % x.dim(axis);
      ++target;
    }
  };
}

void infer_nonzero(InferContext& context) {
  const Shape* x = context.input_shape(0);
  context.set_output(
      0, DType::int64,
      Shape{x != nullptr ? Dim(static_cast<std::int64_t>(x->size())) : Dim(), Dim()});
}

Kernel prepare_compress(const PrepareContext& prepare) {
  return [given = find_int(prepare.node(), "axis")](KernelContext& context) {
    const Tensor& condition = context.required_input(1);
    require(condition.rank() == 1, "expected a list of conditions, found {}",
            to_string(condition.dims()));
    const auto flags = condition.data<bool>();
    const Tensor& x = context.required_input(0);
    std::size_t axis = 0;
    Dims dims{x.size()};
    if (given) {
      axis = static_cast<std::size_t>(normalize_axis(*given, x.rank()));
      dims = x.dims();
    }
    const std::int64_t size = dims[axis];
    require(condition.size() <= size, "expected at most {} conditions, found {}", size,
            condition.size());
    dims[axis] = std::ranges::count(flags, true);
    const std::int64_t outer = element_count(std::span(dims).first(axis));
    const std::int64_t run = element_count(std::span(dims).subspan(axis + 1));
    ElementSink sink(context, 0, x.dtype(), dims);
    std::int64_t to = 0;
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::size_t i = 0; i < flags.size(); ++i) {
        if (!flags[i]) continue;
        sink.put(to, x, (o * size + static_cast<std::int64_t>(i)) * run, run);
        to += run;
      }
    sink.finish();
  };
}

void infer_compress(InferContext& context) {
  const auto axis = find_int(context.node(), "axis");
  Dim kept;
  if (const Tensor* condition = context.input_value(1);
      condition != nullptr && condition->dtype() == DType::boolean)
    kept = std::ranges::count(condition->data<bool>(), true);
  std::optional<Shape> shape;
  if (!axis) shape = Shape{kept};
  if (const Shape* x = context.input_shape(0); x != nullptr && axis) {
    shape = *x;
    (*shape)[static_cast<std::size_t>(normalize_axis(*axis, x->size()))] = kept;
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

}  // namespace

OPERATORS(nonzero) {
  registry.add(
      OpDef{.name = "NonZero", .since = 9, .infer = infer_nonzero, .prepare = prepare_nonzero});
  registry.add(
      OpDef{.name = "Compress", .since = 9, .infer = infer_compress, .prepare = prepare_compress});
}

}  // namespace onnxpress
