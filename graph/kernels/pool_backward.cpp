// Gradients of MaxPool and AveragePool on float32: windows by tables of their cells.
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/pool.h"
#include "graph/ops/pool_walk.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;

// The cells of one window along an axis that lie in the input.
struct Cells {
  std::int64_t first = 0, count = 0;
};

struct Windows {
  WindowGeometry geometry;
  std::array<std::vector<Cells>, 3> cells;  // by axis and output position
  std::vector<float> shares;                // 1 / cells of an average, by output position

  static Windows of(const PrepareContext& context) {
    const PoolCall call = PoolCall::of(PoolAttrs::from(context.node()), dims_of(context.input_type(0)));
    Windows windows{.geometry = call.geometry};
    const WindowGeometry& g = windows.geometry;
    for (std::size_t axis = 0; axis < 3; ++axis)
      for (std::int64_t o = 0; o < g.output[axis]; ++o) {
        Cells cells;
        for (std::int64_t k = 0; k < g.kernel[axis]; ++k) {
          const std::int64_t at = o * g.stride[axis] - g.pad[axis] + k * g.dilation[axis];
          if (at < 0 || at >= g.input[axis]) continue;
          if (cells.count++ == 0) cells.first = at;
        }
        windows.cells[axis].push_back(cells);
      }
    return windows;
  }

  // body(plane) in parallel.
  template <class Body>
  static void each_plane(ThreadPool& pool, std::int64_t planes, std::int64_t cells, const Body& body) {
    const std::int64_t block = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, cells));
    pool.parallel_for(planes, block, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t plane = begin; plane < end; ++plane) body(plane);
    });
  }

  // body(output offset, cells of each axis) for the windows of a plane.
  template <class Body>
  void each(const Body& body) const {
    std::int64_t offset = 0;
    for (const Cells& a : cells[0])
      for (const Cells& b : cells[1])
        for (const Cells& c : cells[2]) body(offset++, a, b, c);
  }

  // visit(offset of the cell in the plane)
  template <class Visit>
  void each_cell(const Cells& a, const Cells& b, const Cells& c, const Visit& visit) const {
    const WindowGeometry& g = geometry;
    for (std::int64_t i = 0; i < a.count; ++i)
      for (std::int64_t j = 0; j < b.count; ++j) {
        const std::int64_t row =
            ((a.first + i * g.dilation[0]) * g.input[1] + b.first + j * g.dilation[1]) * g.input[2] + c.first;
        for (std::int64_t k = 0; k < c.count; ++k) visit(row + k * g.dilation[2]);
      }
  }

  // Windows of 2 by 2 cells side by side that cover the input, but for the last row or column of an odd one.
  bool are_quarters() const {
    const WindowGeometry& g = geometry;
    const auto halves = [&](std::size_t axis) {
      return g.kernel[axis] == 2 && g.stride[axis] == 2 && g.dilation[axis] == 1 && g.pad[axis] == 0 &&
             g.input[axis] / 2 == g.output[axis];
    };
    return g.input[0] == 1 && g.kernel[0] == 1 && g.pad[0] == 0 && halves(1) && halves(2);
  }
};

// Whether `value` takes the maximum over from `best`: the first of equal ones has it, NaN is largest.
bool is_larger(float value, float best) { return value > best || (value != value && best == best); }

void max_of_quarters(const WindowGeometry& g, const float* x, const float* dy, float* dx) {
  const std::int64_t width = g.input[2];
  if (g.input[1] % 2 != 0) std::fill_n(dx + (g.input[1] - 1) * width, width, 0.0F);
  for (std::int64_t row = 0; row < g.output[1]; ++row, dy += g.output[2]) {
    const float *const upper = x + 2 * row * width, *const lower = upper + width;
    float *const to_upper = dx + 2 * row * width, *const to_lower = to_upper + width;
    for (std::int64_t o = 0; o < g.output[2]; ++o) {
      const float values[] = {upper[2 * o], upper[2 * o + 1], lower[2 * o], lower[2 * o + 1]};
      const bool right = is_larger(values[1], values[0]), below = is_larger(values[3], values[2]);
      const bool is_lower = is_larger(values[2 + below], values[right]);
      to_upper[2 * o] = !is_lower && !right ? dy[o] : 0;
      to_upper[2 * o + 1] = !is_lower && right ? dy[o] : 0;
      to_lower[2 * o] = is_lower && !below ? dy[o] : 0;
      to_lower[2 * o + 1] = is_lower && below ? dy[o] : 0;
    }
    if (width % 2 != 0) to_upper[width - 1] = to_lower[width - 1] = 0;
  }
}

bool supports(const PrepareContext& context) {
  return is_float_operand(context.input_type(0)) && is_float_operand(context.output_type(0)) &&
         dims_of(context.input_type(0)).size() <= 5 && !context.output_type(1);
}

BackwardKernel prepare_max(const PrepareContext& context) {
  return [windows = Windows::of(context)](BackwardContext& call) {
    const WindowGeometry& g = windows.geometry;
    const float* const x = call.required_input(0).data<float>().data();
    const Tensor& dy = call.required_gradient(0);
    const float* const from = dy.data<float>().data();
    float* const out = call.gradient(0).mutable_data<float>().data();
    const bool are_quarters = windows.are_quarters();
    Windows::each_plane(call.pool(), dy.size() / g.output_size(), g.input_size(), [&](std::int64_t plane) {
      const float* const in = x + plane * g.input_size();
      const float* const slopes = from + plane * g.output_size();
      float* const to = out + plane * g.input_size();
      if (are_quarters) return max_of_quarters(g, in, slopes, to);
      std::fill_n(to, g.input_size(), 0.0F);
      windows.each([&](std::int64_t offset, const Cells& a, const Cells& b, const Cells& c) {
        std::int64_t best = -1;
        windows.each_cell(a, b, c, [&](std::int64_t at) {
          if (best < 0 || is_larger(in[at], in[best])) best = at;
        });
        if (best >= 0) to[best] += slopes[offset];
      });
    });
  };
}

// 1 over the number of cells that each average divides by.
std::vector<float> shares_of(const PrepareContext& context, const Windows& windows) {
  const AverageCells divisor(PoolAttrs::from(context.node()), dims_of(context.input_type(0)), windows.geometry);
  std::vector<float> shares;
  const WindowGeometry& g = windows.geometry;
  std::int64_t o[3];
  for (o[0] = 0; o[0] < g.output[0]; ++o[0])
    for (o[1] = 0; o[1] < g.output[1]; ++o[1])
      for (o[2] = 0; o[2] < g.output[2]; ++o[2]) {
        std::int64_t inside = 1;
        for (std::size_t axis = 0; axis < 3; ++axis)
          inside *= windows.cells[axis][static_cast<std::size_t>(o[axis])].count;
        const std::int64_t count = divisor.count(o, inside);
        shares.push_back(count == 0 ? 0 : 1 / static_cast<float>(count));
      }
  return shares;
}

BackwardKernel prepare_average(const PrepareContext& context) {
  Windows windows = Windows::of(context);
  windows.shares = shares_of(context, windows);
  return [windows = std::move(windows)](BackwardContext& call) {
    const WindowGeometry& g = windows.geometry;
    const Tensor& dy = call.required_gradient(0);
    const float* const from = dy.data<float>().data();
    float* const out = call.gradient(0).mutable_data<float>().data();
    Windows::each_plane(call.pool(), dy.size() / g.output_size(), g.input_size(), [&](std::int64_t plane) {
      const float* const slopes = from + plane * g.output_size();
      float* const to = out + plane * g.input_size();
      std::fill_n(to, g.input_size(), 0.0F);
      windows.each([&](std::int64_t offset, const Cells& a, const Cells& b, const Cells& c) {
        const float share = slopes[offset] * windows.shares[static_cast<std::size_t>(offset)];
        windows.each_cell(a, b, c, [&](std::int64_t at) { to[at] += share; });
      });
    });
  };
}

}  // namespace

OPERATORS(pool_backward) {
  registry.add(GradientDef{.name = "MaxPool",
                           .backend = "direct",
                           .supports = supports,
                           .prepare = prepare_max,
                           .reads_inputs = bits_of(0),
                           .reads_outputs = 0});
  registry.add(GradientDef{.name = "AveragePool",
                           .backend = "direct",
                           .supports = supports,
                           .prepare = prepare_average,
                           .reads_inputs = 0,
                           .reads_outputs = 0});
}

}  // namespace onnxpress
