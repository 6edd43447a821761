#include <cstring>
#include <new>

#include "graph/ir/tensor.h"

namespace onnxpress {
namespace {

constexpr std::align_val_t kAllocationAlignment{64};
// The most that data<T>() needs: double, int64 and the halves of complex128.
constexpr std::uintptr_t kElementAlignment = 8;

bool is_aligned(const std::byte* bytes) {
  return reinterpret_cast<std::uintptr_t>(bytes) % kElementAlignment == 0;
}

}  // namespace

Storage::~Storage() = default;

std::shared_ptr<Storage> Storage::allocate(std::size_t bytes, bool zero) {
  void* memory = ::operator new(bytes, kAllocationAlignment, std::nothrow);
  require(memory != nullptr, "cannot allocate {} bytes for a tensor", bytes);
  std::shared_ptr<const void> owner(
      memory, [](const void* p) { ::operator delete(const_cast<void*>(p), kAllocationAlignment); });
  if (zero) std::memset(memory, 0, bytes);
  std::shared_ptr<Storage> storage(new Storage);
  storage->bytes_ = {static_cast<const std::byte*>(memory), bytes};
  storage->owner_ = std::move(owner);
  storage->writable_ = true;
  return storage;
}

std::shared_ptr<Storage> Storage::read_only(std::span<const std::byte> bytes,
                                            std::shared_ptr<const void> owner) {
  std::shared_ptr<Storage> storage(new Storage);
  storage->bytes_ = bytes;
  storage->owner_ = std::move(owner);
  storage->borrowed_ = true;
  return storage;
}

std::shared_ptr<Storage> Storage::writable(std::span<std::byte> bytes,
                                           std::shared_ptr<void> owner) {
  require(is_aligned(bytes.data()), "writable tensor memory is not aligned to {} bytes",
          kElementAlignment);
  std::shared_ptr<Storage> storage = read_only(bytes, std::move(owner));
  storage->writable_ = true;
  return storage;
}

std::shared_ptr<Storage> Storage::of_strings(std::vector<std::string> strings) {
  std::shared_ptr<Storage> storage(new Storage);
  storage->strings_ = std::move(strings);
  storage->writable_ = true;
  return storage;
}

const std::byte* Storage::aligned() const {
  if (is_aligned(bytes_.data())) return bytes_.data();
  std::call_once(align_once_, [this] {
    const std::shared_ptr<Storage> copy = allocate(bytes_.size(), false);
    std::memcpy(copy->mutable_bytes(), bytes_.data(), bytes_.size());
    aligned_copy_ = copy;
  });
  return aligned_copy_->bytes().data();
}

}  // namespace onnxpress
