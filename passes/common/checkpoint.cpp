#include "passes/common/checkpoint.h"

#include <array>
#include <cstring>
#include <span>
#include <string_view>

#include "graph/base/files.h"
#include "passes/core/pass.h"

namespace onnxpress {
namespace {

constexpr std::string_view schema = "onnxpress.checkpoint/1";
constexpr std::string_view about_key = "__metadata__";
constexpr std::size_t most_header_bytes = std::size_t{100} << 20;
constexpr std::size_t length_bytes = 8;

constexpr std::array types = {std::pair{DType::float32, std::string_view("F32")},
                              std::pair{DType::float64, std::string_view("F64")},
                              std::pair{DType::int64, std::string_view("I64")}};

std::string_view type_name(DType type) {
  for (const auto& [known, name] : types)
    if (known == type) return name;
  fail("a checkpoint holds float32, float64 and int64, found {}", name(type));
}

DType type_from_name(std::string_view text) {
  for (const auto& [type, name] : types)
    if (name == text) return type;
  fail("expected a tensor of type F32, F64 or I64, found '{}'", text);
}

Tensor tensor_from(const Json& entry, std::span<const std::byte> data) {
  const DType type = type_from_name(entry.at("dtype").get<std::string>());
  const auto dims = entry.at("shape").get<Dims>();
  const auto offsets = entry.at("data_offsets").get<std::array<std::size_t, 2>>();
  require(offsets[0] <= offsets[1] && offsets[1] <= data.size(), "a tensor lies at {} to {} of {} bytes", offsets[0],
          offsets[1], data.size());
  Tensor tensor = Tensor::uninitialized(type, dims);
  require(tensor.byte_size() == offsets[1] - offsets[0], "a tensor {}{} takes {} bytes, found {}", name(type),
          to_string(dims), tensor.byte_size(), offsets[1] - offsets[0]);
  if (tensor.byte_size() > 0) std::memcpy(tensor.mutable_bytes().data(), data.data() + offsets[0], tensor.byte_size());
  return tensor;
}

Checkpoint parse(std::span<const std::byte> bytes) {
  require(bytes.size() >= length_bytes, "expected at least {} bytes, found {}", length_bytes, bytes.size());
  std::size_t length = 0;
  for (std::size_t i = length_bytes; i-- > 0;) length = length << 8 | std::to_integer<std::size_t>(bytes[i]);
  require(length <= most_header_bytes && length <= bytes.size() - length_bytes,
          "it is no checkpoint, or a damaged one: expected a header of {} bytes, found {}", length,
          bytes.size() - length_bytes);
  const auto text = bytes.subspan(length_bytes, length);
  Checkpoint checkpoint;
  try {
    const Json header = Json::parse(std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
    require(header.is_object() && header.contains(about_key), "it has no metadata");
    for (const auto& [key, value] : header.items()) {
      if (key == about_key)
        checkpoint.about = value.get<std::map<std::string, std::string>>();
      else
        checkpoint.state[key] =
            in_context([&, &name = key] { return fmt::format("tensor '{}'", name); },
                       [&, &entry = value] { return tensor_from(entry, bytes.subspan(length_bytes + length)); });
    }
  } catch (const Json::exception& error) {
    fail("{}", error.what());
  }
  require(checkpoint.about["schema"] == schema, "expected schema '{}', found '{}'", schema, checkpoint.about["schema"]);
  checkpoint.about.erase("schema");
  return checkpoint;
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  Json header = Json::object();
  header[std::string(about_key)] = checkpoint.about;
  header[std::string(about_key)]["schema"] = schema;
  std::size_t offset = 0;
  for (const auto& [name, tensor] : checkpoint.state) {
    const std::size_t end = offset + tensor.byte_size();
    header[name] = {{"dtype", type_name(tensor.dtype())}, {"shape", tensor.dims()}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.resize((text.size() + length_bytes - 1) / length_bytes * length_bytes, ' ');
  std::array<std::byte, length_bytes> length{};
  for (std::size_t i = 0; i < length_bytes; ++i) length[i] = static_cast<std::byte>(text.size() >> (8 * i));
  StagedFiles staged;
  staged.add(path, [&](StagedFiles::Sink& sink) {
    sink.write(length);
    sink.write(std::as_bytes(std::span(text)));
    for (const auto& [name, tensor] : checkpoint.state) sink.write(tensor.bytes());
  });
  staged.commit();
}

Checkpoint read_checkpoint(const std::filesystem::path& path) {
  return in_context([&] { return fmt::format("checkpoint '{}'", path.string()); },
                    [&] { return parse(MappedFile::open(path)->bytes()); });
}

void require_same_training(const std::filesystem::path& path, const Checkpoint& checkpoint,
                           const std::map<std::string, std::string>& about) {
  std::string differences;
  for (const auto& [what, now] : about) {
    const auto found = checkpoint.about.find(what);
    const std::string was = found == checkpoint.about.end() ? "not kept" : found->second;
    if (was != now)
      differences += fmt::format("{}{} was {}, now it is {}", differences.empty() ? "" : "; ", what, was, now);
  }
  require(differences.empty(), "checkpoint '{}' is of another training: {}", path.string(), differences);
}

}  // namespace onnxpress
