#include "passes/common/sample_slices.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "graph/exec/costs.h"
#include "graph/exec/input_shapes.h"

namespace onnxpress {
namespace {

constexpr std::int64_t activation_budget = std::int64_t{48} << 20;
constexpr std::size_t kept_shapes = 256;

// Samples [begin, begin + count) of the leading axis.
Tensor rows(const Tensor& tensor, std::int64_t begin, std::int64_t count) {
  const std::size_t row = tensor.byte_size() / static_cast<std::size_t>(tensor.dim(0));
  Dims dims = tensor.dims();
  dims[0] = count;
  const auto owner = std::make_shared<const Tensor>(tensor);
  return Tensor::view(
      tensor.dtype(), std::move(dims),
      owner->bytes().subspan(static_cast<std::size_t>(begin) * row, static_cast<std::size_t>(count) * row), owner);
}

std::vector<Tensor> rows(const std::vector<Tensor>& tensors, std::int64_t begin, std::int64_t count) {
  std::vector<Tensor> parts;
  for (const Tensor& tensor : tensors) parts.push_back(rows(tensor, begin, count));
  return parts;
}

// At most `most`, and where that is not much less so that all pieces are of one size: every size
// needs a plan of its own.
std::int64_t piece(std::int64_t samples, std::int64_t most) {
  for (std::int64_t size = most; 2 * size > most; --size)
    if (samples % size == 0) return size;
  return most;
}

}  // namespace

SampleSlices::SampleSlices(const Model& model) : model_(model) {
  const std::vector<Value*> inputs = model.required_inputs();
  const auto is_open = [&](const Value* input) {
    const Type& type = input->type;
    return type.is_tensor() && type.shape && !type.shape->empty() && !(*type.shape)[0].is_known() &&
           (*type.shape)[0] == (*inputs[0]->type.shape)[0];
  };
  has_open_batch_ = !inputs.empty() && inputs[0]->type.is_tensor() && inputs[0]->type.shape &&
                    !inputs[0]->type.shape->empty() && std::ranges::all_of(inputs, is_open);
  if (inputs.size() > 1 && has_open_batch_) has_open_batch_ = (*inputs[0]->type.shape)[0].is_symbol();
}

bool SampleSlices::may_be_cut(const Batch& batch) const {
  return has_open_batch_ && batch.samples > 1 && std::ranges::all_of(batch.inputs, [&](const Tensor& input) {
           return input.rank() > 0 && input.dim(0) == batch.samples && !is_sub_byte(input.dtype()) &&
                  input.dtype() != DType::string && input.size() > 0;
         });
}

std::int64_t SampleSlices::samples_at_once(const Batch& batch) {
  std::vector<Dims> shapes;
  for (const Tensor& input : batch.inputs) {
    shapes.push_back(input.dims());
    shapes.back()[0] = 1;
  }
  if (known_.size() == kept_shapes) known_.clear();
  const auto [found, is_new] = known_.try_emplace(shapes, 1);
  if (!is_new) return found->second;
  InputShapes named;
  const std::vector<Value*> inputs = model_.required_inputs();
  for (std::size_t i = 0; i < inputs.size(); ++i) named[inputs[i]->name()] = shapes[i];
  try {
    const ActivationMemory memory = activation_memory(TypedModel(*with_input_shapes(model_, named)));
    found->second = std::max<std::int64_t>(activation_budget / std::max<std::int64_t>(memory.peak_bytes, 1), 1);
  } catch (const Error&) {
    // The rules contradict one sample at a time: only whole batches fit the model.
    found->second = batch.samples;
  }
  return found->second;
}

std::int64_t SampleSlices::most_samples(const Batch& batch) {
  return may_be_cut(batch) ? samples_at_once(batch) : batch.samples;
}

std::vector<Tensor> SampleSlices::first(const Batch& batch) {
  const std::int64_t most = most_samples(batch);
  return most < batch.samples ? rows(batch.inputs, 0, most) : batch.inputs;
}

void SampleSlices::for_each(const Batch& batch, const std::function<void(std::span<const Tensor>)>& run) {
  const std::int64_t most = most_samples(batch);
  if (most >= batch.samples) return run(batch.inputs);
  const std::int64_t at_once = piece(batch.samples, most);
  for (std::int64_t begin = 0; begin < batch.samples; begin += at_once)
    run(rows(batch.inputs, begin, std::min(at_once, batch.samples - begin)));
}

}  // namespace onnxpress
