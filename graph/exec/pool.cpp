#include "graph/exec/pool.h"

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "graph/exec/arena.h"

namespace onnxpress {
namespace {

struct AlignedDelete {
  void operator()(std::byte* memory) const {
    ::operator delete (memory, std::align_val_t{arena_alignment});
  }
};
using Buffer = std::unique_ptr<std::byte, AlignedDelete>;

Buffer allocate(std::size_t bytes) {
  void* memory = ::operator new (bytes, std::align_val_t{arena_alignment}, std::nothrow);
  require(memory != nullptr, "cannot allocate {} bytes for a tensor", bytes);
  return Buffer(static_cast<std::byte*>(memory));
}

std::size_t size_class(std::size_t bytes) {
  const std::size_t power = std::bit_ceil(std::max(bytes, arena_alignment));
  const std::size_t middle = power / 4 * 3;
  return bytes <= middle && middle >= arena_alignment ? middle : power;
}

}  // namespace

struct BufferPool::State {
  std::mutex mutex;
  std::map<std::size_t, std::vector<Buffer>> unused;  // by size class
  std::size_t reserved = 0;
  bool closed = false;  // the pool is gone: give memory back
};

BufferPool::BufferPool() : state_(std::make_shared<State>()) {}

BufferPool::~BufferPool() {
  const std::scoped_lock lock(state_->mutex);
  state_->closed = true;
  state_->unused.clear();
}

Tensor BufferPool::tensor(DType type, const Dims& dims) {
  if (type == DType::string) return Tensor(type, dims);
  const std::size_t bytes = packed_bytes(type, static_cast<std::size_t>(element_count(dims)));
  const std::size_t size = size_class(bytes);
  Buffer buffer;
  {
    const std::scoped_lock lock(state_->mutex);
    auto& unused = state_->unused[size];
    if (unused.empty()) {
      state_->reserved += size;
    } else {
      buffer = std::move(unused.back());
      unused.pop_back();
    }
  }
  if (!buffer) buffer = allocate(size);
  std::byte* memory = buffer.get();
  std::shared_ptr<void> owner(buffer.release(), [state = state_, size](void* released) {
    Buffer returned(static_cast<std::byte*>(released));
    const std::scoped_lock lock(state->mutex);
    if (state->closed) {
      state->reserved -= size;
    } else {
      state->unused[size].push_back(std::move(returned));
    }
  });
  return Tensor::over(type, dims, {memory, bytes}, std::move(owner));
}

std::size_t BufferPool::reserved_bytes() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->reserved;
}

}  // namespace onnxpress
