#include "graph/ir/tensor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "graph/base/convert.h"

namespace onnxpress {
namespace {

// Keeps count * bits within size_t for every element type.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 56;

// Of the dims that are not 0, none of which is negative.
std::int64_t product_of_filled(std::span<const std::int64_t> dims) {
  std::int64_t product = 1;
  for (const std::int64_t dim : dims)
    if (dim != 0 && __builtin_mul_overflow(product, dim, &product))
      fail("the element count of shape {} overflows", to_string(dims));
  return product;
}

std::int64_t checked_count(DType type, const Dims& dims) {
  require(is_known(type), "a tensor cannot have element type {}", name(type));
  const std::int64_t count = element_count(dims);
  // Also where an axis is empty: strides and sizes of the other axes are computed all the same.
  if (product_of_filled(dims) > kMaxElements)
    fail("a {} tensor of shape {} is too large", name(type), to_string(dims));
  return count;
}

void check_bytes(DType type, const Dims& dims, std::int64_t count, std::size_t found) {
  require(type != DType::string, "a string tensor cannot be made from bytes");
  const std::size_t expected = packed_bytes(type, static_cast<std::size_t>(count));
  if (found != expected)
    fail("expected {} bytes for {}{}, found {}", expected, name(type), to_string(dims), found);
}

}  // namespace

std::int64_t element_count(std::span<const std::int64_t> dims) {
  for (const std::int64_t dim : dims)
    if (dim < 0) fail("negative dimension {} in shape {}", dim, to_string(dims));
  const std::int64_t product = product_of_filled(dims);
  return std::find(dims.begin(), dims.end(), 0) != dims.end() ? 0 : product;
}

std::string to_string(std::span<const std::int64_t> dims) {
  return fmt::format("[{}]", fmt::join(dims, ","));
}

Tensor::Tensor(DType type, Dims dims) : type_(type), dims_(std::move(dims)) {
  size_ = checked_count(type, dims_);
  storage_ = type == DType::string
                 ? Storage::of_strings(std::vector<std::string>(static_cast<std::size_t>(size_)))
                 : Storage::allocate(byte_size(), true);
}

Tensor Tensor::uninitialized(DType type, Dims dims) {
  if (type == DType::string) return Tensor(type, std::move(dims));
  Tensor tensor;
  tensor.size_ = checked_count(type, dims);
  tensor.type_ = type;
  tensor.dims_ = std::move(dims);
  tensor.storage_ = Storage::allocate(tensor.byte_size(), false);
  return tensor;
}

Tensor Tensor::view(DType type, Dims dims, std::span<const std::byte> bytes,
                    std::shared_ptr<const void> owner) {
  Tensor tensor;
  tensor.size_ = checked_count(type, dims);
  check_bytes(type, dims, tensor.size_, bytes.size());
  tensor.type_ = type;
  tensor.dims_ = std::move(dims);
  tensor.storage_ = Storage::read_only(bytes, std::move(owner));
  return tensor;
}

Tensor Tensor::over(DType type, Dims dims, std::span<std::byte> bytes,
                    std::shared_ptr<void> owner) {
  Tensor tensor;
  tensor.size_ = checked_count(type, dims);
  check_bytes(type, dims, tensor.size_, bytes.size());
  tensor.type_ = type;
  tensor.dims_ = std::move(dims);
  tensor.storage_ = Storage::writable(bytes, std::move(owner));
  return tensor;
}

Tensor Tensor::of_strings(Dims dims, std::vector<std::string> strings) {
  Tensor tensor;
  tensor.size_ = checked_count(DType::string, dims);
  if (strings.size() != static_cast<std::size_t>(tensor.size_))
    fail("expected {} strings for shape {}, found {}", tensor.size_, to_string(dims),
         strings.size());
  tensor.type_ = DType::string;
  tensor.dims_ = std::move(dims);
  tensor.storage_ = Storage::of_strings(std::move(strings));
  return tensor;
}

std::span<const std::byte> Tensor::bytes() const {
  if (!storage_) return {};
  return storage_->bytes();
}

std::span<std::byte> Tensor::mutable_bytes() {
  if (!storage_) return {};
  make_unique();
  return {storage_->mutable_bytes(), storage_->bytes().size()};
}

const std::byte* Tensor::aligned_bytes() const { return storage_ ? storage_->aligned() : nullptr; }

const std::vector<std::string>& Tensor::strings() const {
  check_type(DType::string);
  return storage_->strings();
}

Tensor Tensor::reshaped(Dims dims) const {
  const std::int64_t count = checked_count(type_, dims);
  if (count != size_)
    fail("cannot reshape {} elements of shape {} to {}", size_, to_string(dims_), to_string(dims));
  Tensor result = *this;
  result.dims_ = std::move(dims);
  return result;
}

Tensor Tensor::cast(DType type) const {
  if (type == type_) return *this;
  require(defined(), "cannot cast an undefined tensor to {}", name(type));
  Tensor result = uninitialized(type, dims_);
  convert_elements(type_, bytes().data(), type, result.storage_->mutable_bytes(),
                   static_cast<std::size_t>(size_));
  return result;
}

std::vector<float> Tensor::to_floats() const {
  std::vector<float> values(static_cast<std::size_t>(size_));
  convert_elements(type_, bytes().data(), DType::float32,
                   reinterpret_cast<std::byte*>(values.data()), values.size());
  return values;
}

std::vector<std::int64_t> Tensor::to_ints() const {
  std::vector<std::int64_t> values(static_cast<std::size_t>(size_));
  convert_elements(type_, bytes().data(), DType::int64, reinterpret_cast<std::byte*>(values.data()),
                   values.size());
  return values;
}

bool Tensor::equals(const Tensor& other) const {
  if (type_ != other.type_ || dims_ != other.dims_) return false;
  if (storage_ == other.storage_) return true;
  if (type_ == DType::string) return strings() == other.strings();
  return std::ranges::equal(bytes(), other.bytes());
}

void Tensor::check_type(DType wanted) const {
  require(type_ == wanted, "expected a {} tensor, found {}", name(wanted), name(type_));
}

void Tensor::assign(std::span<const std::byte> bytes) {
  check_bytes(type_, dims_, size_, bytes.size());
  if (!bytes.empty()) std::memcpy(storage_->mutable_bytes(), bytes.data(), bytes.size());
}

void Tensor::make_unique() {
  if (storage_->is_writable() && (storage_->is_borrowed() || storage_.use_count() == 1)) return;
  if (type_ == DType::string) {
    storage_ = Storage::of_strings(storage_->strings());
    return;
  }
  const std::shared_ptr<Storage> copy = Storage::allocate(storage_->bytes().size(), false);
  if (!storage_->bytes().empty())
    std::memcpy(copy->mutable_bytes(), storage_->bytes().data(), storage_->bytes().size());
  storage_ = copy;
}

}  // namespace onnxpress
