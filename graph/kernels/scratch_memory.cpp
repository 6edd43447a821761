#include "graph/kernels/scratch_memory.h"

namespace onnxpress {

AlignedBytes allocate_aligned(std::size_t bytes) {
  return AlignedBytes(
      static_cast<std::byte*>(::operator new (bytes, std::align_val_t{scratch_alignment})));
}

std::byte* scratch_memory(std::size_t bytes) {
  thread_local AlignedBytes buffer;
  thread_local std::size_t capacity = 0;
  if (bytes > capacity) {
    buffer.reset();
    capacity = 0;
    buffer = allocate_aligned(bytes);
    capacity = bytes;
  }
  return buffer.get();
}

}  // namespace onnxpress
