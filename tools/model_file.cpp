#include "tools/model_file.h"

#include <zlib.h>

#include <algorithm>

#include "graph/base/error.h"
#include "graph/base/files.h"
#include "graph/rewrite/pattern.h"

namespace onnxpress {

namespace {

std::vector<std::string> wrong_declarations(const Model& model) {
  std::vector<std::string> texts;
  try {
    texts = contradicted_declarations(model);
  } catch (const Error&) {
    // Whoever needs the types says what is wrong with them.
  }
  for (std::string& text : texts) text += "; the computed shape is used, the file keeps its own";
  return texts;
}

}  // namespace

std::int64_t deflated_size(std::span<const std::span<const std::byte>> pieces) {
  z_stream stream{};
  if (deflateInit(&stream, 6) != Z_OK) throw std::bad_alloc();
  std::vector<Bytef> scratch(1 << 16);
  std::int64_t total = 0;
  const auto pump = [&](int flush) {
    do {
      stream.next_out = scratch.data();
      stream.avail_out = static_cast<uInt>(scratch.size());
      deflate(&stream, flush);
      total += static_cast<std::int64_t>(scratch.size() - stream.avail_out);
    } while (stream.avail_out == 0);
  };
  constexpr std::size_t step = std::size_t{1} << 24;
  for (const auto& piece : pieces)
    for (std::size_t offset = 0; offset < piece.size(); offset += step) {
      const auto part = piece.subspan(offset, std::min(step, piece.size() - offset));
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(part.data()));
      stream.avail_in = static_cast<uInt>(part.size());
      pump(Z_NO_FLUSH);
    }
  pump(Z_FINISH);
  deflateEnd(&stream);
  return total;
}

LoadedModel load_model(const std::string& path, DeflatedSize deflated, bool keep_overridable) {
  const ReadOptions options{.keep_overridable = keep_overridable};
  ReadResult read = read_model(path, options);
  LoadedModel loaded;
  loaded.file.path = path;
  loaded.file.sha256 = read.sha256();
  loaded.file.file = static_cast<std::int64_t>(read.file_bytes);
  loaded.file.total = static_cast<std::int64_t>(read.total_bytes);
  loaded.file.external = loaded.file.total - loaded.file.file;
  loaded.notes = std::move(read.notes);
  loaded.model = std::move(read.model);
  loaded.warnings = wrong_declarations(*loaded.model);
  for (const auto& file : read.data_files) loaded.data_files.push_back(file.string());
  if (deflated == DeflatedSize::off ||
      (deflated == DeflatedSize::automatic && loaded.file.total > deflate_limit))
    return loaded;
  std::vector<std::shared_ptr<const MappedFile>> mapped;
  std::vector<std::span<const std::byte>> pieces{read.bytes};
  for (const auto& file : read.data_files) {
    mapped.push_back(MappedFile::open(file));
    pieces.push_back(mapped.back()->bytes());
  }
  loaded.file.deflated = deflated_size(pieces);
  return loaded;
}

}  // namespace onnxpress
