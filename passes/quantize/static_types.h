// The element types of a statically quantized model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "passes/quantize/request.h"

namespace onnxpress {

// Codes of activations: integers [min, max] with a zero point, or an 8-bit float type (min and max
// are then its largest numbers, and there is no zero point).
struct ActivationType {
  DType storage = DType::uint8;
  int bits = 8;
  bool symmetric = false;  // the zero point is in the middle, or, for values of one sign, at the end

  bool is_integer() const { return onnxpress::is_integer(storage); }
  // Fewer levels than the storage type has: codes are clipped behind QuantizeLinear.
  bool is_restricted() const { return is_integer() && bits < onnxpress::bits(storage); }
  // What codes can be, clipped or saturated: of symmetric types the most negative one, which no range
  // is chosen for, too.
  std::int64_t least_code() const;
  std::int64_t most_code() const;
  std::int64_t min() const;
  std::int64_t max() const;
  // The grid whose scale choose_range() and min_max_parameters() are to be asked for.
  QuantizedType grid() const;
};

struct StaticTypes {
  ActivationType activation;
  QuantizedType weight;       // of as many bits as asked for; overrides change the bits
  bool weights_by_channel = true;
  std::int64_t opset = 13;    // that all of it needs
  std::vector<std::string> notes;  // what was given up, and why

  // The same for other widths.
  ActivationType activation_of(int bits) const;
  QuantizedType weight_of(int bits) const;

  bool said_activation_type = false, said_weight_type = false;  // by the user: widths change nothing
  Target target;
  bool smallest = false;
};

// Throws Error when nothing that was asked for is within the model's reach.
StaticTypes choose_static_types(const Model& model, const QuantizeRequest& request);

}  // namespace onnxpress
