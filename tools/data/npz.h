// NumPy's .npz archives: zip files of .npy members.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graph/base/files.h"
#include "tools/data/array.h"

namespace onnxpress {

// All arrays of an archive in file order, named as in the archive without ".npy". Members are
// streamed, compressed or not; zip64 is read. Throws Error: not a complete archive, encrypted or
// unknown compression, a member that is no array or whose size contradicts its header.
std::vector<std::unique_ptr<ArrayReader>> open_npz(const std::filesystem::path& path);

// Writes an archive of stored members with a fixed timestamp, so that equal arrays give equal
// bytes. zip64 where sizes need it.
class NpzWriter {
 public:
  // Feeds a member's array data, in order and the same bytes at every call, to its argument.
  using Data = std::function<void(const std::function<void(std::span<const std::byte>)>&)>;

  explicit NpzWriter(StagedFiles::Sink& sink) : sink_(&sink) {}
  // Calls `data` twice: for the checksum, then for the bytes.
  void add(const std::string& name, DType dtype, const Dims& dims, const Data& data);
  void add(const std::string& name, const Tensor& tensor);
  // Writes the directory; once, last.
  void finish();

 private:
  struct Member {
    std::string name;
    std::uint32_t crc;
    std::uint64_t size;
    std::uint64_t offset;
  };
  void write(const std::string& bytes);

  StagedFiles::Sink* sink_;
  std::vector<Member> members_;
  std::uint64_t position_ = 0;
};

}  // namespace onnxpress
