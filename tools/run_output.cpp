#include "tools/run_output.h"

#include "graph/base/error.h"

namespace onnxpress {

namespace {

// Adds the kinds of `value` and the tensors it holds.
void open(const RuntimeValue& value, std::vector<Type::Kind>& kinds, std::vector<Tensor>& tensors) {
  kinds.push_back(value.kind());
  if (value.is_tensor()) {
    tensors.push_back(value.tensor());
  } else if (value.kind() == Type::Kind::sequence) {
    for (const RuntimeValue& element : value.elements()) tensors.push_back(element.tensor());
  } else if (value.content() != nullptr) {
    open(*value.content(), kinds, tensors);
  }
}

}  // namespace

void RunOutput::append(const RuntimeValue& output, std::int64_t samples, std::int64_t rows) {
  std::vector<Type::Kind> kinds;
  std::vector<Tensor> tensors;
  open(output, kinds, tensors);
  if (kinds_.empty()) {
    kinds_ = kinds;
    const bool is_list = kinds_.back() == Type::Kind::sequence;
    for (std::size_t i = 0; i < tensors.size(); ++i)
      parts_.emplace_back(is_list ? fmt::format("{}.{}", name_, i) : name_, for_numpy_);
  }
  require(kinds == kinds_ && tensors.size() == parts_.size(),
          "output '{}': batches of {} and {} tensors do not make one value", name_, parts_.size(),
          tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) parts_[i].append(tensors[i], samples, rows);
}

RuntimeValue RunOutput::whole() const {
  require(!kinds_.empty(), "output '{}': there is no sample to compute it from", name_);
  if (kinds_.back() == Type::Kind::optional) return RuntimeValue::empty_optional();
  std::vector<RuntimeValue> elements;
  for (const OutputSpool& part : parts_) elements.push_back(part.whole());
  RuntimeValue value = kinds_.back() == Type::Kind::sequence
                           ? RuntimeValue::sequence(std::move(elements))
                           : elements.front();
  for (std::size_t i = kinds_.size() - 1; i-- > 0;)
    value = RuntimeValue::filled_optional(std::move(value));
  return value;
}

}  // namespace onnxpress
