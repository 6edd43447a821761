// Element types and storage forms of TensorProto.
#include <onnx/onnx-data_pb.h>

#include <fstream>
#include <functional>

#include "tests/graph/onnx/support.h"

namespace onnxpress::test {

namespace {

constexpr std::size_t element_total = 5;

// One element of the type as raw bytes: distinct, with high bits set in some.
std::string raw_elements(DType type) {
  const std::size_t bytes = packed_bytes(type, element_total);
  std::string raw(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i)
    raw[i] = type == DType::boolean ? static_cast<char>(i % 2) : static_cast<char>(i * 53 + 0x91);
  const int used = static_cast<int>(element_total) * bits(type) % 8;
  if (used != 0) raw.back() = static_cast<char>(raw.back() & ((1 << used) - 1));
  return raw;
}

struct TypedForm {
  int field;          // of TensorProto
  std::size_t width;  // raw bytes that one entry stands for
  bool is_fixed;      // fixed32 or fixed64; else varint
};

TypedForm typed_form(DType type) {
  switch (type) {
    case DType::float32:
    case DType::complex64:
      return {4, 4, true};
    case DType::float64:
    case DType::complex128:
      return {10, 8, true};
    case DType::int64:
      return {7, 8, false};
    case DType::uint32:
      return {11, 4, false};
    case DType::uint64:
      return {11, 8, false};
    case DType::int32:
      return {5, 4, false};
    case DType::uint16:
    case DType::int16:
    case DType::float16:
    case DType::bfloat16:
      return {5, 2, false};
    default:
      return {5, 1, false};
  }
}

bool is_signed(DType type) {
  return type == DType::int8 || type == DType::int16 || type == DType::int32;
}

// The entry of a typed field, as protobuf encodes int32 and int64: negative ones on ten bytes.
std::string encoded_entry(DType type, std::string_view raw) {
  if (typed_form(type).is_fixed) return std::string(raw);
  std::uint64_t value = 0;
  std::memcpy(&value, raw.data(), raw.size());
  const int unused = 64 - 8 * static_cast<int>(raw.size());
  if (is_signed(type))
    value = static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
  return varint(value);
}

std::string tensor_head(DType type) {
  return varint_field(1, element_total) + varint_field(2, static_cast<std::uint64_t>(type)) +
         bytes_field(8, "t");
}

Tensor read_initializer(const std::string& tensor) {
  const ReadResult result = read_bytes(with_initializer(
      [] {
        onnx::ModelProto model = empty_model();
        model.set_ir_version(13);
        return model;
      }(),
      tensor));
  const Value* value = result.model->graph.find("t");
  REQUIRE(value != nullptr);
  REQUIRE(value->constant() != nullptr);
  return *value->constant();
}

bool lies_in(const Tensor& tensor, std::span<const std::byte> bytes) {
  const std::byte* data = tensor.bytes().data();
  return std::less_equal<>()(bytes.data(), data) &&
         std::less_equal<>()(data + tensor.byte_size(), bytes.data() + bytes.size());
}

}  // namespace

TEST_CASE("every element type is read from every form it can be stored in") {
  for (int number = 1; number <= 26; ++number) {
    const auto type = static_cast<DType>(number);
    if (type == DType::string) continue;
    CAPTURE(name(type));
    const std::string raw = raw_elements(type);
    const auto bytes = as_bytes(raw);
    const Tensor expected = Tensor::view(type, {element_total}, bytes, nullptr);

    const TypedForm form = typed_form(type);
    std::string packed, first, second, single;
    for (std::size_t i = 0; i < raw.size(); i += form.width) {
      const std::string entry = encoded_entry(type, std::string_view(raw).substr(i, form.width));
      packed += entry;
      (i == 0 ? first : second) += entry;
      const unsigned wire_type = !form.is_fixed ? 0 : form.width == 4 ? 5 : 1;
      single += varint(static_cast<unsigned>(form.field) << 3 | wire_type) + entry;
    }
    const std::string head = tensor_head(type);
    CHECK(read_initializer(head + bytes_field(9, raw)).equals(expected));
    CHECK(read_initializer(head + bytes_field(form.field, packed)).equals(expected));
    CHECK(read_initializer(head + single).equals(expected));
    CHECK(read_initializer(head + bytes_field(form.field, first) + bytes_field(form.field, second))
              .equals(expected));
    CHECK(read_initializer(bytes_field(form.field, packed) + head).equals(expected));

    CHECK(read_initializer(tensor_to_bytes(expected, "t")).equals(expected));
  }
}

TEST_CASE("strings are read and written as string_data") {
  const std::vector<std::string> strings{"", "a\0b", "\xff\xfe", "word"};
  const Tensor expected = Tensor::of_strings({2, 2}, strings);
  std::string proto = varint_field(1, 2) + varint_field(1, 2) + varint_field(2, 8);
  for (const std::string& text : strings) proto += bytes_field(6, text);
  CHECK(read_initializer(proto + bytes_field(8, "t")).equals(expected));
  CHECK(read_initializer(tensor_to_bytes(expected, "t")).equals(expected));
}

TEST_CASE("raw data and packed floats stay where they lie in the file") {
  for (const bool packed : {false, true}) {
    onnx::ModelProto model = empty_model();
    onnx::TensorProto& tensor = *model.mutable_graph()->add_initializer();
    add_float_tensor(tensor, "w", {1, 2, 3});
    if (!packed) {
      tensor.clear_float_data();
      tensor.set_raw_data(std::string(12, '\x01'));
    }
    const ReadResult result = read(model);
    CHECK(lies_in(*result.model->graph.find("w")->constant(), result.bytes));
  }
}

TEST_CASE("packed dims, scalars and tensors without elements") {
  const std::string dims = bytes_field(1, varint(2) + varint(0));
  const Tensor none = read_initializer(dims + varint_field(2, 1) + bytes_field(8, "t"));
  CHECK(none.dims() == Dims{2, 0});
  CHECK(none.size() == 0);
  const Tensor scalar =
      read_initializer(varint_field(2, 7) + varint_field(7, 42) + bytes_field(8, "t"));
  CHECK(scalar.rank() == 0);
  CHECK(scalar.to_ints() == std::vector<std::int64_t>{42});
}

TEST_CASE("small integers outside their range keep their low bits, booleans become 0 or 1") {
  const std::string two = varint_field(1, 2) + bytes_field(8, "t");
  const std::string values = bytes_field(5, varint(300) + varint(2));
  CHECK(read_initializer(two + varint_field(2, 2) + values).to_ints() ==
        std::vector<std::int64_t>{44, 2});
  CHECK(read_initializer(two + varint_field(2, 9) + values).to_ints() ==
        std::vector<std::int64_t>{1, 1});
}

TEST_CASE("integers are written as varints where these are shorter") {
  const auto form = [](const Tensor& tensor) {
    onnx::TensorProto proto;
    REQUIRE(proto.ParseFromString(tensor_to_bytes(tensor, "t")));
    CHECK(read_initializer(proto.SerializeAsString()).equals(tensor));
    if (proto.has_raw_data()) return "raw";
    if (proto.int32_data_size() > 0) return "int32";
    if (proto.int64_data_size() > 0) return "int64";
    return proto.uint64_data_size() > 0 ? "uint64" : "none";
  };
  using Ints = std::vector<std::int64_t>;
  CHECK(form(Tensor::of<std::int64_t>({2}, Ints{0, 3})) == "int64");
  CHECK(form(Tensor::of<std::int64_t>({2}, Ints{1, -1})) == "int64");
  CHECK(form(Tensor::of<std::int64_t>({1}, Ints{-1})) == "raw");
  CHECK(form(Tensor::of<std::int64_t>({0}, Ints{})) == "none");
  CHECK(form(Tensor::of<std::int64_t>({1}, Ints{std::int64_t{1} << 56})) == "raw");
  CHECK(form(Tensor::of<std::int32_t>({1}, std::vector<std::int32_t>{5})) == "int32");
  CHECK(form(Tensor::of<std::int32_t>({1}, std::vector<std::int32_t>{-5})) == "raw");
  CHECK(form(Tensor::of<std::int16_t>({1}, std::vector<std::int16_t>{5})) == "int32");
  CHECK(form(Tensor::of<std::int16_t>({1}, std::vector<std::int16_t>{-5})) == "raw");
  CHECK(form(Tensor::of<std::int16_t>({3}, std::vector<std::int16_t>{1, 2, -5})) == "raw");
  CHECK(form(Tensor::of<std::int32_t>({4}, std::vector<std::int32_t>{1, 2, 3, -5})) == "int32");
  CHECK(form(Tensor::of<std::uint32_t>({1}, std::vector<std::uint32_t>{5})) == "uint64");
  CHECK(form(Tensor::of<std::uint64_t>({1}, std::vector<std::uint64_t>{5})) == "uint64");
  CHECK(form(Tensor::of<std::int8_t>({1}, std::vector<std::int8_t>{5})) == "raw");
  CHECK(form(Tensor(DType::int64, {1 << 17})) == "int64");
  CHECK(form(Tensor(DType::int64, {(1 << 17) + 1})) == "raw");
}

TEST_CASE("wrong tensors are refused by name") {
  const auto error = [](const std::string& fields) {
    return error_of([&] { read_initializer(bytes_field(8, "w") + fields); });
  };
  const std::string float_3_4 = varint_field(1, 3) + varint_field(1, 4) + varint_field(2, 1);
  CHECK_CONTAINS(error(float_3_4 + bytes_field(9, std::string(40, 'x'))),
                 "tensor 'w': float32[3,4] needs 48 bytes, found 40");
  CHECK_CONTAINS(error(float_3_4), "tensor 'w': float32[3,4] needs 48 bytes, found 0");
  CHECK_CONTAINS(error(float_3_4 + bytes_field(4, std::string(44, 'x'))),
                 "needs 48 bytes, found 44");
  CHECK_CONTAINS(error(varint_field(1, 3) + varint_field(2, 6) + bytes_field(5, "\1\2")),
                 "int32[3] needs 3 entries of int32_data, found 2");
  CHECK_CONTAINS(error(varint_field(1, 2) + varint_field(2, 8) + bytes_field(6, "one")),
                 "string[2] needs 2 strings, found 1");
  CHECK_CONTAINS(error(varint_field(2, 99)), "tensor 'w': unknown element type 99");
  CHECK_CONTAINS(error(varint_field(1, 1)), "tensor 'w': unknown element type 0");
  CHECK_CONTAINS(error(varint_field(2, 1) + bytes_field(5, "\1")),
                 "expected data of float32 in float_data, found int32_data");
  CHECK_CONTAINS(error(varint_field(2, 1) + bytes_field(4, "abcd") + bytes_field(9, "abcd")),
                 "expected one form of data, found raw_data and float_data");
  CHECK_CONTAINS(error(varint_field(2, 8) + bytes_field(9, "text")),
                 "expected data of string in string_data, found raw_data");
  CHECK_CONTAINS(error(varint_field(2, 1) + bytes_field(3, varint_field(1, 0))), "segments");

  const std::string huge = varint_field(1, std::uint64_t{1} << 40);
  CHECK_CONTAINS(error(huge + huge + varint_field(2, 1)), "tensor 'w': ");
  CHECK_CONTAINS(error(varint_field(1, std::uint64_t{1} << 60) + varint_field(2, 15)),
                 "tensor 'w': ");
  CHECK_CONTAINS(error(varint_field(1, static_cast<std::uint64_t>(-2)) + varint_field(2, 1)),
                 "tensor 'w': ");
}

TEST_CASE("tensor, sequence and optional files") {
  const std::filesystem::path folder = std::filesystem::path(ONNXPRESS_ONNX_TESTDATA) / "node";
  const NamedTensor tensor = read_tensor(folder / "test_relu" / "test_data_set_0" / "input_0.pb");
  CHECK(tensor.tensor.dims() == Dims{3, 4, 5});
  const auto sequence_file =
      folder / "test_sequence_insert_at_back" / "test_data_set_0" / "input_0.pb";
  onnx::SequenceProto proto;
  std::ifstream stream(sequence_file, std::ios::binary);
  REQUIRE(proto.ParseFromIstream(&stream));
  CHECK(read_tensor_sequence(sequence_file).size() ==
        static_cast<std::size_t>(proto.tensor_values_size()));
  // Releases name these cases differently.
  const auto optional_file = [&](const std::string& test, const std::string& newer_test) {
    const bool is_newer = std::filesystem::exists(folder / newer_test);
    return read_optional_tensors(folder / (is_newer ? newer_test : test) / "test_data_set_0" /
                                 "input_0.pb");
  };
  CHECK_FALSE(optional_file("test_optional_has_element_empty",
                            "test_optional_has_element_empty_optional_input")
                  .has_value());
  const auto one =
      optional_file("test_optional_get_element", "test_optional_get_element_optional_tensor");
  REQUIRE(one.has_value());
  CHECK(one->size() == 1);
  CHECK(error_of([&] { read_tensor(folder / "test_relu" / "missing.pb"); }) != "");
}

}  // namespace onnxpress::test
