// Trilu.
#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// An element stays where column - row >= k (upper) or <= k (lower).
Kernel prepare_trilu(const PrepareContext& prepare) {
  return [upper = get_bool(prepare.node(), "upper", true)](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    require(x.rank() >= 2, "expected matrices, found {}", to_string(x.dims()));
    std::int64_t k = 0;
    if (const Tensor* given = context.input(1)) {
      require(given->size() == 1, "expected one diagonal, found {}", to_string(given->dims()));
      k = given->to_ints()[0];
    }
    const std::int64_t rows = x.dim(x.rank() - 2), columns = x.dim(x.rank() - 1);
    k = std::clamp(k, -rows, columns);  // beyond these nothing changes
    ElementSink sink(context, 0, x.dtype(), x.dims());
    sink.clear();
    const std::int64_t lines = columns == 0 ? 0 : x.size() / columns;
    context.pool().parallel_for(lines, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t line = begin; line < end; ++line) {
        const std::int64_t row = line % rows;
        const std::int64_t border = std::clamp(row + k + (upper ? 0 : 1), std::int64_t{0}, columns);
        const std::int64_t first = upper ? border : 0, last = upper ? columns : border;
        sink.put(line * columns + first, x, line * columns + first, last - first);
      }
    });
    sink.finish();
  };
}

void infer_trilu(InferContext& context) {
  if (const Shape* x = context.input_shape(0))
    require(x->size() >= 2, "expected matrices, found {}", to_string(*x));
  infer_same_as_first(context);
}

}  // namespace

OPERATORS(trilu) {
  registry.add(OpDef{.name = "Trilu", .since = 14, .infer = infer_trilu, .prepare = prepare_trilu});
}

}  // namespace onnxpress
