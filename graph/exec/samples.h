// Samples of a dataset in memory, drawn in any order: what training goes through again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "graph/base/random.h"
#include "graph/exec/dataset.h"

namespace onnxpress {

class Samples {
 public:
  // Reads the next samples of `data`, from where it is, until `most_bytes` are held or it ends.
  // Every input's leading axis counts samples; an input whose rows are the same in every batch, of
  // no sample axis, is not supported. `first` is the number of the next sample in the dataset.
  // Throws Error for inputs that are no tensors and rows whose dims differ.
  static Samples read(Dataset& data, std::size_t most_bytes, std::int64_t first = 0);

  std::int64_t count() const { return std::ssize(numbers_); }
  // Of sample `index`, in the dataset.
  std::int64_t number(std::int64_t index) const { return numbers_[static_cast<std::size_t>(index)]; }
  bool is_labelled() const { return labels_.is_there(); }
  std::size_t bytes() const;
  // Removes a share of the samples, drawn by `random`, and returns them (at least one where there
  // are two and the share is not 0).
  Samples hold_out(double share, Random& random);
  // The samples at those indices, in that order.
  Batch gather(std::span<const std::int64_t> indices) const;

 private:
  // Rows of one input (or the labels), one behind the other.
  struct Column {
    DType type = DType::undefined;
    Dims row;
    std::vector<std::byte> bytes;

    bool is_there() const { return type != DType::undefined; }
    std::size_t row_bytes() const;
    void append(const Tensor& tensor, std::int64_t rows);
    void take(const Column& from, std::int64_t index);
    Tensor gather(std::span<const std::int64_t> indices) const;
  };

  Samples chosen(std::span<const std::int64_t> indices) const;

  std::vector<Column> inputs_;
  Column labels_;
  std::map<std::string, Column> further_;
  std::vector<std::int64_t> numbers_;
};

// How many samples hold_out() removes of `count`.
std::int64_t held_out_of(std::int64_t count, double share);

// 0 to count - 1, shuffled (Fisher and Yates).
std::vector<std::int64_t> shuffled(std::int64_t count, Random& random);

}  // namespace onnxpress
