// Channels that can be scaled without changing what a model computes.
//
// What is positively homogeneous (f(s x) = s f(x) for s > 0: Relu, pooling, sums ...) hands a positive
// factor of a channel on. Channels so tied together are one class. When every operator that makes a
// class's channels can divide them by the factor in its constants, and every one that reads them can
// put it back, the factor is free: cross-layer equalization, SmoothQuant and AWQ choose it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/ir/model.h"
#include "passes/common/linear_operator.h"
#include "passes/core/pass.h"

namespace onnxpress {

// An operator that takes factors into its constants.
struct ScalingEnd {
  enum class Kind {
    linear,      // Conv, ConvTranspose, Gemm, MatMul: rows and columns of the weight
    batch_norm,  // either side
    norm,        // layer, RMS, instance, group normalization: only what it makes
    multiply,    // Mul or Div with a constant by channel: either side
    add,         // Add or Sub with a constant: the constant goes with what passes through
  };
  Kind kind = Kind::linear;
  Node* node = nullptr;
  std::optional<LinearOperator> linear;
  std::size_t constant = 0;               // input of multiply and add; the scale of norm
  std::optional<std::size_t> shift;       // input of norm that is its bias
  std::int64_t behind = 0;                // axes behind the channel axis, of multiply and add
  std::size_t in_axis = 0;                // of the channels in input 0, of linear
  // Class of each channel; `fixed` where there is none.
  std::vector<std::size_t> out, in;
};

struct ChannelClass {
  struct Member {
    std::size_t end = 0;
    std::int64_t channel = 0;
  };
  std::vector<Member> producers, consumers;
  bool narrow = false;  // some constant is 16 bits wide: powers of two only, which lose nothing
};

class ChannelClasses {
 public:
  static constexpr std::size_t fixed = static_cast<std::size_t>(-1);

  // Classes of the main graph and its subgraphs. Why the channels of a linear operator are tied to
  // something that takes no factor is told to `near_misses` as `pass`. Throws Error when the shape
  // rules find a contradiction.
  static ChannelClasses of(Model& model, std::string_view pass, std::vector<NearMiss>* near_misses);

  const std::vector<ScalingEnd>& ends() const { return ends_; }
  const std::vector<ChannelClass>& classes() const { return classes_; }
  // The end that a linear operator is; nullptr when nothing is known of its channels.
  const ScalingEnd* find(const Node& linear) const;

  // Divides the channels of every class by its scale (positive; rounded to a power of two for narrow
  // classes), in what makes them, and multiplies it into what reads them. False, and nothing is
  // changed, when every scale is 1 or some constant would overflow.
  bool apply(const std::vector<double>& scales) const;

 private:
  std::vector<ScalingEnd> ends_;
  std::vector<ChannelClass> classes_;
};

// 2^round(log2(scale)).
double nearest_power_of_two(double scale);

// Largest magnitude in every output (input) channel of the weight, once its output channels are
// multiplied by `out` and its input channels by `in` (empty: 1).
struct ChannelRanges {
  std::vector<double> out, in;
};
ChannelRanges channel_ranges(const LinearOperator& linear, const std::vector<double>& out,
                             const std::vector<double>& in);

}  // namespace onnxpress
