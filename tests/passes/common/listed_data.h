// A Dataset of batches at hand.
#pragma once

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "graph/base/random.h"
#include "graph/exec/dataset.h"

namespace onnxpress {

class ListedData final : public Dataset {
 public:
  // Inputs of every batch; each counts as many samples as its first input has rows.
  explicit ListedData(std::vector<std::vector<Tensor>> batches, std::string hash = "ab12")
      : batches_(std::move(batches)), hash_(std::move(hash)) {}

  std::int64_t samples() const override {
    std::int64_t count = 0;
    for (const auto& inputs : batches_) count += rows(inputs);
    return count;
  }
  bool labelled() const override { return false; }
  void rewind() override { position_ = 0; }
  bool next(Batch& batch) override {
    if (position_ == batches_.size()) return false;
    batch.inputs = batches_[position_++];
    batch.samples = rows(batch.inputs);
    ++batches_read;
    return true;
  }
  std::string description() const override { return "listed data"; }
  std::string hash() const override { return hash_; }

  std::size_t batches_read = 0;

 private:
  static std::int64_t rows(const std::vector<Tensor>& inputs) {
    return inputs.empty() || inputs[0].rank() == 0 ? 1 : inputs[0].dim(0);
  }

  std::vector<std::vector<Tensor>> batches_;
  std::string hash_;
  std::size_t position_ = 0;
};

inline Tensor normal_tensor(Dims dims, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  Tensor tensor(DType::float32, std::move(dims));
  for (float& x : tensor.mutable_data<float>()) x = static_cast<float>(random.normal() * scale);
  return tensor;
}

}  // namespace onnxpress
