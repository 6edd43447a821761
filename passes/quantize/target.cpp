#include "passes/quantize/target.h"

#include <array>
#include <utility>

#include <fmt/ranges.h>

#include "graph/base/error.h"

namespace onnxpress {
namespace {

constexpr std::array<std::pair<std::string_view, Target::Id>, 6> names{{{"ort-cpu", Target::Id::ort_cpu},
                                                                         {"ort-cpu-avx2", Target::Id::ort_cpu_avx2},
                                                                         {"openvino", Target::Id::openvino},
                                                                         {"tensorrt", Target::Id::tensorrt},
                                                                         {"qnn", Target::Id::qnn},
                                                                         {"generic", Target::Id::generic}}};

}  // namespace

Target Target::from_name(std::string_view name) {
  for (const auto& [text, id] : names)
    if (text == name) return {id};
  std::vector<std::string_view> known;
  for (const auto& [text, id] : names) known.push_back(text);
  fail("unknown target '{}', expected one of {}", name, fmt::join(known, ", "));
}

std::string_view Target::name() const {
  for (const auto& [text, known] : names)
    if (known == id) return text;
  return {};
}

bool Target::symmetric_activations() const { return id == Id::tensorrt; }

DType Target::activation_type(int bits) const {
  const bool is_signed = id == Id::tensorrt;
  if (bits <= 8) return is_signed ? DType::int8 : DType::uint8;
  return is_signed ? DType::int16 : DType::uint16;
}

bool Target::quantizes_biases() const { return id != Id::tensorrt && id != Id::openvino; }

bool Target::reduced_weight_range() const { return id == Id::ort_cpu_avx2; }

// ONNX Runtime 1.31: docs/runtime-support.md.
std::int64_t Target::newest_opset() const { return 26; }
std::int64_t Target::newest_ir_version() const { return 13; }

}  // namespace onnxpress
