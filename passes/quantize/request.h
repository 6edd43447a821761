// What a step of `quantize` asks for, read from its options once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "passes/common/calibration.h"
#include "passes/common/quantization.h"
#include "passes/core/pass.h"
#include "passes/core/selector.h"
#include "passes/quantize/target.h"

namespace onnxpress {

enum class Scheme {
  static_ranges,  // activations and weights, ranges of activations from calibration data
  dynamic,        // activations when the model runs, weights now
  weights,        // weights only
};

enum class Form {
  automatic,  // what the scheme and the target have best
  qdq,        // QuantizeLinear and DequantizeLinear around float operators
  qoperator,  // QLinearConv, QLinearMatMul, com.microsoft.QGemm, QLinearAdd ...
  contrib,    // com.microsoft.MatMulNBits, GatherBlockQuantized
  codebook,   // Gather of a palette of floats by uint8 or uint4 indices (weights only)
};

enum class Rounding {
  automatic,  // mse for few values, else nearest (see round_weights)
  nearest, mse, hqq, gptq, adaround
};
enum class BiasCorrection { none, analytic, empirical };

// Blocks of small floats with scales of one byte.
enum class BlockFormat {
  none,
  mxfp4, mxfp8,  // float4e2m1 or float8e4m3fn, blocks of 32 with a power of two (Open Compute
                 // Microscaling Formats specification 1.0)
  nvfp4,         // float4e2m1, blocks of 16 with a float8e4m3fn, and a float32 scale of the tensor
};

// Bits (0: left in float) of the nodes that a selector matches.
struct BitsRule {
  std::string selector;
  int bits = 0;
};

struct TunedGrids;
// Called by every scheme before it converts (tuning.h).
using Tuner = std::function<void(Model& model, TunedGrids& grids)>;

struct QuantizeRequest {
  Scheme scheme = Scheme::static_ranges;
  Form form = Form::automatic;
  int weight_bits = 8;
  int activation_bits = 8;
  // Said by the user; nothing: as bits, symmetry and target have it.
  std::optional<DType> weight_type, activation_type;
  BlockFormat format = BlockFormat::none;       // of weights; then weight_type, granularity and block are its own
  bool symmetric = true;                        // weights
  std::optional<bool> symmetric_activations;    // nothing: as the target has it
  Granularity::Kind granularity = Granularity::Kind::channel;  // of weights
  std::int64_t block = 32;
  bool power_of_two = false;
  DType scale_type = DType::undefined;          // undefined: the weight's; float16: stored so, and cast
  RangeOptions range;
  Rounding rounding = Rounding::automatic;
  // Of the methods that look at inputs: samples that they look at, the share of the mean diagonal
  // that is added to the Hessian, whether columns are rounded by importance, gradient steps.
  std::int64_t rounding_samples = 1024;
  double damping = 0.01;
  bool act_order = true;
  std::int64_t rounding_steps = 2000;
  BiasCorrection bias_correction = BiasCorrection::none;
  Target target;
  bool only_loadable = true;
  std::int64_t accuracy_level = 0;    // of MatMulNBits, as com.microsoft has it; 0: not said
  std::string_view pass = "quantize";  // that asks, for what is told
  std::string select;                 // nodes or tensors to quantize
  std::vector<BitsRule> overrides;    // the last that matches counts
  bool automatic_bits = false;        // bits=auto
  std::optional<double> budget_bits;  // bits per weight, of bits=auto
  bool may_grow = false;              // also what makes the file larger: for measuring one layer alone
  std::optional<double> max_drop;     // of accuracy or agreement, as a share, of bits=auto
  Tuner tune = {};                    // trains what is about to be converted

  // The method looks at the inputs that weights meet.
  bool rounds_by_inputs() const { return rounding == Rounding::gptq || rounding == Rounding::adaround; }
  // QuantizedType::all_codes of a symmetric weight of so many bits: one level more is much where there are few.
  // Training moves scales and weights by itself.
  bool uses_all_codes(int width) const {
    return scheme == Scheme::weights && width <= 4 && !tune && rounding != Rounding::automatic && rounding != Rounding::nearest;
  }

  // Throws Error for values that contradict each other, and for options that do nothing beside the others.
  static QuantizeRequest from(const Options& options);
  // Throws Error where form or type of weights have no such width.
  void check_width(int width) const;
  // Of a weight (or the activations of a node): 0 when it is left in float.
  int bits_of(const Node& node, const Value& weight) const;
};

// What `quantize` does to the model for each scheme. `near_misses` gets every node that was not
// quantized, and why; the layers of the outcome have one record per quantized tensor.
Outcome quantize_static(Model& model, PassContext& context, const QuantizeRequest& request);
Outcome quantize_dynamic(Model& model, PassContext& context, const QuantizeRequest& request);
Outcome quantize_weights_only(Model& model, PassContext& context, const QuantizeRequest& request);
// Throws Error for what scheme=dynamic cannot be asked.
void check_dynamic(const QuantizeRequest& request);
// Opset that the scheme needs for this model; 0: any.
std::int64_t static_opset(const Model& model, const QuantizeRequest& request);
std::int64_t dynamic_opset(const Model& model, const QuantizeRequest& request);
std::int64_t weights_only_opset(const Model& model, const QuantizeRequest& request);

// Throws Error for what the scheme cannot do, whatever the model.
void check_static(const QuantizeRequest& request);
// Passes that static quantization is better with before it: they fold constants that are computed,
// BatchNormalization behind a product, and biases of matrix products.
std::vector<std::string> static_preparations(const Model& model);

// What bits=auto chose.
struct BitsAssignment {
  std::vector<BitsRule> rules;  // one per node or tensor, to follow the request's own
  std::vector<std::string> notes;
  // By weight: output SNR with it alone at each width, "4: 23.1 dB, 8: 45.0 dB".
  std::map<std::string, std::string, std::less<>> sensitivity;
};

// Chooses bits per weight by measured sensitivity, within request.budget_bits or, without, so that no
// more than request.max_drop is lost on the calibration data; see mixed precision in
// docs/quantization.md. Throws Error for a budget that is out of reach.
BitsAssignment assign_bits(const Model& model, PassContext& context, const QuantizeRequest& request);
// Throws Error when neither a budget nor a drop is said.
void check_automatic_bits(const QuantizeRequest& request);
// The narrowest width that it may choose, which the opset must allow.
int narrowest_automatic_bits(const QuantizeRequest& request);

}  // namespace onnxpress
