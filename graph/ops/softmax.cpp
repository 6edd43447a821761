#include "graph/ops/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

enum class Kind { softmax, log_softmax, hardmax };

template <Kind kind, class T>
void one_row(const T* in, T* out, std::int64_t size, std::int64_t step) {
  std::int64_t best = 0;
  for (std::int64_t k = 1; k < size; ++k)
    if (in[k * step] > in[best * step]) best = k;
  if (kind == Kind::hardmax) {
    for (std::int64_t k = 0; k < size; ++k) out[k * step] = T(k == best);
    return;
  }
  // Rows of nothing but -inf give NaN, as the formula does.
  const T largest = in[best * step];
  double sum = 0;
  for (std::int64_t k = 0; k < size; ++k) {
    const T e = std::exp(in[k * step] - largest);
    if (kind == Kind::softmax) out[k * step] = e;
    sum += e;
  }
  const T scale = static_cast<T>(kind == Kind::softmax ? 1 / sum : std::log(sum));
  for (std::int64_t k = 0; k < size; ++k) {
    if (kind == Kind::softmax)
      out[k * step] *= scale;
    else
      out[k * step] = in[k * step] - largest - scale;
  }
}

template <Kind kind>
Kernel prepare_softmax(const PrepareContext& prepare) {
  return [attrs = SoftmaxAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      if (x.size() == 0) return;
      const auto [size, step] = attrs.rows(x.dims());
      const std::int64_t rows = x.size() / size;
      dispatch_floats(x.dtype(), [&, size = size, step = step](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        const std::int64_t block = std::max<std::int64_t>(1, 4096 / size);
        inner.pool().parallel_for(rows, block, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t row = begin; row < end; ++row) {
            const std::int64_t start = row / step * size * step + row % step;
            one_row<kind>(in + start, out + start, size, step);
          }
        });
      });
    });
  };
}

// What is normalized has no axis of the output.
OperandAxes softmax_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape || x->type.shape->empty()) return axes;
  const SoftmaxAttrs attrs = SoftmaxAttrs::from(node);
  const auto rank = static_cast<std::int64_t>(x->type.shape->size());
  const std::int64_t along =
      attrs.flattens && attrs.axis == rank ? rank : normalize_axis(attrs.axis, x->type.shape->size());
  for (std::int64_t i = 0; i < rank; ++i) {
    const bool is_kept = attrs.flattens ? i < along : i != along;
    axes[0].push_back(is_kept ? AxisRole{.kind = AxisRole::Kind::output, .output_axis = i} : AxisRole{});
  }
  return axes;
}

}  // namespace

std::optional<Attributes> SoftmaxAttrs::along(std::int64_t opset, std::int64_t axis,
                                              std::optional<std::size_t> rank) {
  Attributes attributes;
  if (opset < 13) {
    if (axis != -1 || !rank) return std::nullopt;
    attributes["axis"] = static_cast<std::int64_t>(*rank) - 1;
  } else {
    attributes["axis"] = axis;
  }
  return attributes;
}

SoftmaxAttrs::Rows SoftmaxAttrs::rows(const Dims& dims) const {
  const auto rank = static_cast<std::int64_t>(dims.size());
  if (flattens && axis == rank) return {};
  if (dims.empty()) return {};
  const auto at = static_cast<std::size_t>(normalize_axis(axis, dims.size()));
  const std::span<const std::int64_t> all = dims;
  if (flattens) return {.size = element_count(all.subspan(at))};
  return {.size = dims[at], .step = element_count(all.subspan(at + 1))};
}

SoftmaxAttrs SoftmaxAttrs::from(const Node& node) {
  const bool flattens = node.opset() < 13;
  return {.axis = get_int(node, "axis", flattens ? 1 : -1), .flattens = flattens};
}

OPERATORS(softmax) {
  registry.add(OpDef{.name = "Softmax",
                     .infer = infer_same_as_first,
                     .prepare = prepare_softmax<Kind::softmax>,
                     .axes = softmax_axes});
  registry.add(OpDef{.name = "LogSoftmax",
                     .infer = infer_same_as_first,
                     .prepare = prepare_softmax<Kind::log_softmax>,
                     .axes = softmax_axes});
  registry.add(OpDef{.name = "Hardmax",
                     .infer = infer_same_as_first,
                     .prepare = prepare_softmax<Kind::hardmax>,
                     .axes = softmax_axes});
}

}  // namespace onnxpress
