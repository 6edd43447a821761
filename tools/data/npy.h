// NumPy's .npy format (numpy.lib.format, versions 1.0 to 3.0).
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "tools/data/array.h"

namespace onnxpress {

struct NpyHeader {
  ArrayInfo info;                // without a name
  std::size_t header_bytes = 0;  // where the data begins
};

// Reads a header through `read`, which fills a span or throws. `where` names the array in
// messages. Throws Error: bad magic, unknown version, big-endian, column-major or structured data,
// types that ONNX does not have, dims whose product overflows.
NpyHeader read_npy_header(const std::function<void(std::span<std::byte>)>& read,
                          const std::string& where);

// The header of a row-major array, version 1.0, padded to 64 bytes as NumPy does. Types that NumPy
// does not have are an Error.
std::string npy_header(DType dtype, const Dims& dims);

// The only array of a .npy file.
std::unique_ptr<ArrayReader> open_npy(const std::filesystem::path& path);

}  // namespace onnxpress
