// Windows of every kind against plain sums.
#include "graph/kernels/depthwise_codes.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "graph/base/random.h"

namespace onnxpress {
namespace {

struct Numbers {
  Random random{3};
  std::int64_t in(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random.uniform() * static_cast<double>(high - low + 1));
  }
  template <class T>
  std::vector<T> many(std::int64_t count, std::int64_t low, std::int64_t high) {
    std::vector<T> result(static_cast<std::size_t>(count));
    for (T& value : result) value = static_cast<T>(in(low, high));
    return result;
  }
};

WindowGeometry any_geometry(Numbers& numbers) {
  WindowGeometry g{};
  for (int axis = 0; axis < 3; ++axis) {
    g.input[axis] = g.output[axis] = g.kernel[axis] = g.stride[axis] = g.dilation[axis] = 1;
    if (axis == 0) continue;
    g.kernel[axis] = numbers.in(1, 8);
    g.stride[axis] = numbers.in(1, 3);
    g.dilation[axis] = numbers.in(1, 2);
    const std::int64_t extent = (g.kernel[axis] - 1) * g.dilation[axis] + 1;
    g.pad[axis] = numbers.in(0, extent);
    g.input[axis] = numbers.in(1, 12);
    const std::int64_t room = g.input[axis] + g.pad[axis] + numbers.in(0, extent) - extent;
    g.output[axis] = std::max<std::int64_t>(0, room) / g.stride[axis] + 1;
  }
  return g;
}

std::uint8_t expected(const DepthwiseSetup& s, const std::uint8_t* image, std::int64_t y, std::int64_t x,
                      std::int64_t c) {
  const WindowGeometry& g = s.geometry;
  const auto channel = static_cast<std::size_t>(c);
  std::int64_t sum = s.biases.empty() ? 0 : s.biases[channel];
  for (std::int64_t i = 0; i < g.kernel[1]; ++i)
    for (std::int64_t j = 0; j < g.kernel[2]; ++j) {
      const std::int64_t row = y * g.stride[1] - g.pad[1] + i * g.dilation[1];
      const std::int64_t column = x * g.stride[2] - g.pad[2] + j * g.dilation[2];
      if (row < 0 || row >= g.input[1] || column < 0 || column >= g.input[2]) continue;
      const int code = image[(row * g.input[2] + column) * s.channels + c] ^ s.x_flip;
      sum += (code - s.x_zero) * s.weights[static_cast<std::size_t>((c * g.kernel[1] + i) * g.kernel[2] + j)];
    }
  const float value = std::nearbyint(static_cast<float>(sum) * s.scales[s.scales.size() == 1 ? 0 : channel]) + s.y_zero;
  return static_cast<std::uint8_t>(static_cast<int>(std::clamp(value, 0.0F, 255.0F)) ^ s.y_flip);
}

}  // namespace

TEST_CASE("Filters for every channel give plain sums for windows of every kind") {
  Numbers numbers;
  ThreadPool pool(2);
  for (int turn = 0; turn < 300; ++turn) {
    const WindowGeometry g = any_geometry(numbers);
    const std::int64_t channels = numbers.in(43, 200), images = numbers.in(1, 2);
    if (!DepthwiseCodes::is_fast_for(channels, g)) continue;
    const auto weights = numbers.many<std::int8_t>(channels * g.kernel[1] * g.kernel[2], -128, 127);
    const auto biases = numbers.many<std::int32_t>(numbers.in(0, 1) * channels, -3000, 3000);
    std::vector<float> scales;
    for (const int factor : numbers.many<int>(numbers.in(0, 1) == 0 ? 1 : channels, 1, 40))
      scales.push_back(0.001F * static_cast<float>(factor));
    const DepthwiseSetup setup{.geometry = g,
                               .channels = channels,
                               .weights = weights,
                               .scales = scales,
                               .biases = biases,
                               .x_zero = static_cast<std::uint8_t>(numbers.in(0, 255)),
                               .y_zero = static_cast<std::uint8_t>(numbers.in(0, 255)),
                               .x_flip = static_cast<std::uint8_t>(numbers.in(0, 1) * 0x80),
                               .y_flip = static_cast<std::uint8_t>(numbers.in(0, 1) * 0x80)};
    const auto x = numbers.many<std::uint8_t>(images * g.input_size() * channels, 0, 255);
    std::vector<std::uint8_t> y(static_cast<std::size_t>(images * g.output_size() * channels));
    DepthwiseCodes(setup).run(pool, x.data(), y.data(), images);
    std::int64_t different = 0, at = 0;
    for (std::int64_t n = 0; n < images; ++n)
      for (std::int64_t row = 0; row < g.output[1]; ++row)
        for (std::int64_t column = 0; column < g.output[2]; ++column)
          for (std::int64_t c = 0; c < channels; ++c)
            different += y[static_cast<std::size_t>(at++)] !=
                         expected(setup, x.data() + n * g.input_size() * channels, row, column, c);
    CAPTURE(turn);
    CHECK(different == 0);
  }
}

}  // namespace onnxpress
