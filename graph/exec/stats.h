// What a model weighs: bytes, parameters, MACs, sparsity, by tensor, operator and type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// One initializer or Constant node's tensor.
struct TensorStats {
  std::string name;
  std::string type;  // "int8"
  Dims dims;
  std::int64_t bytes = 0;     // as stored; a sparse tensor's values and indices
  std::int64_t elements = 0;  // of the dims, sparse or not
  std::int64_t zeros = 0;     // elements equal to zero (for a quantized weight: to its zero point)
  // The first reader, followed through DequantizeLinear and what only moves or casts elements
  // (Identity, Cast, Reshape, Transpose, Squeeze, Unsqueeze, Flatten); empty when nobody reads it.
  std::string op_type;  // "Conv", "my.domain.Op"
  std::string node;     // its name
  int bits = 0;         // of one stored element
  const std::byte* data = nullptr;  // where the elements lie; null for sparse ones and strings
};

struct CountedBytes {
  std::string key;         // op_type or type of TensorStats
  std::int64_t count = 0;  // nodes (functions' bodies once each), or tensors
  std::int64_t bytes = 0;  // of the tensors attributed to it
  std::int64_t macs = 0;   // operators only; functions at each call
};

struct ModelStats {
  std::int64_t serialized_bytes = 0;  // as one inline file
  std::int64_t tensor_bytes = 0;
  std::int64_t parameters = 0;    // parameter_count()
  std::int64_t zeros = 0;         // among the parameters; for a sparse one among those stored
  std::int64_t macs = 0;          // every dim of an input that is not a number taken as 1
  std::int64_t macs_unknown = 0;  // nodes whose cost is not known for want of shapes
  // Peak memory of activations, the same dims taken as 1: what is alive at once when nodes run in
  // the file's order, weights not counted.
  std::int64_t activation_bytes = 0;
  std::string activation_peak_at;         // "node 'conv1' (Conv)"; empty without nodes
  std::int64_t activations_unknown = 0;   // values left out for want of a shape
  std::vector<std::string> open_dims;     // of required inputs: "batch", "x[0]"
  bool open_dims_are_1 = true;            // false: that contradicts a rule, they stayed unknown
  std::int64_t nodes = 0;                 // subgraphs and functions included, Constant not counted
  std::vector<TensorStats> tensors;       // largest first
  std::vector<CountedBytes> by_operator;  // most bytes first
  std::vector<CountedBytes> by_type;      // most bytes first
  double sparsity() const { return parameters ? double(zeros) / double(parameters) : 0.0; }
};

// Throws Error when shape rules find a contradiction. `similar`: of a model that is still there and
// may share tensors with this one (a clone, or what it was cloned from): their zeros are not counted
// again.
ModelStats model_stats(const Model& model, const ModelStats* similar = nullptr);

}  // namespace onnxpress
