// The text form of AugmentationOptions.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/exec/augmentation.h"

namespace onnxpress {
namespace {

using Border = AugmentationOptions::Border;
using Layout = AugmentationOptions::Layout;

double number(std::string_view key, std::string_view text, double least, double most) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc{} && end == text.data() + text.size() && value >= least && value <= most,
          "augmentation '{}': expected a number from {} to {}, found '{}'", key, least, most, text);
  return value;
}

std::int64_t whole(std::string_view key, std::string_view text) {
  const double value = number(key, text, 0, 65536);
  require(value == std::floor(value), "augmentation '{}': expected a whole number of pixels, found '{}'", key, text);
  return static_cast<std::int64_t>(value);
}

Dims dims(std::string_view text) {
  Dims result;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t end = std::min(rest.find('x'), rest.size());
    const double dim = number("image", rest.substr(0, end), 1, 65536);
    require(dim == std::floor(dim), "augmentation 'image': expected whole numbers, found '{}'", text);
    result.push_back(static_cast<std::int64_t>(dim));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  require(result.size() == 2 || result.size() == 3,
          "augmentation 'image': expected dims such as 1x28x28 or 28x28, found '{}'", text);
  return result;
}

void read_flip(std::string_view text, AugmentationOptions& options) {
  const bool both = text == "both";
  require(both || text == "horizontal" || text == "vertical",
          "augmentation 'flip': expected horizontal, vertical or both, found '{}'", text);
  options.flip_horizontal = both || text == "horizontal";
  options.flip_vertical = both || text == "vertical";
}

void read_fill(std::string_view text, AugmentationOptions& options) {
  if (text == "edge" || text == "reflect") {
    options.border = text == "edge" ? Border::edge : Border::reflect;
    return;
  }
  options.fill = number("fill", text, -1e30, 1e30);
}

void read_layout(std::string_view text, AugmentationOptions& options) {
  require(text == "nchw" || text == "nhwc", "augmentation 'layout': expected nchw or nhwc, found '{}'", text);
  options.layout = text == "nchw" ? Layout::channels_first : Layout::channels_last;
}

}  // namespace

AugmentationOptions AugmentationOptions::parse(std::string_view text) {
  static const std::vector<std::string> known = {"shift", "crop", "flip",  "rotate", "noise",
                                                 "mixup", "fill", "input", "image",  "layout"};
  AugmentationOptions options;
  std::vector<std::string> seen;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t equals = item.find('=');
    const std::string key(item.substr(0, equals));
    require(equals != std::string_view::npos && equals + 1 < item.size(),
            "augmentation: expected KEY=VALUE, such as shift=2, found '{}'", item);
    const std::string_view value = item.substr(equals + 1);
    require(std::ranges::find(seen, key) == seen.end(), "augmentation '{}' is given twice", key);
    seen.push_back(key);
    if (key == "shift")
      options.shift = whole(key, value);
    else if (key == "crop")
      options.crop = whole(key, value);
    else if (key == "flip")
      read_flip(value, options);
    else if (key == "rotate")
      options.rotate = number(key, value, 0, 180);
    else if (key == "noise")
      options.noise = number(key, value, 0, 1e30);
    else if (key == "mixup")
      options.mixup = number(key, value, 0, 1000);
    else if (key == "fill")
      read_fill(value, options);
    else if (key == "input")
      options.input = value;
    else if (key == "image")
      options.image = dims(value);
    else if (key == "layout")
      read_layout(value, options);
    else {
      const std::string near = nearest_name(key, known);
      fail("augmentation '{}' is not known{}", key, near.empty() ? "" : "; did you mean '" + near + "'?");
    }
  }
  const bool leaves_sides = options.rotate > 0 || options.shift > 0 || options.crop > 0;
  const struct {
    const char* key;
    bool is_read;
    std::string_view belongs_to;
  } places[] = {{"fill", leaves_sides, "shift, crop and rotate"},
                {"image", options.moves_pixels(), "shift, crop, flip and rotate"},
                {"layout", options.moves_pixels(), "shift, crop, flip and rotate"},
                {"input", options.moves_pixels() || options.noise > 0, "shift, crop, flip, rotate and noise"}};
  for (const auto& place : places)
    require(place.is_read || std::ranges::find(seen, place.key) == seen.end(),
            "augmentation '{}' belongs to {} and would do nothing here", place.key, place.belongs_to);
  return options;
}

}  // namespace onnxpress
