// Walking the windows of pooling: what its kernels and their gradients share.
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/ops/pool.h"

namespace onnxpress {

// Calls tap(input offset) for each cell of the window at output (o0, o1, o2) that lies in the
// input.
template <class Tap>
void for_each_tap(const WindowGeometry& g, const std::int64_t (&o)[3], Tap&& tap) {
  for (std::int64_t k0 = 0; k0 < g.kernel[0]; ++k0) {
    const std::int64_t i0 = o[0] * g.stride[0] - g.pad[0] + k0 * g.dilation[0];
    if (i0 < 0 || i0 >= g.input[0]) continue;
    for (std::int64_t k1 = 0; k1 < g.kernel[1]; ++k1) {
      const std::int64_t i1 = o[1] * g.stride[1] - g.pad[1] + k1 * g.dilation[1];
      if (i1 < 0 || i1 >= g.input[1]) continue;
      for (std::int64_t k2 = 0; k2 < g.kernel[2]; ++k2) {
        const std::int64_t i2 = o[2] * g.stride[2] - g.pad[2] + k2 * g.dilation[2];
        if (i2 >= 0 && i2 < g.input[2]) tap((i0 * g.input[1] + i1) * g.input[2] + i2);
      }
    }
  }
}

// Calls body(plane, output offset within the plane, output position) for all planes in parallel.
template <class Body>
void for_each_output(ThreadPool& pool, std::int64_t planes, const WindowGeometry& g, Body&& body) {
  pool.parallel_for(planes, 1, [&](std::int64_t plane, std::int64_t) {
    std::int64_t offset = 0;
    std::int64_t o[3];
    for (o[0] = 0; o[0] < g.output[0]; ++o[0])
      for (o[1] = 0; o[1] < g.output[1]; ++o[1])
        for (o[2] = 0; o[2] < g.output[2]; ++o[2], ++offset) body(plane, offset, o);
  });
}

struct PoolCall {
  Dims dims;  // of the result
  WindowGeometry geometry;
  std::int64_t planes;

  static PoolCall of(const PoolAttrs& attrs, const Dims& x) {
    const Dims dims = attrs.output_dims(x);
    const Dims in_spatial(x.begin() + 2, x.end());
    const Dims out_spatial(dims.begin() + 2, dims.end());
    return {dims, WindowGeometry::of(attrs.window, in_spatial, out_spatial), x[0] * x[1]};
  }
};

// Cells an average divides by: those of the window inside the input and, with count_include_pad,
// the padding (but not what ceil_mode adds beyond it).
class AverageCells {
 public:
  AverageCells(const PoolAttrs& attrs, const Dims& x, const WindowGeometry& geometry)
      : attrs_(attrs), geometry_(geometry) {
    const std::size_t rank = attrs.window.rank();
    const auto pads = attrs.window.resolved_pads(Dims(x.begin() + 2, x.end()));
    for (std::size_t i = 0; i < rank; ++i) pad_end_[3 - rank + i] = pads[rank + i];
  }

  // For the window at output `o`, of which `inside` cells lie in the input.
  std::int64_t count(const std::int64_t (&o)[3], std::int64_t inside) const {
    if (!attrs_.count_include_pad) return inside;
    if (attrs_.count_beyond_padding) return geometry_.kernel_size();
    std::int64_t cells = 1;
    for (std::size_t i = 0; i < 3; ++i) {
      std::int64_t within = 0;
      for (std::int64_t k = 0; k < geometry_.kernel[i]; ++k)
        within += o[i] * geometry_.stride[i] - geometry_.pad[i] + k * geometry_.dilation[i] <
                  geometry_.input[i] + pad_end_[i];
      cells *= within;
    }
    return cells;
  }

 private:
  const PoolAttrs& attrs_;
  const WindowGeometry& geometry_;
  std::int64_t pad_end_[3] = {};
};

}  // namespace onnxpress
