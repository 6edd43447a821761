// Gradient of Gather along the first axis (an embedding) on float32.
#include <algorithm>
#include <vector>

#include "graph/kernels/elementwise_loops.h"
#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/attributes.h"
#include "graph/ops/gather.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;

bool supports(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && is_float_operand(context.output_type(0)) &&
         normalize_axis(gather_axis(context.node()), dims_of(context.input_type(0)).size()) == 0;
}

// Rows of the table in blocks; each takes the rows of dy that belong to it, in their order.
BackwardKernel prepare(const PrepareContext& context) {
  const Dims table = dims_of(context.input_type(0));
  const std::int64_t rows = table[0], width = element_count(table) / rows;
  return [rows, width](BackwardContext& call) {
    std::vector<std::int64_t> taken = call.required_input(1).to_ints();
    for (std::int64_t& index : taken) index = checked_index(index, rows);
    const float* const dy = call.required_gradient(0).data<float>().data();
    float* const out = call.gradient(0).mutable_data<float>().data();
    // At most 32 blocks: every one looks at all indices.
    const std::int64_t block = std::max<std::int64_t>((rows + 31) / 32, 16384 / width + 1);
    call.pool().parallel_for(rows, block, [&](std::int64_t begin, std::int64_t end) {
      std::fill_n(out + begin * width, (end - begin) * width, 0.0F);
      for (std::size_t i = 0; i < taken.size(); ++i) {
        if (taken[i] < begin || taken[i] >= end) continue;
        float* const row = out + taken[i] * width;
        binary_loop(BinaryOp::add, row, 1, dy + static_cast<std::int64_t>(i) * width, 1, row, width);
      }
    });
  };
}

}  // namespace

OPERATORS(gather_backward) {
  registry.add(GradientDef{.name = "Gather",
                           .backend = "direct",
                           .supports = supports,
                           .prepare = prepare,
                           .reads_inputs = bits_of(1),
                           .reads_outputs = 0});
}

}  // namespace onnxpress
