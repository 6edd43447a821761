#include "passes/quantize/records.h"

#include <algorithm>
#include <cmath>

namespace onnxpress {
namespace {

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json finite_or_null(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? Json(*value) : Json();
}

std::string_view name(Granularity::Kind kind) {
  switch (kind) {
    case Granularity::Kind::tensor: return "tensor";
    case Granularity::Kind::channel: return "channel";
    case Granularity::Kind::block: return "block";
  }
  return {};
}

// The number that all of them are.
std::optional<std::int64_t> common_zero_point(const QuantizedTensor& quantized) {
  if (!quantized.zero_point.defined()) return 0;
  const std::vector<std::int64_t> points = quantized.zero_point.to_ints();
  const bool same = !points.empty() && std::ranges::all_of(points, [&](auto p) { return p == points[0]; });
  return same ? std::optional(points[0]) : std::nullopt;
}

}  // namespace

std::string_view name(QuantizedKind kind) {
  switch (kind) {
    case QuantizedKind::weight: return "weight";
    case QuantizedKind::activation: return "activation";
    case QuantizedKind::bias: return "bias";
  }
  return {};
}

Json QuantizedRecord::to_json() const {
  const bool has_axis = granularity.kind != Granularity::Kind::tensor;
  const bool has_blocks = granularity.kind == Granularity::Kind::block;
  return {{"tensor", tensor},
          {"node", node},
          {"op", op},
          {"kind", onnxpress::name(kind)},
          {"form", form},
          {"bits", bits},
          {"storage", onnxpress::name(storage)},
          {"granularity", name(granularity.kind)},
          {"axis", has_axis ? Json(granularity.axis) : Json()},
          {"block", has_blocks ? Json(granularity.block) : Json()},
          {"elements", or_null(elements)},
          {"zeros", or_null(zeros)},
          {"scale_min", scale_min},
          {"scale_max", scale_max},
          {"zero_point", or_null(zero_point)},
          {"clipped", or_null(clipped)},
          {"snr_db", finite_or_null(snr_db)},
          {"output_snr_db", finite_or_null(output_snr_db)},
          {"bytes_before", or_null(bytes_before)},
          {"bytes_after", or_null(bytes_after)},
          {"note", note}};
}

std::size_t stored_bytes(const QuantizedTensor& quantized) {
  return quantized.codes.byte_size() + quantized.scale.byte_size() +
         (quantized.zero_point.defined() ? quantized.zero_point.byte_size() : 0);
}

QuantizedRecord weight_record(const Weight& weight, const QuantizedTensor& quantized,
                              const QuantizedType& type, std::string_view form) {
  const std::vector<float> scales = quantized.scale.to_floats();
  QuantizedRecord record{.tensor = weight.value->name(),
                         .node = weight.node->name,
                         .op = weight.node->op_type(),
                         .kind = QuantizedKind::weight,
                         .form = std::string(form),
                         .bits = type.bits,
                         .storage = quantized.codes.dtype(),
                         .granularity = quantized.granularity,
                         .elements = quantized.codes.size(),
                         .zeros = quantized.zeros,
                         .zero_point = common_zero_point(quantized),
                         .snr_db = quantized.snr_db,
                         .bytes_before = weight.value->constant()->byte_size(),
                         .bytes_after = stored_bytes(quantized),
                         .note = {}};
  if (!scales.empty()) {
    record.scale_min = *std::ranges::min_element(scales);
    record.scale_max = *std::ranges::max_element(scales);
  }
  return record;
}

}  // namespace onnxpress
