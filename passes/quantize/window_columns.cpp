// Columns of Conv and ConvTranspose: im2col at single positions.
#include <algorithm>

#include "graph/ops/conv.h"
#include "graph/ops/conv_transpose.h"
#include "passes/quantize/column_reader.h"

namespace onnxpress {
namespace {

Dims spatial_of(const Dims& dims) { return {dims.begin() + 2, dims.end()}; }

std::int64_t window_size(const Dims& weight) {
  std::int64_t size = 1;
  for (std::size_t axis = 2; axis < weight.size(); ++axis) size *= weight[axis];
  return size;
}

// Position `index` of a row-major volume of three axes.
struct Position {
  std::int64_t at[3];
  Position(std::int64_t index, const std::int64_t (&sizes)[3])
      : at{index / sizes[2] / sizes[1], index / sizes[2] % sizes[1], index % sizes[2]} {}
};

// For every tap of the window in memory order: the offset in a plane of `g.input` that the position
// meets, or -1. `meets(axis, tap)` gives the coordinate along an axis, or a negative number.
template <class Meets>
void find_taps(const WindowGeometry& g, const Meets& meets, std::vector<std::int64_t>& taps) {
  taps.clear();
  for (std::int64_t k0 = 0; k0 < g.kernel[0]; ++k0) {
    const std::int64_t i0 = meets(0, k0);
    for (std::int64_t k1 = 0; k1 < g.kernel[1]; ++k1) {
      const std::int64_t i1 = meets(1, k1);
      for (std::int64_t k2 = 0; k2 < g.kernel[2]; ++k2) {
        const std::int64_t i2 = meets(2, k2);
        const bool inside = i0 >= 0 && i0 < g.input[0] && i1 >= 0 && i1 < g.input[1] && i2 >= 0 && i2 < g.input[2];
        taps.push_back(inside ? (i0 * g.input[1] + i1) * g.input[2] + i2 : -1);
      }
    }
  }
}

// One column: every channel of a group, tap by tap.
void read_taps(const float* image, std::int64_t channels, std::int64_t plane, const std::vector<std::int64_t>& taps,
               float* out) {
  for (std::int64_t c = 0; c < channels; ++c, image += plane)
    for (const std::int64_t tap : taps) *out++ = tap < 0 ? 0.0F : image[tap];
}

class ConvColumns final : public ColumnReader {
 public:
  ConvColumns(const Node& node, const Dims& weight)
      : ColumnReader(matrix_of(ConvAttrs::of(node, weight), weight), *node.input(0)),
        attrs_(ConvAttrs::of(node, weight)),
        weight_(weight) {}

  std::int64_t count(const Dims& source) const override {
    const Dims out = attrs_.output_dims(source, weight_);
    return out[0] * element_count(spatial_of(out));
  }

  void read(std::span<const float> data, const Dims& source, std::int64_t group, std::span<const std::int64_t> which,
            float* out) const override {
    const WindowGeometry g =
        WindowGeometry::of(attrs_.window, spatial_of(source), spatial_of(attrs_.output_dims(source, weight_)));
    const std::int64_t channels = weight_[1];
    // Most windows lie inside: their taps are the same from the first one on.
    std::vector<std::int64_t> taps, inner;
    find_taps(g, [&](int axis, std::int64_t tap) { return tap * g.dilation[axis]; }, inner);
    for (const std::int64_t column : which) {
      const std::int64_t image = column / g.output_size();
      const Position position(column - image * g.output_size(), g.output);
      const float* planes = data.data() + (image * source[1] + group * channels) * g.input_size();
      const auto meets = [&](int axis, std::int64_t tap) {
        return position.at[axis] * g.stride[axis] - g.pad[axis] + tap * g.dilation[axis];
      };
      bool is_inside = true;
      std::int64_t corner = 0;
      for (int axis = 0; axis < 3; ++axis) {
        is_inside = is_inside && meets(axis, 0) >= 0 && meets(axis, g.kernel[axis] - 1) < g.input[axis];
        corner = corner * g.input[axis] + meets(axis, 0);
      }
      if (!is_inside) find_taps(g, meets, taps);
      read_taps(is_inside ? planes + corner : planes, channels, g.input_size(), is_inside ? inner : taps, out);
      out += matrix().depth;
    }
  }

 private:
  static WeightMatrix matrix_of(const ConvAttrs& attrs, const Dims& weight) {
    return WeightMatrix::contiguous(attrs.group, weight[0] / attrs.group, weight[1] * window_size(weight));
  }

  ConvAttrs attrs_;
  Dims weight_;
};

class ConvTransposeColumns final : public ColumnReader {
 public:
  ConvTransposeColumns(const Node& node, const Dims& weight)
      : ColumnReader(matrix_of(ConvTransposeAttrs::from(node, spatial_of(weight)), weight), *node.input(0)),
        attrs_(ConvTransposeAttrs::from(node, spatial_of(weight))) {}

  std::int64_t count(const Dims& source) const override {
    require(source.size() == attrs_.window.rank() + 2, "expected an input of {} axes, found {}",
            attrs_.window.rank() + 2, to_string(source));
    return source[0] * element_count(attrs_.resolve(spatial_of(source)).spatial);
  }

  void read(std::span<const float> data, const Dims& source, std::int64_t group, std::span<const std::int64_t> which,
            float* out) const override {
    const ConvTransposeAttrs::Resolved resolved = attrs_.resolve(spatial_of(source));
    Window window = attrs_.window;
    window.auto_pad = AutoPad::notset;
    window.pads = resolved.pads;
    // Of the convolution from the output to the input; the taps are looked for in the input.
    WindowGeometry g = WindowGeometry::of(window, resolved.spatial, spatial_of(source));
    for (int axis = 0; axis < 3; ++axis) std::swap(g.input[axis], g.output[axis]);
    const std::int64_t channels = source[1] / attrs_.group;
    std::vector<std::int64_t> taps;
    for (const std::int64_t column : which) {
      const Position position(column % g.output_size(), g.output);
      const auto meets = [&](int axis, std::int64_t tap) {
        const std::int64_t reached = position.at[axis] + g.pad[axis] - tap * g.dilation[axis];
        return reached % g.stride[axis] == 0 ? reached / g.stride[axis] : -1;
      };
      find_taps(g, meets, taps);
      const std::int64_t image = column / g.output_size();
      read_taps(data.data() + (image * source[1] + group * channels) * g.input_size(), channels, g.input_size(), taps,
                out);
      out += matrix().depth;
    }
  }

 private:
  // [channels, filters of a group, window].
  static WeightMatrix matrix_of(const ConvTransposeAttrs& attrs, const Dims& weight) {
    const std::int64_t taps = window_size(weight);
    const std::int64_t channels = weight[0] / attrs.group;
    WeightMatrix matrix{attrs.group, weight[1], channels * taps, channels * weight[1] * taps, taps, {}};
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t tap = 0; tap < taps; ++tap) matrix.depth_offsets.push_back(c * weight[1] * taps + tap);
    return matrix;
  }

  ConvTransposeAttrs attrs_;
};

}  // namespace

std::unique_ptr<ColumnReader> convolution_columns(const Node& node, const Dims& weight) {
  return std::make_unique<ConvColumns>(node, weight);
}

std::unique_ptr<ColumnReader> transposed_convolution_columns(const Node& node, const Dims& weight) {
  return std::make_unique<ConvTransposeColumns>(node, weight);
}

}  // namespace onnxpress
