#include "graph/base/dtype.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>

#include "graph/base/error.h"

namespace onnxpress {

namespace {

enum class Kind { none, real, signed_integer, unsigned_integer, boolean, complex, string };

struct Row {
  std::string_view name;
  std::string_view onnx_name;
  Kind kind;
  int bits;
  int ir_version;
  int opset;
};

// Indexed by the type's number. IR versions and opsets: the history in onnx.proto and the type
// constraints of Cast.
constexpr std::array<Row, 27> rows = {{
    {"undefined", "UNDEFINED", Kind::none, 0, 3, 1},
    {"float32", "FLOAT", Kind::real, 32, 3, 1},
    {"uint8", "UINT8", Kind::unsigned_integer, 8, 3, 1},
    {"int8", "INT8", Kind::signed_integer, 8, 3, 1},
    {"uint16", "UINT16", Kind::unsigned_integer, 16, 3, 1},
    {"int16", "INT16", Kind::signed_integer, 16, 3, 1},
    {"int32", "INT32", Kind::signed_integer, 32, 3, 1},
    {"int64", "INT64", Kind::signed_integer, 64, 3, 1},
    {"string", "STRING", Kind::string, 0, 3, 1},
    {"bool", "BOOL", Kind::boolean, 8, 3, 1},
    {"float16", "FLOAT16", Kind::real, 16, 3, 1},
    {"float64", "DOUBLE", Kind::real, 64, 3, 1},
    {"uint32", "UINT32", Kind::unsigned_integer, 32, 3, 1},
    {"uint64", "UINT64", Kind::unsigned_integer, 64, 3, 1},
    {"complex64", "COMPLEX64", Kind::complex, 64, 3, 1},
    {"complex128", "COMPLEX128", Kind::complex, 128, 3, 1},
    {"bfloat16", "BFLOAT16", Kind::real, 16, 4, 13},
    {"float8e4m3fn", "FLOAT8E4M3FN", Kind::real, 8, 9, 19},
    {"float8e4m3fnuz", "FLOAT8E4M3FNUZ", Kind::real, 8, 9, 19},
    {"float8e5m2", "FLOAT8E5M2", Kind::real, 8, 9, 19},
    {"float8e5m2fnuz", "FLOAT8E5M2FNUZ", Kind::real, 8, 9, 19},
    {"uint4", "UINT4", Kind::unsigned_integer, 4, 10, 21},
    {"int4", "INT4", Kind::signed_integer, 4, 10, 21},
    {"float4e2m1", "FLOAT4E2M1", Kind::real, 4, 11, 23},
    {"float8e8m0", "FLOAT8E8M0", Kind::real, 8, 12, 24},
    {"uint2", "UINT2", Kind::unsigned_integer, 2, 13, 25},
    {"int2", "INT2", Kind::signed_integer, 2, 13, 25},
}};

const Row& row(DType type) {
  const auto index = static_cast<std::size_t>(static_cast<std::int32_t>(type));
  return index < rows.size() ? rows[index] : rows[0];
}

// Keeps the text of numbers that are no type, which only damaged or newer files hold.
std::string_view unknown_name(std::int32_t number) {
  static std::mutex mutex;
  static std::map<std::int32_t, std::string> names;
  const std::lock_guard lock(mutex);
  return names.try_emplace(number, fmt::format("type({})", number)).first->second;
}

bool equal_ignoring_case(std::string_view text, std::string_view upper) {
  return std::equal(text.begin(), text.end(), upper.begin(), upper.end(), [](char a, char b) {
    return (a >= 'a' && a <= 'z' ? static_cast<char>(a - 'a' + 'A') : a) == b;
  });
}

}  // namespace

bool is_known(DType type) { return row(type).kind != Kind::none; }

std::string_view name(DType type) {
  if (!is_known(type) && type != DType::undefined)
    return unknown_name(static_cast<std::int32_t>(type));
  return row(type).name;
}

std::optional<DType> dtype_from_name(std::string_view text) {
  for (std::size_t i = 1; i < rows.size(); ++i) {
    if (text == rows[i].name || equal_ignoring_case(text, rows[i].onnx_name))
      return static_cast<DType>(i);
  }
  return std::nullopt;
}

int bits(DType type) { return row(type).bits; }

std::size_t packed_bytes(DType type, std::size_t count) {
  const auto width = static_cast<std::size_t>(bits(type));
  if (width > 0 && width < 8) {
    const std::size_t per_byte = 8 / width;
    return count / per_byte + (count % per_byte != 0 ? 1 : 0);
  }
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(count, width / 8, &bytes))
    fail("{} elements of {} do not fit in memory", count, name(type));
  return bytes;
}

int first_ir_version(DType type) { return row(type).ir_version; }
int first_opset(DType type) { return row(type).opset; }

bool is_float(DType type) { return row(type).kind == Kind::real; }
bool is_signed_integer(DType type) { return row(type).kind == Kind::signed_integer; }
bool is_integer(DType type) {
  return is_signed_integer(type) || row(type).kind == Kind::unsigned_integer;
}
bool is_sub_byte(DType type) { return bits(type) > 0 && bits(type) < 8; }
bool is_complex(DType type) { return row(type).kind == Kind::complex; }

std::int64_t integer_min(DType type) {
  require(is_integer(type), "expected an integer type, found {}", name(type));
  if (!is_signed_integer(type)) return 0;
  return bits(type) == 64 ? INT64_MIN : -(std::int64_t{1} << (bits(type) - 1));
}

std::int64_t integer_max(DType type) {
  require(is_integer(type), "expected an integer type, found {}", name(type));
  const int value_bits = std::min(63, is_signed_integer(type) ? bits(type) - 1 : bits(type));
  return value_bits == 63 ? INT64_MAX : (std::int64_t{1} << value_bits) - 1;
}

}  // namespace onnxpress
