// What keeps the engine from running a model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/ir/model.h"

namespace onnxpress {

// An operator without a kernel, and the first node that needs it.
struct UnsupportedOperator {
  std::string op_type, domain;  // domain "ai.onnx" when the file leaves it empty
  std::int64_t version = 0;     // of the domain, as the model imports it
  std::string node;             // "node 'lstm' (LSTM)", with the function that it is in
};

// Sorted by domain and name, each operator once; functions that are called and subgraphs included.
std::vector<UnsupportedOperator> unsupported_operators(const Model& model);

// "the engine has no kernel for Foo of my.domain 1 (node 'foo' (Foo)), ...": all of them.
std::string describe(const std::vector<UnsupportedOperator>& operators);

// The engine does not run the model.
class UnsupportedModel : public Error {
 public:
  using Error::Error;
};

// Throws UnsupportedModel with what describe() says of the model's unsupported operators, if it has any.
void require_supported(const Model& model);

}  // namespace onnxpress
