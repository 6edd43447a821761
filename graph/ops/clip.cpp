#include "graph/ops/clip.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/constant.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T>
T bound(const KernelContext& context, std::size_t index, const std::optional<float>& attribute,
        T otherwise) {
  if (const Tensor* tensor = context.input(index)) {
    require(tensor->size() == 1, "expected a scalar bound, found {}", to_string(tensor->dims()));
    return tensor->data<T>()[0];
  }
  return attribute ? static_cast<T>(*attribute) : otherwise;
}

Kernel prepare_clip(const PrepareContext& plan) {
  const auto low = find_float(plan.node(), "min");
  const auto high = find_float(plan.node(), "max");
  return [=](KernelContext& context) {
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      dispatch_numbers(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T least = bound<T>(inner, 1, low, std::numeric_limits<T>::lowest());
        const T most = bound<T>(inner, 2, high, std::numeric_limits<T>::max());
        const bool open_low = inner.input(1) == nullptr && !low;
        const bool open_high = inner.input(2) == nullptr && !high;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        inner.pool().parallel_for(x.size(), 16384, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            T value = in[i];
            if (!open_low && value < least) value = least;
            if (!open_high && value > most) value = most;  // NaN stays, and max wins over min
            out[i] = value;
          }
        });
      });
    });
  };
}

}  // namespace

std::optional<ClipBounds> ClipBounds::from(const Node& node) {
  ClipBounds bounds{-infinity, infinity};
  if (const auto low = find_float(node, "min")) bounds.low = *low;
  if (const auto high = find_float(node, "max")) bounds.high = *high;
  double* const targets[] = {&bounds.low, &bounds.high};
  for (std::size_t i = 0; i < 2; ++i) {
    if (node.input(i + 1) == nullptr) continue;
    const auto tensor = constant_contents(node.input(i + 1));
    if (!tensor || tensor->size() != 1) return std::nullopt;
    *targets[i] = tensor->cast(DType::float64).data<double>()[0];
  }
  return bounds;
}

OpCall make_clip(std::int64_t opset, DType type, double low, double high) {
  OpCall call{.op_type = "Clip"};
  const bool has_low = low != -infinity;
  const bool has_high = high != infinity;
  if (opset < 11) {
    if (has_low) call.attributes["min"] = low;
    if (has_high) call.attributes["max"] = high;
    return call;
  }
  if (has_low || has_high)
    call.constants.push_back(has_low ? Tensor::scalar(low).cast(type) : Tensor());
  if (has_high) call.constants.push_back(Tensor::scalar(high).cast(type));
  return call;
}

OPERATORS(clip) {
  registry.add(OpDef{.name = "Clip",
                     .infer = infer_same_as_first,
                     .prepare = prepare_clip,
                     .axes = broadcast_axes});
}

}  // namespace onnxpress
