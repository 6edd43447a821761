// Gradients of MatMul and Gemm on oneDNN: products as they are.
#include <algorithm>
#include <utility>

#include "graph/kernels/onednn_backward.h"
#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/gemm.h"
#include "graph/ops/gradient_tools.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;
using onednn::memory;
using onednn::PrimitiveKernel;

bool are_float_operands(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && is_float_operand(context.input_type(1)) &&
         is_float_operand(context.output_type(0));
}

// A stack of [rows, columns] matrices, read as they lie or as their transposes.
memory::desc matrices(std::int64_t stack, std::int64_t rows, std::int64_t columns,
                      bool is_transposed) {
  const Dims strides = is_transposed ? Dims{rows * columns, 1, rows} : Dims{rows * columns, columns, 1};
  return onednn::strided({stack, rows, columns}, strides);
}

// result[rows, columns] = a[rows, depth] b[depth, columns]; a flag says that the operand lies
// transposed in memory.
struct Product {
  std::int64_t stack, rows, columns, depth;
  bool a_transposed = false, b_transposed = false;

  PrimitiveKernel kernel(const Dims& dims) const {
    const memory::desc a = matrices(stack, rows, depth, a_transposed);
    const memory::desc b = matrices(stack, depth, columns, b_transposed);
    const memory::desc c = matrices(stack, rows, columns, false);
    const auto descriptor = onednn::matmul(a, b, memory::desc(), c, onednn::scratchpad_given());
    PrimitiveKernel result(dnnl::matmul(descriptor), descriptor.scratchpad_desc(), DType::float32,
                           dims);
    result.add_input(DNNL_ARG_SRC, 0, a, descriptor.src_desc(), nullptr);
    result.add_input(DNNL_ARG_WEIGHTS, 1, b, descriptor.weights_desc(), nullptr);
    result.set_output(c, descriptor.dst_desc());
    return result;
  }
};

// Which product is each gradient, and the order of its operands: dy and the other input.
struct Gradients {
  PrimitiveKernel da, db;
  bool da_takes_b_first = false, db_takes_dy_first = false;

  void operator()(BackwardContext& call) const {
    const Tensor& dy = call.required_gradient(0);
    if (call.wants_gradient(0)) {
      const Tensor* b = call.input(1);
      onednn::GradientCall one(call, da_takes_b_first ? std::vector{b, &dy} : std::vector{&dy, b}, 0);
      da(one);
    }
    if (call.wants_gradient(1)) {
      const Tensor* a = call.input(0);
      onednn::GradientCall one(call, db_takes_dy_first ? std::vector{&dy, a} : std::vector{a, &dy}, 1);
      db(one);
    }
  }
};

// One product of all rows, or a stack of as many of both operands.
bool supports_matmul(const PrepareContext& context) {
  if (!are_float_operands(context)) return false;
  const Dims a = dims_of(context.input_type(0)), b = dims_of(context.input_type(1));
  if (a.size() < 2 || b.size() < 2) return false;
  return b.size() == 2 || (a.size() == b.size() && std::equal(a.begin(), a.end() - 2, b.begin()));
}

BackwardKernel prepare_matmul(const PrepareContext& context) {
  return onednn::guarded([&]() -> BackwardKernel {
    const Dims a = dims_of(context.input_type(0)), b = dims_of(context.input_type(1));
    const std::int64_t depth = a.back(), columns = b.back();
    const std::int64_t all_rows = element_count(a) / depth;
    const std::int64_t stack = b.size() == 2 ? 1 : all_rows / a[a.size() - 2];
    const std::int64_t rows = all_rows / stack;
    return Gradients{
        .da = Product{.stack = stack, .rows = rows, .columns = depth, .depth = columns, .b_transposed = true}
                  .kernel(a),
        .db = Product{.stack = stack, .rows = depth, .columns = columns, .depth = rows, .a_transposed = true}
                  .kernel(b)};
  });
}

bool supports_gemm(const PrepareContext& context) {
  return are_float_operands(context) && GemmAttrs::from(context.node()).alpha == 1 &&
         (!context.input_type(2) || is_float_operand(context.input_type(2)));
}

BackwardKernel prepare_gemm(const PrepareContext& context) {
  return onednn::guarded([&]() -> BackwardKernel {
    const GemmAttrs attrs = GemmAttrs::from(context.node());
    const Dims a = dims_of(context.input_type(0)), b = dims_of(context.input_type(1));
    const GemmSizes size = GemmSizes::of(attrs, a, b);
    const bool ta = attrs.transpose_a, tb = attrs.transpose_b;
    // A in memory is [depth, rows] when transposed: then its gradient is B dY', else dY B'.
    const Product da = ta ? Product{.stack = 1, .rows = size.depth, .columns = size.rows,
                                    .depth = size.columns, .a_transposed = tb, .b_transposed = true}
                          : Product{.stack = 1, .rows = size.rows, .columns = size.depth,
                                    .depth = size.columns, .b_transposed = !tb};
    const Product db = tb ? Product{.stack = 1, .rows = size.columns, .columns = size.depth,
                                    .depth = size.rows, .a_transposed = true, .b_transposed = ta}
                          : Product{.stack = 1, .rows = size.depth, .columns = size.columns,
                                    .depth = size.rows, .a_transposed = !ta};
    const Gradients products{.da = da.kernel(a),
                             .db = db.kernel(b),
                             .da_takes_b_first = ta,
                             .db_takes_dy_first = tb};
    return [products, attrs, &node = context.node()](BackwardContext& call) {
      products(call);
      if (call.wants_gradient(2)) put_gemm_bias(call, attrs, node);
    };
  });
}

}  // namespace

OPERATORS(onednn_matmul_backward) {
  registry.add(GradientDef{.name = "MatMul",
                           .backend = "onednn",
                           .supports = supports_matmul,
                           .prepare = prepare_matmul,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
  registry.add(GradientDef{.name = "Gemm",
                           .backend = "onednn",
                           .supports = supports_gemm,
                           .prepare = prepare_gemm,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
}

}  // namespace onnxpress
