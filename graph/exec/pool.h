// Reused memory for values whose size is known only when they are produced.
#pragma once

#include <cstddef>
#include <memory>

#include "graph/ir/tensor.h"

namespace onnxpress {

// Hands out uninitialized tensors; memory comes back when the last tensor sharing it goes, and is
// used again for sizes of the same class (powers of two and the midpoints between them). Tensors
// may outlive the pool. Thread-safe.
class BufferPool {
 public:
  BufferPool();
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  Tensor tensor(DType type, const Dims& dims);
  // Bytes handed out and kept for reuse together.
  std::size_t reserved_bytes() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace onnxpress
