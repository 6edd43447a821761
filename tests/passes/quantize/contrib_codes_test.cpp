#include "passes/quantize/contrib_codes.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <span>

#include "graph/base/random.h"

namespace onnxpress {
namespace {

Tensor random_codes(DType type, const Dims& dims) {
  Random random(5);
  Tensor codes(type, dims);
  for (std::byte& byte : codes.mutable_bytes()) byte = static_cast<std::byte>(random.next());
  return codes;
}

TEST_CASE("codes in the order of com.microsoft are those put there one by one") {
  ThreadPool pool(3);
  for (const DType type : {DType::int2, DType::uint2, DType::int4, DType::uint4, DType::int8, DType::uint8})
    for (const Dims& dims :
         {Dims{32, 6}, Dims{64, 64}, Dims{70, 24}, Dims{33, 258}, Dims{128, 130}, Dims{31, 7}, Dims{1, 2}})
      for (const std::int64_t multiple : {std::int64_t{1}, std::int64_t{16}, std::int64_t{32}})
        for (const bool turned : {false, true}) {
          CAPTURE(name(type));
          CAPTURE(dims[0]);
          CAPTURE(dims[1]);
          CAPTURE(multiple);
          CAPTURE(turned);
          const Tensor codes = random_codes(type, dims);
          const CodeRows rows{turned, multiple, static_cast<std::uint8_t>(1U << static_cast<unsigned>(bits(type) - 1))};
          const Tensor expected = plain_contrib_codes(codes, rows);
          CHECK(contrib_codes(codes, rows, &pool).equals(expected));
          CHECK(contrib_codes(codes, rows, nullptr).equals(expected));
        }
}

TEST_CASE("rows are filled up to their multiple") {
  const std::vector<std::uint8_t> bytes{0x21, 0x43, 0x65};  // 1 2 / 3 4 / 5 6
  Tensor codes(DType::uint4, {3, 2});
  std::ranges::copy(std::as_bytes(std::span(bytes)), codes.mutable_bytes().begin());
  const Tensor turned = contrib_codes(codes, {.turned = true, .multiple = 8, .filler = 7}, nullptr);
  CHECK(turned.dims() == Dims{2, 4});
  CHECK(turned.equals(Tensor::of<std::uint8_t>({2, 4}, {0x31, 0x75, 0x77, 0x77, 0x42, 0x76, 0x77, 0x77})));
}

}  // namespace
}  // namespace onnxpress
