// TensorProto, SparseTensorProto and the containers of test data.
#include <onnx/onnx-data_pb.h>

#include <charconv>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "graph/onnx/decode.h"
#include "graph/onnx/fields.h"
#include "graph/onnx/mapped_pages.h"

namespace onnxpress::wire {

namespace {

using onnx::TensorProto;

constexpr std::size_t release_from = std::size_t{256} << 10;

// The values of one typed repeated field: one packed run as it lies in the file, or several runs
// (or single values) joined.
class TypedData {
 public:
  void add(std::span<const std::byte> run) {
    if (run.empty()) return;
    if (bytes().empty()) {
      first_ = run;
      return;
    }
    if (joined_.empty()) joined_.assign(first_.begin(), first_.end());
    joined_.insert(joined_.end(), run.begin(), run.end());
  }
  std::span<const std::byte> bytes() const {
    return joined_.empty() ? first_ : std::span<const std::byte>(joined_);
  }
  bool in_place() const { return joined_.empty(); }

 private:
  std::span<const std::byte> first_;
  std::vector<std::byte> joined_;
};

struct TensorFields {
  NamedTensor result;
  Dims dims;
  std::int64_t type_number = 0;
  std::span<const std::byte> raw;
  TypedData floats, doubles, int32s, int64s, uint64s;
  std::vector<std::string> strings;
  Metadata external;
  bool is_external = false;
};

std::uint64_t parse_number(const std::string& key, const std::string& text) {
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  require(error == std::errc() && rest == end,
          "expected a number for external data's {}, found '{}'", key, text);
  return value;
}

ExternalLocation external_location(const Metadata& entries) {
  ExternalLocation where;
  for (const auto& [key, value] : entries) {
    if (key == "location") where.location = value;
    if (key == "offset") where.offset = parse_number(key, value);
    if (key == "length") where.length = parse_number(key, value);
  }
  return where;
}

std::string describe(DType type, const Dims& dims) {
  return fmt::format("{}{}", name(type), to_string(dims));
}

// One varint or a packed run of them.
void decode_dims(Reader reader, Dims& dims) {
  while (!reader.at_end()) dims.push_back(static_cast<std::int64_t>(reader.read_varint()));
}

TensorFields collect(Reader reader, DecodeContext& context) {
  TensorFields tensor;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case varint(TensorProto::kDimsFieldNumber):
      case delimited(TensorProto::kDimsFieldNumber):
        decode_dims(reader.nested(field), tensor.dims);
        break;
      case varint(TensorProto::kDataTypeFieldNumber):
        tensor.type_number = field.integer();
        break;
      case delimited(TensorProto::kSegmentFieldNumber):
        fail("tensors in segments are not supported");
      case fixed32(TensorProto::kFloatDataFieldNumber):
      case delimited(TensorProto::kFloatDataFieldNumber):
        tensor.floats.add(field.payload);
        break;
      case fixed64(TensorProto::kDoubleDataFieldNumber):
      case delimited(TensorProto::kDoubleDataFieldNumber):
        tensor.doubles.add(field.payload);
        break;
      case varint(TensorProto::kInt32DataFieldNumber):
      case delimited(TensorProto::kInt32DataFieldNumber):
        tensor.int32s.add(field.payload);
        break;
      case varint(TensorProto::kInt64DataFieldNumber):
      case delimited(TensorProto::kInt64DataFieldNumber):
        tensor.int64s.add(field.payload);
        break;
      case varint(TensorProto::kUint64DataFieldNumber):
      case delimited(TensorProto::kUint64DataFieldNumber):
        tensor.uint64s.add(field.payload);
        break;
      case delimited(TensorProto::kStringDataFieldNumber):
        tensor.strings.push_back(field.string());
        break;
      case delimited(TensorProto::kNameFieldNumber):
        tensor.result.name = field.string();
        break;
      case delimited(TensorProto::kDocStringFieldNumber):
        tensor.result.doc_string = field.string();
        break;
      case delimited(TensorProto::kRawDataFieldNumber):
        tensor.raw = field.payload;
        break;
      case delimited(TensorProto::kExternalDataFieldNumber):
        tensor.external.push_back(decode_entry(reader.nested(field), context));
        break;
      case varint(TensorProto::kDataLocationFieldNumber):
        tensor.is_external = field.value == TensorProto::EXTERNAL;
        break;
      case delimited(field::tensor_metadata):
        tensor.result.metadata.push_back(decode_entry(reader.nested(field), context));
        break;
      default:
        field.keep_in(tensor.result.unknown_fields);
    }
  }
  return tensor;
}

// The typed field that holds elements of `type`; nullptr for strings.
struct TypedField {
  const char* name;
  TypedData TensorFields::*data;
  bool fixed_width;  // as raw bytes; varints otherwise
};

TypedField typed_field(DType type) {
  switch (type) {
    case DType::float32:
    case DType::complex64:
      return {"float_data", &TensorFields::floats, true};
    case DType::float64:
    case DType::complex128:
      return {"double_data", &TensorFields::doubles, true};
    case DType::int64:
      return {"int64_data", &TensorFields::int64s, false};
    case DType::uint32:
    case DType::uint64:
      return {"uint64_data", &TensorFields::uint64s, false};
    default:
      return {"int32_data", &TensorFields::int32s, false};
  }
}

// What is filled must be what elements of `type` are stored in.
void check_storage(const TensorFields& tensor, DType type) {
  const std::pair<const char*, std::size_t> stored[] = {
      {"raw_data", tensor.raw.size()},
      {"float_data", tensor.floats.bytes().size()},
      {"double_data", tensor.doubles.bytes().size()},
      {"int32_data", tensor.int32s.bytes().size()},
      {"int64_data", tensor.int64s.bytes().size()},
      {"uint64_data", tensor.uint64s.bytes().size()},
      {"string_data", tensor.strings.size()}};
  const std::string_view typed =
      type == DType::string ? std::string_view("string_data") : typed_field(type).name;
  const bool raw = !tensor.raw.empty() && type != DType::string;
  for (const auto& [field, size] : stored) {
    if (size == 0) continue;
    require(!tensor.is_external, "expected external data only, found also {}", field);
    if (raw && field != std::string_view("raw_data"))
      fail("expected one form of data, found raw_data and {}", field);
    if (!raw)
      require(field == typed, "expected data of {} in {}, found {}", name(type), typed, field);
  }
}

std::size_t needed_bytes(DType type, const Dims& dims) {
  constexpr std::int64_t limit = std::numeric_limits<std::int64_t>::max() / 128;
  const std::int64_t count = element_count(dims);
  require(count <= limit, "{} elements are too many", count);
  return packed_bytes(type, static_cast<std::size_t>(count));
}

// Values stored as one varint each; packed sub-byte types as one varint per byte.
Tensor decode_varints(DType type, Dims dims, std::size_t bytes, const char* field,
                      std::span<const std::byte> encoded) {
  const auto width = static_cast<std::size_t>(is_sub_byte(type) ? 1 : bits(type) / 8);
  const std::size_t expected = bytes / width;
  const std::size_t found = count_varints(encoded);
  require(found == expected, "{} needs {} entries of {}, found {}", describe(type, dims), expected,
          field, found);
  Tensor tensor = Tensor::uninitialized(type, std::move(dims));
  std::byte* target = expected == 0 ? nullptr : tensor.mutable_bytes().data();
  Reader reader(encoded);
  for (std::size_t i = 0; i < expected; ++i) {
    std::uint64_t value = reader.read_varint();
    if (type == DType::boolean) value = value != 0;
    std::memcpy(target + i * width, &value, width);
  }
  return tensor;
}

Tensor make_tensor(TensorFields& tensor, DecodeContext& context) {
  const auto type = static_cast<DType>(tensor.type_number);
  if (tensor.type_number < 0 || tensor.type_number > std::numeric_limits<std::int32_t>::max() ||
      !is_known(type))
    fail("unknown element type {}", tensor.type_number);
  check_storage(tensor, type);

  if (type == DType::string) {
    require(!tensor.is_external, "strings cannot be external data");
    const std::int64_t count = element_count(tensor.dims);
    require(static_cast<std::uint64_t>(count) == tensor.strings.size(),
            "{} needs {} strings, found {}", describe(type, tensor.dims), count,
            tensor.strings.size());
    return Tensor::of_strings(std::move(tensor.dims), std::move(tensor.strings));
  }

  const std::size_t needed = needed_bytes(type, tensor.dims);
  if (tensor.is_external && needed > 0) {
    const ExternalFiles::Slice slice =
        context.files.slice(external_location(tensor.external), needed);
    return Tensor::view(type, std::move(tensor.dims), slice.bytes, slice.file);
  }
  const TypedField typed = typed_field(type);
  TypedData& data = tensor.*typed.data;
  if (tensor.raw.empty() && !typed.fixed_width && !data.bytes().empty())
    return decode_varints(type, std::move(tensor.dims), needed, typed.name, data.bytes());

  const auto bytes = tensor.raw.empty() ? data.bytes() : tensor.raw;
  require(bytes.size() == needed, "{} needs {} bytes, found {}", describe(type, tensor.dims),
          needed, bytes.size());
  if (tensor.raw.empty() && !data.in_place()) {
    auto joined = std::make_shared<TypedData>(std::move(data));
    return Tensor::view(type, std::move(tensor.dims), joined->bytes(), joined);
  }
  return Tensor::view(type, std::move(tensor.dims), bytes, context.owner);
}

}  // namespace

std::pair<std::string, std::string> decode_entry(Reader reader, DecodeContext& context) {
  std::pair<std::string, std::string> entry;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(onnx::StringStringEntryProto::kKeyFieldNumber):
        entry.first = field.string();
        break;
      case delimited(onnx::StringStringEntryProto::kValueFieldNumber):
        entry.second = field.string();
        break;
      default:
        ++context.dropped_fields;
    }
  }
  return entry;
}

NamedTensor decode_tensor(Reader reader, DecodeContext& context) {
  TensorFields fields = collect(reader, context);
  fields.result.tensor = in_context([&] { return fmt::format("tensor '{}'", fields.result.name); },
                                    [&] { return make_tensor(fields, context); });
  // Reading the fields around them has brought pages of the data in that nobody asked for.
  if (const auto bytes = fields.result.tensor.bytes(); bytes.size() >= release_from)
    release_pages(bytes);
  return std::move(fields.result);
}

SparseTensor decode_sparse_tensor(Reader reader, DecodeContext& context) {
  using onnx::SparseTensorProto;
  SparseTensor sparse;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(SparseTensorProto::kValuesFieldNumber):
        sparse.values = decode_tensor(reader.nested(field), context);
        break;
      case delimited(SparseTensorProto::kIndicesFieldNumber):
        sparse.indices = decode_tensor(reader.nested(field), context);
        break;
      case varint(SparseTensorProto::kDimsFieldNumber):
      case delimited(SparseTensorProto::kDimsFieldNumber):
        decode_dims(reader.nested(field), sparse.dims);
        break;
      default:
        field.keep_in(sparse.unknown_fields);
    }
  }
  return sparse;
}

std::vector<NamedTensor> decode_tensor_sequence(Reader reader, DecodeContext& context) {
  using onnx::SequenceProto;
  std::vector<NamedTensor> elements;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(SequenceProto::kTensorValuesFieldNumber):
        elements.push_back(decode_tensor(reader.nested(field), context));
        break;
      case delimited(SequenceProto::kSparseTensorValuesFieldNumber):
      case delimited(SequenceProto::kSequenceValuesFieldNumber):
      case delimited(SequenceProto::kMapValuesFieldNumber):
      case delimited(SequenceProto::kOptionalValuesFieldNumber):
        fail("expected a sequence of tensors, found other elements");
      default:
        break;
    }
  }
  return elements;
}

std::optional<std::vector<NamedTensor>> decode_optional(Reader reader, DecodeContext& context) {
  using onnx::OptionalProto;
  std::optional<std::vector<NamedTensor>> contents;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(OptionalProto::kTensorValueFieldNumber):
        contents.emplace().push_back(decode_tensor(reader.nested(field), context));
        break;
      case delimited(OptionalProto::kSequenceValueFieldNumber):
        contents = decode_tensor_sequence(reader.nested(field), context);
        break;
      case delimited(OptionalProto::kSparseTensorValueFieldNumber):
      case delimited(OptionalProto::kMapValueFieldNumber):
      case delimited(OptionalProto::kOptionalValueFieldNumber):
        fail("expected an optional tensor or sequence of tensors, found something else");
      default:
        break;
    }
  }
  return contents;
}

}  // namespace onnxpress::wire
