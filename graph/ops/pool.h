// MaxPool, AveragePool, LpPool and their global forms.
#pragma once

#include "graph/ops/window.h"

namespace onnxpress {

struct PoolAttrs {
  Window window;
  bool count_include_pad = false;     // AveragePool
  bool column_major_indices = false;  // MaxPool's storage_order
  double p = 2;                       // LpPool

  static PoolAttrs from(const Node& node);
};

}  // namespace onnxpress
