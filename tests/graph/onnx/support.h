// Hand-made protobufs and what reading them gives.
#pragma once

#include <doctest/doctest.h>
#include <onnx/onnx_pb.h>

#include <cstring>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/error.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/writer.h"

namespace onnxpress::test {

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

inline ReadResult read_bytes(std::string bytes, const ReadOptions& options = {}) {
  auto owner = std::make_shared<std::string>(std::move(bytes));
  return read_model(as_bytes(*owner), owner, {}, options);
}

inline ReadResult read(const onnx::ModelProto& proto, const ReadOptions& options = {}) {
  return read_bytes(proto.SerializeAsString(), options);
}

// What libonnx's classes make of a written model.
inline onnx::ModelProto written(const Model& model) {
  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(to_bytes(model)));
  return proto;
}

// The message of the Error that `body` throws.
template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  FAIL("expected an Error");
  return {};
}

inline std::string read_error(const onnx::ModelProto& proto, const ReadOptions& options = {}) {
  return error_of([&] { read(proto, options); });
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

#define CHECK_CONTAINS(text, part)                        \
  do {                                                    \
    const std::string found_text = text;                  \
    CAPTURE(found_text);                                  \
    CHECK(::onnxpress::test::contains(found_text, part)); \
  } while (false)

// A model of IR version 8 and opset 17 without anything in its graph.
inline onnx::ModelProto empty_model() {
  onnx::ModelProto model;
  model.set_ir_version(8);
  model.add_opset_import()->set_version(17);
  model.mutable_graph()->set_name("main");
  return model;
}

inline void add_float_value(onnx::ValueInfoProto& info, const std::string& name,
                            std::initializer_list<std::int64_t> dims) {
  info.set_name(name);
  auto* type = info.mutable_type()->mutable_tensor_type();
  type->set_elem_type(onnx::TensorProto::FLOAT);
  type->mutable_shape();
  for (const std::int64_t dim : dims) type->mutable_shape()->add_dim()->set_dim_value(dim);
}

inline onnx::NodeProto& add_node(onnx::GraphProto& graph, const std::string& op_type,
                                 std::initializer_list<std::string> inputs,
                                 std::initializer_list<std::string> outputs) {
  onnx::NodeProto& node = *graph.add_node();
  node.set_op_type(op_type);
  for (const std::string& input : inputs) node.add_input(input);
  for (const std::string& output : outputs) node.add_output(output);
  return node;
}

inline onnx::TensorProto& add_float_tensor(onnx::TensorProto& tensor, const std::string& name,
                                           std::initializer_list<float> values) {
  tensor.set_name(name);
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  tensor.add_dims(static_cast<std::int64_t>(values.size()));
  for (const float value : values) tensor.add_float_data(value);
  return tensor;
}

// y = Relu(x), z = Add(y, w): x float32[2], w an initializer, z the output.
inline onnx::ModelProto small_model() {
  onnx::ModelProto model = empty_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  add_float_value(*graph.add_input(), "x", {2});
  add_float_value(*graph.add_output(), "z", {2});
  add_float_tensor(*graph.add_initializer(), "w", {1.5f, -2.0f});
  add_node(graph, "Relu", {"x"}, {"y"}).set_name("act");
  add_node(graph, "Add", {"y", "w"}, {"z"}).set_name("sum");
  return model;
}

// A wire field by hand, for forms that protobuf's own writer does not produce.
inline std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
inline std::string varint_field(int number, std::uint64_t value) {
  return varint(static_cast<std::uint64_t>(number) << 3) + varint(value);
}
inline std::string bytes_field(int number, std::string_view contents) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 2) + varint(contents.size()) +
         std::string(contents);
}
template <class T>
std::string fixed_field(int number, T value) {
  const unsigned wire_type = sizeof(T) == 4 ? 5 : 1;
  std::string bytes = varint(static_cast<std::uint64_t>(number) << 3 | wire_type);
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

// `model` with the serialized `tensor` as one more initializer.
inline std::string with_initializer(const onnx::ModelProto& model, const std::string& tensor) {
  return model.SerializeAsString() + bytes_field(7, bytes_field(5, tensor));
}

}  // namespace onnxpress::test
