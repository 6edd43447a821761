// A Dataset over tensors at hand.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "graph/exec/dataset.h"

namespace onnxpress {

// Batches of `batch` rows of `x`, with labels when given; with `pad`, the last one is filled up
// with copies of its first row.
class GivenData final : public Dataset {
 public:
  GivenData(Tensor x, Tensor labels, std::int64_t batch, bool pad = false)
      : x_(std::move(x)), labels_(std::move(labels)), batch_(batch), pad_(pad) {}

  std::int64_t samples() const override { return x_.dim(0); }
  bool labelled() const override { return labels_.defined(); }
  void rewind() override { position_ = 0; }
  bool next(Batch& batch) override {
    if (position_ >= samples()) return false;
    batch.samples = std::min(batch_, samples() - position_);
    batch.inputs = {rows(x_, batch.samples, pad_ ? batch_ : batch.samples)};
    batch.labels = labelled() ? rows(labels_, batch.samples, batch.samples) : Tensor();
    position_ += batch.samples;
    return true;
  }
  std::string description() const override { return "given data"; }
  std::string hash() const override { return ""; }

 private:
  Tensor rows(const Tensor& tensor, std::int64_t count, std::int64_t total) const {
    Dims dims = tensor.dims();
    const std::size_t row = tensor.byte_size() / static_cast<std::size_t>(dims[0]);
    dims[0] = total;
    Tensor result(tensor.dtype(), std::move(dims));
    for (std::int64_t i = 0; i < total; ++i)
      std::memcpy(
          result.mutable_bytes().data() + static_cast<std::size_t>(i) * row,
          tensor.bytes().data() + static_cast<std::size_t>(position_ + (i < count ? i : 0)) * row,
          row);
    return result;
  }

  Tensor x_, labels_;
  std::int64_t batch_, position_ = 0;
  bool pad_;
};

}  // namespace onnxpress
