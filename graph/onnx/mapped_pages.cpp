#include "graph/onnx/mapped_pages.h"

#include <iterator>
#include <map>
#include <mutex>

namespace onnxpress {

namespace {

struct Mappings {
  std::mutex mutex;
  std::map<const std::byte*, std::weak_ptr<const MappedFile>> by_address;
};

Mappings& mappings() {
  static Mappings instance;
  return instance;
}

}  // namespace

void remember_mapping(const std::shared_ptr<const MappedFile>& file) {
  Mappings& known = mappings();
  const std::scoped_lock lock(known.mutex);
  std::erase_if(known.by_address, [](const auto& entry) { return entry.second.expired(); });
  if (!file->bytes().empty()) known.by_address[file->bytes().data()] = file;
}

void release_pages(std::span<const std::byte> bytes) {
  std::shared_ptr<const MappedFile> file;
  {
    Mappings& known = mappings();
    const std::scoped_lock lock(known.mutex);
    auto after = known.by_address.upper_bound(bytes.data());
    if (after == known.by_address.begin()) return;
    file = std::prev(after)->second.lock();
  }
  if (!file) return;
  const std::span<const std::byte> whole = file->bytes();
  const auto offset = static_cast<std::size_t>(bytes.data() - whole.data());
  if (offset >= whole.size() || bytes.size() > whole.size() - offset) return;
  file->release(offset, bytes.size());
}

}  // namespace onnxpress
