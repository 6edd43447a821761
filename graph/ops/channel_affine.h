// y = x * scale[c] + shift[c]: what BatchNormalization is at inference, folded into linear weights.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "graph/ir/tensor.h"

namespace onnxpress {

struct ChannelAffine {
  std::vector<double> scale;
  std::vector<double> shift;
};

// BatchNormalization's formula (Ioffe and Szegedy 2015, algorithm 2): scale = gamma / sqrt(var +
// eps), shift = beta - mean * scale. All tensors are [channels].
ChannelAffine batch_norm_affine(const Tensor& gamma, const Tensor& beta, const Tensor& mean,
                                const Tensor& variance, double epsilon);

// Multiplies the slices of `axis` by `factor`, which has one entry per slice of each group: the
// groups divide axis 0 when `axis` is not 0 (ConvTranspose), and are already part of `axis`
// otherwise. Computed in double, stored in the weight's element type.
Tensor scale_slices(const Tensor& weight, std::int64_t axis, const std::vector<double>& factor,
                    std::int64_t groups = 1);

// Calls fn(channel, begin, count) for every contiguous run of elements of one channel of `axis`, in
// memory order.
void for_each_channel_run(
    const Dims& dims, std::int64_t axis,
    const std::function<void(std::int64_t channel, std::int64_t begin, std::int64_t count)>& fn);

}  // namespace onnxpress
