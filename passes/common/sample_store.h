// Tensors kept by sample, in memory or in a file: what a teacher makes of training data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/base/files.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

struct FoundSamples;

// Records of one length, sample by sample: a row of each column.
//
// A file begins with "onnxpress.samples/2\n", a line of JSON (key, samples, columns with name, type and
// dims of a row) and blanks up to a multiple of 64 bytes; the records follow, little-endian, and behind
// them 32 hexadecimal digits: XXH3-128 over all before it, in blocks of 1 MiB.
class SampleStore {
 public:
  struct Column {
    std::string name;
    DType type = DType::undefined;
    Dims row;  // dims of one sample's tensor

    bool operator==(const Column&) const = default;
  };

  // The file's contents; without a store where there is no file, and where it is damaged, cut short, of
  // another form or was kept for another key. Throws Error for a file that is something else, which is
  // not to be written over.
  static FoundSamples open(const std::filesystem::path& path, std::string_view key);

  // Takes rows in order: `next` gives tensors [rows, row dims...] for each name, or an empty list at
  // the end. With a path the records go to that file, which appears when all are there. Throws
  // Error for dims that differ from batch to batch, strings and packed types, for more bytes than
  // `most_bytes` (in memory), and when `samples` rows are not what comes.
  static SampleStore record(const std::vector<std::string>& names, std::int64_t samples,
                            const std::function<std::vector<Tensor>()>& next, std::string_view key,
                            const std::filesystem::path& path, std::size_t most_bytes);

  std::int64_t samples() const { return samples_; }
  const std::vector<Column>& columns() const { return columns_; }
  std::size_t record_bytes() const { return record_bytes_; }
  // Rows of those samples, in that order: [numbers, row dims...]. Throws Error for numbers there are not.
  Tensor gather(std::size_t column, std::span<const std::int64_t> numbers) const;

 private:
  void lay_out();
  // The key of the description in a file's header. Throws Error.
  std::string read_header(std::string_view text);

  std::vector<Column> columns_;
  std::vector<std::size_t> offsets_;  // of columns in a record
  std::size_t record_bytes_ = 0;
  std::int64_t samples_ = 0;
  std::vector<std::byte> owned_;
  std::shared_ptr<const MappedFile> file_;
  std::size_t start_ = 0;  // of the records in the file
};

struct FoundSamples {
  std::optional<SampleStore> store = {};
  std::string reason = {};  // why a file that is there was not used
};

}  // namespace onnxpress
