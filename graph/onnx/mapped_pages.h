// Which bytes in memory are pages of a mapped model or data file, so that they can be given back.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "graph/base/files.h"

namespace onnxpress {

// Makes release_pages() know the file for as long as somebody keeps it mapped.
void remember_mapping(const std::shared_ptr<const MappedFile>& file);

// Tells the kernel that `bytes` are not needed in memory for now, if they belong to a remembered
// file; does nothing for other memory. Contents stay readable.
void release_pages(std::span<const std::byte> bytes);

}  // namespace onnxpress
