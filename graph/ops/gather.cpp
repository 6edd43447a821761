// Gather, GatherElements, GatherND.
#include "graph/ops/gather.h"

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Kernel prepare_gather(const PrepareContext& prepare) {
  return [given = gather_axis(prepare.node())](KernelContext& context) {
    const Tensor indices = context.required_input(1).cast(DType::int64);
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const auto axis = static_cast<std::ptrdiff_t>(normalize_axis(given, x.rank()));
      const auto chosen = indices.data<std::int64_t>();
      Dims dims(x.dims().begin(), x.dims().begin() + axis);
      const std::int64_t outer = element_count(dims);
      dims.insert(dims.end(), indices.dims().begin(), indices.dims().end());
      dims.insert(dims.end(), x.dims().begin() + axis + 1, x.dims().end());
      const std::int64_t size = x.dim(static_cast<std::size_t>(axis));
      const std::int64_t run = row_strides(x.dims())[static_cast<std::size_t>(axis)];
      const auto count = static_cast<std::int64_t>(chosen.size());
      ElementSink sink(inner, 0, x.dtype(), dims);
      for (std::int64_t o = 0; o < outer; ++o)
        for (std::int64_t i = 0; i < count; ++i)
          sink.put((o * count + i) * run, x,
                   (o * size + checked_index(chosen[static_cast<std::size_t>(i)], size)) * run,
                   run);
      sink.finish();
    });
  };
}

void infer_gather(InferContext& context) {
  const Shape* x = context.input_shape(0);
  const Shape* indices = context.input_shape(1);
  std::optional<Shape> shape;
  if (x != nullptr && indices != nullptr) {
    const auto axis = normalize_axis(gather_axis(context.node()), x->size());
    shape = Shape(x->begin(), x->begin() + axis);
    shape->insert(shape->end(), indices->begin(), indices->end());
    shape->insert(shape->end(), x->begin() + axis + 1, x->end());
  }
  const bool flat = shape && shape->size() <= 1;
  context.set_output(0, context.input_dtype(0), std::move(shape));
  const auto contents = context.input_symbolic(0);
  const auto chosen = context.input_ints(1);
  if (!flat || !contents || !chosen) return;
  Shape kept;
  const auto size = static_cast<std::int64_t>(contents->size());
  for (const std::int64_t index : *chosen)
    kept.push_back((*contents)[static_cast<std::size_t>(checked_index(index, size))]);
  context.set_output_symbolic(0, std::move(kept));
}

Kernel prepare_gather_elements(const PrepareContext& prepare) {
  return [given = get_int(prepare.node(), "axis", 0)](KernelContext& context) {
    const Tensor indices = context.required_input(1).cast(DType::int64);
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      require(indices.rank() == x.rank(), "expected indices of rank {}, found {}", x.rank(),
              to_string(indices.dims()));
      const auto axis = static_cast<std::size_t>(normalize_axis(given, x.rank()));
      for (std::size_t i = 0; i < x.rank(); ++i)
        require(i == axis || indices.dim(i) <= x.dim(i), "indices {} do not fit into {}",
                to_string(indices.dims()), to_string(x.dims()));
      const auto strides = row_strides(x.dims());
      const auto chosen = indices.data<std::int64_t>();
      ElementSink sink(inner, 0, x.dtype(), indices.dims());
      for (std::int64_t i = 0; i < indices.size(); ++i) {
        std::int64_t rest = i;
        std::int64_t from =
            checked_index(chosen[static_cast<std::size_t>(i)], x.dim(axis)) * strides[axis];
        for (std::size_t k = x.rank(); k-- > 0; rest /= indices.dim(k))
          if (k != axis) from += rest % indices.dim(k) * strides[k];
        sink.put(i, x, from);
      }
      sink.finish();
    });
  };
}

void infer_gather_elements(InferContext& context) {
  const Shape* indices = context.input_shape(1);
  context.set_output(0, context.input_dtype(0),
                     indices != nullptr ? std::optional(*indices) : std::nullopt);
}

Kernel prepare_gather_nd(const PrepareContext& prepare) {
  return [batch_dims = get_int(prepare.node(), "batch_dims", 0)](KernelContext& context) {
    const Tensor indices = context.required_input(1).cast(DType::int64);
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      require(indices.rank() >= 1, "expected indices of at least 1 axis, found a scalar");
      const auto batch = static_cast<std::size_t>(batch_dims);
      const auto depth = static_cast<std::size_t>(indices.dims().back());
      require(batch_dims >= 0 && batch < indices.rank() && batch + depth <= x.rank(),
              "indices {} with {} batch axes do not index {}", to_string(indices.dims()),
              batch_dims, to_string(x.dims()));
      const std::span<const std::int64_t> x_dims = x.dims();
      Dims dims(indices.dims().begin(), indices.dims().end() - 1);
      dims.insert(dims.end(), x_dims.begin() + static_cast<std::ptrdiff_t>(batch + depth),
                  x_dims.end());
      const auto strides = row_strides(x.dims());
      const std::int64_t batches = element_count(x_dims.first(batch));
      const std::int64_t per_batch = element_count(x_dims.subspan(batch));
      const std::int64_t run = element_count(x_dims.subspan(batch + depth));
      const std::int64_t tuples =
          element_count(std::span(indices.dims()).subspan(batch).first(indices.rank() - 1 - batch));
      for (std::size_t k = 0; k < batch; ++k)
        require(indices.dim(k) == x.dim(k), "batch axes of {} and {} differ", to_string(x.dims()),
                to_string(indices.dims()));
      const std::int64_t* tuple = indices.data<std::int64_t>().data();
      ElementSink sink(inner, 0, x.dtype(), dims);
      for (std::int64_t i = 0; i < batches * tuples; ++i, tuple += depth) {
        std::int64_t from = i / tuples * per_batch;
        for (std::size_t k = 0; k < depth; ++k)
          from += checked_index(tuple[k], x.dim(batch + k)) * strides[batch + k];
        sink.put(i * run, x, from, run);
      }
      sink.finish();
    });
  };
}

void infer_gather_nd(InferContext& context) {
  const Shape* x = context.input_shape(0);
  const Shape* indices = context.input_shape(1);
  std::optional<Shape> shape;
  if (x != nullptr && indices != nullptr && !indices->empty() && indices->back().is_known()) {
    std::int64_t skip = 0;
    const bool overflows = __builtin_add_overflow(get_int(context.node(), "batch_dims", 0),
                                                  indices->back().value(), &skip);
    require(!overflows && skip >= 0 && skip <= static_cast<std::int64_t>(x->size()),
            "indices {} do not index {}", to_string(*indices), to_string(*x));
    shape = Shape(indices->begin(), indices->end() - 1);
    shape->insert(shape->end(), x->begin() + skip, x->end());
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

// A table [rows, width] gathered along axis 0: its width is the output's last axis.
OperandAxes gather_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  const Value* indices = node.input(1);
  if (x == nullptr || indices == nullptr || !x->type.shape || !indices->type.shape) return axes;
  const auto rank = static_cast<std::int64_t>(x->type.shape->size());
  const auto added = static_cast<std::int64_t>(indices->type.shape->size()) - 1;
  const std::int64_t axis = normalize_axis(gather_axis(node), x->type.shape->size());
  for (std::int64_t i = 0; i < rank; ++i)
    axes[0].push_back(i == axis ? AxisRole{}
                                : AxisRole{.kind = AxisRole::Kind::output,
                                           .output_axis = i < axis ? i : i + added});
  return axes;
}

}  // namespace

std::int64_t gather_axis(const Node& gather) { return get_int(gather, "axis", 0); }

OpCall make_gather(std::int64_t axis) {
  OpCall call{.op_type = "Gather"};
  call.attributes["axis"] = axis;
  return call;
}

OPERATORS(gather) {
  registry.add(OpDef{
      .name = "Gather", .infer = infer_gather, .prepare = prepare_gather, .axes = gather_axes});
  registry.add(OpDef{.name = "GatherElements",
                     .since = 11,
                     .infer = infer_gather_elements,
                     .prepare = prepare_gather_elements});
  registry.add(OpDef{
      .name = "GatherND", .since = 11, .infer = infer_gather_nd, .prepare = prepare_gather_nd});
}

}  // namespace onnxpress
