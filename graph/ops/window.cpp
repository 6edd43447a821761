#include "graph/ops/window.h"

#include <algorithm>

#include "graph/ops/attributes.h"

namespace onnxpress {
namespace {

constexpr std::int64_t largest = std::int64_t{1} << 30;  // products of two stay far inside int64
constexpr std::int64_t largest_size = std::int64_t{1} << 48;  // of an input's axis

AutoPad parse_auto_pad(const Node& node) {
  const std::string text = get_string(node, "auto_pad", "NOTSET");
  if (text == "NOTSET" || text.empty()) return AutoPad::notset;
  if (text == "SAME_UPPER") return AutoPad::same_upper;
  if (text == "SAME_LOWER") return AutoPad::same_lower;
  require(text == "VALID",
          "attribute 'auto_pad': expected NOTSET, SAME_UPPER, SAME_LOWER or VALID, found '{}'",
          text);
  return AutoPad::valid;
}

std::vector<std::int64_t> sized(const Node& node, std::string_view name, std::size_t size,
                                std::int64_t otherwise) {
  auto values = get_ints(node, name);
  if (values.empty()) values.assign(size, otherwise);
  require(values.size() == size, "attribute '{}': expected {} values, found {}", name, size,
          values.size());
  const bool fit = std::ranges::all_of(
      values, [&](std::int64_t value) { return value >= otherwise && value <= largest; });
  require(fit, "attribute '{}': expected values from {} to {}, found {}", name, otherwise, largest,
          to_string(values));
  return values;
}

bool is_same(AutoPad auto_pad) {
  return auto_pad == AutoPad::same_upper || auto_pad == AutoPad::same_lower;
}

}  // namespace

Window Window::from(const Node& node, std::vector<std::int64_t> kernel_sizes) {
  Window window;
  window.auto_pad = parse_auto_pad(node);
  window.kernel = get_ints(node, "kernel_shape", kernel_sizes);
  require(kernel_sizes.empty() || window.kernel == kernel_sizes,
          "attribute 'kernel_shape': expected {} as the weights have it, found {}",
          to_string(kernel_sizes), to_string(window.kernel));
  const bool fit = std::ranges::all_of(
      window.kernel, [](std::int64_t size) { return size >= 1 && size <= largest; });
  require(fit, "expected kernel sizes from 1 to {}, found {}", largest, to_string(window.kernel));
  const std::size_t rank = window.kernel.size();
  window.strides = sized(node, "strides", rank, 1);
  window.dilations = sized(node, "dilations", rank, 1);
  window.pads = sized(node, "pads", 2 * rank, 0);
  if (window.auto_pad != AutoPad::notset) window.pads.assign(2 * rank, 0);
  window.ceil_mode = get_bool(node, "ceil_mode", false);
  return window;
}

std::vector<std::int64_t> Window::resolved_pads(const Dims& spatial) const {
  if (!is_same(auto_pad)) return pads;
  std::vector<std::int64_t> resolved(2 * rank());
  for (std::size_t axis = 0; axis < rank(); ++axis) {
    const std::int64_t count = (spatial[axis] + strides[axis] - 1) / strides[axis];
    const std::int64_t total =
        std::max<std::int64_t>(0, (count - 1) * strides[axis] + extent(axis) - spatial[axis]);
    const std::int64_t less = total / 2;
    resolved[axis] = auto_pad == AutoPad::same_upper ? less : total - less;
    resolved[rank() + axis] = total - resolved[axis];
  }
  return resolved;
}

std::int64_t Window::output_size(std::size_t axis, std::int64_t size) const {
  require(size <= largest_size, "expected at most {} cells along spatial axis {}, found {}",
          largest_size, axis, size);
  const std::int64_t stride = strides[axis];
  if (is_same(auto_pad)) return (size + stride - 1) / stride;
  const std::int64_t before = pads[axis];
  const std::int64_t room = size + before + pads[rank() + axis] - extent(axis);
  require(room >= 0,
          "a window of {} does not fit into {} with padding {} and {} along spatial axis {}",
          extent(axis), size, before, pads[rank() + axis], axis);
  if (!ceil_mode) return room / stride + 1;
  // The last window must start inside the input or the padding before it.
  const std::int64_t count = (room + stride - 1) / stride + 1;
  return (count - 1) * stride >= size + before ? count - 1 : count;
}

Dim Window::output_dim(std::size_t axis, const Dim& dim) const {
  if (dim.is_known()) return output_size(axis, dim.value());
  const bool keeps = strides[axis] == 1 &&
                     (is_same(auto_pad) || pads[axis] + pads[rank() + axis] == extent(axis) - 1);
  return keeps ? dim : Dim();
}

void Window::write(Attributes& attributes) const {
  attributes["kernel_shape"] = kernel;
  attributes["strides"] = strides;
  if (std::ranges::any_of(dilations, [](std::int64_t step) { return step != 1; }))
    attributes["dilations"] = dilations;
  if (auto_pad == AutoPad::same_upper) attributes["auto_pad"] = "SAME_UPPER";
  if (auto_pad == AutoPad::same_lower) attributes["auto_pad"] = "SAME_LOWER";
  if (std::ranges::any_of(pads, [](std::int64_t pad) { return pad != 0; }))
    attributes["pads"] = pads;
  if (ceil_mode) attributes["ceil_mode"] = 1;
}

WindowGeometry WindowGeometry::of(const Window& window, const Dims& input_spatial,
                                  const Dims& output_spatial) {
  const std::size_t rank = window.rank();
  require(rank <= 3, "expected at most 3 spatial axes, found {}", rank);
  const std::vector<std::int64_t> pads = window.resolved_pads(input_spatial);
  WindowGeometry geometry;
  for (std::size_t i = 0; i < 3; ++i) {
    const bool real = i + rank >= 3;
    const std::size_t axis = i + rank - 3;
    geometry.input[i] = real ? input_spatial[axis] : 1;
    geometry.output[i] = real ? output_spatial[axis] : 1;
    geometry.kernel[i] = real ? window.kernel[axis] : 1;
    geometry.stride[i] = real ? window.strides[axis] : 1;
    geometry.dilation[i] = real ? window.dilations[axis] : 1;
    geometry.pad[i] = real ? pads[axis] : 0;
  }
  return geometry;
}

}  // namespace onnxpress
