// Mapped input files and outputs that are never half-written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace onnxpress {

// A read-only private mapping of a whole regular file. A file that shrinks while mapped raises
// SIGBUS; the command turns that into an Error message and status 2.
class MappedFile {
 public:
  // Throws Error when the path is missing, not a regular file or unreadable. An empty file maps
  // to an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that [offset, offset+length) is not needed in memory for now.
  void release(std::size_t offset, std::size_t length) const;

 private:
  MappedFile() = default;
  std::span<const std::byte> bytes_;
  std::filesystem::path path_;
};

// Everything readable from a descriptor (standard input), as owned bytes. Throws Error past
// `limit`.
std::vector<std::byte> read_all(int descriptor, std::size_t limit);

// A set of output files that appear together or not at all as far as POSIX lets: each is written
// to a temporary file in its target's folder (O_TMPFILE where there is one, so that a killed run
// leaves nothing), synced, and renamed over its target in order by commit().
class StagedFiles {
 public:
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void write(std::span<const std::byte> bytes) = 0;  // throws Error (full disk, ...)
  };

  StagedFiles();
  ~StagedFiles();  // drops what was not committed
  StagedFiles(const StagedFiles&) = delete;
  StagedFiles& operator=(const StagedFiles&) = delete;

  // Writes one staged file with `fill`. A link is followed; an existing regular file keeps its
  // permissions; a device or FIFO is written to by commit(), before any rename. Throws Error
  // (unwritable folder, target is a folder, full disk, a target added before); what `fill` throws
  // drops this file.
  void add(const std::filesystem::path& target, const std::function<void(Sink&)>& fill);
  // Removes `path` after all renames (an old external-data file), unless it is one of the targets.
  void remove_after(const std::filesystem::path& path);
  // Syncs, renames in the order of add(), syncs the folders, then removes.
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Writes all bytes to a descriptor (standard output); throws Error.
void write_all(int descriptor, std::span<const std::byte> bytes);

}  // namespace onnxpress
