#include "passes/common/weight_pieces.h"

#include <algorithm>
#include <cstddef>

#include "graph/base/convert.h"

namespace onnxpress {

void run_blocks(std::int64_t count, std::int64_t block, ThreadPool* pool,
                const std::function<void(std::int64_t begin, std::int64_t end)>& body) {
  if (pool != nullptr) return pool->parallel_for(count, block, body);
  for (std::int64_t begin = 0; begin < count; begin += block) body(begin, std::min(begin + block, count));
}

void read_floats(const Tensor& weight, std::int64_t begin, std::int64_t count, std::vector<float>& values) {
  values.resize(static_cast<std::size_t>(count));
  const std::byte* from =
      weight.bytes().data() + packed_bytes(weight.dtype(), static_cast<std::size_t>(begin));
  convert_elements(weight.dtype(), from, DType::float32, reinterpret_cast<std::byte*>(values.data()),
                   values.size());
}

void for_each_piece(const Tensor& weight, ThreadPool* pool,
                    const std::function<void(const float* values, std::int64_t begin, std::int64_t count)>& fn) {
  const std::byte* const bytes = weight.bytes().data();
  // A mapped file may hold floats at any address.
  const bool in_place =
      weight.dtype() == DType::float32 && reinterpret_cast<std::uintptr_t>(bytes) % alignof(float) == 0;
  run_blocks(weight.size(), piece_elements, pool, [&](std::int64_t begin, std::int64_t end) {
    if (in_place) return fn(reinterpret_cast<const float*>(bytes) + begin, begin, end - begin);
    static thread_local std::vector<float> values;
    read_floats(weight, begin, end - begin, values);
    fn(values.data(), begin, end - begin);
  });
}

}  // namespace onnxpress
