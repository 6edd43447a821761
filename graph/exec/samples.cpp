#include "graph/exec/samples.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace onnxpress {

std::size_t Samples::Column::row_bytes() const {
  return packed_bytes(type, static_cast<std::size_t>(element_count(row)));
}

void Samples::Column::append(const Tensor& tensor, std::int64_t rows) {
  require(tensor.rank() > 0 && tensor.dim(0) >= rows,
          "expected an axis that counts at least {} samples, found {}", rows,
          to_string(tensor.dims()));
  require(tensor.dtype() != DType::string && !is_sub_byte(tensor.dtype()),
          "samples of element type {} cannot be trained on", name(tensor.dtype()));
  const Dims dims(tensor.dims().begin() + 1, tensor.dims().end());
  if (!is_there()) {
    type = tensor.dtype();
    row = dims;
  }
  require(tensor.dtype() == type && dims == row, "expected samples {}{}, found {}{}", name(type),
          to_string(row), name(tensor.dtype()), to_string(dims));
  const auto from = tensor.bytes().first(static_cast<std::size_t>(rows) * row_bytes());
  bytes.insert(bytes.end(), from.begin(), from.end());
}

void Samples::Column::take(const Column& from, std::int64_t index) {
  type = from.type;
  row = from.row;
  const auto begin = from.bytes.begin() + static_cast<std::ptrdiff_t>(from.row_bytes()) * index;
  bytes.insert(bytes.end(), begin, begin + static_cast<std::ptrdiff_t>(from.row_bytes()));
}

Tensor Samples::Column::gather(std::span<const std::int64_t> indices) const {
  Dims dims = row;
  dims.insert(dims.begin(), std::ssize(indices));
  Tensor tensor = Tensor::uninitialized(type, std::move(dims));
  const std::size_t width = row_bytes();
  std::byte* to = tensor.mutable_bytes().data();
  for (const std::int64_t index : indices) {
    std::memcpy(to, bytes.data() + width * static_cast<std::size_t>(index), width);
    to += width;
  }
  return tensor;
}

Samples Samples::read(Dataset& data, std::size_t most_bytes, std::int64_t first) {
  Samples samples;
  Batch batch;
  while (samples.bytes() < most_bytes && data.next(batch)) {
    require(batch.values.empty(), "samples that are sequences cannot be trained on");
    samples.inputs_.resize(batch.inputs.size());
    for (std::size_t i = 0; i < batch.inputs.size(); ++i)
      samples.inputs_[i].append(batch.inputs[i], batch.samples);
    if (batch.labels.defined()) samples.labels_.append(batch.labels, batch.samples);
    for (const auto& [name, tensor] : batch.further) samples.further_[name].append(tensor, batch.samples);
    for (std::int64_t i = 0; i < batch.samples; ++i) samples.numbers_.push_back(first + samples.count());
  }
  return samples;
}

std::size_t Samples::bytes() const {
  std::size_t total = labels_.bytes.size();
  for (const Column& input : inputs_) total += input.bytes.size();
  for (const auto& [name, column] : further_) total += column.bytes.size();
  return total;
}

Samples Samples::chosen(std::span<const std::int64_t> indices) const {
  Samples result;
  result.inputs_.resize(inputs_.size());
  for (const std::int64_t index : indices) {
    for (std::size_t i = 0; i < inputs_.size(); ++i) result.inputs_[i].take(inputs_[i], index);
    if (labels_.is_there()) result.labels_.take(labels_, index);
    for (const auto& [name, column] : further_) result.further_[name].take(column, index);
    result.numbers_.push_back(number(index));
  }
  return result;
}

Samples Samples::hold_out(double share, Random& random) {
  require(share >= 0 && share < 1, "expected a share from 0 to below 1, found {}", share);
  std::vector<std::int64_t> order = shuffled(count(), random);
  const auto middle = order.begin() + held_out_of(count(), share);
  std::sort(order.begin(), middle);
  std::sort(middle, order.end());
  Samples result = chosen({order.begin(), middle});
  *this = chosen({middle, order.end()});
  return result;
}

Batch Samples::gather(std::span<const std::int64_t> indices) const {
  Batch batch;
  for (const Column& input : inputs_) batch.inputs.push_back(input.gather(indices));
  if (labels_.is_there()) batch.labels = labels_.gather(indices);
  for (const auto& [name, column] : further_) batch.further[name] = column.gather(indices);
  batch.samples = std::ssize(indices);
  return batch;
}

std::int64_t held_out_of(std::int64_t count, double share) {
  const auto held = static_cast<std::int64_t>(share * static_cast<double>(count));
  return share > 0 && count > 1 ? std::clamp<std::int64_t>(held, 1, count - 1) : held;
}

std::vector<std::int64_t> shuffled(std::int64_t count, Random& random) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(random.below(i))]);
  return order;
}

}  // namespace onnxpress
