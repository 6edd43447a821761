#include "graph/ops/fake_quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

constexpr std::int64_t piece = 16384;    // elements of a line that are gone through at a time
constexpr std::int64_t most_parts = 16;  // of the work, each with sums of its own

// Scales and zero points as the operator uses them.
template <class T>
struct Levels {
  std::vector<T> scales, zeros;
  std::vector<T> signs;  // of the scales given

  Levels(const Tensor& scale, const Tensor* zero_point, const FakeQuantizeAttrs& attrs) {
    const Tensor wide = scale.cast(DType::float64);
    for (const double s : wide.data<double>()) {
      scales.push_back(std::max(static_cast<T>(std::fabs(s)), std::numeric_limits<T>::min()));
      signs.push_back(s < 0 ? T(-1) : T(1));
    }
    zeros.assign(scales.size(), T(0));
    if (zero_point == nullptr) return;
    require(zero_point->size() == scale.size(), "expected as many zero points as scales ({}), found {}", scale.size(),
            zero_point->size());
    const Tensor given = zero_point->cast(DType::float64);
    for (std::size_t i = 0; i < zeros.size(); ++i)
      zeros[i] = static_cast<T>(std::clamp(std::nearbyint(given.data<double>()[i]), static_cast<double>(attrs.lowest),
                                           static_cast<double>(attrs.highest)));
  }
};

// Neighbouring elements whose scales are one, or neighbours as well.
struct Line {
  std::int64_t begin = 0, count = 0;
  std::size_t scale = 0;  // of the first element
  std::size_t step = 0;   // 0 or 1: to the next element's scale
};

class Lines {
 public:
  Lines(const Dims& dims, const Dims& scale, const FakeQuantizeAttrs& attrs)
      : layout_(ScaleLayout::of(dims, scale, attrs.scales)), size_(element_count(dims)) {
    if (element_count(scale) == 1) {
      kind_ = Kind::one;
      length_ = piece;
    } else if (layout_.inner > 1) {
      kind_ = Kind::rows;
      length_ = layout_.inner;
    } else {
      kind_ = layout_.block > 1 ? Kind::blocks : Kind::columns;
      length_ = layout_.block > 1 ? layout_.block : layout_.axis;
    }
    // The last block of an axis may be shorter.
    per_axis_ = kind_ == Kind::blocks ? (layout_.axis + length_ - 1) / length_ : 1;
    count_ = size_ == 0              ? 0
             : kind_ == Kind::one    ? (size_ + length_ - 1) / length_
             : kind_ == Kind::blocks ? size_ / layout_.axis * per_axis_
                                     : size_ / length_;
  }

  std::int64_t count() const { return count_; }
  std::int64_t length() const { return length_; }
  Line operator[](std::int64_t number) const {
    switch (kind_) {
      case Kind::one:
        return {number * length_, std::min(length_, size_ - number * length_), 0, 0};
      case Kind::rows:
        return {number * length_, length_, static_cast<std::size_t>(layout_.row_start(number)),
                static_cast<std::size_t>(layout_.inner_step)};
      case Kind::columns:
        return {number * length_, length_, static_cast<std::size_t>(layout_.row_start(number * length_)), 1};
      case Kind::blocks:
        break;
    }
    const std::int64_t first = number % per_axis_ * length_, row = number / per_axis_ * layout_.axis + first;
    return {row, std::min(length_, layout_.axis - first), static_cast<std::size_t>(layout_.row_start(row)), 0};
  }

 private:
  enum class Kind { one, rows, columns, blocks };
  ScaleLayout layout_;
  std::int64_t size_ = 0, length_ = 1, per_axis_ = 1, count_ = 0;
  Kind kind_ = Kind::one;
};

// Rounds to even what is at most 2^22 (2^51): adding makes the last place of the sum one.
template <class T>
T rounded(T value) {
  constexpr T shift = sizeof(T) == 4 ? T(12582912) : T(6755399441055744);
  return (value + shift) - shift;
}

// The bounds of x / s.
template <class T>
struct Bounds {
  T scale, low, high;
  Bounds(const Levels<T>& levels, std::size_t at, const FakeQuantizeAttrs& attrs)
      : scale(levels.scales[at]),
        low(static_cast<T>(attrs.lowest) - levels.zeros[at]),
        high(static_cast<T>(attrs.highest) - levels.zeros[at]) {}
  T bounded(T steps) const { return std::min(std::max(steps, low), high); }
};

template <class T>
void quantize(const T* x, T* y, const Line& line, const Levels<T>& levels, const FakeQuantizeAttrs& attrs) {
  if (line.step == 0) {
    const Bounds<T> bounds(levels, line.scale, attrs);
    for (std::int64_t i = 0; i < line.count; ++i) y[i] = rounded(bounds.bounded(x[i] / bounds.scale)) * bounds.scale;
    return;
  }
  for (std::int64_t i = 0; i < line.count; ++i) {
    const Bounds<T> bounds(levels, line.scale + static_cast<std::size_t>(i), attrs);
    y[i] = rounded(bounds.bounded(x[i] / bounds.scale)) * bounds.scale;
  }
}

Kernel prepare(const PrepareContext& plan) {
  return [attrs = FakeQuantizeAttrs::from(plan.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Lines lines(x.dims(), inner.required_input(1).dims(), attrs);
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
        const Levels<T> levels(inner.required_input(1), inner.input(2), attrs);
        const T* const from = x.data<T>().data();
        T* const to = y.mutable_data<T>().data();
        inner.pool().parallel_for(lines.count(), std::max<std::int64_t>(piece / lines.length(), 1),
                                  [&](std::int64_t begin, std::int64_t end) {
                                    for (std::int64_t i = begin; i < end; ++i) {
                                      const Line line = lines[i];
                                      quantize(from + line.begin, to + line.begin, line, levels, attrs);
                                    }
                                  });
      });
    });
  };
}

// What an element adds to the gradients.
template <class T>
struct Pull {
  T x, scale, zero;

  Pull(T value, T gradient, const Bounds<T>& bounds) {
    const T steps = value / bounds.scale;
    const bool is_inside = steps > bounds.low && steps < bounds.high;
    const T nearest = bounds.bounded(steps);
    x = is_inside ? gradient : T(0);
    scale = gradient * (is_inside ? rounded(nearest) - steps : nearest);
    zero = is_inside ? T(0) : -gradient * bounds.scale;
  }
};

// Sums of one part of the lines, by scale.
struct Sums {
  std::vector<double> scale, zero;
};

template <class T>
void pull_line(const T* x, const T* dy, T* dx, const Line& line, const Levels<T>& levels,
               const FakeQuantizeAttrs& attrs, Sums& sums) {
  if (line.step != 0) {
    for (std::int64_t i = 0; i < line.count; ++i) {
      const std::size_t at = line.scale + static_cast<std::size_t>(i);
      const Pull<T> pull(x[i], dy[i], Bounds<T>(levels, at, attrs));
      dx[i] = pull.x;
      sums.scale[at] += static_cast<double>(pull.scale);
      sums.zero[at] += static_cast<double>(pull.zero);
    }
    return;
  }
  // In lanes, which the compiler makes vectors of.
  constexpr std::int64_t width = 8, run = 1024;
  const Bounds<T> bounds(levels, line.scale, attrs);
  for (std::int64_t start = 0; start < line.count; start += run) {
    const std::int64_t end = std::min(start + run, line.count);
    std::array<T, width> scale{}, zero{};
    std::int64_t i = start;
    for (; i + width <= end; i += width)
      for (std::int64_t k = 0; k < width; ++k) {
        const Pull<T> pull(x[i + k], dy[i + k], bounds);
        dx[i + k] = pull.x;
        scale[static_cast<std::size_t>(k)] += pull.scale;
        zero[static_cast<std::size_t>(k)] += pull.zero;
      }
    for (; i < end; ++i) {
      const Pull<T> pull(x[i], dy[i], bounds);
      dx[i] = pull.x;
      scale[0] += pull.scale;
      zero[0] += pull.zero;
    }
    for (std::size_t k = 0; k < width; ++k) {
      sums.scale[line.scale] += static_cast<double>(scale[k]);
      sums.zero[line.scale] += static_cast<double>(zero[k]);
    }
  }
}

BackwardKernel prepare_gradient(const PrepareContext& plan) {
  return [attrs = FakeQuantizeAttrs::from(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& x = context.required_input(0);
    const Tensor& scale = context.required_input(1);
    const Lines lines(x.dims(), scale.dims(), attrs);
    const auto groups = static_cast<std::size_t>(scale.size());
    Tensor dx = Tensor::uninitialized(dy.dtype(), x.dims());
    Tensor dscale(DType::float64, scale.dims()), dzero(DType::float64, scale.dims());
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const Levels<T> levels(scale, context.input(2), attrs);
      const T* const in = x.data<T>().data();
      const T* const g = dy.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      // As many parts as there are on any number of threads, so that sums are the same.
      const std::int64_t parts = std::clamp<std::int64_t>(x.size() / piece, 1, groups > 65536 ? 1 : most_parts);
      const std::int64_t each = (lines.count() + parts - 1) / parts;
      std::vector<Sums> sums(static_cast<std::size_t>(parts));
      context.pool().parallel_for(parts, 1, [&](std::int64_t part, std::int64_t) {
        Sums& own = sums[static_cast<std::size_t>(part)];
        own = {std::vector<double>(groups), std::vector<double>(groups)};
        for (std::int64_t i = part * each; i < std::min((part + 1) * each, lines.count()); ++i) {
          const Line line = lines[i];
          pull_line(in + line.begin, g + line.begin, out + line.begin, line, levels, attrs, own);
        }
      });
      std::int64_t counted = x.size();
      if (attrs.has_batch && x.rank() > 0) counted /= std::max<std::int64_t>(x.dim(0), 1);
      const double elements = std::max(1.0, static_cast<double>(counted) / static_cast<double>(groups));
      for (std::size_t k = 0; k < groups; ++k) {
        const Bounds<T> bounds(levels, k, attrs);
        const double reach = std::max(static_cast<double>(bounds.high), -static_cast<double>(bounds.low));
        const double factor = 1 / std::sqrt(elements * std::max(reach, 1.0));
        double along = 0, shift = 0;
        for (const Sums& part : sums) {
          along += part.scale[k];
          shift += part.zero[k];
        }
        dscale.mutable_data<double>()[k] = along * factor * static_cast<double>(levels.signs[k]);
        dzero.mutable_data<double>()[k] = shift * factor;
      }
    });
    if (context.wants_gradient(0)) context.forward_gradient(0, std::move(dx));
    if (context.wants_gradient(1)) context.forward_gradient(1, dscale.cast(context.input_dtype(1)));
    if (context.input_count() > 2 && context.wants_gradient(2))
      context.forward_gradient(2, dzero.cast(context.input_dtype(2)));
  };
}

}  // namespace

FakeQuantizeAttrs FakeQuantizeAttrs::from(const Node& node) {
  FakeQuantizeAttrs attrs{.lowest = require_int(node, "lowest"), .highest = require_int(node, "highest")};
  attrs.scales.axis = get_int(node, "axis", attrs.scales.axis);
  attrs.scales.block_size = get_int(node, "block_size", 0);
  attrs.has_batch = get_bool(node, "has_batch", false);
  constexpr std::int64_t most = std::int64_t{1} << 16;
  require(attrs.lowest < attrs.highest && attrs.lowest >= -most && attrs.highest <= most,
          "attributes 'lowest' and 'highest': expected codes in order within +-{}, found {} and {}", most, attrs.lowest,
          attrs.highest);
  return attrs;
}

Attributes FakeQuantizeAttrs::to_attributes() const {
  Attributes attributes;
  attributes["lowest"] = lowest;
  attributes["highest"] = highest;
  if (scales.axis != QuantizeAttrs{}.axis) attributes["axis"] = scales.axis;
  if (scales.block_size != 0) attributes["block_size"] = scales.block_size;
  if (has_batch) attributes["has_batch"] = std::int64_t{1};
  return attributes;
}

OPERATORS(fake_quantize) {
  const std::string domain(training_domain);
  registry.add(OpDef{.name = "FakeQuantize", .domain = domain, .infer = infer_same_as_first, .prepare = prepare});
  registry.add(GradientDef{.name = "FakeQuantize",
                           .domain = domain,
                           .prepare = prepare_gradient,
                           .reads_inputs = bits_of(0, 1, 2),
                           .reads_outputs = 0});
}

}  // namespace onnxpress
