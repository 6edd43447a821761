// ReverseSequence.
#include "graph/ops/attributes.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Time axis; the batch axis is the other one of axes 0 and 1.
std::size_t time_axis(const Node& node) {
  const std::int64_t time = get_int(node, "time_axis", 0), batch = get_int(node, "batch_axis", 1);
  require((time == 0 && batch == 1) || (time == 1 && batch == 0),
          "expected time_axis and batch_axis 0 and 1 or 1 and 0, found {} and {}", time, batch);
  return static_cast<std::size_t>(time);
}

Kernel prepare_reverse_sequence(const PrepareContext& prepare) {
  return [axis = time_axis(prepare.node())](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    require(x.rank() >= 2, "expected at least 2 axes, found {}", to_string(x.dims()));
    const std::int64_t steps = x.dim(axis), batch = x.dim(1 - axis);
    const Tensor& given = context.required_input(1);
    require(given.dims() == Dims{batch}, "expected sequence lengths [{}], found {}", batch,
            to_string(given.dims()));
    const std::vector<std::int64_t> lengths = given.to_ints();
    for (const std::int64_t length : lengths)
      require(0 <= length && length <= steps, "expected sequence lengths from 0 to {}, found {}",
              steps, length);
    const std::int64_t run = element_count(std::span(x.dims()).subspan(2));
    ElementSink sink(context, 0, x.dtype(), x.dims());
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t t = 0; t < steps; ++t) {
        const std::int64_t length = lengths[static_cast<std::size_t>(b)];
        const std::int64_t source = t < length ? length - 1 - t : t;
        const auto place = [&](std::int64_t step) {
          return (axis == 0 ? step * batch + b : b * steps + step) * run;
        };
        sink.put(place(t), x, place(source), run);
      }
    sink.finish();
  };
}

void infer_reverse_sequence(InferContext& context) {
  const std::size_t axis = time_axis(context.node());
  const Shape* x = context.input_shape(0);
  const Shape* lengths = context.input_shape(1);
  if (x != nullptr) {
    require(x->size() >= 2, "expected at least 2 axes, found {}", to_string(*x));
    if (lengths != nullptr && lengths->size() == 1)
      unify((*x)[1 - axis], lengths->front(), "the batch sizes");
  }
  infer_same_as_first(context);
}

}  // namespace

OPERATORS(reverse_sequence) {
  registry.add(OpDef{.name = "ReverseSequence",
                     .since = 10,
                     .infer = infer_reverse_sequence,
                     .prepare = prepare_reverse_sequence});
}

}  // namespace onnxpress
