// Gradients of elementwise operators on float32: functions of one tensor, and products.
#include <array>
#include <string>
#include <string_view>

#include "graph/kernels/activation.h"
#include "graph/kernels/derivative_loops.h"
#include "graph/kernels/elementwise_loops.h"
#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;

constexpr std::int64_t block = 16384;  // floats that a task works on

bool supports_unary(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && is_float_operand(context.output_type(0)) &&
         as_activation(context);
}

BackwardKernel prepare_unary(const PrepareContext& context) {
  return [function = *as_activation(context)](BackwardContext& call) {
    const Tensor& dy = call.required_gradient(0);
    const std::int64_t count = dy.size();
    const float* const g = dy.data<float>().data();
    const Tensor& read =
        derives_from_result(function.kind) ? call.required_output(0) : call.required_input(0);
    const float* const values = read.data<float>().data();
    float* const dx = call.gradient(0).mutable_data<float>().data();
    call.pool().parallel_for(count, block, [&](std::int64_t begin, std::int64_t end) {
      derivative_loop(function, values + begin, g + begin, dx + begin, end - begin);
    });
  };
}

bool supports_product(const PrepareContext& context) {
  const Node& node = context.node();
  if (!is_float_operand(context.input_type(0)) || !is_float_operand(context.input_type(1)) ||
      !is_float_operand(context.output_type(0)))
    return false;
  const std::size_t rank = dims_of(context.input_type(0)).size();
  const Dims second = dims_of(context.input_type(1));
  return legacy_broadcast_dims(node, rank, second) == second;
}

// op(dy, other), summed to what input `index` was before it was broadcast.
class ThroughFactor {
 public:
  ThroughFactor(BinaryOp op, const Dims& dy, const Dims& other)
      : op_(op), dims_(dy), plan_(dy, std::array<Dims, 2>{dy, other}) {}

  void put(BackwardContext& call, std::size_t index, const Tensor& other) const {
    const float* const g = call.required_gradient(0).data<float>().data();
    const float* const by = other.data<float>().data();
    const bool is_whole = call.input_dims(index) == dims_;
    Tensor product;
    if (!is_whole) product = Tensor::uninitialized(DType::float32, dims_);
    Tensor& target = is_whole ? call.gradient(index) : product;
    float* const out = target.mutable_data<float>().data();
    const std::int64_t g_stride = plan_.inner_stride(0), stride = plan_.inner_stride(1);
    plan_.run(call.pool(), [&](std::int64_t at, const std::int64_t* offsets, std::int64_t count) {
      binary_loop(op_, g + offsets[0], g_stride, by + offsets[1], stride, out + at, count);
    });
    if (!is_whole) put_sum(call, index, product);
  }

 private:
  BinaryOp op_;
  Dims dims_;
  BroadcastPlan plan_;
};

BackwardKernel prepare_product(const PrepareContext& context) {
  const Dims y = dims_of(context.output_type(0));
  return [first = ThroughFactor(BinaryOp::multiply, y, dims_of(context.input_type(1))),
          second = ThroughFactor(BinaryOp::multiply, y, dims_of(context.input_type(0)))](BackwardContext& call) {
    // The gradient of the output's dims comes last: it may lie over the output's.
    const std::size_t last = call.input_dims(0) == call.required_gradient(0).dims() ? 0 : 1;
    for (const std::size_t index : {1 - last, last})
      if (call.wants_gradient(index))
        (index == 0 ? first : second).put(call, index, call.required_input(1 - index));
  };
}

}  // namespace

OPERATORS(elementwise_backward) {
  const auto add = [&](std::string_view name, std::string_view domain, std::uint64_t inputs,
                       std::uint64_t outputs) {
    registry.add(GradientDef{.name = std::string(name),
                             .domain = std::string(domain),
                             .backend = "vector",
                             .supports = supports_unary,
                             .prepare = prepare_unary,
                             .reads_inputs = inputs,
                             .reads_outputs = outputs});
  };
  for (const char* name : {"LeakyRelu", "Clip", "Elu", "HardSwish", "Swish", "Mish", "Gelu", "Softplus", "Erf", "Abs"})
    add(name, "", bits_of(0), 0);
  for (const char* name : {"Relu", "Sigmoid", "Tanh", "HardSigmoid", "Exp", "Sqrt", "Reciprocal"})
    add(name, "", 0, bits_of(0));
  for (const char* name : {"Gelu", "QuickGelu"}) add(name, "com.microsoft", bits_of(0), 0);
  registry.add(GradientDef{.name = "Mul",
                           .backend = "vector",
                           .supports = supports_product,
                           .prepare = prepare_product,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0,
                           .reads_for = other_factor});
}

}  // namespace onnxpress
