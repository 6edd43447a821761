#include "graph/base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "graph/base/descriptor.h"
#include "graph/base/error.h"

namespace onnxpress {

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer before it is refused.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) fail("cannot open {}: {}", path.native(), std::strerror(errno));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0)
    fail("cannot read {}: {}", path.native(), std::strerror(errno));
  require(S_ISREG(status.st_mode), "cannot read {}: expected a regular file, found {}",
          path.native(), kind_of_file(status.st_mode));

  const std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->path_ = path;
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > 0) {
    void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address == MAP_FAILED) fail("cannot map {}: {}", path.native(), std::strerror(errno));
    mapped->bytes_ = {static_cast<const std::byte*>(address), size};
  }
  return mapped;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::release(std::size_t offset, std::size_t length) const {
  if (offset >= bytes_.size()) return;
  const std::size_t end = offset + std::min(length, bytes_.size() - offset);
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t first = (offset + page - 1) / page * page;
  // The last page of the file is whole in memory: up to the end of the file is up to its end.
  const std::size_t last = end == bytes_.size() ? end : end / page * page;
  if (first < last)
    ::madvise(const_cast<std::byte*>(bytes_.data()) + first, last - first, MADV_DONTNEED);
}

std::vector<std::byte> read_all(int descriptor, std::size_t limit) {
  std::vector<std::byte> bytes;
  std::size_t used = 0;
  struct stat status {};
  if (::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0)
    bytes.resize(std::min(limit, static_cast<std::size_t>(status.st_size)) + 1);
  while (true) {
    if (used == bytes.size()) bytes.resize(std::max<std::size_t>(1 << 16, used + used / 2));
    const ssize_t got = ::read(descriptor, bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read {}: {}", name_of_descriptor(descriptor), std::strerror(errno));
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
    if (used > limit) fail("{} holds more than {} bytes", name_of_descriptor(descriptor), limit);
  }
  bytes.resize(used);
  return bytes;
}

void write_all(int descriptor, std::span<const std::byte> bytes) {
  if (!write_fully(descriptor, bytes))
    fail("cannot write {}: {}", name_of_descriptor(descriptor), std::strerror(errno));
}

}  // namespace onnxpress
