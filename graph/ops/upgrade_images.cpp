// Upgrades of operators on images. The facts are those of onnx docs/Changelog.md.
#include <algorithm>

#include "graph/ops/constant.h"
#include "graph/ops/pieces.h"
#include "graph/ops/upgrade_tools.h"

namespace onnxpress::upgrading {

Result upsample_7(const UpgradeContext& c) {
  const std::optional<float> height = take<float>(c, "height_scale");
  const std::optional<float> width = take<float>(c, "width_scale");
  if (!height || !width) return "attributes 'height_scale' and 'width_scale' are missing";
  c.graph.set_attribute(&c.node, "scales", std::vector<float>{1, 1, *height, *width});
  return std::nullopt;
}

Result upsample_9(const UpgradeContext& c) {
  if (refers(c, "scales")) return attribute_by_reference;
  const std::optional<std::vector<float>> scales = take<std::vector<float>>(c, "scales");
  if (!scales) return "attribute 'scales' is missing";
  c.graph.set_node_input(
      &c.node, 1,
      constant(c, hint(c, "scales"),
               Tensor::of<float>({static_cast<std::int64_t>(scales->size())}, *scales)));
  return std::nullopt;
}

// Upsample is Resize; one step later where nearest has to be said to round down: it only grows.
Result upsample_10(const UpgradeContext& c) {
  if (c.target == 10) c.graph.set_operator(&c.node, "Resize");
  return std::nullopt;
}

namespace {

void sample_asymmetrically(const UpgradeContext& c, const char* nearest_mode) {
  constexpr std::int64_t optional_since = 13;  // the region of interest
  c.graph.set_node_input(&c.node, 2, c.node.input(1));
  c.graph.set_node_input(&c.node, 1, c.target < optional_since ? constant(c, hint(c, "roi"), Tensor(DType::float32, {0})) : nullptr);
  c.graph.set_attribute(&c.node, "coordinate_transformation_mode", "asymmetric");
  c.graph.set_attribute(&c.node, "nearest_mode", nearest_mode);
}

}  // namespace

Result upsample_11(const UpgradeContext& c) {
  c.graph.set_operator(&c.node, "Resize");
  sample_asymmetrically(c, "floor");
  return std::nullopt;
}

// Resize-10 sampled at output / scale: 'asymmetric'. Nearest took the element before the sample, or
// the one after it along axes that shrink.
Result resize_11(const UpgradeContext& c) {
  const std::string mode = text_attribute(c, "mode");
  const std::optional<Tensor> scales = constant_contents(c.node.input(1));
  const auto shrinks = [](float scale) { return scale < 1; };
  const std::vector<float> known = scales ? scales->to_floats() : std::vector<float>();
  const bool down = std::ranges::any_of(known, shrinks);
  if (mode.empty() || mode == "nearest") {
    if (!scales) return "Resize of mode 'nearest' whose scales are not constant";
    if (down && std::ranges::any_of(known, [](float scale) { return scale > 1; }))
      return "Resize of mode 'nearest' that shrinks some axes and grows others";
  }
  sample_asymmetrically(c, down ? "ceil" : "floor");
  return std::nullopt;
}

// Resize-13 no longer has 'tf_half_pixel_for_nn', which samples half an element after 'half_pixel':
// rounding down there is rounding to the nearest here, halves up; and so on.
Result resize_13(const UpgradeContext& c) {
  if (text_attribute(c, "coordinate_transformation_mode") != "tf_half_pixel_for_nn")
    return std::nullopt;
  const std::string mode = text_attribute(c, "mode");
  const std::string nearest = text_attribute(c, "nearest_mode");
  if (!mode.empty() && mode != "nearest")
    return "Resize with 'tf_half_pixel_for_nn' and a mode other than 'nearest'";
  const bool to_nearest = nearest.empty() || nearest == "round_prefer_floor";
  if (!to_nearest && nearest != "floor")
    return fmt::format("Resize with 'tf_half_pixel_for_nn' and nearest_mode '{}'", nearest);
  c.graph.set_attribute(&c.node, "coordinate_transformation_mode", "half_pixel");
  c.graph.set_attribute(&c.node, "nearest_mode", to_nearest ? "ceil" : "round_prefer_ceil");
  return std::nullopt;
}

// The default became 'half_pixel'.
Result roi_align_16(const UpgradeContext& c) {
  c.graph.set_attribute(&c.node, "coordinate_transformation_mode", "output_half_pixel");
  return std::nullopt;
}

Result grid_sample_20(const UpgradeContext& c) {
  const std::string mode = text_attribute(c, "mode");
  if (mode == "bilinear") c.graph.set_attribute(&c.node, "mode", "linear");
  if (mode == "bicubic") c.graph.set_attribute(&c.node, "mode", "cubic");
  return std::nullopt;
}

// Scale and bias went from one per group to one per channel.
Result group_norm_21(const UpgradeContext& c) {
  const Shape* x = c.input_shape(0);
  if (!x || x->size() < 2 || !(*x)[1].is_known())
    return "the channel count of its input is not known";
  const Attribute* attribute = c.node.attribute("num_groups");
  const std::int64_t* groups = attribute ? std::get_if<std::int64_t>(&attribute->value) : nullptr;
  const std::int64_t channels = (*x)[1].value();
  if (!groups || *groups < 1 || channels % *groups != 0)
    return "channels do not divide into groups";
  const std::int64_t repeats = channels / *groups;
  for (const std::size_t index : {1, 2}) {
    Value* value = c.node.input(index);
    if (!value) return "its scale or bias is missing";
    const std::optional<Tensor> known = constant_contents(value);
    if (known && known->size() == *groups) {
      const std::vector<Tensor> copies(static_cast<std::size_t>(repeats),
                                       known->reshaped({*groups, 1}));
      c.graph.set_node_input(&c.node, index,
                             constant(c, value->name(), join(copies, 1).reshaped({channels})));
      continue;
    }
    Value* column = add_before(c, "Unsqueeze", "column", {value, ints_constant(c, "axis", {1})});
    Value* rows =
        add_before(c, "Tile", "rows", {column, ints_constant(c, "repeats", {1, repeats})});
    Value* flat =
        add_before(c, "Reshape", "per_channel", {rows, ints_constant(c, "channels", {channels})});
    c.graph.set_node_input(&c.node, index, flat);
  }
  return std::nullopt;
}

}  // namespace onnxpress::upgrading
