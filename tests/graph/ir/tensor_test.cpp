#include "graph/ir/tensor.h"

#include <array>
#include <cstring>
#include <limits>
#include <thread>

#include <doctest/doctest.h>

namespace onnxpress {
namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

TEST_CASE("element_count multiplies and checks") {
  CHECK(element_count(Dims{}) == 1);
  CHECK(element_count(Dims{2, 3, 4}) == 24);
  CHECK(element_count(Dims{kMax, 0}) == 0);
  // Strides of the other axes are computed all the same.
  CHECK_THROWS_AS(element_count(Dims{kMax, 0, kMax}), Error);
  CHECK(element_count(Dims{kMax, 1}) == kMax);
  CHECK_THROWS_WITH_AS(element_count(Dims{2, -1}), "negative dimension -1 in shape [2,-1]", Error);
  CHECK_THROWS_AS(element_count(Dims{0, -1}), Error);
  CHECK_THROWS_WITH_AS(element_count(Dims{kMax / 2, 3}),
                       "the element count of shape [4611686018427387903,3] overflows", Error);
}

TEST_CASE("a tensor is refused when its bytes cannot be counted or had") {
  CHECK_THROWS_AS(Tensor(DType::float64, Dims{kMax}), Error);
  CHECK_THROWS_AS(Tensor(DType::uint4, Dims{kMax}), Error);
  CHECK_THROWS_AS(Tensor(DType::float32, Dims{-1}), Error);
  CHECK_THROWS_AS(Tensor(DType::undefined, Dims{1}), Error);
  CHECK_THROWS_AS(Tensor(static_cast<DType>(99), Dims{1}), Error);
}

TEST_CASE("new tensors are zero and aligned to 64 bytes") {
  for (const std::int64_t size : {0, 1, 7, 1000}) {
    const Tensor tensor(DType::float32, {size});
    CHECK(reinterpret_cast<std::uintptr_t>(tensor.bytes().data()) % 64 == 0);
    CHECK(tensor.byte_size() == static_cast<std::size_t>(size) * 4);
    for (const float element : tensor.data<float>()) CHECK(element == 0);
  }
  CHECK(Tensor(DType::string, {2}).strings() == std::vector<std::string>{"", ""});
  CHECK(Tensor(DType::int4, {2, 3}).byte_size() == 3);
  CHECK(Tensor(DType::uint2, {5}).byte_size() == 2);
}

TEST_CASE("an undefined tensor is empty") {
  const Tensor tensor;
  CHECK_FALSE(tensor.defined());
  CHECK(tensor.size() == 0);
  CHECK(tensor.bytes().empty());
  CHECK(tensor.equals(Tensor()));
  CHECK_THROWS_AS(tensor.data<float>(), Error);
  CHECK_THROWS_AS(tensor.cast(DType::float32), Error);
}

TEST_CASE("copies share until written") {
  Tensor first = Tensor::of<float>({3}, {1, 2, 3});
  Tensor second = first;
  CHECK(first.shares_storage_with(second));
  second.mutable_data<float>()[0] = 9;
  CHECK_FALSE(first.shares_storage_with(second));
  CHECK(first.data<float>()[0] == 1);
  CHECK(second.data<float>()[0] == 9);
  const std::byte* const before = second.bytes().data();
  second.mutable_data<float>()[1] = 8;
  CHECK(second.bytes().data() == before);
}

TEST_CASE("views are read in place and copied when written") {
  auto owner = std::make_shared<std::vector<std::byte>>(bytes_of({1, 0, 0, 0, 2, 0, 0, 0}));
  Tensor view = Tensor::view(DType::int32, {2}, *owner, owner);
  CHECK(view.bytes().data() == owner->data());
  view.mutable_data<std::int32_t>()[0] = 7;
  CHECK((*owner)[0] == std::byte{1});
  CHECK(view.to_ints() == std::vector<std::int64_t>{7, 2});
  CHECK_THROWS_WITH_AS(Tensor::view(DType::int32, {3}, *owner, owner),
                       "expected 12 bytes for int32[3], found 8", Error);
  CHECK_THROWS_AS(Tensor::view(DType::string, {0}, {}, nullptr), Error);
}

TEST_CASE("a view keeps its owner alive") {
  auto owner = std::make_shared<std::vector<std::byte>>(bytes_of({5}));
  const std::weak_ptr<std::vector<std::byte>> watch = owner;
  {
    const Tensor view = Tensor::view(DType::uint8, {1}, *owner, owner);
    owner.reset();
    CHECK(view.data<std::uint8_t>()[0] == 5);
  }
  CHECK(watch.expired());
}

TEST_CASE("unaligned views are read through one aligned copy") {
  auto owner = std::make_shared<std::vector<double>>(3);
  const std::span<const std::byte> all = std::as_bytes(std::span(*owner));
  const double value = 2.5;
  std::memcpy(reinterpret_cast<std::byte*>(owner->data()) + 1, &value, sizeof value);
  const Tensor view = Tensor::view(DType::float64, {1}, all.subspan(1, 8), owner);
  CHECK(view.bytes().data() == all.data() + 1);
  std::array<const double*, 4> seen{};
  std::vector<std::thread> threads;
  for (const double*& pointer : seen)
    threads.emplace_back([&] { pointer = view.data<double>().data(); });
  for (std::thread& thread : threads) thread.join();
  for (const double* pointer : seen) CHECK(pointer == seen[0]);
  CHECK(*seen[0] == 2.5);
  CHECK(reinterpret_cast<std::uintptr_t>(seen[0]) % 8 == 0);
}

TEST_CASE("memory given to over is written in place, shared or not") {
  auto arena = std::make_shared<std::vector<double>>(2);
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(*arena));
  Tensor first = Tensor::over(DType::float64, {2}, bytes, arena);
  Tensor second = first.reshaped({1, 2});
  second.mutable_data<double>()[1] = 4;
  CHECK((*arena)[1] == 4);
  CHECK(first.data<double>()[1] == 4);
  CHECK(first.shares_storage_with(second));
  CHECK_THROWS_AS(Tensor::over(DType::float64, {3}, bytes, arena), Error);
  CHECK_THROWS_AS(Tensor::over(DType::uint8, {8}, bytes.subspan(1, 8), arena), Error);
}

TEST_CASE("typed access checks the type") {
  const Tensor tensor = Tensor::of<float>({1}, {1});
  CHECK_THROWS_WITH_AS(tensor.data<double>(), "expected a float64 tensor, found float32", Error);
  CHECK_THROWS_AS(tensor.strings(), Error);
  CHECK(Tensor::scalar<std::int64_t>(3).dims().empty());
  CHECK_THROWS_AS(Tensor::of<float>({2}, {1}), Error);
}

TEST_CASE("reshaped keeps the elements") {
  const Tensor tensor = Tensor::of<float>({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor flat = tensor.reshaped({6});
  CHECK(flat.shares_storage_with(tensor));
  CHECK(flat.rank() == 1);
  CHECK_THROWS_WITH_AS(tensor.reshaped({5}), "cannot reshape 6 elements of shape [2,3] to [5]",
                       Error);
}

TEST_CASE("cast converts as ONNX does") {
  const Tensor tensor = Tensor::of<float>({4}, {-1.5F, 0, 2.75F, 300});
  CHECK(tensor.cast(DType::float32).shares_storage_with(tensor));
  CHECK(tensor.cast(DType::int64).to_ints() == std::vector<std::int64_t>{-1, 0, 2, 300});
  CHECK(tensor.cast(DType::boolean).to_ints() == std::vector<std::int64_t>{1, 0, 1, 1});
  CHECK(tensor.cast(DType::float16).to_floats() == std::vector<float>{-1.5F, 0, 2.75F, 300});
  const Tensor small = Tensor::of<std::int64_t>({3}, {-8, 7, 1}).cast(DType::int4);
  CHECK(small.byte_size() == 2);
  CHECK(small.to_ints() == std::vector<std::int64_t>{-8, 7, 1});
  CHECK_THROWS_AS(Tensor::of_strings({1}, {"1"}).cast(DType::float32), Error);
}

TEST_CASE("equality is of type, dims and bytes") {
  const Tensor tensor = Tensor::of<float>({2}, {0.0F, 1.0F});
  CHECK(tensor.equals(Tensor::of<float>({2}, {0.0F, 1.0F})));
  CHECK_FALSE(tensor.equals(Tensor::of<float>({2}, {-0.0F, 1.0F})));
  CHECK_FALSE(tensor.equals(tensor.reshaped({1, 2})));
  CHECK_FALSE(tensor.equals(Tensor::of<std::int32_t>({2}, {0, 0x3f800000})));
  CHECK(Tensor::of_strings({1}, {"a"}).equals(Tensor::of_strings({1}, {"a"})));
  CHECK_FALSE(Tensor::of_strings({1}, {"a"}).equals(Tensor::of_strings({1}, {"b"})));
  CHECK_THROWS_AS(Tensor::of_strings({2}, {"a"}), Error);
}

}  // namespace
}  // namespace onnxpress
