// ONNX protobuf written by hand: models that no writer would write.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace onnxpress::wire {

inline std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
inline std::string number(int field, std::uint64_t value) {
  return varint(static_cast<std::uint64_t>(field) << 3) + varint(value);
}
inline std::string bytes(int field, const std::string& value) {
  return varint(static_cast<std::uint64_t>(field) << 3 | 2) + varint(value.size()) + value;
}

inline std::string node(const std::string& op, const std::vector<std::string>& inputs,
                        const std::vector<std::string>& outputs) {
  std::string text;
  for (const std::string& input : inputs) text += bytes(1, input);
  for (const std::string& output : outputs) text += bytes(2, output);
  return bytes(1, text + bytes(3, "node_" + outputs.at(0)) + bytes(4, op));
}
inline std::string float_value(int field, const std::string& name,
                               const std::vector<std::uint64_t>& dims) {
  std::string shape;
  for (const std::uint64_t dim : dims) shape += bytes(1, number(1, dim));
  return bytes(field, bytes(1, name) + bytes(2, bytes(1, number(1, 1) + bytes(2, shape))));
}
inline std::string float_initializer(const std::string& name,
                                     const std::vector<std::uint64_t>& dims,
                                     const std::string& raw) {
  std::string text;
  for (const std::uint64_t dim : dims) text += number(1, dim);
  return bytes(5, text + number(2, 1) + bytes(8, name) + bytes(9, raw));
}
inline std::string external_initializer(
    const std::string& name, std::uint64_t elements,
    const std::vector<std::pair<std::string, std::string>>& where) {
  std::string text = number(1, elements) + number(2, 1) + bytes(8, name);
  for (const auto& [key, value] : where) text += bytes(13, bytes(1, key) + bytes(2, value));
  return bytes(5, text + number(14, 1));
}
// A graph body (nodes, initializers) with input x and output y, both float32[4].
inline std::string model(const std::string& body) {
  const std::string graph =
      body + bytes(2, "g") + float_value(11, "x", {4}) + float_value(12, "y", {4});
  return number(1, 8) + bytes(7, graph) + bytes(8, number(2, 17));
}

}  // namespace onnxpress::wire
