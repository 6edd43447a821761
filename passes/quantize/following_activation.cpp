#include <algorithm>
#include <cmath>

#include "graph/ops/activations.h"
#include "graph/ops/clip.h"
#include "graph/ops/gemm.h"
#include "passes/quantize/following_activation.h"

namespace onnxpress {
namespace {

// The only reader of a value, or nullptr.
const Node* only_reader(const Value* value) {
  return value && !value->is_output() && value->uses().size() == 1 ? value->uses()[0].node : nullptr;
}

// A constant of one value, or one per channel along the last axis. Nothing when it is something else.
std::optional<std::vector<float>> channel_values(const Value* value, std::int64_t channels) {
  const Tensor* tensor = value ? value->constant() : nullptr;
  if (!tensor || (tensor->size() != 1 && (tensor->size() != channels || tensor->dims().back() != channels)))
    return std::nullopt;
  std::vector<float> values = tensor->to_floats();
  values.resize(static_cast<std::size_t>(channels), values[0]);
  return values;
}

// False when what is added is not known.
bool read_bias(const Node& node, std::int64_t channels, FollowingActivation& found) {
  const bool gemm = node.is("Gemm");
  float factor = 1;
  if (gemm) {
    const GemmAttrs attrs = GemmAttrs::from(node);
    found.gain = attrs.alpha;
    factor = attrs.beta;
  }
  if (!node.input(2) || factor == 0) return true;
  const auto values = channel_values(node.input(2), channels);
  if (!values) return false;
  found.bias = *values;
  for (float& value : found.bias) value *= factor;
  return true;
}

void read_activation(const Node& node, FollowingActivation& found) {
  using Kind = FollowingActivation::Kind;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  if (node.is("Relu")) {
    found.kind = Kind::clip;
    found.low = 0;
    found.high = infinity;
  } else if (node.is("Clip")) {
    const auto bounds = ClipBounds::from(node);
    if (!bounds) return;
    found.kind = Kind::clip;
    found.low = static_cast<float>(bounds->low);
    found.high = static_cast<float>(bounds->high);
  } else if (node.is("LeakyRelu")) {
    found.kind = Kind::leaky_relu;
    found.low = LeakyReluAttrs::from(node).alpha;
  } else if (node.is("Sigmoid")) {
    found.kind = Kind::sigmoid;
  } else if (node.is("Tanh")) {
    found.kind = Kind::tanh;
  }
}

}  // namespace

float FollowingActivation::value(float x) const {
  switch (kind) {
    case Kind::none: return x;
    case Kind::clip: return std::clamp(x, low, high);
    case Kind::leaky_relu: return x < 0 ? low * x : x;
    case Kind::sigmoid: return 1 / (1 + std::exp(-x));
    case Kind::tanh: return std::tanh(x);
  }
  return x;
}

float FollowingActivation::slope(float x) const {
  switch (kind) {
    case Kind::none: return 1;
    case Kind::clip: return x > low && x < high ? 1.0F : 0.0F;
    case Kind::leaky_relu: return x < 0 ? low : 1.0F;
    case Kind::sigmoid: return value(x) * (1 - value(x));
    case Kind::tanh: return 1 - value(x) * value(x);
  }
  return 1;
}

FollowingActivation FollowingActivation::of(const Node& node, std::size_t operand, std::int64_t channels) {
  const bool convolution = node.is("Conv") || node.is("ConvTranspose");
  if (operand != 1 || (!convolution && !node.is("Gemm") && !node.is("MatMul"))) return {};
  FollowingActivation found;
  if (!node.is("MatMul") && !read_bias(node, channels, found)) return {};
  const Node* reader = only_reader(node.output(0));
  if (reader && !convolution && reader->is("Add") && found.bias.empty()) {
    const Value* other = reader->input(reader->input(0) == node.output(0) ? 1 : 0);
    const auto values = channel_values(other, channels);
    if (!values) return found;
    found.bias = *values;
    reader = only_reader(reader->output(0));
  }
  if (reader) read_activation(*reader, found);
  return found;
}

}  // namespace onnxpress
