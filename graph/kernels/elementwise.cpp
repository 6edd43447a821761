// Elementwise operators on float32, alone and in chains, block by block in the nearest cache.
#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "graph/kernels/activation.h"
#include "graph/kernels/elementwise_loops.h"
#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;

constexpr std::int64_t block = 1024;  // floats that a chain works on at a time

constexpr std::pair<std::string_view, BinaryOp> binary_operators[] = {
    {"Add", BinaryOp::add},     {"Sub", BinaryOp::subtract}, {"Mul", BinaryOp::multiply},
    {"Div", BinaryOp::divide},  {"Min", BinaryOp::minimum},  {"Max", BinaryOp::maximum},
    {"PRelu", BinaryOp::prelu},
};

const BinaryOp* binary_operator(const Node& node) {
  for (const auto& [name, op] : binary_operators)
    if (node.is(name)) return &op;
  return nullptr;
}

bool supports_unary(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && is_float_operand(context.output_type(0)) &&
         as_activation(context);
}

bool supports_binary(const PrepareContext& context) {
  // Before opset 7 a slope belongs to a channel.
  if (context.node().is("PRelu") && context.node().opset() < 7) return false;
  return context.node().input_count() == 2 && is_float_operand(context.input_type(0)) &&
         is_float_operand(context.input_type(1)) && is_float_operand(context.output_type(0));
}

// Operands of one block, applied one after the other to a copy that stays in the cache.
struct Chain {
  std::vector<PostOp> ops;

  // `data` holds the result of the first operation; `at` is its offset in the output.
  void run(KernelContext& context, float* data, std::int64_t at, std::int64_t count) const {
    for (const PostOp& op : ops) {
      const bool has_operand = op.kind == PostOp::Kind::add || op.kind == PostOp::Kind::multiply;
      const float* operand =
          has_operand ? context.required_input(op.operand).data<float>().data() + at : nullptr;
      post_op_loop(op, data, operand, count);
    }
  }
};

Kernel prepare_unary(const PrepareContext& context) {
  Chain chain{.ops = {*as_activation(context)}};
  chain.ops.insert(chain.ops.end(), context.post_ops().begin(), context.post_ops().end());
  return [chain = std::move(chain)](KernelContext& call) {
    const Tensor& x = call.required_input(0);
    const float* in = x.data<float>().data();
    float* out = call.output(0, DType::float32, x.dims()).mutable_data<float>().data();
    call.pool().parallel_for(x.size(), 16 * block, [&](std::int64_t begin, std::int64_t end) {
      alignas(64) float data[block];
      for (std::int64_t at = begin; at < end; at += block) {
        const std::int64_t count = std::min(block, end - at);
        const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
        std::memcpy(data, in + at, bytes);
        chain.run(call, data, at, count);
        std::memcpy(out + at, data, bytes);
      }
    });
  };
}

Kernel prepare_binary(const PrepareContext& context) {
  const Node& node = context.node();
  const BinaryOp op = *binary_operator(node);
  const Dims a = dims_of(context.input_type(0));
  const Dims b = legacy_broadcast_dims(node, a.size(), dims_of(context.input_type(1)));
  const Dims y = dims_of(context.output_type(0));
  require(broadcast(a, b) == y, "{} and {} do not broadcast to {}", to_string(a), to_string(b),
          to_string(y));
  const std::array<Dims, 2> operands{a, b};
  Chain chain{.ops = {context.post_ops().begin(), context.post_ops().end()}};
  return [=, plan = BroadcastPlan(y, operands)](KernelContext& call) {
    const float* first = call.required_input(0).data<float>().data();
    const float* second = call.required_input(1).data<float>().data();
    float* out = call.output(0, DType::float32, y).mutable_data<float>().data();
    const std::int64_t first_stride = plan.inner_stride(0), second_stride = plan.inner_stride(1);
    plan.run(call.pool(), [&](std::int64_t at, const std::int64_t* offsets, std::int64_t size) {
      alignas(64) float data[block];
      for (std::int64_t i = 0; i < size; i += block) {
        const std::int64_t count = std::min(block, size - i);
        binary_loop(op, first + offsets[0] + i * first_stride, first_stride,
                    second + offsets[1] + i * second_stride, second_stride, data, count);
        chain.run(call, data, at + i, count);
        std::memcpy(out + at + i, data, static_cast<std::size_t>(count) * sizeof(float));
      }
    });
  };
}

bool fuses(const PrepareContext&, const PostOp&) { return true; }

}  // namespace

OPERATORS(elementwise_rows) {
  const auto add = [&](std::string_view name, std::string_view domain, auto supports,
                       auto prepare) {
    registry.add(KernelDef{.name = std::string(name),
                           .domain = std::string(domain),
                           .backend = "elementwise",
                           .supports = supports,
                           .prepare = prepare,
                           .fuses = fuses});
  };
  for (const auto& [name, op] : binary_operators) add(name, "", supports_binary, prepare_binary);
  for (const char* name :
       {"Relu", "LeakyRelu", "Clip", "Elu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish",
        "Mish", "Gelu", "Softplus", "Erf", "Exp", "Sqrt", "Abs", "Reciprocal", "Neg"})
    add(name, "", supports_unary, prepare_unary);
  for (const char* name : {"Gelu", "FastGelu", "QuickGelu"})
    add(name, "com.microsoft", supports_unary, prepare_unary);
}

}  // namespace onnxpress
