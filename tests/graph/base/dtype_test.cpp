#include "graph/base/dtype.h"

#include <doctest/doctest.h>

#include "graph/base/error.h"

using onnxpress::DType;

namespace {

constexpr int first = 1;
constexpr int last = 26;

}  // namespace

TEST_CASE("the known types are the numbers 1 to 26") {
  for (int number = first; number <= last; ++number)
    CHECK(onnxpress::is_known(static_cast<DType>(number)));
  for (const int number : {-1, 0, 27, 1000, INT32_MAX, INT32_MIN})
    CHECK_FALSE(onnxpress::is_known(static_cast<DType>(number)));
}

TEST_CASE("names round-trip and unknown numbers are shown") {
  for (int number = first; number <= last; ++number) {
    const auto type = static_cast<DType>(number);
    CHECK(onnxpress::dtype_from_name(onnxpress::name(type)) == type);
  }
  CHECK(onnxpress::name(DType::float32) == "float32");
  CHECK(onnxpress::name(DType::boolean) == "bool");
  CHECK(onnxpress::name(DType::undefined) == "undefined");
  const std::string_view unknown = onnxpress::name(static_cast<DType>(99));
  CHECK(onnxpress::name(static_cast<DType>(-3)) == "type(-3)");
  CHECK(unknown == "type(99)");
}

TEST_CASE("ONNX's spellings are understood") {
  CHECK(onnxpress::dtype_from_name("FLOAT") == DType::float32);
  CHECK(onnxpress::dtype_from_name("float") == DType::float32);
  CHECK(onnxpress::dtype_from_name("DOUBLE") == DType::float64);
  CHECK(onnxpress::dtype_from_name("INT8") == DType::int8);
  CHECK(onnxpress::dtype_from_name("FLOAT8E4M3FN") == DType::float8e4m3fn);
  for (const char* text : {"", "undefined", "UNDEFINED", "int", "int88", "float3", "INT8 "})
    CHECK(onnxpress::dtype_from_name(text) == std::nullopt);
}

TEST_CASE("every type has one kind") {
  for (int number = first; number <= last; ++number) {
    const auto type = static_cast<DType>(number);
    const int kinds = onnxpress::is_float(type) + onnxpress::is_integer(type) +
                      onnxpress::is_complex(type) + (type == DType::string) +
                      (type == DType::boolean);
    CHECK_MESSAGE(kinds == 1, onnxpress::name(type));
  }
  CHECK(onnxpress::is_float(DType::float8e8m0));
  CHECK(onnxpress::is_signed_integer(DType::int2));
  CHECK_FALSE(onnxpress::is_signed_integer(DType::uint4));
  CHECK(onnxpress::is_sub_byte(DType::float4e2m1));
  CHECK_FALSE(onnxpress::is_sub_byte(DType::boolean));
  CHECK_FALSE(onnxpress::is_sub_byte(DType::string));
}

TEST_CASE("packed sizes round up to whole bytes and are checked") {
  CHECK(onnxpress::packed_bytes(DType::float32, 3) == 12);
  CHECK(onnxpress::packed_bytes(DType::complex128, 2) == 32);
  CHECK(onnxpress::packed_bytes(DType::int4, 0) == 0);
  CHECK(onnxpress::packed_bytes(DType::int4, 1) == 1);
  CHECK(onnxpress::packed_bytes(DType::int4, 5) == 3);
  CHECK(onnxpress::packed_bytes(DType::uint2, 4) == 1);
  CHECK(onnxpress::packed_bytes(DType::uint2, 5) == 2);
  CHECK(onnxpress::packed_bytes(DType::int2, SIZE_MAX) == SIZE_MAX / 4 + 1);
  CHECK(onnxpress::packed_bytes(DType::string, 5) == 0);
  CHECK(onnxpress::packed_bytes(DType::float64, SIZE_MAX / 8) == SIZE_MAX / 8 * 8);
  CHECK_THROWS_AS(onnxpress::packed_bytes(DType::float64, SIZE_MAX / 8 + 1), onnxpress::Error);
}

TEST_CASE("integer ranges") {
  const auto range = [](DType type) {
    return std::pair(onnxpress::integer_min(type), onnxpress::integer_max(type));
  };
  using Range = std::pair<std::int64_t, std::int64_t>;
  CHECK(range(DType::int2) == Range(-2, 1));
  CHECK(range(DType::uint2) == Range(0, 3));
  CHECK(range(DType::int4) == Range(-8, 7));
  CHECK(range(DType::uint4) == Range(0, 15));
  CHECK(range(DType::int8) == Range(-128, 127));
  CHECK(range(DType::uint16) == Range(0, 65535));
  CHECK(range(DType::int32) == Range(INT32_MIN, INT32_MAX));
  CHECK(range(DType::uint32) == Range(0, UINT32_MAX));
  CHECK(range(DType::int64) == Range(INT64_MIN, INT64_MAX));
  CHECK(range(DType::uint64) == Range(0, INT64_MAX));
  CHECK_THROWS_AS(onnxpress::integer_min(DType::float32), onnxpress::Error);
  CHECK_THROWS_AS(onnxpress::integer_max(DType::boolean), onnxpress::Error);
}

TEST_CASE("types know the first ONNX version that has them") {
  CHECK(onnxpress::first_opset(DType::float32) == 1);
  CHECK(onnxpress::first_opset(DType::bfloat16) == 13);
  CHECK(onnxpress::first_opset(DType::float8e5m2) == 19);
  CHECK(onnxpress::first_ir_version(DType::float8e5m2) == 9);
  CHECK(onnxpress::first_opset(DType::int4) == 21);
  CHECK(onnxpress::first_ir_version(DType::int4) == 10);
  CHECK(onnxpress::first_opset(DType::float4e2m1) == 23);
  CHECK(onnxpress::first_ir_version(DType::float8e8m0) == 12);
  CHECK(onnxpress::first_opset(DType::uint2) == 25);
}

TEST_CASE("C++ element types map to their DType") {
  CHECK(onnxpress::dtype_of<float> == DType::float32);
  CHECK(onnxpress::dtype_of<bool> == DType::boolean);
  CHECK(onnxpress::dtype_of<std::uint64_t> == DType::uint64);
}
