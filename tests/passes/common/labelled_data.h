// A labelled Dataset of tensors at hand.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/base/random.h"
#include "graph/exec/dataset.h"

namespace onnxpress {

// Rows of `from`, from `first` on.
inline Tensor rows_of(const Tensor& from, std::int64_t first, std::int64_t count) {
  Dims dims = from.dims();
  dims[0] = count;
  Tensor rows = Tensor::uninitialized(from.dtype(), dims);
  const std::size_t width = from.byte_size() / static_cast<std::size_t>(from.dim(0));
  std::memcpy(rows.mutable_bytes().data(), from.bytes().data() + width * static_cast<std::size_t>(first),
              width * static_cast<std::size_t>(count));
  return rows;
}

class LabelledData final : public Dataset {
 public:
  // All have one row a sample; labels may be undefined.
  LabelledData(std::vector<Tensor> inputs, Tensor labels, std::map<std::string, Tensor> further = {})
      : inputs_(std::move(inputs)), labels_(std::move(labels)), further_(std::move(further)) {}

  std::int64_t samples() const override { return inputs_[0].dim(0); }
  bool labelled() const override { return labels_.defined(); }
  void rewind() override { next_ = 0; }
  bool next(Batch& batch) override {
    constexpr std::int64_t batch_size = 16;
    const std::int64_t size = std::min(batch_size, samples() - next_);
    if (size <= 0) return false;
    batch = {.samples = size};
    for (const Tensor& input : inputs_) batch.inputs.push_back(rows_of(input, next_, size));
    if (labels_.defined()) batch.labels = rows_of(labels_, next_, size);
    for (const auto& [name, tensor] : further_) batch.further[name] = rows_of(tensor, next_, size);
    next_ += size;
    return true;
  }
  std::string description() const override { return "labelled data"; }
  std::string hash() const override { return "cd34"; }

 private:
  std::vector<Tensor> inputs_;
  Tensor labels_;
  std::map<std::string, Tensor> further_;
  std::int64_t next_ = 0;
};

// Points [count,2] in a square, labelled 0 to 3 by quadrant.
inline LabelledData quadrants(std::int64_t count) {
  Tensor x(DType::float32, {count, 2}), y(DType::int64, {count});
  Random random(3);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const double a = random.uniform(-1, 1), b = random.uniform(-1, 1);
    x.mutable_data<float>()[2 * i] = static_cast<float>(a);
    x.mutable_data<float>()[2 * i + 1] = static_cast<float>(b);
    y.mutable_data<std::int64_t>()[i] = (a > 0 ? 2 : 0) + (b > 0 ? 1 : 0);
  }
  return LabelledData({x}, y);
}

}  // namespace onnxpress
