// Comparisons, And, Or, Xor, Not, BitwiseNot, Where, IsNaN, IsInf.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

// Comparison and truth functions of two elements.
struct Equal {
  template <class T>
  static bool apply(T a, T b) {
    return a == b;
  }
};
struct Less {
  template <class T>
  static bool apply(T a, T b) {
    return a < b;
  }
};
struct Greater {
  template <class T>
  static bool apply(T a, T b) {
    return a > b;
  }
};
struct LessOrEqual {
  template <class T>
  static bool apply(T a, T b) {
    return a <= b;
  }
};
struct GreaterOrEqual {
  template <class T>
  static bool apply(T a, T b) {
    return a >= b;
  }
};
struct And {
  template <class T>
  static bool apply(T a, T b) {
    return a && b;
  }
};
struct Or {
  template <class T>
  static bool apply(T a, T b) {
    return a || b;
  }
};
struct Xor {
  template <class T>
  static bool apply(T a, T b) {
    return a != b;
  }
};

void equal_strings(const Tensor& a, const Tensor& b, const BroadcastPlan& plan, ThreadPool& pool,
                   bool* out) {
  plan.run(pool, [&](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
      out[start + i] =
          a.strings()[static_cast<std::size_t>(offsets[0] + i * plan.inner_stride(0))] ==
          b.strings()[static_cast<std::size_t>(offsets[1] + i * plan.inner_stride(1))];
  });
}

template <class Op, bool logical>
Kernel prepare_comparison(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      const Tensor& a = inner.required_input(0);
      const Tensor& b = inner.required_input(1);
      const Dims operands[] = {a.dims(), legacy_broadcast_dims(node, a.rank(), b.dims())};
      const Dims dims = broadcast(operands[0], operands[1]);
      bool* out = inner.output(0, DType::boolean, dims).mutable_data<bool>().data();
      const BroadcastPlan plan(dims, operands);
      if (std::is_same_v<Op, Equal> && a.dtype() == DType::string)
        return equal_strings(a, b, plan, inner.pool(), out);
      const auto compare = [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* first = a.data<T>().data();
        const T* second = b.data<T>().data();
        const std::int64_t step_a = plan.inner_stride(0);
        const std::int64_t step_b = plan.inner_stride(1);
        plan.run(inner.pool(),
                 [=](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
                   for (std::int64_t i = 0; i < count; ++i)
                     out[start + i] =
                         Op::apply(first[offsets[0] + i * step_a], second[offsets[1] + i * step_b]);
                 });
      };
      if constexpr (logical)
        dispatch<bool>(a.dtype(), compare);
      else
        dispatch<float, double, std::int64_t, std::uint64_t, bool>(a.dtype(), compare);
    });
  };
}

void infer_comparison(InferContext& context) {
  const Shape* a = context.input_shape(0);
  const Shape* b = context.input_shape(1);
  std::optional<Shape> shape;
  if (a != nullptr && context.node().opset() < 7)
    shape = *a;
  else if (a != nullptr && b != nullptr)
    shape = broadcast(*a, *b);
  context.set_output(0, DType::boolean, std::move(shape));
}

Kernel prepare_not(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const auto in = x.data<bool>();
    const auto out = context.output(0, DType::boolean, x.dims()).mutable_data<bool>();
    for (std::size_t i = 0; i < in.size(); ++i) out[i] = !in[i];
  };
}

Kernel prepare_bitwise_not(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    require(is_integer(x.dtype()), "element type {} is not supported here", name(x.dtype()));
    const auto in = x.bytes();
    const auto out = context.output(0, x.dtype(), x.dims()).mutable_bytes();
    for (std::size_t i = 0; i < in.size(); ++i) out[i] = ~in[i];
  };
}

template <class Test>
void classify(KernelContext& context, Test test) {
  run_as(
      context, float_compute_type,
      [&](KernelContext& inner) {
        const Tensor& x = inner.required_input(0);
        const auto out = inner.output(0, DType::boolean, x.dims()).mutable_data<bool>();
        dispatch_floats(x.dtype(), [&](auto tag) {
          const auto in = x.data<typename decltype(tag)::type>();
          for (std::size_t i = 0; i < in.size(); ++i) out[i] = test(in[i]);
        });
      },
      ConvertedOutputs::none);
}

Kernel prepare_is_nan(const PrepareContext&) {
  return [](KernelContext& context) { classify(context, [](auto x) { return std::isnan(x); }); };
}

Kernel prepare_is_inf(const PrepareContext& plan) {
  const bool negative = get_bool(plan.node(), "detect_negative", true);
  const bool positive = get_bool(plan.node(), "detect_positive", true);
  return [=](KernelContext& context) {
    classify(context, [=](auto x) { return std::isinf(x) && (x > 0 ? positive : negative); });
  };
}

void infer_boolean(InferContext& context) {
  const Shape* shape = context.input_shape(0);
  context.set_output(0, DType::boolean, shape != nullptr ? std::optional(*shape) : std::nullopt);
}

template <class T>
void select(const BroadcastPlan& plan, ThreadPool& pool, const bool* condition, const void* yes,
            const void* no, void* target) {
  const std::int64_t steps[] = {plan.inner_stride(0), plan.inner_stride(1), plan.inner_stride(2)};
  plan.run(pool, [=](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
    const bool* choice = condition + offsets[0];
    const T* a = static_cast<const T*>(yes) + offsets[1];
    const T* b = static_cast<const T*>(no) + offsets[2];
    T* out = static_cast<T*>(target) + start;
    for (std::int64_t i = 0; i < count; ++i)
      out[i] = choice[i * steps[0]] ? a[i * steps[1]] : b[i * steps[2]];
  });
}

Kernel prepare_where(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& condition = context.required_input(0);
    const Tensor& yes = context.required_input(1);
    const Tensor& no = context.required_input(2);
    require(yes.dtype() == no.dtype(), "expected branches of one element type, found {} and {}",
            name(yes.dtype()), name(no.dtype()));
    const Dims operands[] = {condition.dims(), yes.dims(), no.dims()};
    const Dims dims = broadcast(broadcast(operands[0], operands[1]), operands[2]);
    const BroadcastPlan plan(dims, operands);
    const bool* choice = condition.data<bool>().data();
    if (yes.dtype() == DType::string) {
      std::vector<std::string> chosen(static_cast<std::size_t>(element_count(dims)));
      plan.run(context.pool(),
               [&](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
                 for (std::int64_t i = 0; i < count; ++i) {
                   const std::size_t branch = choice[offsets[0] + i * plan.inner_stride(0)] ? 1 : 2;
                   chosen[static_cast<std::size_t>(start + i)] =
                       (branch == 1 ? yes : no)
                           .strings()[static_cast<std::size_t>(offsets[branch] +
                                                               i * plan.inner_stride(branch))];
                 }
               });
      return context.forward_output(0, Tensor::of_strings(dims, std::move(chosen)));
    }
    Tensor& out = context.output(0, yes.dtype(), dims);
    void* target = out.mutable_bytes().data();
    const auto run = [&](auto tag) {
      select<decltype(tag)>(plan, context.pool(), choice, yes.aligned_bytes(), no.aligned_bytes(),
                            target);
    };
    switch (bits(yes.dtype())) {
      case 8:
        return run(std::uint8_t{});
      case 16:
        return run(std::uint16_t{});
      case 32:
        return run(std::uint32_t{});
      case 64:
        return run(std::uint64_t{});
      default:
        fail("element type {} is not supported here", name(yes.dtype()));
    }
  };
}

void infer_where(InferContext& context) {
  DType type = context.input_dtype(1);
  if (type == DType::undefined) type = context.input_dtype(2);
  std::optional<Shape> shape;
  const Shape* parts[] = {context.input_shape(0), context.input_shape(1), context.input_shape(2)};
  if (parts[0] != nullptr && parts[1] != nullptr && parts[2] != nullptr)
    shape = broadcast(broadcast(*parts[0], *parts[1]), *parts[2]);
  context.set_output(0, type, std::move(shape));
  // A shape computation: Expand's target with -1 replaced, and the like.
  const Tensor* condition = context.input_value(0);
  const auto yes = context.input_symbolic(1);
  const auto no = context.input_symbolic(2);
  if (condition == nullptr || !yes || !no || yes->empty() || no->empty()) return;
  const auto choices = condition->data<bool>();
  Shape contents(std::max({choices.size(), yes->size(), no->size()}));
  for (std::size_t i = 0; i < contents.size(); ++i) {
    if (choices.size() != 1 && choices.size() != contents.size()) return;
    const Shape& branch = choices[choices.size() == 1 ? 0 : i] ? *yes : *no;
    if (branch.size() != 1 && branch.size() != contents.size()) return;
    contents[i] = branch[branch.size() == 1 ? 0 : i];
  }
  context.set_output_symbolic(0, std::move(contents));
}

}  // namespace

OPERATORS(elementwise_logic) {
  const auto add = [&](const char* op, auto prepare,
                       void (*infer)(InferContext&) = infer_comparison, std::int64_t since = 1) {
    registry.add(OpDef{
        .name = op, .since = since, .infer = infer, .prepare = prepare, .axes = broadcast_axes});
  };
  add("Equal", prepare_comparison<Equal, false>);
  add("Less", prepare_comparison<Less, false>);
  add("Greater", prepare_comparison<Greater, false>);
  add("LessOrEqual", prepare_comparison<LessOrEqual, false>, infer_comparison, 12);
  add("GreaterOrEqual", prepare_comparison<GreaterOrEqual, false>, infer_comparison, 12);
  add("And", prepare_comparison<And, true>);
  add("Or", prepare_comparison<Or, true>);
  add("Xor", prepare_comparison<Xor, true>);
  add("Not", prepare_not, infer_boolean);
  add("BitwiseNot", prepare_bitwise_not, infer_same_as_first, 18);
  add("IsNaN", prepare_is_nan, infer_boolean, 9);
  add("IsInf", prepare_is_inf, infer_boolean, 10);
  add("Where", prepare_where, infer_where, 9);
}

}  // namespace onnxpress
