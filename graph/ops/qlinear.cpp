#include "graph/ops/qlinear.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/pool.h"

namespace onnxpress {

Attributes qgemm_attributes(const GemmAttrs& attrs) {
  Attributes attributes;
  if (attrs.alpha != 1) attributes["alpha"] = attrs.alpha;
  if (attrs.transpose_a) attributes["transA"] = 1;
  if (attrs.transpose_b) attributes["transB"] = 1;
  return attributes;
}

std::optional<Attributes> qlinear_average_pool_attributes(const Node& average_pool) {
  const PoolAttrs attrs = PoolAttrs::from(average_pool);
  const auto is_one = [](std::int64_t dilation) { return dilation == 1; };
  // With ceil_mode ONNX Runtime's counts cells that AveragePool does not.
  if (!std::ranges::all_of(attrs.window.dilations, is_one) || attrs.window.ceil_mode) return std::nullopt;
  return attrs.to_attributes();
}

std::optional<std::string> code_movement_obstacle(const Node& node) {
  if (node.is("MaxPool")) {
    if (node.opset() < 12) return "MaxPool takes 8-bit codes since opset 12";
    if (node.output(1) != nullptr && !node.output(1)->is_unused()) return "the indices of the largest are read";
  }
  if (node.is("Resize")) {
    if (get_string(node, "mode", "nearest") != "nearest") return "Resize interpolates between its values";
    if (get_string(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize")
      return "Resize fills in a value of its own";
  }
  return std::nullopt;
}

}  // namespace onnxpress
