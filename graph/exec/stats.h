// What a model weighs: bytes, parameters, MACs, sparsity, by tensor, operator and type.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

struct TensorStats {
  std::string name;
  std::string type;               // "int8"
  Dims dims;
  std::int64_t bytes = 0;
  std::int64_t elements = 0;
  std::int64_t zeros = 0;         // elements equal to zero (for a quantized weight: to its zero point)
  std::string op_type;            // the operator that finally reads it, through DequantizeLinear
  std::string node;
  int bits = 0;                   // of one stored element
};

struct CountedBytes {
  std::string key;
  std::int64_t count = 0;
  std::int64_t bytes = 0;
  std::int64_t macs = 0;          // operators only
};

struct ModelStats {
  std::int64_t serialized_bytes = 0;   // as one inline file
  std::int64_t tensor_bytes = 0;
  std::int64_t parameters = 0;         // parameter_count()
  std::int64_t zeros = 0;              // among the parameters
  std::int64_t macs = 0;               // batch 1 where the batch is symbolic
  std::int64_t macs_unknown = 0;       // nodes whose cost is not known for want of shapes
  std::int64_t nodes = 0;              // subgraphs and functions included, Constant not counted
  std::vector<TensorStats> tensors;    // largest first
  std::vector<CountedBytes> by_operator;  // most bytes first
  std::vector<CountedBytes> by_type;      // most bytes first
  double sparsity() const { return parameters ? double(zeros) / double(parameters) : 0.0; }
};

// `input_dims` fixes inputs ("name" -> dims); other symbolic dims count as 1 for MACs.
ModelStats model_stats(const Model& model);

}  // namespace onnxpress
