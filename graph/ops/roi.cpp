// RoiAlign and MaxRoiPool: pooling over regions of interest.
#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

constexpr std::int64_t most_samples = std::int64_t{1} << 20;  // of one bin

// Sizes of a call; `columns` is how many numbers describe a region.
struct RoiCall {
  std::int64_t images, channels, height, width, regions, out_height, out_width;
  Dims dims;

  RoiCall(const Tensor& x, const Tensor& rois, std::int64_t columns, std::int64_t h,
          std::int64_t w) {
    require(x.rank() == 4, "expected an input of 4 axes, found {}", to_string(x.dims()));
    require(rois.rank() == 2 && rois.dim(1) == columns, "expected regions [?,{}], found {}",
            columns, to_string(rois.dims()));
    images = x.dim(0);
    channels = x.dim(1);
    height = x.dim(2);
    width = x.dim(3);
    regions = rois.dim(0);
    out_height = h;
    out_width = w;
    dims = {regions, channels, h, w};
    require(regions == 0 || channels == 0 || (height > 0 && width > 0),
            "there is nothing to pool in {}", to_string(x.dims()));
  }

  void check_image(std::int64_t image) const {
    require(0 <= image && image < images, "region of image {}, expected one of {}", image, images);
  }
};

void infer_regions(InferContext& context, std::int64_t height, std::int64_t width) {
  Shape shape{Dim(), Dim(), height, width};
  if (const Shape* x = context.input_shape(0)) {
    require(x->size() == 4, "expected an input of 4 axes, found {}", to_string(*x));
    shape[1] = (*x)[1];
  }
  if (const Shape* rois = context.input_shape(1)) {
    require(rois->size() == 2, "expected regions of 2 axes, found {}", to_string(*rois));
    shape[0] = (*rois)[0];
  }
  if (const Shape* images = context.input_shape(2)) {
    require(images->size() == 1, "expected batch indices of 1 axis, found {}", to_string(*images));
    shape[0] = unify(shape[0], (*images)[0], "the number of regions");
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes roi_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  axes[0].assign(4, {.kind = AxisRole::Kind::window});
  axes[0][0] = {};
  axes[0][1] = {.kind = AxisRole::Kind::output, .output_axis = 1};
  if (axes.size() > 1) axes[1] = {{.kind = AxisRole::Kind::output, .output_axis = 0}, {}};
  if (axes.size() > 2) axes[2] = {{.kind = AxisRole::Kind::output, .output_axis = 0}};
  return axes;
}

// --- RoiAlign ---

struct RoiAlignAttrs {
  bool half_pixel = true, largest = false;
  std::int64_t height = 1, width = 1, sampling_ratio = 0;
  float spatial_scale = 1;

  static RoiAlignAttrs from(const Node& node) {
    RoiAlignAttrs attrs;
    const std::string coordinates =
        get_string(node, "coordinate_transformation_mode",
                   node.opset() < 16 ? "output_half_pixel" : "half_pixel");
    require(coordinates == "half_pixel" || coordinates == "output_half_pixel",
            "attribute 'coordinate_transformation_mode': expected half_pixel or output_half_pixel, "
            "found '{}'",
            coordinates);
    const std::string mode = get_string(node, "mode", "avg");
    require(mode == "avg" || mode == "max", "attribute 'mode': expected avg or max, found '{}'",
            mode);
    attrs.half_pixel = coordinates == "half_pixel";
    attrs.largest = mode == "max";
    attrs.height = get_int(node, "output_height", 1);
    attrs.width = get_int(node, "output_width", 1);
    attrs.sampling_ratio = get_int(node, "sampling_ratio", 0);
    attrs.spatial_scale = get_float(node, "spatial_scale", 1);
    require(attrs.height > 0 && attrs.width > 0, "expected output sizes above 0, found {} and {}",
            attrs.height, attrs.width);
    require(0 <= attrs.sampling_ratio && attrs.sampling_ratio <= most_samples,
            "attribute 'sampling_ratio': expected 0 to {}, found {}", most_samples,
            attrs.sampling_ratio);
    return attrs;
  }
};

// The two cells that a coordinate lies between, and how far it is from the first.
template <class T>
struct Between {
  std::int64_t low = 0, high = 0;
  T part = 0;
  bool inside = false;

  Between(T at, std::int64_t size) {
    inside = at >= -1 && at <= static_cast<T>(size);
    if (!inside) return;
    at = std::max(at, T(0));
    low = std::min(static_cast<std::int64_t>(at), size - 1);
    high = std::min(low + 1, size - 1);
    part = high > low ? at - static_cast<T>(low) : T(0);
  }
};

// One axis of a region: where its bins start, how large they are and how often each is sampled.
template <class T>
struct RegionAxis {
  T start, bin;
  std::int64_t samples;

  RegionAxis(const RoiAlignAttrs& attrs, T from, T to, std::int64_t bins) {
    const T scale = static_cast<T>(attrs.spatial_scale);
    const T shift = attrs.half_pixel ? T(0.5) : T(0);
    start = from * scale - shift;
    T size = (to * scale - shift) - start;
    if (!attrs.half_pixel) size = std::max(size, T(1));
    require(std::isfinite(start) && std::isfinite(size), "expected finite regions");
    bin = size / static_cast<T>(bins);
    const double wanted = attrs.sampling_ratio > 0 ? static_cast<double>(attrs.sampling_ratio)
                                                   : std::ceil(static_cast<double>(bin));
    require(wanted <= static_cast<double>(most_samples), "a bin of {} samples is too large",
            wanted);
    samples = static_cast<std::int64_t>(std::max(wanted, 0.0));
  }

  T at(std::int64_t index, std::int64_t sample) const {
    return start + static_cast<T>(index) * bin +
           (static_cast<T>(sample) + T(0.5)) * bin / static_cast<T>(samples);
  }
};

template <class T>
struct Sample {
  std::int64_t cells[4];
  T weights[4];
};

// Samples of one bin that lie in the image; the others count as 0.
template <class T>
std::vector<Sample<T>> samples_of(const RoiCall& call, const RegionAxis<T>& y_axis, std::int64_t by,
                                  const RegionAxis<T>& x_axis, std::int64_t bx) {
  std::vector<Sample<T>> samples;
  for (std::int64_t iy = 0; iy < y_axis.samples; ++iy) {
    const Between<T> y(y_axis.at(by, iy), call.height);
    for (std::int64_t ix = 0; ix < x_axis.samples; ++ix) {
      const Between<T> x(x_axis.at(bx, ix), call.width);
      if (!y.inside || !x.inside) continue;
      const std::int64_t top = y.low * call.width;
      const std::int64_t bottom = y.high * call.width;
      samples.push_back({{top + x.low, top + x.high, bottom + x.low, bottom + x.high},
                         {(1 - y.part) * (1 - x.part), (1 - y.part) * x.part, y.part * (1 - x.part),
                          y.part * x.part}});
    }
  }
  return samples;
}

template <class T>
T average(const T* plane, const std::vector<Sample<T>>& samples, std::int64_t count) {
  T sum = 0;
  for (const Sample<T>& s : samples)
    for (std::size_t k = 0; k < 4; ++k) sum += s.weights[k] * plane[s.cells[k]];
  return sum / static_cast<T>(std::max<std::int64_t>(count, 1));
}

// The largest weighted cell, not the largest interpolated value: what the backend cases expect.
template <class T>
T largest(const T* plane, const std::vector<Sample<T>>& samples, std::int64_t count) {
  if (samples.empty()) return 0;
  T best = std::numeric_limits<T>::lowest();
  if (static_cast<std::int64_t>(samples.size()) < count) best = 0;
  for (const Sample<T>& s : samples)
    for (std::size_t k = 0; k < 4; ++k) best = std::max(best, s.weights[k] * plane[s.cells[k]]);
  return best;
}

template <class T>
void align(ThreadPool& pool, const RoiAlignAttrs& attrs, const RoiCall& call, const T* in,
           const T* rois, const std::vector<std::int64_t>& images, T* out) {
  const std::int64_t plane = call.height * call.width;
  const std::int64_t bins = call.out_height * call.out_width;
  pool.parallel_for(call.regions, 1, [&](std::int64_t n, std::int64_t) {
    const T* roi = rois + n * 4;
    const RegionAxis<T> x_axis(attrs, roi[0], roi[2], call.out_width);
    const RegionAxis<T> y_axis(attrs, roi[1], roi[3], call.out_height);
    const std::int64_t count = x_axis.samples * y_axis.samples;
    require(count <= most_samples, "a bin of {} samples is too large", count);
    const T* image = in + images[static_cast<std::size_t>(n)] * call.channels * plane;
    T* target = out + n * call.channels * bins;
    for (std::int64_t by = 0; by < call.out_height; ++by)
      for (std::int64_t bx = 0; bx < call.out_width; ++bx) {
        const auto samples = samples_of(call, y_axis, by, x_axis, bx);
        for (std::int64_t c = 0; c < call.channels; ++c)
          target[c * bins + by * call.out_width + bx] =
              attrs.largest ? largest(image + c * plane, samples, count)
                            : average(image + c * plane, samples, count);
      }
  });
}

Kernel prepare_roi_align(const PrepareContext& prepare) {
  return [attrs = RoiAlignAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& rois = inner.required_input(1);
      const RoiCall call(x, rois, 4, attrs.height, attrs.width);
      const std::vector<std::int64_t> images = inner.required_input(2).to_ints();
      require(static_cast<std::int64_t>(images.size()) == call.regions,
              "expected {} batch indices, found {}", call.regions, images.size());
      for (const std::int64_t image : images) call.check_image(image);
      Tensor& y = inner.output(0, x.dtype(), call.dims);
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        align(inner.pool(), attrs, call, x.data<T>().data(), rois.data<T>().data(), images,
              y.mutable_data<T>().data());
      });
    });
  };
}

void infer_roi_align(InferContext& context) {
  const RoiAlignAttrs attrs = RoiAlignAttrs::from(context.node());
  infer_regions(context, attrs.height, attrs.width);
}

// --- MaxRoiPool ---

struct MaxRoiPoolAttrs {
  std::int64_t height, width;
  float spatial_scale;

  static MaxRoiPoolAttrs from(const Node& node) {
    const auto shape = require_ints(node, "pooled_shape");
    require(shape.size() == 2 && shape[0] > 0 && shape[1] > 0,
            "attribute 'pooled_shape': expected two sizes above 0, found {}", to_string(shape));
    return {shape[0], shape[1], get_float(node, "spatial_scale", 1)};
  }
};

// Cells [begin, end) of a bin of an axis: those it touches, whole cells of the region counted as R.
// Girshick's Fast R-CNN (2015) does.
struct Bins {
  std::int64_t first, size, bins, cells;

  Bins(double from, double to, float scale, std::int64_t count, std::int64_t axis_size)
      : bins(count), cells(axis_size) {
    constexpr double far = 1 << 30;
    const double start = std::round(from * double{scale});
    const double last = std::round(to * double{scale});
    require(std::abs(start) <= far && std::abs(last) <= far, "region from {} to {} is too far out",
            from, to);
    first = static_cast<std::int64_t>(start);
    size = std::max<std::int64_t>(1, static_cast<std::int64_t>(last - start) + 1);
  }
  std::int64_t begin(std::int64_t bin) const { return clamped(bin * size / bins); }
  std::int64_t end(std::int64_t bin) const { return clamped(((bin + 1) * size + bins - 1) / bins); }

 private:
  std::int64_t clamped(std::int64_t offset) const {
    return std::clamp<std::int64_t>(first + offset, 0, cells);
  }
};

template <class T>
void max_pool_regions(ThreadPool& pool, const MaxRoiPoolAttrs& attrs, const RoiCall& call,
                      const T* in, const T* rois, T* out) {
  const std::int64_t plane = call.height * call.width;
  pool.parallel_for(call.regions, 1, [&](std::int64_t n, std::int64_t) {
    const T* roi = rois + n * 5;
    const double index = static_cast<double>(roi[0]);
    require(index >= 0 && index < static_cast<double>(call.images),
            "region of image {}, expected one of {}", index, call.images);
    const T* image = in + static_cast<std::int64_t>(index) * call.channels * plane;
    const float scale = attrs.spatial_scale;
    const Bins x_bins(static_cast<double>(roi[1]), static_cast<double>(roi[3]), scale, attrs.width,
                      call.width);
    const Bins y_bins(static_cast<double>(roi[2]), static_cast<double>(roi[4]), scale, attrs.height,
                      call.height);
    T* target = out + n * call.channels * attrs.height * attrs.width;
    for (std::int64_t c = 0; c < call.channels; ++c, image += plane)
      for (std::int64_t by = 0; by < attrs.height; ++by)
        for (std::int64_t bx = 0; bx < attrs.width; ++bx, ++target) {
          bool empty = true;
          for (std::int64_t y = y_bins.begin(by); y < y_bins.end(by); ++y)
            for (std::int64_t x = x_bins.begin(bx); x < x_bins.end(bx); ++x) {
              const T value = image[y * call.width + x];
              if (empty || value > *target) *target = value;
              empty = false;
            }
          if (empty) *target = 0;
        }
  });
}

Kernel prepare_max_roi_pool(const PrepareContext& prepare) {
  return [attrs = MaxRoiPoolAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& rois = inner.required_input(1);
      const RoiCall call(x, rois, 5, attrs.height, attrs.width);
      Tensor& y = inner.output(0, x.dtype(), call.dims);
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        max_pool_regions(inner.pool(), attrs, call, x.data<T>().data(), rois.data<T>().data(),
                         y.mutable_data<T>().data());
      });
    });
  };
}

void infer_max_roi_pool(InferContext& context) {
  const MaxRoiPoolAttrs attrs = MaxRoiPoolAttrs::from(context.node());
  infer_regions(context, attrs.height, attrs.width);
}

}  // namespace

OPERATORS(roi) {
  registry.add(OpDef{.name = "RoiAlign",
                     .since = 10,
                     .infer = infer_roi_align,
                     .prepare = prepare_roi_align,
                     .axes = roi_axes});
  registry.add(OpDef{.name = "MaxRoiPool",
                     .infer = infer_max_roi_pool,
                     .prepare = prepare_max_roi_pool,
                     .axes = roi_axes});
}

}  // namespace onnxpress
