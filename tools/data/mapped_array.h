// An array that lies in a mapped file.
#pragma once

#include <cstddef>
#include <memory>

#include "graph/base/files.h"
#include "tools/data/array.h"

namespace onnxpress {

// The array's bytes begin at `offset`; throws Error when the file has fewer or more of them.
// `big_endian` elements are swapped as they are read (IDX).
std::unique_ptr<ArrayReader> open_mapped_array(std::shared_ptr<const MappedFile> file,
                                               ArrayInfo info, std::size_t offset,
                                               bool big_endian = false);

}  // namespace onnxpress
