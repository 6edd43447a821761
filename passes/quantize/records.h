// What the report says of one quantized tensor: the same keys for every scheme.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "passes/common/quantization.h"
#include "passes/common/weights.h"
#include "passes/core/pass.h"

namespace onnxpress {

enum class QuantizedKind { weight, activation, bias };
std::string_view name(QuantizedKind kind);

// One record of Outcome::layers. What was not measured, or does not apply, is null in the report.
struct QuantizedRecord {
  std::string tensor;
  std::string node, op;  // that reads the weight or bias, or makes the activation; empty for an input
  QuantizedKind kind = QuantizedKind::weight;
  std::string form;      // "DequantizeLinear", "QuantizeLinear", "MatMulNBits", "Gather" ...
  int bits = 8;          // levels: 2^bits
  DType storage = DType::int8;
  Granularity granularity;
  std::optional<std::int64_t> elements;  // nothing: an activation, whose shape may change
  std::optional<std::int64_t> zeros;     // elements that are exactly 0 once dequantized
  double scale_min = 0, scale_max = 0;
  std::optional<std::int64_t> zero_point;  // that all scales share
  std::optional<double> clipped;           // share of the values outside the levels, 0 to 1
  std::optional<double> snr_db;            // of the dequantized tensor; infinite is null as well
  std::optional<double> output_snr_db;     // of the operator's output, where the method looked at it
  std::optional<std::size_t> bytes_before, bytes_after;
  std::string note;

  Json to_json() const;
};

// Of a weight (or embedding table) whose codes take the place of its floats.
QuantizedRecord weight_record(const Weight& weight, const QuantizedTensor& quantized,
                              const QuantizedType& type, std::string_view form);

// Bytes of codes, scales and zero points.
std::size_t stored_bytes(const QuantizedTensor& quantized);

}  // namespace onnxpress
