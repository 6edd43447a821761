#include "graph/ops/reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/constant.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

// Accumulators: floats sum in double, integers in themselves.
template <class T>
using Wide = std::conditional_t<std::is_floating_point_v<T>, double, T>;

template <class T>
struct Sum {
  Wide<T> total = 0;
  void add(T x) { total += static_cast<Wide<T>>(x); }
  T result(std::int64_t) const { return static_cast<T>(total); }
};
template <class T>
struct Mean : Sum<T> {
  T result(std::int64_t count) const {
    return count == 0 ? T(0) : static_cast<T>(this->total / static_cast<Wide<T>>(count));
  }
};
template <class T>
struct Largest {
  T best = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                : std::numeric_limits<T>::lowest();
  void add(T x) {
    if (x > best || x != x) best = x;
  }
  T result(std::int64_t) const { return best; }
};
template <class T>
struct Smallest {
  T best = std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity()
                                                : std::numeric_limits<T>::max();
  void add(T x) {
    if (x < best || x != x) best = x;
  }
  T result(std::int64_t) const { return best; }
};
template <class T>
struct Product {
  Wide<T> total = 1;
  void add(T x) { total *= static_cast<Wide<T>>(x); }
  T result(std::int64_t) const { return static_cast<T>(total); }
};
template <class T>
struct L1 : Sum<T> {
  void add(T x) { this->total += static_cast<Wide<T>>(x < 0 ? T(0) - x : x); }
};
template <class T>
struct SumSquare : Sum<T> {
  void add(T x) { this->total += static_cast<Wide<T>>(x) * static_cast<Wide<T>>(x); }
};
template <class T>
struct L2 : SumSquare<T> {
  T result(std::int64_t) const {
    return static_cast<T>(std::sqrt(static_cast<double>(this->total)));
  }
};
template <class T>
struct LogSum : Sum<T> {
  T result(std::int64_t) const {
    return static_cast<T>(std::log(static_cast<double>(this->total)));
  }
};
template <class T>
struct LogSumExp {
  double largest = -std::numeric_limits<double>::infinity();
  double sum = 0;  // of exp(x - largest)
  void add(T element) {
    const double x = static_cast<double>(element);
    if (x == -std::numeric_limits<double>::infinity()) return;
    if (x > largest) {
      sum = sum * std::exp(largest - x) + 1;
      largest = x;
    } else {
      sum += std::exp(x - largest);
    }
  }
  T result(std::int64_t) const { return static_cast<T>(largest + std::log(sum)); }
};

// The axes of a tensor sorted into those kept and those reduced, neighbours of a kind merged.
struct Walk {
  struct Axis {
    std::int64_t size, stride;
  };
  std::vector<Axis> kept, reduced;

  Walk(const Dims& dims, const std::vector<std::int64_t>& axes) {
    const auto strides = row_strides(dims);
    const std::vector<Axis>* previous = nullptr;
    for (std::size_t i = 0; i < dims.size(); ++i) {
      auto& group = std::ranges::binary_search(axes, static_cast<std::int64_t>(i)) ? reduced : kept;
      if (dims[i] == 1) continue;
      if (previous == &group)
        group.back() = {group.back().size * dims[i], strides[i]};
      else
        group.push_back({dims[i], strides[i]});
      previous = &group;
    }
    if (reduced.empty()) reduced.push_back({1, 1});
  }

  static std::int64_t count(const std::vector<Axis>& axes) {
    return std::accumulate(
        axes.begin(), axes.end(), std::int64_t{1},
        [](std::int64_t product, const Axis& axis) { return product * axis.size; });
  }
  static std::int64_t offset(std::span<const Axis> axes, std::int64_t index) {
    std::int64_t sum = 0;
    for (std::size_t i = axes.size(); i-- > 0; index /= axes[i].size)
      sum += index % axes[i].size * axes[i].stride;
    return sum;
  }
};

template <template <class> class Accumulator, class T>
void reduce(ThreadPool& pool, const Walk& walk, const T* in, T* out, std::int64_t outputs) {
  const std::int64_t total = Walk::count(walk.reduced);
  const Walk::Axis inner = walk.reduced.back();
  const std::span<const Walk::Axis> outer = std::span(walk.reduced).first(walk.reduced.size() - 1);
  const std::int64_t runs = inner.size == 0 ? 0 : total / inner.size;
  const std::int64_t block = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, total));
  pool.parallel_for(outputs, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* base = in + Walk::offset(walk.kept, i);
      Accumulator<T> sum;
      for (std::int64_t run = 0; run < runs; ++run) {
        const T* from = base + Walk::offset(outer, run);
        for (std::int64_t k = 0; k < inner.size; ++k) sum.add(from[k * inner.stride]);
      }
      out[i] = sum.result(total);
    }
  });
}

DType reduce_type(DType type) {
  return type == DType::boolean ? DType::uint64 : arithmetic_type(type);
}

std::vector<std::int64_t> axes_of(const KernelContext& context, const ReduceAttrs& attrs,
                                  std::size_t rank) {
  std::vector<std::int64_t> axes;
  if (const Tensor* input = context.input(1))
    axes = input->to_ints();
  else if (attrs.axes)
    axes = *attrs.axes;
  return ReduceAttrs::effective(axes, attrs.noop_with_empty_axes, rank);
}

template <template <class> class Accumulator>
Kernel prepare_reduce(const PrepareContext& prepare) {
  return [attrs = ReduceAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, reduce_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const auto axes = axes_of(inner, attrs, x.rank());
      Tensor& y = inner.output(0, x.dtype(), reduced_dims(x.dims(), axes, attrs.keepdims));
      dispatch_numbers(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        reduce<Accumulator, T>(inner.pool(), Walk(x.dims(), axes), x.data<T>().data(),
                               y.mutable_data<T>().data(), y.size());
      });
    });
  };
}

void infer_reduce(InferContext& context) {
  ReduceAttrs attrs = ReduceAttrs::from(context.node());
  if (context.has_input(1)) attrs.axes = context.input_ints(1);
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (x != nullptr && attrs.axes)
    shape =
        reduced_dims(*x, ReduceAttrs::effective(*attrs.axes, attrs.noop_with_empty_axes, x->size()),
                     attrs.keepdims);
  else if (x != nullptr && attrs.keepdims)
    shape = Shape(x->size());
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes reduce_axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const ReduceAttrs attrs = ReduceAttrs::from(node);
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape || !attrs.axes) return roles;
  const std::size_t rank = x->type.shape->size();
  const auto axes = ReduceAttrs::effective(*attrs.axes, attrs.noop_with_empty_axes, rank);
  roles[0] = reduced_roles(rank, axes, attrs.keepdims);
  return roles;
}

struct ArgAttrs {
  std::int64_t axis;
  bool keepdims, last, smallest;

  static ArgAttrs from(const Node& node) {
    return {get_int(node, "axis", 0), get_bool(node, "keepdims", true),
            get_bool(node, "select_last_index", false), node.is("ArgMin")};
  }
};

Kernel prepare_arg(const PrepareContext& prepare) {
  return [attrs = ArgAttrs::from(prepare.node())](KernelContext& context) {
    run_as(
        context, arithmetic_type,
        [&](KernelContext& inner) {
          const Tensor& x = inner.required_input(0);
          const auto axis = static_cast<std::size_t>(normalize_axis(attrs.axis, x.rank()));
          const Dims dims =
              reduced_dims(x.dims(), {static_cast<std::int64_t>(axis)}, attrs.keepdims);
          const std::int64_t size = x.dim(axis);
          require(size > 0, "expected an axis that is not empty, found {}", to_string(x.dims()));
          const std::int64_t step = row_strides(x.dims())[axis];
          Tensor& y = inner.output(0, DType::int64, dims);
          std::int64_t* out = y.mutable_data<std::int64_t>().data();
          dispatch_numbers(x.dtype(), [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T* in = x.data<T>().data();
            for (std::int64_t i = 0; i < y.size(); ++i) {
              const T* base = in + i / step * size * step + i % step;
              std::int64_t best = 0;
              for (std::int64_t k = 1; k < size; ++k) {
                const T candidate = base[k * step];
                const T holder = base[best * step];
                const bool better = attrs.smallest ? candidate < holder : candidate > holder;
                if (better || (attrs.last && candidate == holder)) best = k;
              }
              out[i] = best;
            }
          });
        },
        ConvertedOutputs::none);
  };
}

void infer_arg(InferContext& context) {
  const ArgAttrs attrs = ArgAttrs::from(context.node());
  std::optional<Shape> shape;
  if (const Shape* x = context.input_shape(0))
    shape = reduced_dims(*x, {normalize_axis(attrs.axis, x->size())}, attrs.keepdims);
  context.set_output(0, DType::int64, std::move(shape));
}

}  // namespace

ReduceAttrs ReduceAttrs::from(const Node& node) {
  ReduceAttrs attrs{.axes = get_ints(node, "axes"),
                    .keepdims = get_bool(node, "keepdims", true),
                    .noop_with_empty_axes = get_bool(node, "noop_with_empty_axes", false)};
  if (node.input(1) != nullptr) attrs.axes = constant_ints(node.input(1));
  return attrs;
}

std::vector<std::int64_t> ReduceAttrs::effective(const std::vector<std::int64_t>& axes, bool noop,
                                                 std::size_t rank) {
  if (!axes.empty() || noop) return normalize_axes(axes, rank);
  std::vector<std::int64_t> all(rank);
  std::iota(all.begin(), all.end(), std::int64_t{0});
  return all;
}

std::vector<AxisRole> reduced_roles(std::size_t rank, const std::vector<std::int64_t>& axes,
                                    bool keepdims) {
  std::vector<AxisRole> roles;
  std::int64_t next = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    const bool reduced = std::ranges::binary_search(axes, static_cast<std::int64_t>(i));
    roles.push_back(reduced ? AxisRole{.kind = AxisRole::Kind::reduced}
                            : AxisRole{.kind = AxisRole::Kind::output, .output_axis = next});
    next += !reduced || keepdims;
  }
  return roles;
}

Tensor reduce_sum(ThreadPool& pool, const Tensor& x, const std::vector<std::int64_t>& axes,
                  bool keepdims) {
  Tensor y = Tensor::uninitialized(DType::float64, reduced_dims(x.dims(), axes, keepdims));
  reduce<Sum, double>(pool, Walk(x.dims(), axes), x.data<double>().data(),
                      y.mutable_data<double>().data(), y.size());
  return y;
}

OpCall make_reduce(std::string op_type, std::int64_t opset, std::vector<std::int64_t> axes,
                   bool keepdims) {
  OpCall call{.op_type = std::move(op_type)};
  call.attributes["keepdims"] = keepdims;
  if (opset >= 18 || (opset >= 13 && call.op_type == "ReduceSum"))
    call.constants.push_back(
        Tensor::of<std::int64_t>({static_cast<std::int64_t>(axes.size())}, axes));
  else
    call.attributes["axes"] = std::move(axes);
  return call;
}

OPERATORS(reduce) {
  const auto add = [&](const char* op, auto prepare) {
    registry.add(OpDef{.name = op, .infer = infer_reduce, .prepare = prepare, .axes = reduce_axes});
  };
  add("ReduceSum", prepare_reduce<Sum>);
  add("ReduceMean", prepare_reduce<Mean>);
  add("ReduceMax", prepare_reduce<Largest>);
  add("ReduceMin", prepare_reduce<Smallest>);
  add("ReduceProd", prepare_reduce<Product>);
  add("ReduceL1", prepare_reduce<L1>);
  add("ReduceL2", prepare_reduce<L2>);
  add("ReduceSumSquare", prepare_reduce<SumSquare>);
  add("ReduceLogSum", prepare_reduce<LogSum>);
  add("ReduceLogSumExp", prepare_reduce<LogSumExp>);
  registry.add(OpDef{.name = "ArgMax", .infer = infer_arg, .prepare = prepare_arg});
  registry.add(OpDef{.name = "ArgMin", .infer = infer_arg, .prepare = prepare_arg});
}

}  // namespace onnxpress
