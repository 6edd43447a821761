// Tensor: a value type over shared storage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "graph/base/dtype.h"
#include "graph/base/error.h"

namespace onnxpress {

using Dims = std::vector<std::int64_t>;

// Product of dims. Throws Error on a negative dim or when the product overflows int64.
std::int64_t element_count(std::span<const std::int64_t> dims);
// "[1,3,224,224]".
std::string to_string(std::span<const std::int64_t> dims);

// Bytes with one of three owners: an allocation of ours (64-byte aligned), a slice of a mapped
// file, or somebody else's memory. Strings live beside the bytes.
class Storage {
 public:
  static std::shared_ptr<Storage> allocate(std::size_t bytes, bool zero);
  static std::shared_ptr<Storage> read_only(std::span<const std::byte> bytes,
                                            std::shared_ptr<const void> owner);
  // `bytes` must be aligned to 8.
  static std::shared_ptr<Storage> writable(std::span<std::byte> bytes,
                                           std::shared_ptr<void> owner);
  static std::shared_ptr<Storage> of_strings(std::vector<std::string> strings);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  // The bytes at an address aligned for any element type: a mapped slice is copied on the first
  // call when it is not (thread-safe, kept).
  const std::byte* aligned() const;
  bool is_writable() const { return writable_; }
  // Somebody else's memory (a mapped file, an arena) rather than an allocation of ours.
  bool is_borrowed() const { return borrowed_; }
  std::byte* mutable_bytes() { return const_cast<std::byte*>(bytes_.data()); }
  std::vector<std::string>& strings() { return strings_; }
  const std::vector<std::string>& strings() const { return strings_; }

 private:
  Storage() = default;

  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  bool writable_ = false;
  bool borrowed_ = false;
  std::vector<std::string> strings_;
  mutable std::once_flag align_once_;
  mutable std::shared_ptr<const Storage> aligned_copy_;
};

// An n-dimensional array: element type, dims (row-major) and shared storage. Copying shares the
// storage; writing copies it first when it is read-only or an allocation of ours that is shared.
// Memory given to `over` is written in place, whoever shares it. Sub-byte types are packed as ONNX
// packs them, without gaps between rows.
class Tensor {
 public:
  Tensor() = default;  // undefined type, no elements; defined() is false
  // Zero-filled. Throws Error on bad dims and when there is not enough memory.
  Tensor(DType type, Dims dims);
  static Tensor uninitialized(DType type, Dims dims);
  // Over memory that `owner` keeps alive. Throws Error when `bytes` is not exactly what type and
  // dims need. `over` needs memory aligned to 8.
  static Tensor view(DType type, Dims dims, std::span<const std::byte> bytes,
                     std::shared_ptr<const void> owner);
  static Tensor over(DType type, Dims dims, std::span<std::byte> bytes,
                     std::shared_ptr<void> owner);
  static Tensor of_strings(Dims dims, std::vector<std::string> strings);
  template <class T>
  static Tensor of(Dims dims, std::span<const T> values) {
    Tensor tensor = uninitialized(dtype_of<T>, std::move(dims));
    tensor.assign(std::as_bytes(values));
    return tensor;
  }
  template <class T>
  static Tensor of(Dims dims, const std::vector<T>& values) {
    return of<T>(std::move(dims), std::span<const T>(values));
  }
  template <class T>
  static Tensor scalar(T value) {
    return of<T>({}, std::span<const T>(&value, 1));
  }

  bool defined() const { return type_ != DType::undefined; }
  DType dtype() const { return type_; }
  const Dims& dims() const { return dims_; }
  std::int64_t dim(std::size_t axis) const { return dims_.at(axis); }
  std::size_t rank() const { return dims_.size(); }
  std::int64_t size() const { return size_; }  // elements
  std::size_t byte_size() const { return packed_bytes(type_, static_cast<std::size_t>(size_)); }

  // Packed bytes as stored, possibly unaligned. Strings have none.
  std::span<const std::byte> bytes() const;
  std::span<std::byte> mutable_bytes();
  // Typed access; throws Error when T is not the element type.
  template <class T>
  std::span<const T> data() const {
    check_type(dtype_of<T>);
    return {reinterpret_cast<const T*>(aligned_bytes()), static_cast<std::size_t>(size_)};
  }
  template <class T>
  std::span<T> mutable_data() {
    check_type(dtype_of<T>);
    return {reinterpret_cast<T*>(mutable_bytes().data()), static_cast<std::size_t>(size_)};
  }
  // Packed bytes aligned for the element type.
  const std::byte* aligned_bytes() const;
  const std::vector<std::string>& strings() const;

  // The same elements under other dims of equal product; shares storage.
  Tensor reshaped(Dims dims) const;
  // Elements converted as ONNX Cast does; shares storage when the type is the same.
  Tensor cast(DType type) const;
  // All elements as float / double / int64 (integers of a shape input, weights to be quantized).
  std::vector<float> to_floats() const;
  std::vector<std::int64_t> to_ints() const;
  // True when type, dims and bytes (or strings) are equal.
  bool equals(const Tensor& other) const;
  bool shares_storage_with(const Tensor& other) const { return storage_ == other.storage_; }

 private:
  void check_type(DType wanted) const;
  void assign(std::span<const std::byte> bytes);
  void make_unique();

  DType type_ = DType::undefined;
  Dims dims_;
  std::int64_t size_ = 0;
  std::shared_ptr<Storage> storage_;
};

}  // namespace onnxpress
