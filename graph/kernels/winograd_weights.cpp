#include "graph/kernels/winograd_weights.h"

#include <algorithm>
#include <array>

namespace onnxpress::onednn {

#if DNNL_VERSION_MAJOR >= 3

bool packs_winograd_weights(const memory::desc&, const memory::desc&) { return false; }

void pack_winograd_weights(const float*, const memory::desc&, float*) {
  fail("the layouts of oneDNN 3 are not public");
}

#else

namespace {

constexpr std::int64_t lanes = 16;  // output channels of a block
constexpr std::int64_t taps = 3;    // of the kernel along an axis

// Rows of G for F(tile, 3): 4 or 6 points.
using Transform = std::array<std::array<float, taps>, 6>;

// Lagrange's factors at the points 0, a, -a, b, -b and infinity: those that oneDNN's transforms of
// images and results are made for, a = 5/8 and b = 3/2.
Transform six_points() {
  constexpr double a = 0.625, b = 1.5;
  Transform g{};
  g[0][0] = static_cast<float>(1 / (a * a * b * b));
  const auto at = [&](std::size_t row, double point, double other) {
    const double factor = 1 / (2 * point * point * (point * point - other * other));
    for (std::size_t power = 0; power < taps; ++power) {
      g[row][power] = static_cast<float>(factor);
      for (std::size_t i = 0; i < power; ++i) g[row][power] *= static_cast<float>(point);
    }
  };
  at(1, a, b);
  at(2, -a, b);
  at(3, b, a);
  at(4, -b, a);
  g[5][2] = 1;
  return g;
}

// The points 0, 1, -1 and infinity.
Transform four_points() {
  return {{{1, 0, 0}, {0.5F, 0.5F, 0.5F}, {0.5F, -0.5F, 0.5F}, {0, 0, 1}}};
}

struct Blocks {
  std::int64_t oc, ic, oc2, ic2;  // of channels, and of blocks of them

  // Offset of the 16 output channels of block `ob` for input channel `i` of block `ib` in plane
  // (h, w) of `alpha` * `alpha`.
  std::int64_t offset(dnnl_wino_memory_format_t format, std::int64_t alpha, std::int64_t h,
                      std::int64_t w, std::int64_t ob, std::int64_t ib, std::int64_t i,
                      const dnnl_wino_desc_t& d) const {
    const std::int64_t blocks_o = d.oc / oc, blocks_i = d.ic / ic;
    const std::int64_t plane = h * alpha + w;
    switch (format) {
      case dnnl_wino_wei_aaOio:
        return (((plane * blocks_o + ob) * blocks_i + ib) * ic + i) * oc;
      case dnnl_wino_wei_aaOBiOo:
        return ((((plane * (blocks_o / oc2) + ob / oc2) * blocks_i + ib) * ic + i) * oc2 +
                ob % oc2) *
               oc;
      default:  // OBaaIBOIio
        return (((((ob / oc2 * alpha * alpha + plane) * (blocks_i / ic2) + ib / ic2) * oc2 +
                  ob % oc2) *
                     ic2 +
                 ib % ic2) *
                    ic +
                i) *
               oc;
    }
  }
};

}  // namespace

bool packs_winograd_weights(const memory::desc& given, const memory::desc& packed) {
  if (packed.data.format_kind != dnnl_format_kind_wino) return false;
  const dnnl_wino_desc_t& layout = packed.data.format_desc.wino_desc;
  const bool is_known = layout.wino_format == dnnl_wino_wei_aaOio ||
                        layout.wino_format == dnnl_wino_wei_aaOBiOo ||
                        layout.wino_format == dnnl_wino_wei_OBaaIBOIio;
  const std::int64_t alpha = layout.wino_format == dnnl_wino_wei_OBaaIBOIio ? 6 : 4;
  return is_known && packed.data_type() == DataType::f32 && given == plain(given.dims()) &&
         given.dims().size() == 4 && layout.r == taps && layout.alpha == alpha &&
         layout.oc_block == lanes;
}

void pack_winograd_weights(const float* weights, const memory::desc& packed, float* target) {
  const dnnl_wino_desc_t& layout = packed.data.format_desc.wino_desc;
  const bool is_six = layout.wino_format == dnnl_wino_wei_OBaaIBOIio;
  const Transform g = is_six ? six_points() : four_points();
  const std::size_t alpha = is_six ? 6 : 4;
  const Blocks blocks{layout.oc_block, layout.ic_block, std::max(layout.oc2_block, 1),
                      is_six ? std::max(layout.ic2_block, 1) : 1};
  const std::int64_t filters = packed.dims()[0], channels = packed.dims()[1];

  using Lanes = std::array<float, lanes>;
  for (std::int64_t ob = 0; ob < layout.oc / lanes; ++ob) {
    for (std::int64_t channel = 0; channel < layout.ic; ++channel) {
      std::array<std::array<Lanes, taps>, taps> kernel{};
      const std::int64_t present =
          channel < channels ? std::clamp<std::int64_t>(filters - ob * lanes, 0, lanes) : 0;
      for (std::int64_t o = 0; o < present; ++o) {
        const float* taken = weights + ((ob * lanes + o) * channels + channel) * taps * taps;
        for (std::size_t k = 0; k < taps; ++k)
          for (std::size_t l = 0; l < taps; ++l)
            kernel[k][l][static_cast<std::size_t>(o)] = taken[k * taps + l];
      }
      std::array<std::array<Lanes, taps>, 6> rows;  // G g
      for (std::size_t h = 0; h < alpha; ++h)
        for (std::size_t l = 0; l < taps; ++l)
          for (std::size_t o = 0; o < lanes; ++o)
            rows[h][l][o] =
                g[h][0] * kernel[0][l][o] + g[h][1] * kernel[1][l][o] + g[h][2] * kernel[2][l][o];
      for (std::size_t h = 0; h < alpha; ++h) {
        for (std::size_t w = 0; w < alpha; ++w) {
          float* to =
              target + blocks.offset(layout.wino_format, layout.alpha, static_cast<std::int64_t>(h),
                                     static_cast<std::int64_t>(w), ob, channel / blocks.ic,
                                     channel % blocks.ic, layout);
          for (std::size_t o = 0; o < lanes; ++o)
            to[o] = rows[h][0][o] * g[w][0] + rows[h][1][o] * g[w][1] + rows[h][2][o] * g[w][2];
        }
      }
    }
  }
}

#endif

}  // namespace onnxpress::onednn
