#include "graph/ops/compute_type.h"

#include <algorithm>
#include <map>
#include <utility>

#include "graph/base/convert.h"

namespace onnxpress {
namespace {

class ConvertingContext final : public KernelContext {
 public:
  ConvertingContext(KernelContext& inner, DType from, DType to, ConvertedOutputs outputs)
      : inner_(inner), from_(from), to_(to), outputs_(outputs) {}

  std::size_t input_count() const override { return inner_.input_count(); }

  const Tensor* input(std::size_t index) const override {
    const Tensor* tensor = inner_.input(index);
    if (tensor == nullptr || tensor->dtype() != from_) return tensor;
    const auto [entry, fresh] = converted_inputs_.try_emplace(index);
    if (fresh) entry->second = tensor->cast(to_);
    return &entry->second;
  }

  bool wants_output(std::size_t index) const override { return inner_.wants_output(index); }

  Tensor& output(std::size_t index, DType type, const Dims& dims) override {
    if (type != to_ || outputs_ == ConvertedOutputs::none) return inner_.output(index, type, dims);
    return converted_outputs_[index] = Tensor::uninitialized(type, dims);
  }

  void forward_output(std::size_t index, Tensor tensor) override {
    if (tensor.dtype() != to_ || outputs_ == ConvertedOutputs::none)
      inner_.forward_output(index, std::move(tensor));
    else
      converted_outputs_[index] = std::move(tensor);
  }

  ThreadPool& pool() override { return inner_.pool(); }

  std::vector<RuntimeValue> run_subgraph(std::string_view attribute,
                                         std::span<const RuntimeValue> inputs) override {
    return inner_.run_subgraph(attribute, inputs);
  }

  void finish() {
    for (auto& [index, tensor] : converted_outputs_) {
      Tensor& target = inner_.output(index, from_, tensor.dims());
      convert_elements(to_, tensor.bytes().data(), from_, target.mutable_bytes().data(),
                       static_cast<std::size_t>(tensor.size()));
    }
  }

 private:
  KernelContext& inner_;
  DType from_, to_;
  ConvertedOutputs outputs_;
  mutable std::map<std::size_t, Tensor> converted_inputs_;
  std::map<std::size_t, Tensor> converted_outputs_;
};

}  // namespace

DType float_compute_type(DType type) {
  return is_float(type) && type != DType::float64 ? DType::float32 : type;
}

DType arithmetic_type(DType type) {
  if (is_integer(type) && bits(type) <= 32) return DType::int64;
  return float_compute_type(type);
}

DType movable_type(DType type) {
  if (!is_sub_byte(type)) return type;
  if (is_float(type)) return DType::float32;
  return is_signed_integer(type) ? DType::int8 : DType::uint8;
}

Tensor copy_as(const Tensor& tensor, DType type) {
  const Tensor converted = tensor.cast(type);
  if (!converted.shares_storage_with(tensor)) return converted;
  Tensor copy = Tensor::uninitialized(type, tensor.dims());
  std::ranges::copy(tensor.bytes(), copy.mutable_bytes().begin());
  return copy;
}

void run_as(KernelContext& context, DType (*compute_type)(DType),
            const std::function<void(KernelContext&)>& body, ConvertedOutputs outputs) {
  const DType from = context.required_input(0).dtype();
  const DType to = compute_type(from);
  if (from == to) return body(context);
  ConvertingContext converting(context, from, to, outputs);
  body(converting);
  converting.finish();
}

}  // namespace onnxpress
