#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <future>
#include <set>
#include <system_error>
#include <utility>

#include "graph/base/descriptor.h"
#include "graph/base/error.h"
#include "graph/base/files.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void cannot_write(const fs::path& path, std::string_view reason) {
  fail("cannot write {}: {}", path.native(), reason);
}
[[noreturn]] void cannot_write(const fs::path& path, int error_number) {
  cannot_write(path, std::strerror(error_number));
}

// The name a file is staged under, if it has one yet; removed unless it was renamed away.
class TemporaryName {
 public:
  TemporaryName() = default;
  explicit TemporaryName(fs::path path) : path_(std::move(path)) {}
  TemporaryName(TemporaryName&& other) noexcept { path_.swap(other.path_); }
  TemporaryName& operator=(TemporaryName&& other) noexcept {
    path_.swap(other.path_);
    return *this;
  }
  ~TemporaryName() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  bool empty() const { return path_.empty(); }
  bool rename_to(const fs::path& target) {
    if (::rename(path_.c_str(), target.c_str()) != 0) return false;
    path_.clear();
    return true;
  }

 private:
  fs::path path_;
};

// One output on its way to its target.
struct Staged {
  fs::path target;    // as given, for messages
  fs::path resolved;  // absolute, links followed; empty when the target is no regular file
  TemporaryName temporary;
  Descriptor file;

  bool is_direct() const { return resolved.empty(); }
};

// Follows `path` while it is a link, also to a last link that points to nothing yet, and makes
// its folder absolute.
fs::path resolve_target(const fs::path& path) {
  fs::path current = path;
  std::error_code error;
  for (int links = 0; fs::is_symlink(fs::symlink_status(current, error)); ++links) {
    if (links == 40) cannot_write(path, ELOOP);
    const fs::path link = fs::read_symlink(current, error);
    if (error) cannot_write(path, error.value());
    current = current.parent_path() / link;
  }
  if (!current.has_filename()) cannot_write(path, EISDIR);
  const fs::path parent = current.has_parent_path() ? current.parent_path() : fs::path(".");
  const fs::path folder = fs::canonical(parent, error);
  if (error)
    cannot_write(path, fmt::format("folder {}: {}", parent.native(), std::strerror(error.value())));
  return folder / current.filename();
}

fs::path temporary_name(const fs::path& target) {
  std::array<unsigned char, 8> random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
    fail("cannot name a temporary file: {}", std::strerror(errno));
  std::string suffix;
  for (const unsigned char byte : random) suffix += fmt::format("{:02x}", byte);
  constexpr std::size_t most = 200;  // leaves room for the suffix in the 255 bytes of a name
  const std::string name = target.filename().native().substr(0, most);
  return target.parent_path() / fmt::format(".{}.onnxpress-{}", name, suffix);
}

// A nameless file can get its name only through /proc.
bool has_descriptor_links() {
  static const bool has = ::access("/proc/self/fd", X_OK) == 0;
  return has;
}

fs::path descriptor_link(const Descriptor& file) {
  return fmt::format("/proc/self/fd/{}", file.get());
}

bool lacks_nameless_files(int error_number) {
  return error_number == EOPNOTSUPP || error_number == EISDIR || error_number == ENOENT ||
         error_number == EINVAL;
}

// Opens where the bytes of a target that gets replaced are written first.
void open_beside(Staged& staged, mode_t mode) {
  const fs::path folder = staged.resolved.parent_path();
  if (has_descriptor_links()) {
    staged.file = Descriptor(::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, mode));
    if (staged.file) return;
    if (!lacks_nameless_files(errno)) cannot_write(staged.target, errno);
  }
  while (!staged.file) {
    const fs::path name = temporary_name(staged.resolved);
    staged.file = Descriptor(::open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode));
    if (staged.file)
      staged.temporary = TemporaryName(name);
    else if (errno != EEXIST && errno != EINTR)
      cannot_write(staged.target, errno);
  }
}

// Opens where the bytes of a device or FIFO wait for commit().
void open_spool(Staged& staged) {
  std::error_code error;
  const fs::path folder = fs::temp_directory_path(error);
  if (!error)
    staged.file = Descriptor(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!staged.file) staged.file = Descriptor(::memfd_create("onnxpress", MFD_CLOEXEC));
  if (!staged.file) cannot_write(staged.target, errno);
}

// What stands at the target decides how it is written: a regular file (or nothing) is replaced
// and keeps its mode and owner, anything else is written to.
Staged open_staged(const fs::path& target) {
  Staged staged;
  staged.target = target;
  struct stat status {};
  const bool exists = ::stat(target.c_str(), &status) == 0;
  if (!exists && errno != ENOENT && errno != ENOTDIR) cannot_write(target, errno);
  if (exists && S_ISDIR(status.st_mode)) cannot_write(target, EISDIR);
  if (exists && ::faccessat(AT_FDCWD, target.c_str(), W_OK, AT_EACCESS) != 0)
    cannot_write(target, errno);
  if (exists && !S_ISREG(status.st_mode)) {
    open_spool(staged);
    return staged;
  }
  staged.resolved = resolve_target(target);
  constexpr mode_t permissions = 0777;
  open_beside(staged, exists ? status.st_mode & permissions : 0666);
  if (exists) {
    if (status.st_uid != ::geteuid() || status.st_gid != ::getegid()) {
      // Only root may give files away; for others the new file is theirs, as with any editor.
      [[maybe_unused]] const int given = ::fchown(staged.file.get(), status.st_uid, status.st_gid);
    }
    if (::fchmod(staged.file.get(), status.st_mode & permissions) != 0) cannot_write(target, errno);
  }
  return staged;
}

// Gathers small writes and starts writing large files out to the device while more is produced.
class FileSink final : public StagedFiles::Sink {
 public:
  explicit FileSink(const Staged& staged) : staged_(staged) { buffer_.reserve(buffer_size); }

  void write(std::span<const std::byte> bytes) override {
    if (buffer_.size() + bytes.size() > buffer_size) flush();
    if (bytes.size() >= buffer_size) {
      for (; bytes.size() > writeback_size; bytes = bytes.subspan(writeback_size))
        put(bytes.first(writeback_size));
      put(bytes);
    } else {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }
  }

  void flush() {
    put(buffer_);
    buffer_.clear();
  }

 private:
  static constexpr std::size_t buffer_size = 256 << 10;
  static constexpr std::size_t writeback_size = 32 << 20;

  void put(std::span<const std::byte> bytes) {
    if (!write_fully(staged_.file.get(), bytes)) cannot_write(staged_.target, errno);
    written_ += bytes.size();
    if (written_ - started_ < writeback_size) return;
#ifdef SYNC_FILE_RANGE_WRITE
    // A hint: what fails here, fsync reports. It waits where the device's queue is full.
    starting_ = std::async(std::launch::async, [file = staged_.file.get(), from = static_cast<off64_t>(started_),
                                                count = static_cast<off64_t>(written_ - started_)] {
      ::sync_file_range(file, from, count, SYNC_FILE_RANGE_WRITE);
    });
#endif
    started_ = written_;
  }

  const Staged& staged_;
  std::vector<std::byte> buffer_;
  std::size_t written_ = 0;
  std::size_t started_ = 0;
  std::future<void> starting_;  // of writing out what is below started_
};

// Copies what was spooled to the device or FIFO it is meant for.
void write_direct(const Staged& staged) {
  const Descriptor out(::open(staged.target.c_str(), O_WRONLY | O_CLOEXEC));
  if (!out) cannot_write(staged.target, errno);
  std::vector<std::byte> buffer(1 << 20);
  off_t offset = 0;
  while (true) {
    const ssize_t got = ::pread(staged.file.get(), buffer.data(), buffer.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) cannot_write(staged.target, errno);
    if (got == 0) return;
    offset += got;
    const std::span<const std::byte> chunk(buffer.data(), static_cast<std::size_t>(got));
    if (!write_fully(out.get(), chunk)) cannot_write(staged.target, errno);
  }
}

// Gives a nameless staged file a name; true when that name is the target itself.
bool link_nameless(Staged& staged) {
  const fs::path link = descriptor_link(staged.file);
  const auto link_as = [&link](const fs::path& name) {
    return ::linkat(AT_FDCWD, link.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
  };
  if (link_as(staged.resolved)) return true;
  while (errno == EEXIST) {
    const fs::path name = temporary_name(staged.resolved);
    if (link_as(name)) {
      staged.temporary = TemporaryName(name);
      return false;
    }
  }
  cannot_write(staged.target, errno);
}

void publish(Staged& staged) {
  if (staged.temporary.empty() && link_nameless(staged)) return;
  if (!staged.temporary.rename_to(staged.resolved)) cannot_write(staged.target, errno);
}

void sync_file(const Staged& staged) {
  if (::fsync(staged.file.get()) != 0) cannot_write(staged.target, errno);
}

// Makes renames durable. A folder that may be written but not read, and a file system that does
// not sync folders, leave that to the kernel.
void sync_folder(const fs::path& folder) {
  const Descriptor opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened && errno == EACCES) return;
  if (!opened || (::fsync(opened.get()) != 0 && errno != EINVAL && errno != ENOTSUP))
    cannot_write(folder, errno);
}

}  // namespace

struct StagedFiles::State {
  std::vector<Staged> files;
  std::vector<fs::path> removals;
};

StagedFiles::StagedFiles() : state_(std::make_unique<State>()) {}
StagedFiles::~StagedFiles() = default;

void StagedFiles::add(const fs::path& target, const std::function<void(Sink&)>& fill) {
  Staged staged = open_staged(target);
  const auto same = [&staged](const Staged& other) {
    return !staged.is_direct() && other.resolved == staged.resolved;
  };
  if (std::any_of(state_->files.begin(), state_->files.end(), same))
    cannot_write(target, "expected outputs with different names, found two with this one");
  FileSink sink(staged);
  fill(sink);
  sink.flush();
  state_->files.push_back(std::move(staged));
}

void StagedFiles::remove_after(const fs::path& path) { state_->removals.push_back(path); }

void StagedFiles::commit() {
  const std::unique_ptr<State> state = std::exchange(state_, std::make_unique<State>());
  std::set<fs::path> folders, targets;
  for (const Staged& staged : state->files) {
    if (staged.is_direct()) continue;
    sync_file(staged);
    targets.insert(staged.resolved);
    folders.insert(staged.resolved.parent_path());
  }
  for (const Staged& staged : state->files)
    if (staged.is_direct()) write_direct(staged);
  for (Staged& staged : state->files)
    if (!staged.is_direct()) publish(staged);
  for (const fs::path& folder : folders) sync_folder(folder);
  for (const fs::path& path : state->removals) {
    std::error_code error;
    const fs::path folder = fs::canonical(path.has_parent_path() ? path.parent_path() : ".", error);
    if (error || targets.count(folder / path.filename()) != 0) continue;
    if (::unlink(path.c_str()) != 0 && errno != ENOENT)
      fail("cannot remove {}: {}", path.native(), std::strerror(errno));
  }
}

}  // namespace onnxpress
