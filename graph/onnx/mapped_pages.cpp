#include "graph/onnx/mapped_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>

namespace onnxpress {

namespace {

// Small enough that what was brought in is still in the processor's cache when it is used.
constexpr std::size_t block_bytes = std::size_t{512} << 10;

struct Mappings {
  std::mutex mutex;
  std::map<const std::byte*, std::weak_ptr<const MappedFile>> by_address;
};

Mappings& mappings() {
  static Mappings instance;
  return instance;
}

// The remembered file that `bytes` are a part of, or nullptr.
std::shared_ptr<const MappedFile> mapping_of(std::span<const std::byte> bytes) {
  Mappings& known = mappings();
  const std::scoped_lock lock(known.mutex);
  const auto after = known.by_address.upper_bound(bytes.data());
  if (after == known.by_address.begin()) return nullptr;
  auto file = std::prev(after)->second.lock();
  if (!file) return nullptr;
  const std::span<const std::byte> whole = file->bytes();
  const auto offset = static_cast<std::size_t>(bytes.data() - whole.data());
  const bool is_part = offset <= whole.size() && bytes.size() <= whole.size() - offset;
  return is_part ? file : nullptr;
}

// Brings pages in at once, which is faster than at their first use one by one.
void fetch_pages(std::span<const std::byte> bytes) {
#ifdef MADV_POPULATE_READ
  if (!mapping_of(bytes)) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size());
  // What fails here (a file cut short, an old kernel) shows at the first use.
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);
#else
  static_cast<void>(bytes);
#endif
}

}  // namespace

void remember_mapping(const std::shared_ptr<const MappedFile>& file) {
  Mappings& known = mappings();
  const std::scoped_lock lock(known.mutex);
  std::erase_if(known.by_address, [](const auto& entry) { return entry.second.expired(); });
  if (!file->bytes().empty()) known.by_address[file->bytes().data()] = file;
}

void release_pages(std::span<const std::byte> bytes) {
  if (const auto file = mapping_of(bytes))
    file->release(static_cast<std::size_t>(bytes.data() - file->bytes().data()), bytes.size());
}

void release_pages(const Model& model) {
  model.for_each_graph([](const Graph& graph) {
    for (const Value* value : graph.initializers()) {
      const Initializer& initializer = *value->initializer();
      if (!initializer.sparse && initializer.tensor.dtype() != DType::string)
        release_pages(initializer.tensor.bytes());
    }
  });
}

void for_each_block(std::span<const std::byte> bytes,
                    const std::function<void(std::span<const std::byte>)>& fn) {
  while (!bytes.empty()) {
    const auto block = bytes.first(std::min(block_bytes, bytes.size()));
    fetch_pages(block);
    fn(block);
    release_pages(block);
    bytes = bytes.subspan(block.size());
  }
}

}  // namespace onnxpress
