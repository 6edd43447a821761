// Gelu, FastGelu, BiasGelu, QuickGelu and BiasAdd of com.microsoft.
#include <cmath>
#include <numbers>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

enum class Form { exact, tanh, quick, identity };

struct ContribGeluAttrs {
  Form form = Form::exact;
  float alpha = 1.702f;  // quick: x * sigmoid(alpha x)

  static ContribGeluAttrs from(const Node& node) {
    ContribGeluAttrs attrs{.alpha = get_float(node, "alpha", 1.702f)};
    if (node.op_type() == "FastGelu") attrs.form = Form::tanh;
    if (node.op_type() == "QuickGelu") attrs.form = Form::quick;
    if (node.op_type() == "BiasAdd") attrs.form = Form::identity;
    return attrs;
  }

  template <class T>
  T apply(T x) const {
    constexpr T factor = T(std::numbers::inv_sqrtpi * std::numbers::sqrt2);  // sqrt(2 / pi)
    switch (form) {
      case Form::exact:
        return T(0.5) * x * (1 + std::erf(x * T(std::numbers::sqrt2 / 2)));
      case Form::tanh:
        return T(0.5) * x * (1 + std::tanh(factor * (x + T(0.044715) * x * x * x)));
      case Form::quick:
        return x / (1 + std::exp(-static_cast<T>(alpha) * x));
      case Form::identity:
        break;
    }
    return x;
  }
};

// Inputs (X), (X, bias) or (X, bias, skip); the bias belongs to the last axis.
Kernel prepare_contrib_gelu(const PrepareContext& prepare) {
  return [attrs = ContribGeluAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor* bias = inner.input(1);
      const Tensor* skip = inner.input(2);
      require(bias == nullptr || (x.rank() >= 1 && bias->dims() == Dims{x.dims().back()}),
              "expected a bias for the last axis of {}, found {}", to_string(x.dims()),
              bias == nullptr ? "" : to_string(bias->dims()));
      require(skip == nullptr || skip->dims() == x.dims(), "expected a skip input {}, found {}",
              to_string(x.dims()), skip == nullptr ? "" : to_string(skip->dims()));
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      const std::int64_t width = bias != nullptr ? bias->size() : 1;
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const in = x.data<T>().data();
        const T* const b = bias != nullptr ? bias->data<T>().data() : nullptr;
        const T* const s = skip != nullptr ? skip->data<T>().data() : nullptr;
        T* const out = y.mutable_data<T>().data();
        inner.pool().parallel_for(x.size(), 16384, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const T value = attrs.apply(b != nullptr ? in[i] + b[i % width] : in[i]);
            out[i] = s != nullptr ? value + s[i] : value;
          }
        });
      });
    });
  };
}

}  // namespace

OPERATORS(contrib_gelu) {
  for (const char* name : {"Gelu", "FastGelu", "BiasGelu", "QuickGelu", "BiasAdd"})
    registry.add(OpDef{.name = name,
                       .domain = "com.microsoft",
                       .infer = infer_same_as_first,
                       .prepare = prepare_contrib_gelu,
                       .axes = broadcast_axes});
}

}  // namespace onnxpress
