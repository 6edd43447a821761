#include "passes/common/batch_norm.h"

#include <algorithm>
#include <string_view>

namespace onnxpress {

bool has_unfolded_batch_norm(const Model& model) {
  static constexpr std::string_view products[] = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add"};
  bool found = false;
  model.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) {
      const Value* input = node->is("BatchNormalization") ? node->input(0) : nullptr;
      const Node* maker = input ? input->producer() : nullptr;
      found |= maker && std::ranges::any_of(products, [&](std::string_view op) { return maker->is(op); });
    }
  });
  return found;
}

}  // namespace onnxpress
