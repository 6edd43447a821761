// One rewrite per operator and version whose meaning or form changed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "graph/ops/infer.h"

namespace onnxpress {

struct UpgradeContext {
  Graph& graph;
  Node& node;
  bool in_function;  // function bodies have no initializers
  std::int64_t target;  // the opset to be reached

  // Shape of an input; nullptr when its rank is not known.
  const Shape* input_shape(std::size_t index) const;
  DType input_dtype(std::size_t index) const;
};

struct UpgradeRule {
  std::string_view op_type;
  std::int64_t version;  // the opset that brought the change
  // Rewrites the node from the form of version - 1, or says why it cannot.
  std::optional<std::string> (*rewrite)(const UpgradeContext&);
};

// The rule for this step, or nullptr when the old form is valid and means the same.
const UpgradeRule* find_upgrade_rule(std::string_view op_type, std::int64_t version);

}  // namespace onnxpress
