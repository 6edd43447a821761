// Scatter, ScatterElements, ScatterND, TensorScatter.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

enum class Reduction { none, add, mul, max, min };

Reduction reduction_of(const Node& node) {
  const std::string text = get_string(node, "reduction", "none");
  if (text == "none") return Reduction::none;
  if (text == "add") return Reduction::add;
  if (text == "mul") return Reduction::mul;
  if (text == "max") return Reduction::max;
  if (text == "min") return Reduction::min;
  fail("attribute 'reduction': expected none, add, mul, max or min, found '{}'", text);
}

// Integers wrap around; NaN stays NaN.
template <class T>
T reduce(Reduction reduction, T a, T b) {
  using Wide =
      std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::type_identity<T>>::type;
  if constexpr (std::is_floating_point_v<T>)
    if (std::isnan(a) || std::isnan(b)) return a + b;
  switch (reduction) {
    case Reduction::add:
      return static_cast<T>(static_cast<Wide>(a) + static_cast<Wide>(b));
    case Reduction::mul:
      return static_cast<T>(static_cast<Wide>(a) * static_cast<Wide>(b));
    case Reduction::max:
      return std::max(a, b);
    case Reduction::min:
      return std::min(a, b);
    case Reduction::none:
      break;
  }
  return b;
}

// Booleans are numbers of which a sum or product is true when it is not 0, as NumPy has it.
DType reducible_type(DType type) {
  return type == DType::boolean ? DType::int64 : arithmetic_type(type);
}

// Output 0 is input 0 with runs of `run` elements of input `from`, one after another, written to
// or reduced into the runs that begin at `starts`, in their order.
void write_runs(KernelContext& context, Reduction reduction, std::size_t from,
                const std::vector<std::int64_t>& starts, std::int64_t run) {
  require(context.required_input(from).dtype() == context.required_input(0).dtype(),
          "expected updates of type {}, found {}", name(context.required_input(0).dtype()),
          name(context.required_input(from).dtype()));
  if (reduction == Reduction::none) {
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& updates = inner.required_input(from);
      ElementSink sink(inner, 0, x.dtype(), x.dims());
      sink.put(0, x, 0, x.size());
      for (std::size_t i = 0; i < starts.size(); ++i)
        sink.put(starts[i], updates, static_cast<std::int64_t>(i) * run, run);
      sink.finish();
    });
    return;
  }
  run_as(context, reducible_type, [&](KernelContext& inner) {
    const Tensor& x = inner.required_input(0);
    dispatch_numbers(x.dtype(), [&]<class T>(std::type_identity<T>) {
      const auto values = x.data<T>();
      const T* update = inner.required_input(from).data<T>().data();
      T* y = inner.output(0, x.dtype(), x.dims()).template mutable_data<T>().data();
      std::copy(values.begin(), values.end(), y);
      for (const std::int64_t start : starts)
        for (std::int64_t i = 0; i < run; ++i, ++update)
          y[start + i] = reduce(reduction, y[start + i], *update);
    });
  });
}

// --- ScatterElements ---

Kernel prepare_scatter_elements(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return
      [given = get_int(node, "axis", 0), reduction = reduction_of(node)](KernelContext& context) {
        const Tensor& x = context.required_input(0);
        const Tensor indices = context.required_input(1).cast(DType::int64);
        require(indices.rank() == x.rank() && context.required_input(2).dims() == indices.dims(),
                "expected indices and updates of equal dims and rank {}, found {} and {}", x.rank(),
                to_string(indices.dims()), to_string(context.required_input(2).dims()));
        const auto axis = static_cast<std::size_t>(normalize_axis(given, x.rank()));
        for (std::size_t i = 0; i < x.rank(); ++i)
          require(i == axis || indices.dim(i) <= x.dim(i), "indices {} do not fit into {}",
                  to_string(indices.dims()), to_string(x.dims()));
        const auto strides = row_strides(x.dims());
        const auto chosen = indices.data<std::int64_t>();
        std::vector<std::int64_t> starts(chosen.size());
        Dims at(x.rank(), 0);
        for (std::size_t i = 0; i < starts.size(); ++i) {
          starts[i] = checked_index(chosen[i], x.dim(axis)) * strides[axis];
          for (std::size_t k = 0; k < at.size(); ++k)
            if (k != axis) starts[i] += at[k] * strides[k];
          for (std::size_t k = at.size(); k-- > 0 && ++at[k] == indices.dim(k);) at[k] = 0;
        }
        write_runs(context, reduction, 2, starts, 1);
      };
}

// --- ScatterND ---

Kernel prepare_scatter_nd(const PrepareContext& prepare) {
  return [reduction = reduction_of(prepare.node())](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const Tensor indices = context.required_input(1).cast(DType::int64);
    require(indices.rank() >= 1 && indices.dims().back() <= static_cast<std::int64_t>(x.rank()),
            "indices {} do not index {}", to_string(indices.dims()), to_string(x.dims()));
    const auto depth = static_cast<std::size_t>(indices.dims().back());
    Dims expected(indices.dims().begin(), indices.dims().end() - 1);
    const std::int64_t tuples = element_count(expected);
    expected.insert(expected.end(), x.dims().begin() + static_cast<std::ptrdiff_t>(depth),
                    x.dims().end());
    require(context.required_input(2).dims() == expected, "expected updates {}, found {}",
            to_string(expected), to_string(context.required_input(2).dims()));
    const auto strides = row_strides(x.dims());
    const std::int64_t* tuple = indices.data<std::int64_t>().data();
    std::vector<std::int64_t> starts(static_cast<std::size_t>(tuples), 0);
    for (std::int64_t& start : starts)
      for (std::size_t k = 0; k < depth; ++k)
        start += checked_index(*tuple++, x.dim(k)) * strides[k];
    write_runs(context, reduction, 2, starts, element_count(std::span(x.dims()).subspan(depth)));
  };
}

// --- TensorScatter ---

bool is_circular(const Node& node) {
  const std::string mode = get_string(node, "mode", "linear");
  require(mode == "linear" || mode == "circular",
          "attribute 'mode': expected linear or circular, found '{}'", mode);
  return mode == "circular";
}

std::size_t sequence_axis(std::int64_t given, std::size_t rank) {
  const std::int64_t axis = normalize_axis(given, rank);
  require(axis > 0, "expected a sequence axis behind the batch axis, found axis 0");
  return static_cast<std::size_t>(axis);
}

Kernel prepare_tensor_scatter(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return [given = get_int(node, "axis", -2), circular = is_circular(node)](KernelContext& context) {
    const Tensor& cache = context.required_input(0);
    const Tensor& update = context.required_input(1);
    const std::size_t axis = sequence_axis(given, cache.rank());
    Dims expected = cache.dims();
    if (update.rank() == cache.rank()) expected[axis] = std::min(expected[axis], update.dim(axis));
    require(update.dims() == expected, "expected an update that fits into {}, found {}",
            to_string(cache.dims()), to_string(update.dims()));
    const std::int64_t batch = cache.dim(0), capacity = cache.dim(axis), count = update.dim(axis);
    std::vector<std::int64_t> first(static_cast<std::size_t>(batch), 0);
    if (const Tensor* indices = context.input(2)) {
      require(indices->dims() == Dims{batch}, "expected write indices [{}], found {}", batch,
              to_string(indices->dims()));
      first = indices->to_ints();
    }
    const std::span<const std::int64_t> dims = cache.dims();
    const std::int64_t run = element_count(dims.subspan(axis + 1));
    const std::int64_t per_sample = element_count(dims.subspan(1).first(axis - 1));
    std::vector<std::int64_t> starts;
    for (std::int64_t b = 0; b < batch; ++b) {
      std::int64_t at = first[static_cast<std::size_t>(b)];
      if (circular && capacity > 0) at = (at % capacity + capacity) % capacity;
      require(at >= 0 && at <= capacity - (circular ? 0 : count),
              "cannot write {} steps from index {} on into a cache of {}", count, at, capacity);
      for (std::int64_t row = b * per_sample; row < (b + 1) * per_sample; ++row)
        for (std::int64_t step = 0; step < count; ++step)
          starts.push_back((row * capacity + (at + step) % capacity) * run);
    }
    write_runs(context, Reduction::none, 1, starts, run);
  };
}

void infer_tensor_scatter(InferContext& context) {
  is_circular(context.node());
  if (const Shape* cache = context.input_shape(0))
    sequence_axis(get_int(context.node(), "axis", -2), cache->size());
  infer_same_as_first(context);
}

void infer_scatter(InferContext& context) {
  reduction_of(context.node());
  infer_same_as_first(context);
}

}  // namespace

OPERATORS(scatter) {
  registry.add(OpDef{.name = "Scatter",
                     .since = 9,
                     .until = 10,
                     .infer = infer_scatter,
                     .prepare = prepare_scatter_elements});
  registry.add(OpDef{.name = "ScatterElements",
                     .since = 11,
                     .infer = infer_scatter,
                     .prepare = prepare_scatter_elements});
  registry.add(OpDef{
      .name = "ScatterND", .since = 11, .infer = infer_scatter, .prepare = prepare_scatter_nd});
  registry.add(OpDef{.name = "TensorScatter",
                     .since = 24,
                     .infer = infer_tensor_scatter,
                     .prepare = prepare_tensor_scatter});
}

}  // namespace onnxpress
