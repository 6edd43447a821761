// Resize and Upsample.
#include "graph/ops/resize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "graph/ops/attributes.h"
#include "graph/ops/constant.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"
#include "graph/ops/resample.h"

namespace onnxpress {
namespace {

enum class Interpolation { nearest, linear, cubic };
enum class Coordinates {
  half_pixel,
  half_pixel_symmetric,
  pytorch_half_pixel,
  align_corners,
  asymmetric,
  tf_half_pixel_for_nn,
  tf_crop_and_resize,
};
// before_11: the ceiling where an axis shrinks, the floor elsewhere.
enum class Nearest { round_prefer_floor, round_prefer_ceil, floor, ceil, before_11 };
enum class AspectRatio { stretch, not_larger, not_smaller };

// The value that goes with the attribute's text.
template <class T>
T choice(const Node& node, std::string_view name, std::string_view otherwise,
         std::initializer_list<std::pair<std::string_view, T>> choices) {
  const std::string text = get_string(node, name, otherwise);
  std::string expected;
  for (const auto& [candidate, value] : choices) {
    if (candidate == text) return value;
    expected += fmt::format("{}{}", expected.empty() ? "" : ", ", candidate);
  }
  fail("attribute '{}': expected one of {}, found '{}'", name, expected, text);
}

struct ResizeAttrs {
  Interpolation mode = Interpolation::nearest;
  Coordinates coordinates = Coordinates::asymmetric;
  Nearest nearest = Nearest::before_11;
  AspectRatio aspect_ratio = AspectRatio::stretch;
  float cubic_a = -0.75f;
  float extrapolation = 0;
  bool exclude_outside = false;
  bool antialias = false;
  float smallest_scale = 0;                       // Upsample: 1
  std::optional<std::vector<std::int64_t>> axes;  // that roi, scales and sizes are for; all
  std::vector<float> scales;                      // as attributes
  std::size_t roi_input = 0, scales_input = 0, sizes_input = 0;  // 0: there is none

  static ResizeAttrs from(const Node& node);
  std::vector<std::int64_t> axes_of(std::size_t rank) const;
};

ResizeAttrs ResizeAttrs::from(const Node& node) {
  using enum Interpolation;
  using enum Coordinates;
  ResizeAttrs attrs;
  if (node.is("Upsample")) {
    attrs.mode = choice<Interpolation>(
        node, "mode", "nearest", {{"nearest", nearest}, {"linear", linear}, {"bilinear", linear}});
    attrs.smallest_scale = 1;
    if (node.opset() < 7) {
      const auto height = find_float(node, "height_scale");
      const auto width = find_float(node, "width_scale");
      require(height && width, "attributes 'height_scale' and 'width_scale' are required");
      attrs.scales = {1, 1, *height, *width};
    } else if (node.opset() < 9) {
      attrs.scales = get_floats(node, "scales");
      require(!attrs.scales.empty(), "attribute 'scales' is required");
    } else {
      attrs.scales_input = 1;
    }
    return attrs;
  }
  attrs.mode = choice<Interpolation>(node, "mode", "nearest",
                                     {{"nearest", nearest}, {"linear", linear}, {"cubic", cubic}});
  if (node.opset() < 11) {
    attrs.scales_input = 1;
    return attrs;
  }
  attrs.roi_input = 1;
  attrs.scales_input = 2;
  attrs.sizes_input = 3;
  attrs.coordinates = choice<Coordinates>(node, "coordinate_transformation_mode", "half_pixel",
                                          {{"half_pixel", half_pixel},
                                           {"half_pixel_symmetric", half_pixel_symmetric},
                                           {"pytorch_half_pixel", pytorch_half_pixel},
                                           {"align_corners", align_corners},
                                           {"asymmetric", asymmetric},
                                           {"tf_half_pixel_for_nn", tf_half_pixel_for_nn},
                                           {"tf_crop_and_resize", tf_crop_and_resize}});
  attrs.nearest = choice<Nearest>(node, "nearest_mode", "round_prefer_floor",
                                  {{"round_prefer_floor", Nearest::round_prefer_floor},
                                   {"round_prefer_ceil", Nearest::round_prefer_ceil},
                                   {"floor", Nearest::floor},
                                   {"ceil", Nearest::ceil}});
  attrs.aspect_ratio = choice<AspectRatio>(node, "keep_aspect_ratio_policy", "stretch",
                                           {{"stretch", AspectRatio::stretch},
                                            {"not_larger", AspectRatio::not_larger},
                                            {"not_smaller", AspectRatio::not_smaller}});
  attrs.cubic_a = get_float(node, "cubic_coeff_a", -0.75f);
  attrs.extrapolation = get_float(node, "extrapolation_value", 0);
  attrs.exclude_outside = get_bool(node, "exclude_outside", false);
  attrs.antialias = get_bool(node, "antialias", false);
  attrs.axes = find_ints(node, "axes");
  return attrs;
}

std::vector<std::int64_t> ResizeAttrs::axes_of(std::size_t rank) const {
  if (!axes) {
    std::vector<std::int64_t> all(rank);
    std::iota(all.begin(), all.end(), std::int64_t{0});
    return all;
  }
  normalize_axes(*axes, rank);
  std::vector<std::int64_t> given;
  for (const std::int64_t axis : *axes) given.push_back(normalize_axis(axis, rank));
  return given;
}

// One of the axes that scales or sizes are given for.
struct ResizedAxis {
  std::size_t axis;
  std::int64_t input, output;
  float scale;
  float start = 0, end = 1;  // region of interest, as parts of the input
};

// floor(size * scale) in float32, as ONNX's shape inference and ONNX Runtime have it.
std::int64_t scaled_size(std::int64_t size, float scale, float smallest) {
  require(scale > 0 && scale >= smallest && std::isfinite(scale),
          "expected scales of at least {} that are not 0, found {}", smallest, scale);
  const float scaled = std::floor(static_cast<float>(size) * scale);
  require(scaled < 0x1p62f, "{} times {} overflows", size, scale);
  return static_cast<std::int64_t>(scaled);
}

void check_count(std::string_view what, std::size_t expected, std::size_t found) {
  require(found == expected, "expected {} {}, found {}", expected, what, found);
}

std::vector<ResizedAxis> by_scales(const ResizeAttrs& attrs, const Dims& dims,
                                   const std::vector<float>& scales) {
  const auto axes = attrs.axes_of(dims.size());
  check_count("scales", axes.size(), scales.size());
  std::vector<ResizedAxis> resized;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(axes[i]);
    resized.push_back(
        {axis, dims[axis], scaled_size(dims[axis], scales[i], attrs.smallest_scale), scales[i]});
  }
  return resized;
}

std::vector<ResizedAxis> by_sizes(const ResizeAttrs& attrs, const Dims& dims,
                                  const std::vector<std::int64_t>& sizes) {
  const auto axes = attrs.axes_of(dims.size());
  check_count("sizes", axes.size(), sizes.size());
  std::vector<ResizedAxis> resized;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(axes[i]);
    require(sizes[i] >= 0, "expected sizes that are not negative, found {}", to_string(sizes));
    require(dims[axis] > 0 || sizes[i] == 0, "an empty axis cannot become one of {}", sizes[i]);
    const float scale =
        dims[axis] == 0 ? 1.0f : static_cast<float>(sizes[i]) / static_cast<float>(dims[axis]);
    resized.push_back({axis, dims[axis], sizes[i], scale});
  }
  if (attrs.aspect_ratio == AspectRatio::stretch || resized.empty()) return resized;
  const auto [least, most] = std::ranges::minmax(resized, {}, &ResizedAxis::scale);
  const float scale = attrs.aspect_ratio == AspectRatio::not_larger ? least.scale : most.scale;
  for (ResizedAxis& axis : resized) {
    axis.scale = scale;
    const double size = std::floor(double{scale} * static_cast<double>(axis.input) + 0.5);
    require(size < 0x1p62, "{} times {} overflows", axis.input, scale);
    axis.output = static_cast<std::int64_t>(size);
  }
  return resized;
}

void set_region(std::vector<ResizedAxis>& resized, const std::vector<float>& roi) {
  check_count("roi values", 2 * resized.size(), roi.size());
  for (std::size_t i = 0; i < resized.size(); ++i) {
    resized[i].start = roi[i];
    resized[i].end = roi[resized.size() + i];
    require(std::isfinite(resized[i].start) && std::isfinite(resized[i].end),
            "expected a finite roi, found {} to {}", resized[i].start, resized[i].end);
  }
}

// Where output index `at` is read in the input: x_original of the specification, in float32 as ONNX
// Runtime computes it, so that "nearest" takes the same side.
float coordinate(Coordinates how, const ResizedAxis& axis, std::int64_t at) {
  const auto x = static_cast<float>(at);
  const auto input = static_cast<float>(axis.input);
  const auto output = static_cast<float>(axis.output);
  switch (how) {
    case Coordinates::half_pixel:
      return (x + 0.5f) / axis.scale - 0.5f;
    case Coordinates::half_pixel_symmetric: {
      const float adjustment = output / (axis.scale * input);
      return input / 2 * (1 - adjustment) + (x + 0.5f) / axis.scale - 0.5f;
    }
    case Coordinates::pytorch_half_pixel:
      return axis.output > 1 ? (x + 0.5f) / axis.scale - 0.5f : 0.0f;
    case Coordinates::align_corners: {
      // The backend cases take the output's size before it is rounded down.
      const float length = axis.scale * input;
      return axis.output > 1 ? x * (input - 1) / (length - 1) : 0.0f;
    }
    case Coordinates::asymmetric:
      return x / axis.scale;
    case Coordinates::tf_half_pixel_for_nn:
      return (x + 0.5f) / axis.scale;
    case Coordinates::tf_crop_and_resize:
      return axis.output > 1 ? axis.start * (input - 1) +
                                   x * (axis.end - axis.start) * (input - 1) / (output - 1)
                             : 0.5f * (axis.start + axis.end) * (input - 1);
  }
  return x;
}

std::int64_t nearest_index(Nearest how, float x, bool shrinks) {
  const double down = std::floor(double{x});
  const double part = double{x} - down;
  bool up = part > 0;
  if (how == Nearest::round_prefer_floor) up = part > 0.5;
  if (how == Nearest::round_prefer_ceil) up = part >= 0.5;
  if (how == Nearest::floor || (how == Nearest::before_11 && !shrinks)) up = false;
  return static_cast<std::int64_t>(down) + up;
}

double filter_weight(const ResizeAttrs& attrs, double distance) {
  if (attrs.mode == Interpolation::cubic) return cubic_weight(distance, double{attrs.cubic_a});
  return std::max(0.0, 1 - std::fabs(distance));
}

// The filter's cells around `x`, appended to `taps`: those from the last one before x (x itself
// where it is whole) less half the support, as the reference implementation of ONNX has them.
void add_filter(const ResizeAttrs& attrs, double stretch, double x, std::int64_t size,
                AxisTaps& taps) {
  const double last_before = std::ceil(x) - 1;
  const auto first = static_cast<std::int64_t>(last_before) - (taps.taps / 2 - 1);
  const auto end = first + taps.taps;
  double total = 0;
  double inside = 0;
  const std::size_t start = taps.weights.size();
  for (std::int64_t i = first; i < end; ++i) {
    const double weight = filter_weight(attrs, (static_cast<double>(i) - x) * stretch);
    total += weight;
    if (i >= 0 && i < size) inside += weight;
    taps.indices.push_back(std::clamp<std::int64_t>(i, 0, size - 1));
    taps.weights.push_back(weight);
  }
  const bool exclude = attrs.exclude_outside && inside != 0;
  for (std::int64_t i = first; i < end; ++i) {
    double& weight = taps.weights[start + static_cast<std::size_t>(i - first)];
    weight = exclude && (i < 0 || i >= size) ? 0 : weight / (exclude ? inside : total);
  }
}

AxisTaps taps_of(const ResizeAttrs& attrs, const ResizedAxis& axis) {
  AxisTaps taps{.axis = axis.axis};
  double stretch = 1;
  if (attrs.mode != Interpolation::nearest) {
    if (attrs.antialias) stretch = std::min(1.0, double{axis.scale});
    const double reach = attrs.mode == Interpolation::linear ? 1 : 2;
    taps.taps = 2 * static_cast<std::int64_t>(std::ceil(reach / stretch));
  }
  for (std::int64_t i = 0; i < axis.output; ++i) {
    float x = coordinate(attrs.coordinates, axis, i);
    if (attrs.coordinates == Coordinates::tf_crop_and_resize &&
        !(x >= 0 && x <= static_cast<float>(axis.input - 1))) {
      taps.outside.push_back(i);
      x = 0;
    }
    if (attrs.mode == Interpolation::nearest)
      taps.indices.push_back(std::clamp<std::int64_t>(
          nearest_index(attrs.nearest, x, axis.scale < 1), 0, axis.input - 1));
    else
      add_filter(attrs, stretch, double{x}, axis.input, taps);
  }
  return taps;
}

// Rounds to the nearest value of an integer type.
void round_to(DType type, Tensor& y) {
  const int digits = bits(type) - is_signed_integer(type);
  const double low = is_signed_integer(type) ? -std::ldexp(1.0, digits) : 0.0;
  const double limit = std::ldexp(1.0, digits);
  const double high = digits > 53 ? std::nextafter(limit, 0.0) : limit - 1;
  dispatch_floats(y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (T& value : y.mutable_data<T>())
      value = static_cast<T>(std::clamp(std::nearbyint(static_cast<double>(value)), low, high));
  });
}

std::vector<ResizedAxis> resized_axes(const ResizeAttrs& attrs, const Dims& x,
                                      const InputTensors& input) {
  const auto given = [&](std::size_t index) -> const Tensor* {
    const Tensor* tensor = index != 0 ? input(index) : nullptr;
    return tensor != nullptr && tensor->size() > 0 ? tensor : nullptr;
  };
  const Tensor* sizes = given(attrs.sizes_input);
  const Tensor* scales = given(attrs.scales_input);
  require(scales == nullptr || sizes == nullptr, "expected scales or sizes, found both");
  std::vector<ResizedAxis> resized;
  if (sizes != nullptr)
    resized = by_sizes(attrs, x, sizes->to_ints());
  else
    resized = by_scales(attrs, x, scales != nullptr ? scales->to_floats() : attrs.scales);
  if (attrs.coordinates == Coordinates::tf_crop_and_resize) {
    const Tensor* roi = given(attrs.roi_input);
    require(roi != nullptr || resized.empty(), "tf_crop_and_resize needs a roi");
    if (roi != nullptr) set_region(resized, roi->to_floats());
  } else {
    std::erase_if(resized, [](const ResizedAxis& axis) {
      return axis.input == axis.output && axis.scale == 1.0f;
    });
  }
  std::ranges::sort(resized, {}, &ResizedAxis::axis);
  return resized;
}

Kernel prepare_resize(const PrepareContext& prepare) {
  return [attrs = ResizeAttrs::from(prepare.node())](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const std::vector<ResizedAxis> resized =
        resized_axes(attrs, x.dims(), [&](std::size_t index) { return context.input(index); });
    if (resized.empty()) return context.forward_output(0, x);
    Dims dims = x.dims();
    for (const ResizedAxis& axis : resized) dims[axis.axis] = axis.output;
    require(x.size() > 0 || element_count(dims) == 0, "{} cannot become {}", to_string(x.dims()),
            to_string(dims));
    // After the output, whose size is checked where it is requested.
    const auto make_taps = [&] {
      std::vector<AxisTaps> taps;
      if (element_count(dims) > 0)
        for (const ResizedAxis& axis : resized) taps.push_back(taps_of(attrs, axis));
      return taps;
    };
    if (attrs.mode != Interpolation::nearest) {
      return run_as(context, interpolation_type, [&](KernelContext& inner) {
        const Tensor& wide = inner.required_input(0);
        Tensor& y = inner.output(0, wide.dtype(), dims);
        interpolate_along(inner.pool(), wide, make_taps(), double{attrs.extrapolation}, y);
        if (is_integer(x.dtype())) round_to(x.dtype(), y);
      });
    }
    if (x.dtype() == DType::string) {
      std::vector<std::string> strings(static_cast<std::size_t>(element_count(dims)));
      pick_strings_along(context.pool(), x, make_taps(), dims, strings);
      return context.forward_output(0, Tensor::of_strings(dims, std::move(strings)));
    }
    move(context, [&](KernelContext& inner) {
      const Tensor& moved = inner.required_input(0);
      Tensor& y = inner.output(0, moved.dtype(), dims);
      const Tensor fill = is_complex(moved.dtype())
                              ? Tensor(moved.dtype(), {})
                              : Tensor::scalar(attrs.extrapolation).cast(moved.dtype());
      pick_along(inner.pool(), moved, make_taps(), fill, y);
    });
  };
}

void infer_resize(InferContext& context) {
  const ResizeAttrs attrs = ResizeAttrs::from(context.node());
  const Shape* x = context.input_shape(0);
  if (x == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  const auto axes = attrs.axes_of(x->size());
  std::vector<float> scales = attrs.scales;
  if (attrs.scales_input != 0)
    if (const Tensor* value = context.input_value(attrs.scales_input)) scales = value->to_floats();
  std::optional<Shape> sizes;
  if (attrs.sizes_input != 0) sizes = context.input_symbolic(attrs.sizes_input);
  if (sizes && sizes->empty()) sizes.reset();
  Shape shape = *x;
  for (const std::int64_t axis : axes) shape[static_cast<std::size_t>(axis)] = Dim();
  if (!scales.empty()) {
    check_count("scales", axes.size(), scales.size());
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const Dim& dim = (*x)[static_cast<std::size_t>(axes[i])];
      Dim& out = shape[static_cast<std::size_t>(axes[i])];
      if (dim.is_known())
        out = scaled_size(dim.value(), scales[i], attrs.smallest_scale);
      else if (scales[i] == 1.0f)
        out = dim;
    }
  } else if (sizes) {
    check_count("sizes", axes.size(), sizes->size());
    const auto known = concrete(*sizes);
    const auto dims = context.input_dims(0);
    if (attrs.aspect_ratio == AspectRatio::stretch) {
      for (std::size_t i = 0; i < axes.size(); ++i)
        shape[static_cast<std::size_t>(axes[i])] = (*sizes)[i];
    } else if (known && dims) {
      for (const ResizedAxis& axis : by_sizes(attrs, *dims, *known)) shape[axis.axis] = axis.output;
    }
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

// Axes that stay as they are: not listed, or of scale 1 whatever the input's size.
OperandAxes resize_axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const ResizeAttrs attrs = ResizeAttrs::from(node);
  const Value* x = node.input(0);
  const Value* y = node.output(0);
  if (x == nullptr || !x->type.shape) return roles;
  const std::size_t rank = x->type.shape->size();
  std::vector<float> scales = attrs.scales;
  if (attrs.scales_input != 0)
    if (const auto given = constant_contents(node.input(attrs.scales_input)))
      scales = given->to_floats();
  const bool typed = y != nullptr && y->type.shape && y->type.shape->size() == rank;
  for (std::size_t i = 0; i < rank; ++i)
    roles[0].push_back(
        {.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)});
  const auto axes = attrs.axes_of(rank);
  const bool by_size = attrs.sizes_input != 0 && node.input(attrs.sizes_input) != nullptr &&
                       scales.empty() && attrs.aspect_ratio == AspectRatio::stretch;
  const auto sizes = by_size ? constant_ints(node.input(attrs.sizes_input)) : std::nullopt;
  const auto keeps_size = [&](std::size_t i, std::size_t axis) {
    const Dim& dim = (*x->type.shape)[axis];
    if (sizes && sizes->size() == axes.size()) return same_dim(dim, Dim((*sizes)[i]));
    return typed && same_dim(dim, (*y->type.shape)[axis]);
  };
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(axes[i]);
    const bool stays =
        attrs.coordinates != Coordinates::tf_crop_and_resize &&
        (by_size ? keeps_size(i, axis) : scales.size() == axes.size() && scales[i] == 1.0f);
    if (!stays) roles[0][axis] = {};
  }
  return roles;
}

}  // namespace

std::vector<AxisTaps> resize_taps(const Node& node, const Dims& x, const InputTensors& input) {
  const ResizeAttrs attrs = ResizeAttrs::from(node);
  std::vector<AxisTaps> taps;
  for (const ResizedAxis& axis : resized_axes(attrs, x, input)) taps.push_back(taps_of(attrs, axis));
  return taps;
}

bool resizes_by_picking(const Node& node) {
  const ResizeAttrs attrs = ResizeAttrs::from(node);
  return attrs.mode == Interpolation::nearest && attrs.coordinates != Coordinates::tf_crop_and_resize;
}

bool resizes_nothing(const Node& node, bool keeps_shape) {
  const ResizeAttrs attrs = ResizeAttrs::from(node);
  if (attrs.coordinates == Coordinates::tf_crop_and_resize) return false;
  std::vector<float> scales = attrs.scales;
  if (attrs.scales_input != 0 && node.input(attrs.scales_input) != nullptr) {
    const auto given = constant_contents(node.input(attrs.scales_input));
    if (!given) return false;
    scales = given->to_floats();
  }
  if (scales.empty())
    return keeps_shape && attrs.aspect_ratio == AspectRatio::stretch && attrs.sizes_input != 0 &&
           node.input(attrs.sizes_input) != nullptr;
  return std::ranges::all_of(scales, [](float scale) { return scale == 1.0f; });
}

OPERATORS(resize) {
  registry.add(OpDef{.name = "Resize",
                     .since = 10,
                     .infer = infer_resize,
                     .prepare = prepare_resize,
                     .axes = resize_axes});
  registry.add(OpDef{
      .name = "Upsample", .infer = infer_resize, .prepare = prepare_resize, .axes = resize_axes});
}

}  // namespace onnxpress
