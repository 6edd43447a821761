// Arrays of data files, read front to back and never whole.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/base/dtype.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

struct ArrayInfo {
  std::string name;  // empty when the format has no names
  DType dtype = DType::undefined;
  Dims dims;
};

// One array of a data file, row-major and little-endian, as a stream of bytes.
class ArrayReader {
 public:
  explicit ArrayReader(ArrayInfo info) : info_(std::move(info)) {}
  virtual ~ArrayReader() = default;
  ArrayReader(const ArrayReader&) = delete;
  ArrayReader& operator=(const ArrayReader&) = delete;

  const ArrayInfo& info() const { return info_; }
  // Back to the first element.
  virtual void rewind() = 0;
  // Fills `target` with the next bytes; throws Error when the data ends before that.
  virtual void read(std::span<std::byte> target) = 0;
  // Skips bytes that nobody wants.
  virtual void skip(std::size_t bytes);

 private:
  ArrayInfo info_;
};

// What a data file or folder holds, before it is bound to a model's inputs.
struct DataSource {
  std::filesystem::path path;
  std::vector<std::unique_ptr<ArrayReader>> arrays;  // candidates for inputs, in file order
  std::unique_ptr<ArrayReader> labels;               // may be null
  // Rows may take any shape of equal size: the format has no axis for channels (IDX).
  bool reshape_rows = false;
};

// Lower-case hex SHA-256 of a file; of a folder: over the sorted relative names and contents.
std::string hash_of_data(const std::filesystem::path& path);

}  // namespace onnxpress
