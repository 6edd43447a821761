#include "tools/model_file.h"

#include <zlib.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "graph/base/error.h"
#include "graph/base/files.h"
#include "graph/base/threads.h"
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

std::future<std::string> hashed_beside(const ReadResult& read) {
  constexpr std::size_t worth_a_thread = std::size_t{4} << 20;
  const bool beside = read.file_bytes >= worth_a_thread && available_cpus() > 1;
  ReadResult file;
  file.bytes = read.bytes;
  file.owner = read.owner;
  return std::async(beside ? std::launch::async : std::launch::deferred,
                    [file = std::move(file)] { return file.sha256(); });
}

}  // namespace

std::int64_t deflated_size(std::span<const std::span<const std::byte>> pieces) {
  constexpr std::size_t block = std::size_t{1} << 20;
  std::vector<std::span<const std::byte>> blocks;
  for (const auto& piece : pieces)
    for (std::size_t offset = 0; offset < piece.size(); offset += block)
      blocks.push_back(piece.subspan(offset, std::min(block, piece.size() - offset)));
  std::vector<std::int64_t> sizes(blocks.size());
  ThreadPool pool(available_cpus());
  pool.parallel_for(std::ssize(blocks), 1, [&](std::int64_t begin, std::int64_t) {
    const auto& part = blocks[static_cast<std::size_t>(begin)];
    std::vector<Bytef> packed(compressBound(static_cast<uLong>(part.size())));
    uLongf size = static_cast<uLongf>(packed.size());
    if (compress2(packed.data(), &size, reinterpret_cast<const Bytef*>(part.data()),
                  static_cast<uLong>(part.size()), 6) != Z_OK)
      throw std::bad_alloc();
    sizes[static_cast<std::size_t>(begin)] = static_cast<std::int64_t>(size);
  });
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
}

LoadedModel load_model(const std::string& path, DeflatedSize deflated, bool keep_overridable,
                       Hashing hashing) {
  const ReadOptions options{.keep_overridable = keep_overridable};
  ReadResult read = read_model(path, options);
  LoadedModel loaded;
  loaded.file.path = path;
  if (hashing == Hashing::at_once)
    loaded.file.sha256 = read.sha256();
  else if (hashing == Hashing::beside)
    loaded.sha256 = hashed_beside(read);
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
