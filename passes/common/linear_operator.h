// Conv, ConvTranspose, Gemm and MatMul with a constant weight: where their channels are, and what
// becomes of weight and bias when a scale and a shift by channel are folded into them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ops/channel_affine.h"

namespace onnxpress {

// The channel axis of a value.
struct ChannelView {
  std::int64_t count = 0;           // channels
  std::size_t behind = 0;           // axes behind the channel axis
  std::optional<std::size_t> rank;  // nothing: not known

  // Whether a constant of these dims is one value, or one per channel, and adds no axes.
  bool fits(const Dims& dims) const;
};

// One linear operator; input 0 is data, input 1 the constant weight. A bias is input 2, or, of a
// MatMul, the constant operand of the Add behind it.
struct LinearOperator {
  // A channel axis of the weight. Where it is not axis 0, `groups` divide axis 0.
  struct Axis {
    std::size_t axis = 0;
    std::int64_t groups = 1;
    std::int64_t count = 0;  // channels of all groups
    bool operator==(const Axis&) const = default;
  };

  Node* node = nullptr;
  const Tensor* weight = nullptr;
  Axis out, in;
  double alpha = 1, beta = 1;    // of a Gemm
  bool data_transposed = false;  // a Gemm's: the channels of its input are axis 0

  // Input 1 must be a constant. Throws Error for attributes that contradict the weight.
  static LinearOperator of(Node& node);
  // Why the weight cannot be read as that of a linear operator, or be replaced without loss.
  static std::optional<std::string> obstacle(const Node& node);

  // Whether what is folded into one's weight and bias is so into the other's.
  bool same_channels(const LinearOperator& other) const;
  bool is_product() const { return node->is("MatMul") || node->is("Gemm"); }
  // Of the result and of the input; their ranks follow from the weight but for MatMul, which has
  // that of the given type.
  ChannelView output_view(const Type& result) const;
  ChannelView input_view(const Type& data) const;

  // The weight with every output (input) channel multiplied by its factor.
  Tensor scaled_outputs(const std::vector<double>& factor) const;
  Tensor scaled_inputs(const std::vector<double>& factor) const;
  // Why the weight that was so scaled by `affine` cannot be stored (range_obstacle).
  std::optional<std::string> scale_obstacle(const Tensor& scaled,
                                            const ChannelAffine& affine) const;
  // By output channel: what the operator makes of an input that is `shift` everywhere, without
  // padding and bias. Not for ConvTranspose.
  std::vector<double> response(const std::vector<double>& shift) const;
};

// Of a Conv whose weight has these dims: whether it may pad its input; whether it is a product of
// channels, cell by cell (kernels of 1, no strides, padding or groups).
bool has_padding(const Node& conv, const Dims& weight);
bool is_pointwise(const Node& conv, const Dims& weight);

// Whether `bias` can take one more value per channel: one value, or channels last (`channels_last`:
// with other axes in front), else one per channel.
bool is_channel_bias(const Tensor& bias, std::int64_t channels, bool channels_last);

// bias * scale + shift, by channel, which is the last axis; undefined `bias` is zero. One value
// where there was one (or none) and every channel has the same. Computed in double, stored as
// `type`; a vector unless the bias has more axes.
Tensor affine_bias(const Tensor& bias, const ChannelAffine& affine, DType type);

// Scale and shift by channel of BatchNormalization, or of Mul, Div, Add and Sub with a constant.
struct AffineNode {
  ChannelAffine affine;
  std::size_t data = 0;  // the input that is scaled and shifted
  bool scales = false;
  bool shifts = false;
  std::vector<Value*> constants;
};

// What `node` does to its input `data`, whose channels are `view`; or, in `reason`, why it is no
// such thing.
std::optional<AffineNode> read_affine(const Node& node, std::size_t data, const ChannelView& view,
                                      std::string& reason);

// Whether operand `index`, of `operand_rank`, of the elementwise `node` lines up with the last axes
// of the result, as all do since opset 7. `rank` is that of the other operand; nothing: not known.
bool is_aligned_last(const Node& node, std::size_t index, std::optional<std::size_t> rank,
                     std::size_t operand_rank);

// Read by exactly one node, and no output.
bool is_read_once(const Value& value);
bool all_finite(const Tensor& tensor);  // of any floating-point type
// Why constants that were multiplied do not stand for their product any more in its type, which is
// float32 or float64: the largest of them overflowed, or came so near to zero that others among
// them lost bits. `is_zero`: whether the product is zero because one of its factors is.
std::optional<std::string> range_obstacle(const Tensor& product, bool is_zero);
// Whether all of its values are zero; none are, too.
bool all_zero(const Tensor& tensor);
// Numbers from here on round what is added to them, which taking them away again does on purpose:
// an addition of such a number stays what it is.
inline constexpr double rounding_shift = 1 << 20;
// Bytes of constants that nothing reads once `node` is gone.
std::size_t constant_bytes_only_for(const Node& node);
// Bytes that a node takes in a file at least, so that a constant may grow by them as it goes.
inline constexpr std::size_t least_node_bytes = 16;

}  // namespace onnxpress
