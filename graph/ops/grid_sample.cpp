// GridSample, and AffineGrid which makes grids for it.
#include <algorithm>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"
#include "graph/ops/resample.h"

namespace onnxpress {
namespace {

enum class Sampling { nearest, linear, cubic };
enum class Padding { zeros, border, reflection };

constexpr std::size_t most_axes = 6;  // 4^6 cells for one cubic sample

struct GridSampleAttrs {
  Sampling mode = Sampling::linear;
  Padding padding = Padding::zeros;
  bool align_corners = false;

  static GridSampleAttrs from(const Node& node) {
    GridSampleAttrs attrs{.align_corners = get_bool(node, "align_corners", false)};
    const bool old = node.opset() < 20;
    const std::string linear = old ? "bilinear" : "linear";
    const std::string cubic = old ? "bicubic" : "cubic";
    const std::string mode = get_string(node, "mode", linear);
    require(mode == "nearest" || mode == linear || mode == cubic,
            "attribute 'mode': expected nearest, {} or {}, found '{}'", linear, cubic, mode);
    if (mode != linear) attrs.mode = mode == cubic ? Sampling::cubic : Sampling::nearest;
    const std::string padding = get_string(node, "padding_mode", "zeros");
    require(padding == "zeros" || padding == "border" || padding == "reflection",
            "attribute 'padding_mode': expected zeros, border or reflection, found '{}'", padding);
    if (padding == "border") attrs.padding = Padding::border;
    if (padding == "reflection") attrs.padding = Padding::reflection;
    return attrs;
  }
};

Dims sampled_dims(const Dims& x, const Dims& grid) {
  require(x.size() >= 3 && x.size() - 2 <= most_axes && grid.size() == x.size(),
          "expected an input and a grid of the same rank from 3 to {}, found {} and {}",
          most_axes + 2, to_string(x), to_string(grid));
  require(grid[0] == x[0], "expected a grid for {} images, found {}", x[0], to_string(grid));
  require(grid.back() == static_cast<std::int64_t>(x.size()) - 2,
          "expected a grid of {} coordinates, found {}", x.size() - 2, to_string(grid));
  Dims dims{x[0], x[1]};
  dims.insert(dims.end(), grid.begin() + 1, grid.end() - 1);
  return dims;
}

// One spatial axis of the input.
struct SampledAxis {
  std::int64_t size, stride;
};

// Mirrored at `low` and `high` until it lies between them.
template <class T>
T reflected(T x, T low, T high) {
  const T range = high - low;
  if (!(range > 0)) return low;
  const bool below = x < low;
  if (!below && x <= high) return x;
  const T beyond = below ? low - x : x - high;
  const T turns = std::floor(beyond / range);
  const T rest = beyond - turns * range;
  const bool from_low = below == (std::fmod(turns, T(2)) == 0);
  const T at = from_low ? low + rest : high - rest;
  return at >= low && at <= high ? at : low;  // also for what is not finite
}

// Cells of the input that samples are made of, as offsets into a plane, with their weights. Cells
// of zero padding are left out.
struct Cells {
  std::vector<std::int64_t> offsets;
  std::vector<double> weights;
  std::vector<std::size_t> ends;  // of each sample's cells
};

class Sampler {
 public:
  Sampler(const GridSampleAttrs& attrs, std::vector<SampledAxis> axes)
      : attrs_(attrs), axes_(std::move(axes)) {}

  // Adds the cells for a location whose coordinates are innermost axis first.
  template <class T>
  void add(const T* location, Cells& cells) const {
    AxisCells along[most_axes];
    for (std::size_t i = 0; i < axes_.size(); ++i) {
      const SampledAxis& axis = axes_[axes_.size() - 1 - i];
      const T low = attrs_.align_corners ? T(0) : T(-0.5);
      const T high = static_cast<T>(axis.size - 1) - low;
      T x = attrs_.align_corners ? (location[i] + 1) / 2 * static_cast<T>(axis.size - 1)
                                 : ((location[i] + 1) * static_cast<T>(axis.size) - 1) / 2;
      if (attrs_.mode == Sampling::nearest) x = std::nearbyint(x);
      // In cubic mode only the cells are kept inside, as PyTorch and ONNX Runtime have it.
      if (attrs_.padding == Padding::border && attrs_.mode != Sampling::cubic)
        x = x >= 0 ? std::min(x, static_cast<T>(axis.size - 1)) : T(0);
      if (attrs_.padding == Padding::reflection) x = reflected(x, low, high);
      // What is farther out than any filter reaches is all alike.
      x = x >= -4 ? std::min(x, static_cast<T>(axis.size + 3)) : T(-4);
      along[i] = cells_along(axis, static_cast<double>(x), low, high);
    }
    combine(along, axes_.size(), 0, 1, cells);
    cells.ends.push_back(cells.offsets.size());
  }

 private:
  struct AxisCells {
    std::int64_t offsets[4];
    double weights[4];
    std::size_t count = 0;
  };

  AxisCells cells_along(const SampledAxis& axis, double x, double low, double high) const {
    const double down = std::floor(x);
    const double part = x - down;
    double weights[4] = {1, 0, 0, 0};
    std::int64_t first = static_cast<std::int64_t>(down);
    std::int64_t taps = 1;
    if (attrs_.mode == Sampling::linear) {
      taps = 2;
      weights[0] = 1 - part;
      weights[1] = part;
    } else if (attrs_.mode == Sampling::cubic) {
      taps = 4;
      --first;
      for (std::int64_t k = 0; k < 4; ++k)
        weights[k] = cubic_weight(part + 1 - static_cast<double>(k), -0.75);
    }
    AxisCells cells;
    for (std::int64_t k = 0; k < taps; ++k) {
      std::int64_t index = first + k;
      const bool inside = index >= 0 && index < axis.size;
      if (!inside && attrs_.padding == Padding::zeros) continue;
      if (!inside && attrs_.padding == Padding::reflection)
        index = static_cast<std::int64_t>(reflected(static_cast<double>(index), low, high));
      index = std::clamp<std::int64_t>(index, 0, axis.size - 1);
      cells.offsets[cells.count] = index * axis.stride;
      cells.weights[cells.count++] = weights[k];
    }
    return cells;
  }

  // All combinations of the cells along the first `count` axes, the innermost varying fastest.
  static void combine(const AxisCells* along, std::size_t count, std::int64_t offset, double weight,
                      Cells& cells) {
    if (count == 0) {
      cells.offsets.push_back(offset);
      cells.weights.push_back(weight);
      return;
    }
    const AxisCells& axis = along[count - 1];
    for (std::size_t k = 0; k < axis.count; ++k)
      combine(along, count - 1, offset + axis.offsets[k], weight * axis.weights[k], cells);
  }

  GridSampleAttrs attrs_;
  std::vector<SampledAxis> axes_;
};

struct SampleCall {
  Dims dims;
  Sampler sampler;
  std::int64_t images, channels, plane, points;

  SampleCall(const GridSampleAttrs& attrs, const Tensor& x, const Tensor& grid)
      : dims(sampled_dims(x.dims(), grid.dims())), sampler(attrs, axes_of(x.dims())) {
    const std::span<const std::int64_t> all = x.dims();
    images = all[0];
    channels = all[1];
    plane = element_count(all.subspan(2));
    points = element_count(std::span<const std::int64_t>(dims).subspan(2));
    require(plane > 0 || element_count(dims) == 0, "there is nothing to sample in {}",
            to_string(x.dims()));
  }

  // out[channel, point] = sample(plane of the input, offsets, weights, number of cells).
  template <class G, class T, class Sample>
  void run(ThreadPool& pool, const G* grid, const T* in, T* out, Sample&& sample) const {
    constexpr std::int64_t block = 64;
    const std::int64_t rank = static_cast<std::int64_t>(dims.size()) - 2;
    const std::int64_t blocks = (points + block - 1) / block;
    if (element_count(dims) == 0) return;
    pool.parallel_for(images * blocks, 1, [&](std::int64_t task, std::int64_t) {
      const std::int64_t image = task / blocks;
      const std::int64_t first = task % blocks * block;
      Cells cells;
      for (std::int64_t point = first; point < std::min(points, first + block); ++point)
        sampler.add(grid + (image * points + point) * rank, cells);
      for (std::int64_t c = image * channels; c < (image + 1) * channels; ++c) {
        T* target = out + c * points + first;
        std::size_t begin = 0;
        for (const std::size_t end : cells.ends) {
          *target++ = sample(in + c * plane, cells.offsets.data() + begin,
                             cells.weights.data() + begin, end - begin);
          begin = end;
        }
      }
    });
  }

 private:
  static std::vector<SampledAxis> axes_of(const Dims& dims) {
    const auto strides = row_strides(dims);
    std::vector<SampledAxis> axes;
    for (std::size_t i = 2; i < dims.size(); ++i) axes.push_back({dims[i], strides[i]});
    return axes;
  }
};

template <class T, class G>
void sample_nearest(ThreadPool& pool, const SampleCall& call, const G* grid, const T* in, T* out) {
  call.run(pool, grid, in, out,
           [](const T* plane, const std::int64_t* offsets, const double*, std::size_t count) {
             return count == 0 ? T() : plane[*offsets];
           });
}

template <class G>
void move_nearest(KernelContext& context, const GridSampleAttrs& attrs, const G* grid,
                  const Tensor& grid_tensor) {
  move(context, [&](KernelContext& inner) {
    const Tensor& x = inner.required_input(0);
    const SampleCall call(attrs, x, grid_tensor);
    if (x.dtype() == DType::string) {
      std::vector<std::string> strings(static_cast<std::size_t>(element_count(call.dims)));
      sample_nearest(inner.pool(), call, grid, x.strings().data(), strings.data());
      return inner.forward_output(0, Tensor::of_strings(call.dims, std::move(strings)));
    }
    Tensor& y = inner.output(0, x.dtype(), call.dims);
    dispatch_storage(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      sample_nearest(inner.pool(), call, grid, reinterpret_cast<const T*>(x.aligned_bytes()),
                     reinterpret_cast<T*>(y.mutable_bytes().data()));
    });
  });
}

template <class G>
void interpolate(KernelContext& context, const GridSampleAttrs& attrs, const G* grid,
                 const Tensor& grid_tensor) {
  run_as(context, interpolation_type, [&](KernelContext& inner) {
    const Tensor& x = inner.required_input(0);
    const SampleCall call(attrs, x, grid_tensor);
    Tensor& y = inner.output(0, x.dtype(), call.dims);
    dispatch_floats(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* in = x.data<T>().data();
      T* out = y.mutable_data<T>().data();
      call.run(inner.pool(), grid, in, out,
               [](const T* plane, const std::int64_t* offsets, const double* weights,
                  std::size_t count) {
                 double sum = 0;
                 for (std::size_t i = 0; i < count; ++i)
                   sum += weights[i] * static_cast<double>(plane[offsets[i]]);
                 return static_cast<T>(sum);
               });
    });
  });
}

Kernel prepare_grid_sample(const PrepareContext& prepare) {
  return [attrs = GridSampleAttrs::from(prepare.node())](KernelContext& context) {
    const Tensor& given = context.required_input(1);
    const Tensor grid = given.cast(float_compute_type(given.dtype()));
    dispatch_floats(grid.dtype(), [&](auto tag) {
      using G = typename decltype(tag)::type;
      const G* locations = grid.data<G>().data();
      if (attrs.mode == Sampling::nearest)
        move_nearest(context, attrs, locations, grid);
      else
        interpolate(context, attrs, locations, grid);
    });
  };
}

void infer_grid_sample(InferContext& context) {
  GridSampleAttrs::from(context.node());
  const Shape* x = context.input_shape(0);
  const Shape* grid = context.input_shape(1);
  if (x == nullptr && grid == nullptr)
    return context.set_output(0, Type::tensor(context.input_dtype(0)));
  const std::size_t rank = x != nullptr ? x->size() : grid->size();
  require(rank >= 3 && (x == nullptr || grid == nullptr || grid->size() == rank),
          "expected an input and a grid of the same rank of at least 3, found {} and {}",
          x != nullptr ? to_string(*x) : "?", grid != nullptr ? to_string(*grid) : "?");
  Shape shape(rank);
  if (grid != nullptr) {
    unify(grid->back(), Dim(static_cast<std::int64_t>(rank) - 2), "the coordinates of a grid");
    shape[0] = grid->front();
    std::copy(grid->begin() + 1, grid->end() - 1, shape.begin() + 2);
  }
  if (x != nullptr) {
    shape[0] = unify((*x)[0], shape[0], "the batch axis of input and grid");
    shape[1] = (*x)[1];
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes grid_sample_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape || x->type.shape->size() < 3) return axes;
  const std::size_t rank = x->type.shape->size();
  const auto output = [](std::size_t axis) {
    return AxisRole{.kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(axis)};
  };
  axes[0].assign(rank, {.kind = AxisRole::Kind::window});
  axes[0][0] = output(0);
  axes[0][1] = output(1);
  if (axes.size() < 2) return axes;
  axes[1] = {output(0)};
  for (std::size_t i = 2; i < rank; ++i) axes[1].push_back(output(i));
  axes[1].push_back({});
  return axes;
}

// --- AffineGrid ---

// Evenly spaced over [-1, 1]: the centers of `size` cells, or from end to end with align_corners
// (0 for one cell, as PyTorch has it).
std::vector<double> base_positions(std::int64_t size, bool align_corners) {
  std::vector<double> positions;
  for (std::int64_t i = 0; i < size; ++i) {
    if (align_corners)
      positions.push_back(
          size == 1 ? 0 : 2 * static_cast<double>(i) / static_cast<double>(size - 1) - 1);
    else
      positions.push_back((2 * static_cast<double>(i) + 1) / static_cast<double>(size) - 1);
  }
  return positions;
}

// [N, H, W, 2] or [N, D, H, W, 3] from the size of the images [N, C, (D,) H, W].
template <class D>
std::vector<D> grid_dims(const std::vector<D>& size) {
  require(size.size() == 4 || size.size() == 5, "expected a size of 4 or 5 numbers, found {}",
          size.size());
  std::vector<D> dims{size[0]};
  dims.insert(dims.end(), size.begin() + 2, size.end());
  dims.push_back(static_cast<std::int64_t>(size.size()) - 2);
  return dims;
}

Kernel prepare_affine_grid(const PrepareContext& prepare) {
  return
      [align_corners = get_bool(prepare.node(), "align_corners", false)](KernelContext& context) {
        run_as(context, float_compute_type, [&](KernelContext& inner) {
          const Tensor& theta = inner.required_input(0);
          const Dims dims = grid_dims(inner.required_input(1).to_ints());
          const std::int64_t axes = dims.back();
          const Dims expected{dims[0], axes, axes + 1};
          require(theta.dims() == expected, "expected matrices {}, found {}", to_string(expected),
                  to_string(theta.dims()));
          Tensor& grid = inner.output(0, theta.dtype(), dims);
          if (grid.size() == 0) return;
          std::vector<std::vector<double>> positions;  // innermost axis first
          for (std::int64_t k = 0; k < axes; ++k)
            positions.push_back(
                base_positions(dims[static_cast<std::size_t>(axes - k)], align_corners));
          const std::int64_t points = grid.size() / axes / dims[0];
          dispatch_floats(theta.dtype(), [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T* matrices = theta.data<T>().data();
            T* out = grid.mutable_data<T>().data();
            inner.pool().parallel_for(
                dims[0] * points, 4096, [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t i = begin; i < end; ++i) {
                    double at[4] = {};
                    std::int64_t rest = i % points;
                    for (std::int64_t k = 0; k < axes; ++k) {
                      const auto& along = positions[static_cast<std::size_t>(k)];
                      const auto size = static_cast<std::int64_t>(along.size());
                      at[k] = along[static_cast<std::size_t>(rest % size)];
                      rest /= size;
                    }
                    at[axes] = 1;
                    const T* matrix = matrices + i / points * axes * (axes + 1);
                    for (std::int64_t row = 0; row < axes; ++row) {
                      double sum = 0;
                      for (std::int64_t k = 0; k <= axes; ++k)
                        sum += static_cast<double>(*matrix++) * at[k];
                      out[i * axes + row] = static_cast<T>(sum);
                    }
                  }
                });
          });
        });
      };
}

void infer_affine_grid(InferContext& context) {
  const Shape* theta = context.input_shape(0);
  const auto size = context.input_symbolic(1);
  const Shape* length = context.input_shape(1);
  std::optional<Shape> shape;
  if (size) {
    shape = grid_dims(*size);
  } else if (length != nullptr && length->size() == 1 && (*length)[0].is_known()) {
    shape = grid_dims(Shape(static_cast<std::size_t>((*length)[0].value())));
  }
  if (theta != nullptr) {
    require(theta->size() == 3, "expected matrices of 3 axes, found {}", to_string(*theta));
    if (shape) (*shape)[0] = unify((*theta)[0], (*shape)[0], "the number of matrices");
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

}  // namespace

OPERATORS(grid_sample) {
  registry.add(OpDef{.name = "GridSample",
                     .since = 16,
                     .infer = infer_grid_sample,
                     .prepare = prepare_grid_sample,
                     .axes = grid_sample_axes});
  registry.add(OpDef{.name = "AffineGrid",
                     .since = 20,
                     .infer = infer_affine_grid,
                     .prepare = prepare_affine_grid});
}

}  // namespace onnxpress
