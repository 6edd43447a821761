#include "graph/exec/pool.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace onnxpress {
namespace {

TEST_CASE("memory comes back and is used again") {
  BufferPool pool;
  const std::byte* first = nullptr;
  {
    const Tensor tensor = pool.tensor(DType::float32, {100});
    first = tensor.bytes().data();
    const Tensor other = pool.tensor(DType::float32, {100});
    CHECK(other.bytes().data() != first);
  }
  const std::size_t reserved = pool.reserved_bytes();
  const Tensor again = pool.tensor(DType::float32, {98});
  const Tensor second = pool.tensor(DType::int32, {10, 10});
  CHECK((again.bytes().data() == first || second.bytes().data() == first));
  CHECK(pool.reserved_bytes() == reserved);
  CHECK(reserved < 3 * 400);
}

TEST_CASE("a tensor outlives its pool") {
  Tensor tensor;
  {
    BufferPool pool;
    tensor = pool.tensor(DType::float32, {3});
    tensor.mutable_data<float>()[2] = 7;
  }
  CHECK(tensor.data<float>()[2] == 7);
}

TEST_CASE("memory in use is not written by another") {
  BufferPool pool;
  Tensor kept = pool.tensor(DType::float32, {4});
  std::ranges::fill(kept.mutable_data<float>(), 1.0f);
  const Tensor copy = kept;
  kept = Tensor();
  Tensor next = pool.tensor(DType::float32, {4});
  std::ranges::fill(next.mutable_data<float>(), 2.0f);
  CHECK(copy.data<float>()[0] == 1.0f);
}

TEST_CASE("no elements, no memory, no trouble") {
  BufferPool pool;
  CHECK(pool.tensor(DType::float32, {0, 3}).size() == 0);
}

}  // namespace
}  // namespace onnxpress
