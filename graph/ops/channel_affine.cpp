#include "graph/ops/channel_affine.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <type_traits>

namespace onnxpress {

ChannelAffine batch_norm_affine(const Tensor& gamma, const Tensor& beta, const Tensor& mean,
                                const Tensor& variance, double epsilon) {
  const Tensor g = gamma.cast(DType::float64), b = beta.cast(DType::float64);
  const Tensor m = mean.cast(DType::float64), v = variance.cast(DType::float64);
  ChannelAffine affine;
  for (std::size_t c = 0; c < static_cast<std::size_t>(g.size()); ++c) {
    affine.scale.push_back(g.data<double>()[c] / std::sqrt(v.data<double>()[c] + epsilon));
    affine.shift.push_back(b.data<double>()[c] - m.data<double>()[c] * affine.scale.back());
  }
  return affine;
}

namespace {

// Weights of a mapped file, where they lie.
struct UnalignedFloats {
  const std::byte* bytes;

  float operator[](std::int64_t index) const {
    float value;
    std::memcpy(&value, bytes + index * static_cast<std::int64_t>(sizeof(float)), sizeof(float));
    return value;
  }
};

}  // namespace

Tensor scale_slices(const Tensor& weight, std::int64_t axis, const std::vector<double>& factor,
                    std::int64_t groups) {
  if (weight.size() == 0) return weight;
  const std::int64_t slices = weight.dim(static_cast<std::size_t>(axis));
  const std::int64_t group_size = axis == 0 ? weight.size() : weight.size() / groups;
  const auto scale = [&](const auto& from, auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    for_each_channel_run(
        weight.dims(), axis, [&](std::int64_t slice, std::int64_t begin, std::int64_t count) {
          const std::int64_t group = axis == 0 ? 0 : begin / group_size;
          const double by = factor[static_cast<std::size_t>(group * slices + slice)];
          for (std::int64_t i = begin; i < begin + count; ++i)
            to[i] = static_cast<T>(static_cast<double>(from[i]) * by);
        });
  };
  if (weight.dtype() == DType::float32) {
    Tensor scaled = Tensor::uninitialized(DType::float32, weight.dims());
    scale(UnalignedFloats{weight.bytes().data()}, scaled.mutable_data<float>().data());
    return scaled;
  }
  Tensor scaled = weight.cast(DType::float64);
  double* const values = scaled.mutable_data<double>().data();
  scale(values, values);
  return scaled.cast(weight.dtype());
}

void for_each_channel_run(
    const Dims& dims, std::int64_t axis,
    const std::function<void(std::int64_t channel, std::int64_t begin, std::int64_t count)>& fn) {
  const auto at = dims.begin() + axis;
  const std::int64_t outer =
      std::accumulate(dims.begin(), at, std::int64_t{1}, std::multiplies<>());
  const std::int64_t inner =
      std::accumulate(at + 1, dims.end(), std::int64_t{1}, std::multiplies<>());
  for (std::int64_t o = 0; o < outer; ++o) {
    for (std::int64_t c = 0; c < *at; ++c) fn(c, (o * *at + c) * inner, inner);
  }
}

}  // namespace onnxpress
