// Aligned memory for kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace onnxpress {

inline constexpr std::size_t scratch_alignment = 64;  // bytes: a cache line, the longest vectors

struct ScratchDelete {
  void operator()(std::byte* memory) const {
    ::operator delete (memory, std::align_val_t{scratch_alignment});
  }
};
using AlignedBytes = std::unique_ptr<std::byte, ScratchDelete>;

AlignedBytes allocate_aligned(std::size_t bytes);

// Memory of the calling thread that holds until its next call: kernels run one after the other, so
// they share it. Other threads may use it meanwhile.
std::byte* scratch_memory(std::size_t bytes);

}  // namespace onnxpress
