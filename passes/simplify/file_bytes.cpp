#include "passes/simplify/file_bytes.h"

#include <algorithm>

namespace onnxpress {
namespace {

std::int64_t varint_bytes(std::uint64_t value) {
  std::int64_t bytes = 1;
  while (value >>= 7) ++bytes;
  return bytes;
}

}  // namespace

std::int64_t field_bytes(std::size_t length) {  // tag, length, contents
  return 1 + varint_bytes(length) + static_cast<std::int64_t>(length);
}

bool may_be_varints(DType type) { return is_integer(type) && bits(type) >= 16; }

std::size_t stored_bytes(const Tensor& tensor) {
  constexpr std::size_t varints_up_to = std::size_t{1} << 20;
  const std::size_t raw = tensor.byte_size();
  if (!may_be_varints(tensor.dtype()) || raw > varints_up_to) return raw;
  std::size_t varints = 0;
  for (const std::int64_t value : tensor.to_ints())
    varints += static_cast<std::size_t>(varint_bytes(static_cast<std::uint64_t>(value)));
  return std::min(raw, varints);
}

std::int64_t initializer_bytes(const std::string& name, const Dims& dims, std::size_t bytes,
                               bool also_input) {
  constexpr std::int64_t name_suffix = 4, type = 3, message = 6;
  std::int64_t total = message + type + name_suffix + field_bytes(name.size()) + field_bytes(bytes);
  for (const std::int64_t dim : dims) total += 1 + varint_bytes(static_cast<std::uint64_t>(dim));
  if (also_input) total += field_bytes(name.size()) + name_suffix + 16 + 8 * std::ssize(dims);
  return total;
}

namespace {

std::int64_t attribute_bytes(const std::string& name, const Attribute& attribute) {
  std::int64_t payload = 0;
  if (const auto* tensor = std::get_if<NamedTensor>(&attribute.value))
    payload = field_bytes(stored_bytes(tensor->tensor)) + 4;
  else if (const auto* floats = std::get_if<std::vector<float>>(&attribute.value))
    payload = 4 * std::ssize(*floats);
  else if (const auto* ints = std::get_if<std::vector<std::int64_t>>(&attribute.value))
    payload = std::ssize(*ints);
  else if (std::holds_alternative<float>(attribute.value))
    payload = 5;
  else if (std::holds_alternative<std::int64_t>(attribute.value))
    payload = 2;
  return 2 + field_bytes(name.size()) + 2 + payload;
}

}  // namespace

std::int64_t node_bytes(const Node& node) {
  std::int64_t total = 2 + field_bytes(node.op_type().size());
  if (!node.name.empty()) total += field_bytes(node.name.size());
  for (const Value* input : node.inputs()) total += field_bytes(input ? input->name().size() : 0);
  for (const Value* output : node.outputs())
    total += field_bytes(output ? output->name().size() : 0);
  for (const auto& [name, attribute] : node.attributes()) total += attribute_bytes(name, attribute);
  return total;
}

bool naming_grows(const Value& value, const Value& other) {
  return std::ssize(value.uses()) * (std::ssize(other.name()) - std::ssize(value.name())) >
         node_bytes(*value.producer());
}

}  // namespace onnxpress
