#include "graph/kernels/activation.h"

#include <cmath>
#include <limits>

#include "graph/ops/attributes.h"

namespace onnxpress {
namespace {

using Kind = PostOp::Kind;

std::optional<float> scalar(const Tensor* tensor) {
  const bool is_scalar = tensor && tensor->dtype() == DType::float32 && tensor->size() == 1;
  return is_scalar ? std::optional(tensor->data<float>()[0]) : std::nullopt;
}

// Bounds of Clip as attributes or constant inputs; nothing when an input is not constant.
std::optional<PostOp> clip(const PrepareContext& context) {
  const Node& node = context.node();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  PostOp op{.kind = Kind::clip, .alpha = -infinity, .beta = infinity};
  if (node.opset() < 11) {
    op.alpha = get_float(node, "min", op.alpha);
    op.beta = get_float(node, "max", op.beta);
  } else {
    for (const std::size_t position : {std::size_t{1}, std::size_t{2}}) {
      if (!context.input_type(position)) continue;
      const auto bound = scalar(context.constant_input(position));
      if (!bound || std::isnan(*bound)) return std::nullopt;
      (position == 1 ? op.alpha : op.beta) = *bound;
    }
  }
  if (op.alpha > op.beta) return std::nullopt;
  return op;
}

}  // namespace

std::optional<PostOp> as_activation(const PrepareContext& context) {
  const Node& node = context.node();
  const std::string& name = node.op_type();
  if (node.is("Clip")) return clip(context);
  if (node.is("Relu")) return PostOp{.kind = Kind::relu};
  if (node.is("LeakyRelu"))
    return PostOp{.kind = Kind::leaky_relu, .alpha = get_float(node, "alpha", 0.01f)};
  if (node.is("Elu")) return PostOp{.kind = Kind::elu, .alpha = get_float(node, "alpha", 1)};
  if (node.is("Sigmoid")) return PostOp{.kind = Kind::sigmoid};
  if (node.is("Tanh")) return PostOp{.kind = Kind::tanh};
  if (node.is("HardSigmoid"))
    return PostOp{.kind = Kind::hard_sigmoid,
                  .alpha = get_float(node, "alpha", 0.2f),
                  .beta = get_float(node, "beta", 0.5f)};
  if (node.is("HardSwish")) return PostOp{.kind = Kind::hard_swish};
  if (node.is("Mish")) return PostOp{.kind = Kind::mish};
  if (node.is("Softplus")) return PostOp{.kind = Kind::softplus};
  if (node.is("Erf")) return PostOp{.kind = Kind::erf};
  if (node.is("Exp")) return PostOp{.kind = Kind::exp};
  if (node.is("Sqrt")) return PostOp{.kind = Kind::sqrt};
  if (node.is("Abs")) return PostOp{.kind = Kind::abs};
  if (node.is("Reciprocal")) return PostOp{.kind = Kind::reciprocal};
  if (node.is("Neg")) return PostOp{.kind = Kind::linear, .alpha = -1};
  if (node.is("Swish")) return PostOp{.kind = Kind::swish, .alpha = get_float(node, "alpha", 1)};
  if (node.is("Gelu")) {
    const bool with_tanh = get_string(node, "approximate", "none") == "tanh";
    return PostOp{.kind = with_tanh ? Kind::gelu_tanh : Kind::gelu};
  }
  if (node.domain() != "com.microsoft") return std::nullopt;
  if (name == "Gelu") return PostOp{.kind = Kind::gelu};
  if (name == "FastGelu" && !context.input_type(1)) return PostOp{.kind = Kind::gelu_tanh};
  if (name == "QuickGelu")
    return PostOp{.kind = Kind::swish, .alpha = get_float(node, "alpha", 1.702f)};
  return std::nullopt;
}

}  // namespace onnxpress
