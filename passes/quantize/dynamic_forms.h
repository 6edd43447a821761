// Writing operators of scheme=dynamic: DynamicQuantizeLinear for activations, and the integer operator.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "graph/rewrite/patch.h"
#include "passes/common/quantization.h"
#include "passes/quantize/dynamic_sites.h"

namespace onnxpress {

// A weight as codes, in the weight's graph.
struct StoredCodes {
  Value* codes = nullptr;
  bool swapped = false;  // the last two axes are stored the other way round
  Tensor scale, zero_point;  // as QuantizedTensor has them; zero_point undefined: zero
  std::optional<std::int64_t> axis;  // of the scales, in the weight as it was; nothing: one scale
  std::size_t rank = 0;              // of the weight
  DType type = DType::float32;       // of the weight
  std::string name;                  // of the weight
};

// Replaces float operators by integer ones. One DynamicQuantizeLinear serves all readers of an
// activation in a graph.
class DynamicWriter {
 public:
  // `quantized` as a constant of the graph of `weight`; `swapped`: with its last two axes the other
  // way round.
  static StoredCodes store(const DynamicWeight& weight, QuantizedTensor quantized, bool swapped);

  void product(const DynamicSite& site, const StoredCodes& weight);      // MatMul, Gemm
  void convolution(const DynamicSite& site, const StoredCodes& weight);  // Conv
  void lookup(const DynamicSite& site, const StoredCodes& table);        // Gather
  void recurrent(Node& lstm, const StoredCodes& w, const StoredCodes& r);
  // What still reads the weight reads DequantizeLinear.
  void dequantize(Value* weight, const StoredCodes& codes);

 private:
  struct Edit;  // of one operator

  struct QuantizedValues {
    Value *codes, *scale, *zero_point;
  };
  std::map<std::pair<const Graph*, const Value*>, QuantizedValues> activations_;
};

}  // namespace onnxpress
