#include "graph/onnx/writer.h"

#include <algorithm>
#include <future>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "graph/base/hash.h"
#include "graph/base/threads.h"
#include "graph/onnx/encode.h"
#include "graph/onnx/external_files.h"
#include "graph/onnx/external_layout.h"
#include "graph/onnx/mapped_pages.h"
#include "graph/onnx/reader.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

// What protobuf implementations refuse to parse beyond.
constexpr std::size_t max_file_bytes = std::numeric_limits<std::int32_t>::max();

template <class Fn>
void for_each_block_of(const wire::Message& message, Fn&& fn) {
  message.for_each_piece([&](std::span<const std::byte> piece) { for_each_block(piece, fn); });
}

// Writes all pieces with `write`; returns their SHA-256 when `hash`, which is computed beside it where
// that is worth a thread.
template <class Write>
std::string stream(const wire::Message& message, bool hash, Write&& write) {
  constexpr std::size_t worth_a_thread = std::size_t{4} << 20;
  std::future<std::string> sha256;
  if (hash)
    sha256 = std::async(message.size() >= worth_a_thread && available_cpus() > 1
                            ? std::launch::async
                            : std::launch::deferred,
                        [&message] {
                          Sha256 sum;
                          for_each_block_of(message, [&](auto block) { sum.add(block); });
                          return sum.finish();
                        });
  for_each_block_of(message, write);
  return hash ? sha256.get() : std::string();
}

void check_size(const wire::Message& message) {
  require(message.size() <= max_file_bytes,
          "expected at most {} bytes in one ONNX file, the model takes {}: use external data",
          max_file_bytes, message.size());
}

wire::Message encode_inline(const Model& model) {
  wire::Message message = wire::encode_model(model);
  check_size(message);
  return message;
}

std::string to_string(const wire::Message& message) {
  std::string bytes;
  bytes.reserve(message.size());
  message.for_each_piece([&](std::span<const std::byte> piece) {
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  });
  return bytes;
}

// Whether `file` is named as the writer names data files of models called `stem`.
bool is_our_data_file(const fs::path& file, const std::string& stem) {
  const std::string name = file.filename().string();
  const std::string prefix = stem + "-";
  constexpr std::string_view suffix = ".data";
  constexpr std::size_t digits = 16;
  if (name.size() != prefix.size() + digits + suffix.size() || !name.starts_with(prefix) ||
      !name.ends_with(suffix))
    return false;
  const std::string_view hash = std::string_view(name).substr(prefix.size(), digits);
  return hash.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Data files that the model now at `path` refers to and that we wrote for models of its name.
std::vector<fs::path> own_data_files(const fs::path& path) {
  std::vector<fs::path> files;
  std::error_code error;
  const fs::path target = fs::weakly_canonical(path, error);
  if (error || !fs::is_regular_file(target, error)) return files;
  fs::directory_iterator entry(target.parent_path(), error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error))
    if (is_our_data_file(entry->path(), target.stem().string())) files.push_back(entry->path());
  if (files.empty()) return files;
  try {
    const std::vector<fs::path> used = read_model(target).data_files;
    std::erase_if(
        files, [&](const fs::path& file) { return std::ranges::find(used, file) == used.end(); });
  } catch (const Error&) {
    files.clear();  // whatever stands at `path`, it is no model of ours
  }
  return files;
}

// Another model file beside `target` that may need `data`, or nothing. A model names its data in
// plain bytes, so that looking for the name misses none.
std::optional<std::string> other_user(const fs::path& data, const fs::path& target) {
  const std::string name = data.filename().string();
  std::error_code error;
  fs::directory_iterator entry(target.parent_path(), error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const fs::path& file = entry->path();
    std::error_code ignored;
    if (file == target || file.filename().string().find(".onnx") == std::string::npos ||
        !fs::is_regular_file(file, ignored) || fs::canonical(file, ignored) == target)
      continue;
    try {
      const auto mapped = MappedFile::open(file);
      const std::string_view bytes(reinterpret_cast<const char*>(mapped->bytes().data()),
                                   mapped->bytes().size());
      if (bytes.find(name) != std::string_view::npos)
        return fmt::format("'{}' uses it too", file.filename().string());
    } catch (const Error&) {
      return fmt::format("'{}' cannot be read and may use it", file.filename().string());
    }
  }
  if (error) return fmt::format("the folder cannot be read: {}", error.message());
  return std::nullopt;
}

bool wants_external(const Model& model, const WriteOptions& options, std::size_t inline_bytes) {
  switch (options.external) {
    case ExternalData::never:
      return false;
    case ExternalData::always:
      return true;
    case ExternalData::as_read:
      break;
  }
  return model.external_data || inline_bytes > max_file_bytes;
}

// Lays tensors out in a data file for models called `stem` and encodes the model accordingly.
// Nothing when no tensor goes outside.
std::unique_ptr<ExternalLayout> lay_out(const Model& model, const std::string& stem,
                                        std::size_t threshold, wire::Message& message) {
  for (const bool attributes : {false, true}) {
    auto layout = std::make_unique<ExternalLayout>(model, threshold, attributes);
    layout->set_file_name(fmt::format("{}-{}.data", stem, layout->content_hash()));
    message = wire::encode_model(model, layout.get());
    if (message.size() <= max_file_bytes) return layout->empty() ? nullptr : std::move(layout);
  }
  fail("the model takes {} bytes beside its external data, expected at most {}", message.size(),
       max_file_bytes);
}

// Where the bytes of `path` will lie: external data goes beside the file, not beside a link to it.
fs::path target_of(const fs::path& path) {
  std::error_code error;
  require(!fs::exists(path, error) || fs::is_regular_file(path, error),
          "expected a regular file to put external data beside, found something else");
  return fs::is_symlink(path, error) ? resolved(path) : path;
}

}  // namespace

std::size_t serialized_size(const Model& model) { return wire::encode_model(model).size(); }

WriteResult stage_model(const Model& model, const fs::path& path, StagedFiles& staged,
                        const WriteOptions& options) {
  return in_context(
      [&] { return fmt::format("writing {}", path.string()); },
      [&] {
        WriteResult result;
        const std::vector<fs::path> old_files = own_data_files(path);
        wire::Message message = wire::encode_model(model);
        std::unique_ptr<ExternalLayout> layout;
        if (wants_external(model, options, message.size())) {
          const fs::path target = target_of(path);
          layout = lay_out(model, target.stem().string(), options.external_threshold, message);
          if (layout) {
            result.data_file = target.parent_path() / layout->file_name();
            result.total_bytes = layout->file_bytes();
            staged.add(result.data_file, [&](StagedFiles::Sink& sink) { layout->write(sink); });
          }
        }
        check_size(message);
        staged.add(path, [&](StagedFiles::Sink& sink) {
          result.sha256 = stream(message, options.hash, [&](auto block) { sink.write(block); });
        });
        for (const fs::path& file : old_files) {
          if (file.filename() == result.data_file.filename()) continue;
          if (const auto user = other_user(file, fs::weakly_canonical(path)))
            result.notes.push_back(fmt::format("the old external data '{}' was left: {}",
                                               file.filename().string(), *user));
          else
            staged.remove_after(file);
        }
        result.file_bytes = message.size();
        result.total_bytes += message.size();
        return result;
      });
}

WriteResult write_model(const Model& model, const fs::path& path, const WriteOptions& options) {
  StagedFiles staged;
  WriteResult result = stage_model(model, path, staged, options);
  staged.commit();
  return result;
}

WriteResult write_model(const Model& model, int descriptor, bool hash) {
  const wire::Message message = encode_inline(model);
  WriteResult result{.file_bytes = message.size(), .total_bytes = message.size()};
  result.sha256 = stream(message, hash, [&](auto block) { write_all(descriptor, block); });
  return result;
}

std::string to_bytes(const Model& model) { return to_string(encode_inline(model)); }

std::string value_to_bytes(const RuntimeValue& value, std::string_view name) {
  return to_string(wire::encode_value(name, value));
}

std::string tensor_to_bytes(const Tensor& tensor, std::string_view name) {
  return to_string(wire::encode_tensor(name, tensor, {}, {}, {}, nullptr));
}

}  // namespace onnxpress
