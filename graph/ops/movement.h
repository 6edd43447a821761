// Copying elements of any type without looking at them.
#pragma once

#include <complex>
#include <cstdint>
#include <functional>
#include <type_traits>

#include "graph/ops/compute_type.h"
#include "graph/ops/infer.h"

namespace onnxpress {

// Elements of a tensor read in another order: element (i0, i1, ...) of the view is the tensor's
// element offset + sum of i_k * strides_k.
struct StridedView {
  Dims dims;
  std::vector<std::int64_t> strides;
  std::int64_t offset = 0;
};

// Writes the view of `from` to output `index` as a tensor of `dims` (as many elements as the view).
// Not for sub-byte types: see move().
void put_view(KernelContext& context, std::size_t index, const Tensor& from,
              const StridedView& view, const Dims& dims);

// The same into a tensor of as many elements of the same type; not for strings.
void write_view(ThreadPool& pool, const Tensor& from, const StridedView& view, Tensor& to);

// An output written in runs of elements. Not for sub-byte types.
class ElementSink {
 public:
  ElementSink(KernelContext& context, std::size_t index, DType type, Dims dims);
  // Elements [first, first + count) of `from` to position `at`; disjoint runs may be put in
  // parallel.
  void put(std::int64_t at, const Tensor& from, std::int64_t first, std::int64_t count = 1);
  void clear();   // zeros, or empty strings, everywhere
  void finish();  // once, after all

 private:
  KernelContext& context_;
  std::size_t index_;
  Dims dims_;
  std::size_t width_ = 0;  // bytes; 0: strings
  std::byte* target_ = nullptr;
  std::vector<std::string> strings_;
};

// Calls fn(std::type_identity<T>()) for a T as wide as an element of `type`; throws Error for
// strings and sub-byte types.
template <class Fn>
void dispatch_storage(DType type, Fn&& fn) {
  switch (bits(type)) {
    case 8:
      return fn(std::type_identity<std::uint8_t>());
    case 16:
      return fn(std::type_identity<std::uint16_t>());
    case 32:
      return fn(std::type_identity<std::uint32_t>());
    case 64:
      return fn(std::type_identity<std::uint64_t>());
    case 128:
      return fn(std::type_identity<std::complex<double>>());
    default:
      fail("element type {} is not supported here", name(type));
  }
}

// Calls `body` with sub-byte types in a byte each.
inline void move(KernelContext& context, const std::function<void(KernelContext&)>& body) {
  run_as(context, movable_type, body);
}

}  // namespace onnxpress
