#include "graph/kernels/onednn.h"

#include <algorithm>

namespace onnxpress::onednn {

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& cpu_stream() {
  thread_local dnnl::stream stream(cpu_engine());
  return stream;
}

const dnnl::primitive_attr& scratchpad_given() {
  static const dnnl::primitive_attr only = attributes({});
  return only;
}

namespace {

struct Eltwise {
  dnnl::algorithm algorithm;
  float alpha = 0, beta = 0;
};

Eltwise eltwise(const PostOp& op) {
  using dnnl::algorithm;
  switch (op.kind) {
    case PostOp::Kind::relu:
      return {algorithm::eltwise_relu};
    case PostOp::Kind::leaky_relu:
      return {algorithm::eltwise_relu, op.alpha};
    case PostOp::Kind::clip:
      return {algorithm::eltwise_clip, op.alpha, op.beta};
    case PostOp::Kind::elu:
      return {algorithm::eltwise_elu, op.alpha};
    case PostOp::Kind::sigmoid:
      return {algorithm::eltwise_logistic};
    case PostOp::Kind::hard_swish:
      return {algorithm::eltwise_hardswish, 1.0f / 6, 0.5f};
    case PostOp::Kind::mish:
      return {algorithm::eltwise_mish};
    case PostOp::Kind::exp:
      return {algorithm::eltwise_exp};
    case PostOp::Kind::sqrt:
      return {algorithm::eltwise_sqrt};
    case PostOp::Kind::abs:
      return {algorithm::eltwise_abs};
    case PostOp::Kind::tanh:
      return {algorithm::eltwise_tanh};
    case PostOp::Kind::swish:
      return {algorithm::eltwise_swish, op.alpha};
    case PostOp::Kind::gelu:
      return {algorithm::eltwise_gelu_erf};
    case PostOp::Kind::gelu_tanh:
      return {algorithm::eltwise_gelu_tanh};
    case PostOp::Kind::linear:
      return {algorithm::eltwise_linear, op.alpha, op.beta};
    default:
      break;
  }
  fail("oneDNN has no such operation behind a primitive");
}

}  // namespace

bool fuses_post_op(const PrepareContext& context, const PostOp& op) {
  using Kind = PostOp::Kind;
  switch (op.kind) {
    case Kind::hard_sigmoid:  // 3.x only
    case Kind::softplus:
    case Kind::erf:
    case Kind::reciprocal:
    case Kind::multiply:
      return false;
    default:
      break;
  }
  // One sum; and of one algorithm only one, since 2.6 gives all of them the parameters of the
  // first.
  const auto is_same = [&](const PostOp& other) {
    if (op.kind == Kind::add || other.kind == Kind::add) return op.kind == other.kind;
    return eltwise(op).algorithm == eltwise(other).algorithm;
  };
  return std::ranges::none_of(context.post_ops(), is_same);
}

dnnl::primitive_attr attributes(std::span<const PostOp> post_ops) {
  dnnl::primitive_attr result;
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops chain;
  for (const PostOp& op : post_ops) {
    if (op.kind == PostOp::Kind::add) {
      chain.append_sum(1.0f);
      continue;
    }
    const Eltwise operation = eltwise(op);
#if DNNL_VERSION_MAJOR >= 3
    chain.append_eltwise(operation.algorithm, operation.alpha, operation.beta);
#else
    chain.append_eltwise(1.0f, operation.algorithm, operation.alpha, operation.beta);
#endif
  }
  result.set_post_ops(chain);
  return result;
}

memory::desc plain(const Dims& dims, DataType type) {
  Dims strides(dims.size(), 1);
  for (std::size_t i = dims.size(); i-- > 1;) strides[i - 1] = strides[i] * dims[i];
  return strided(dims, strides, type);
}

memory::desc any_layout(const Dims& dims, DataType type) {
  return {dims, type, memory::format_tag::any};
}

memory::desc image(const Dims& dims, Layout layout, DataType type) {
  if (layout == Layout::row_major) return plain(dims, type);
  Dims strides(dims.size(), 1);
  std::int64_t stride = dims[1];
  for (std::size_t axis = dims.size(); axis-- > 2; stride *= dims[axis]) strides[axis] = stride;
  strides[0] = stride;
  return strided(dims, strides, type);
}

memory::desc strided(const Dims& dims, const Dims& strides, DataType type) {
  return {dims, type, strides};
}

DataType data_type(DType type) {
  switch (type) {
    case DType::float32:
      return DataType::f32;
    case DType::uint8:
      return DataType::u8;
    case DType::int8:
      return DataType::s8;
    default:
      fail("oneDNN kernels are not made for {}", name(type));
  }
}

}  // namespace onnxpress::onednn
