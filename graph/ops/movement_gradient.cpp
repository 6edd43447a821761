// Gradients of operators that move elements: every element of the result is one of an input's or a
// constant.
#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/concat_split.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/gather.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/pieces.h"
#include "graph/ops/slice.h"
#include "graph/ops/transpose.h"

namespace onnxpress {
namespace {

// Reshape and its like: the same elements.
BackwardKernel prepare_view(const PrepareContext&) {
  return [](BackwardContext& context) {
    context.forward_gradient(0, context.required_gradient(0).reshaped(context.input_dims(0)));
  };
}

BackwardKernel prepare_cast(const PrepareContext&) {
  return [](BackwardContext& context) {
    context.forward_gradient(0, context.required_gradient(0).cast(context.input_dtype(0)));
  };
}

BackwardKernel prepare_transpose(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const auto permutation = transpose_permutation(node, dy.rank());
    std::vector<std::int64_t> inverse(permutation.size());
    for (std::size_t i = 0; i < permutation.size(); ++i)
      inverse[static_cast<std::size_t>(permutation[i])] = static_cast<std::int64_t>(i);
    transpose_into(context.pool(), dy, inverse, context.gradient(0));
  };
}

// Expand: what the elements were broadcast to is summed.
BackwardKernel prepare_expand(const PrepareContext&) {
  return [](BackwardContext& context) { put_sum(context, 0, context.required_gradient(0)); };
}

BackwardKernel prepare_concat(const PrepareContext& plan) {
  return [given = concat_axis(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const auto axis = static_cast<std::size_t>(normalize_axis(given, dy.rank()));
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < context.input_count(); ++i) {
      const std::int64_t size = context.input_dims(i)[axis];
      if (context.wants_gradient(i)) context.forward_gradient(i, take(dy, axis, begin, size));
      begin += size;
    }
  };
}

BackwardKernel prepare_split(const PrepareContext& plan) {
  return [axis = get_int(plan.node(), "axis", 0), &node = plan.node()](BackwardContext& context) {
    Tensor& dx = context.gradient(0);
    std::ranges::fill(dx.mutable_bytes(), std::byte{0});
    const Dims& dims = dx.dims();
    const auto along = static_cast<std::size_t>(normalize_axis(axis, dims.size()));
    std::vector<std::int64_t> sizes;
    if (const auto given = find_ints(node, "split"))
      sizes = *given;
    else if (const Tensor* input = context.input(1))
      sizes = input->to_ints();
    else
      sizes = equal_parts(dims[along], node.output_count(), false);
    const std::int64_t outer = element_count(std::span(dims).first(along));
    const std::int64_t inner = element_count(std::span(dims).subspan(along + 1));
    dispatch_floats(dx.dtype(), [&]<class T>(std::type_identity<T>) {
      T* const out = dx.mutable_data<T>().data();
      std::int64_t begin = 0;
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        if (const Tensor* dy = context.output_gradient(i)) {
          const T* const in = dy->data<T>().data();
          const std::int64_t run = sizes[i] * inner;
          for (std::int64_t o = 0; o < outer; ++o)
            std::copy_n(in + o * run, run, out + (o * dims[along] + begin) * inner);
        }
        begin += sizes[i];
      }
    });
  };
}

// Rows that were taken several times get the sum.
BackwardKernel prepare_gather(const PrepareContext& plan) {
  return [given = gather_axis(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const std::vector<std::int64_t> indices = context.required_input(1).to_ints();
    Tensor& dx = context.gradient(0);
    const Dims& dims = dx.dims();
    const auto axis = static_cast<std::size_t>(normalize_axis(given, dims.size()));
    const std::int64_t outer = element_count(std::span(dims).first(axis));
    const std::int64_t inner = element_count(std::span(dims).subspan(axis + 1));
    dispatch_floats(dx.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* from = dy.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      std::fill_n(out, dx.size(), T(0));
      for (std::int64_t o = 0; o < outer; ++o)
        for (const std::int64_t index : indices) {
          T* to = out + (o * dims[axis] + checked_index(index, dims[axis])) * inner;
          for (std::int64_t i = 0; i < inner; ++i) to[i] += *from++;
        }
    });
  };
}

// Runs of what a slice keeps go back to where they were.
BackwardKernel prepare_slice(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const SliceAttrs slice = SliceAttrs::of_call(
        node, [&](std::size_t index) { return index < context.input_count() ? context.input(index) : nullptr; });
    const Tensor& dy = context.required_gradient(0);
    Tensor& dx = context.gradient(0);
    const std::size_t rank = dx.rank();
    std::vector<SliceAttrs::Range> ranges;
    for (const std::int64_t size : dx.dims()) ranges.push_back({0, 1, size});
    for (std::size_t i = 0; i < slice.axes.size(); ++i) {
      const auto axis = static_cast<std::size_t>(normalize_axis(slice.axes[i], rank));
      ranges[axis] = slice.range(i, dx.dims()[axis]);
    }
    // Axes behind the last one that is cut are whole runs.
    std::size_t outer = rank;
    std::int64_t run = 1;
    while (outer > 0 && ranges[outer - 1].count == dx.dims()[outer - 1] && ranges[outer - 1].step == 1) run *= dx.dims()[--outer];
    if (outer > 0 && ranges[outer - 1].step == 1) run *= ranges[--outer].count;
    dispatch_floats(dx.dtype(), [&]<class T>(std::type_identity<T>) {
      T* const out = dx.mutable_data<T>().data();
      std::fill_n(out, dx.size(), T(0));
      if (dy.size() == 0) return;
      std::vector<std::int64_t> at(outer, 0);  // in dy
      const T* from = dy.data<T>().data();
      for (std::int64_t left = dy.size() / run; left > 0; --left, from += run) {
        std::int64_t to = 0;
        for (std::size_t axis = 0; axis < rank; ++axis)
          to = to * dx.dims()[axis] + ranges[axis].first + (axis < outer ? at[axis] * ranges[axis].step : 0);
        std::copy_n(from, run, out + to);
        for (std::size_t axis = outer; axis-- > 0;) {
          if (++at[axis] < ranges[axis].count) break;
          at[axis] = 0;
        }
      }
    });
  };
}

// For any such operator: the forward kernel runs on the numbers of the elements, from 1, instead of
// the elements themselves; 0 stands for what comes from no input. Data inputs are `data` (bits).
BackwardKernel prepare_traced(const PrepareContext& plan, std::uint64_t data) {
  const OpDef* op = operators().find(plan.node());
  require(op != nullptr, "no kernel for version {}", plan.node().opset());
  return [op, data, &node = plan.node()](BackwardContext& context) {
    std::vector<Tensor> numbers(context.input_count());
    std::vector<const Tensor*> inputs(context.input_count());
    std::vector<std::int64_t> first(context.input_count(), 0);
    std::int64_t next = 1;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (node.input(i) == nullptr) continue;
      if ((data >> i & 1) == 0) {
        inputs[i] = context.input(i);
        continue;
      }
      first[i] = next;
      numbers[i] = Tensor::uninitialized(DType::int64, context.input_dims(i));
      for (std::int64_t& number : numbers[i].mutable_data<std::int64_t>()) number = next++;
      inputs[i] = &numbers[i];
    }
    const std::vector<Tensor> sources = evaluate(*op, node, inputs, context.pool());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!context.wants_gradient(i)) continue;
      Tensor& dx = context.gradient(i);
      const std::int64_t begin = first[i], end = begin + dx.size();
      dispatch_floats(dx.dtype(), [&]<class T>(std::type_identity<T>) {
        T* const out = dx.mutable_data<T>().data();
        std::fill_n(out, dx.size(), T(0));
        for (std::size_t k = 0; k < sources.size(); ++k) {
          const Tensor* dy = context.output_gradient(k);
          if (dy == nullptr) continue;
          const T* g = dy->data<T>().data();
          for (const std::int64_t source : sources[k].data<std::int64_t>()) {
            if (source >= begin && source < end) out[source - begin] += *g;
            ++g;
          }
        }
      });
    }
  };
}

template <std::uint64_t data>
BackwardKernel prepare_moved(const PrepareContext& plan) {
  return prepare_traced(plan, data);
}

}  // namespace

OPERATORS(movement_gradient) {
  const auto add = [&](const char* op, auto prepare, std::uint64_t inputs = 0) {
    registry.add(
        GradientDef{.name = op, .prepare = prepare, .reads_inputs = inputs, .reads_outputs = 0});
  };
  for (const char* op : {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
    add(op, prepare_view);
  for (const char* op : {"Cast", "CastLike"}) add(op, prepare_cast);
  add("Transpose", prepare_transpose);
  add("Expand", prepare_expand);
  add("Concat", prepare_concat);
  add("Split", prepare_split, bits_of(1));
  add("Gather", prepare_gather, bits_of(1));
  for (const char* op : {"Tile", "GatherElements", "GatherND", "DepthToSpace",
                         "SpaceToDepth", "ReverseSequence", "CenterCropPad", "Trilu", "Compress"})
    add(op, prepare_moved<bits_of(0)>, ~bits_of(0));
  add("Slice", prepare_slice, ~bits_of(0));
  add("Pad", prepare_moved<bits_of(0, 2)>, ~bits_of(0, 2));
  add("TensorScatter", prepare_moved<bits_of(0, 1)>, ~bits_of(0, 1));
  add("OneHot", prepare_moved<bits_of(2)>, ~bits_of(2));
}

}  // namespace onnxpress
