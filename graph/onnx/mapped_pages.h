// Which bytes in memory are pages of a mapped model or data file, so that they can be given back.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "graph/base/files.h"
#include "graph/ir/model.h"

namespace onnxpress {

// Makes the functions below know the file for as long as somebody keeps it mapped.
void remember_mapping(const std::shared_ptr<const MappedFile>& file);

// Tells the kernel that `bytes` are not needed in memory for now, if they belong to a remembered
// file; does nothing for other memory. Contents stay readable.
void release_pages(std::span<const std::byte> bytes);
// The same for all initializers.
void release_pages(const Model& model);

// Calls `fn` on all of `bytes` in blocks. Pages of remembered files are brought in a block at a
// time and given back after it, so that no more than a block of them is in memory.
void for_each_block(std::span<const std::byte> bytes,
                    const std::function<void(std::span<const std::byte>)>& fn);

}  // namespace onnxpress
