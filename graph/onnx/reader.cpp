#include "graph/onnx/reader.h"

#include <unistd.h>

#include <utility>

#include "graph/base/files.h"
#include "graph/base/hash.h"
#include "graph/onnx/build.h"
#include "graph/onnx/decode.h"
#include "graph/onnx/mapped_pages.h"
#include "graph/onnx/validate.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

ReadResult read(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                ExternalFiles& files, const ReadOptions& options) {
  require(!bytes.empty(), "not an ONNX model: empty");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  require(!text.starts_with("version https://git-lfs"),
          "not an ONNX model: a Git LFS pointer to one");

  ReadResult result;
  wire::ModelMessage message;
  try {
    wire::DecodeContext context{.owner = owner, .files = files};
    message = wire::decode_model(wire::Reader(bytes), context);
    if (context.dropped_fields > 0)
      result.notes.push_back(
          fmt::format("unknown fields that cannot be kept: {} dropped", context.dropped_fields));
  } catch (const wire::WireError& error) {
    throw Error(fmt::format("not an ONNX model: {}", error.message()));
  }
  require(message.has_graph, "not an ONNX model: no graph");

  result.data_files = files.paths();
  result.model = wire::build_model(std::move(message), options, result.notes);
  result.model->external_data = !result.data_files.empty();
  validate(*result.model);
  result.file_bytes = bytes.size();
  result.total_bytes = bytes.size() + files.total_bytes();
  result.bytes = bytes;
  result.owner = std::move(owner);
  return result;
}

std::string describe(const fs::path& path) {
  return fmt::format("reading {}", path == "-" ? "standard input" : path.string());
}

// Decodes a file that holds one message other than a model.
template <class Decode>
auto read_message(const fs::path& path, const char* kind, Decode&& decode) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  return in_context([&] { return describe(path); },
                    [&] {
                      remember_mapping(file);
                      ExternalFiles files = ExternalFiles::beside(path);
                      wire::DecodeContext context{.owner = file, .files = files};
                      try {
                        return decode(wire::Reader(file->bytes()), context);
                      } catch (const wire::WireError& error) {
                        throw Error(fmt::format("not a {}: {}", kind, error.message()));
                      }
                    });
}

}  // namespace

std::string ReadResult::sha256() const {
  Sha256 hash;
  for_each_block(bytes, [&](auto block) { hash.add(block); });
  return hash.finish();
}

ReadResult read_model(const fs::path& path, const ReadOptions& options) {
  const std::shared_ptr<const MappedFile> file = path == "-" ? nullptr : MappedFile::open(path);
  return in_context([&] { return describe(path); },
                    [&] {
                      if (!file) {
                        auto stream = std::make_shared<std::vector<std::byte>>(
                            read_all(STDIN_FILENO, options.stream_limit));
                        ExternalFiles none;
                        return read(*stream, stream, none, options);
                      }
                      remember_mapping(file);
                      ExternalFiles files = ExternalFiles::beside(path);
                      return read(file->bytes(), file, files, options);
                    });
}

ReadResult read_model(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                      const fs::path& folder, const ReadOptions& options) {
  ExternalFiles files = ExternalFiles::in_folder(folder);
  return read(bytes, std::move(owner), files, options);
}

NamedTensor read_tensor(const fs::path& path) {
  return read_message(path, "TensorProto", wire::decode_tensor);
}

std::vector<NamedTensor> read_tensor_sequence(const fs::path& path) {
  return read_message(path, "SequenceProto", wire::decode_tensor_sequence);
}

std::optional<std::vector<NamedTensor>> read_optional_tensors(const fs::path& path) {
  return read_message(path, "OptionalProto", wire::decode_optional);
}

RuntimeValue read_value(const fs::path& path, const Type& type) {
  const auto sequence = [](std::vector<NamedTensor> tensors) {
    std::vector<RuntimeValue> elements;
    for (NamedTensor& tensor : tensors) elements.push_back(std::move(tensor.tensor));
    return RuntimeValue::sequence(std::move(elements));
  };
  if (type.kind == Type::Kind::sequence) return sequence(read_tensor_sequence(path));
  if (type.kind != Type::Kind::optional) return read_tensor(path).tensor;
  auto content = read_optional_tensors(path);
  if (!content) return RuntimeValue::empty_optional();
  if (type.inner && type.inner->kind == Type::Kind::sequence)
    return RuntimeValue::filled_optional(sequence(std::move(*content)));
  require(content->size() == 1, "reading {}: expected an optional tensor, found {} tensors",
          path.string(), content->size());
  return RuntimeValue::filled_optional(std::move(content->front().tensor));
}

}  // namespace onnxpress
