// A bounded, evenly spread part of a dataset.
#pragma once

#include <algorithm>

#include "graph/exec/dataset.h"

namespace onnxpress {

// Whole batches of another dataset, about `samples` of them, in its order; the other one must outlive it.
class SpreadDataset final : public Dataset {
 public:
  SpreadDataset(Dataset& data, std::int64_t samples) : data_(data), samples_(std::min(samples, data.samples())) {}

  std::int64_t samples() const override { return samples_; }
  bool labelled() const override { return data_.labelled(); }
  void rewind() override {
    data_.rewind();
    seen_ = used_ = 0;
  }
  bool next(Batch& batch) override {
    while (used_ < samples_ && data_.next(batch)) {
      const bool is_due = static_cast<double>(used_) * static_cast<double>(data_.samples()) <=
                          static_cast<double>(seen_) * static_cast<double>(samples_);
      seen_ += batch.samples;
      if (!is_due) continue;
      used_ += batch.samples;
      return true;
    }
    return false;
  }
  std::string description() const override { return fmt::format("{} samples of {}", samples_, data_.description()); }
  std::string hash() const override { return fmt::format("{}/{}", data_.hash(), samples_); }
  std::vector<std::string> notes() const override { return data_.notes(); }

 private:
  Dataset& data_;
  std::int64_t samples_, seen_ = 0, used_ = 0;
};

}  // namespace onnxpress
