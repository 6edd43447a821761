// What a runtime makes of quantized models.
#pragma once

#include <cstdint>
#include <string_view>

#include "graph/base/dtype.h"

namespace onnxpress {

struct Target {
  enum class Id { ort_cpu, ort_cpu_avx2, openvino, tensorrt, qnn, generic };
  Id id = Id::ort_cpu;

  static Target from_name(std::string_view name);  // "ort-cpu"; throws Error with the known names
  std::string_view name() const;

  bool symmetric_activations() const;
  DType activation_type(int bits) const;
  // Products of 8-bit numbers are summed in pairs as 16-bit ones that saturate (x86 without VNNI):
  // weights keep to 7 bits.
  bool reduced_weight_range() const;
  // Biases as int32; else they stay floats.
  bool quantizes_biases() const;
  std::int64_t newest_opset() const;
  std::int64_t newest_ir_version() const;
};

}  // namespace onnxpress
