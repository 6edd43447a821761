#include "graph/kernels/winograd_weights.h"

#include <doctest/doctest.h>

#include <cmath>
#include <optional>
#include <vector>

#include "graph/base/random.h"

namespace onnxpress::onednn {
namespace {

// What oneDNN's Winograd convolution asks of its weights, where this CPU has one.
std::optional<memory::desc> winograd_layout(const Dims& weights, std::int64_t images,
                                            std::int64_t size) {
  try {
    return convolution(dnnl::algorithm::convolution_winograd,
                       any_layout({images, weights[1], size, size}), any_layout(weights),
                       memory::desc(), any_layout({images, weights[0], size, size}),
                       {{1, 1}, {0, 0}, {1, 1}, {1, 1}}, scratchpad_given())
        .weights_desc();
  } catch (const dnnl::error& error) {
    REQUIRE(error.status == dnnl_unimplemented);
    return std::nullopt;
  }
}

TEST_CASE("weights are transformed as oneDNN's own reorder does it") {
  struct Case {
    std::int64_t filters, channels, images, size;
  };
  int known = 0, offered = 0;
  for (const Case& c :
       {Case{512, 512, 1, 7}, Case{256, 256, 1, 14}, Case{128, 128, 1, 28}, Case{64, 64, 1, 56},
        Case{512, 512, 8, 7}, Case{256, 256, 8, 14}, Case{128, 96, 8, 28}, Case{64, 64, 8, 56},
        Case{48, 35, 2, 20}, Case{33, 32, 1, 9}, Case{80, 64, 4, 12}}) {
    CAPTURE(c.filters);
    CAPTURE(c.channels);
    CAPTURE(c.images);
    const Dims dims{c.filters, c.channels, 3, 3};
    const std::optional<memory::desc> layout = winograd_layout(dims, c.images, c.size);
    if (!layout) continue;
    ++offered;
    if (!packs_winograd_weights(plain(dims), *layout)) continue;
    ++known;
    std::vector<float> weights(static_cast<std::size_t>(element_count(dims)));
    Random random(static_cast<std::uint64_t>(c.filters + c.images));
    for (float& value : weights) value = static_cast<float>(random.normal());

    memory source(plain(dims), cpu_engine(), weights.data());
    memory expected(*layout, cpu_engine()), found(*layout, cpu_engine());
    dnnl::reorder(source, expected).execute(cpu_stream(), source, expected);
    cpu_stream().wait();
    pack_winograd_weights(weights.data(), *layout, static_cast<float*>(found.get_data_handle()));
    const auto* a = static_cast<const float*>(expected.get_data_handle());
    const auto* b = static_cast<const float*>(found.get_data_handle());
    const auto plane = static_cast<double>(layout->get_size() / sizeof(float));
    double worst = 0, sum = 0;
    for (std::size_t i = 0; i < layout->get_size() / sizeof(float); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
      sum += std::abs(static_cast<double>(a[i]));
    }
    CHECK(sum / plane > 0.01);
    CHECK(worst < 1e-5);
  }
#if DNNL_VERSION_MAJOR < 3
  CHECK(known == offered);
#else
  CHECK(known == 0);
#endif
}

}  // namespace
}  // namespace onnxpress::onednn
