#include "tools/data/npy.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "graph/base/error.h"
#include "tools/data/mapped_array.h"

namespace onnxpress {

namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::size_t max_header = 1 << 20;

struct NumpyType {
  std::string_view code;  // kind and size
  DType dtype;
};
constexpr std::array<NumpyType, 14> numpy_types{{
    {"f2", DType::float16},
    {"f4", DType::float32},
    {"f8", DType::float64},
    {"i1", DType::int8},
    {"i2", DType::int16},
    {"i4", DType::int32},
    {"i8", DType::int64},
    {"u1", DType::uint8},
    {"u2", DType::uint16},
    {"u4", DType::uint32},
    {"u8", DType::uint64},
    {"b1", DType::boolean},
    {"c8", DType::complex64},
    {"c16", DType::complex128},
}};

// The header is a Python dictionary literal with three known keys.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  ArrayInfo parse() {
    ArrayInfo info;
    bool has_type = false, has_order = false, has_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr") {
        info.dtype = type();
        has_type = true;
      } else if (key == "fortran_order") {
        column_major_ = boolean();
        has_order = true;
      } else if (key == "shape") {
        info.dims = shape();
        has_shape = true;
      } else {
        fail("{}: unknown key '{}' in the .npy header", where_, key);
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    require(has_type && has_order && has_shape,
            "{}: the .npy header lacks 'descr', 'fortran_order' or 'shape'", where_);
    require(!column_major_ || info.dims.size() < 2,
            "{}: expected row-major data, found column-major (fortran_order): save "
            "numpy.ascontiguousarray of it",
            where_);
    return info;
  }

 private:
  void skip_space() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\n'))
      text_.remove_prefix(1);
  }
  bool accept(char c) {
    skip_space();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    require(accept(c), "{}: malformed .npy header: expected '{}' before '{}'", where_, c,
            text_.substr(0, 20));
  }
  std::string_view quoted() {
    skip_space();
    const char quote = text_.empty() ? '\0' : text_.front();
    require(quote == '\'' || quote == '"',
            "{}: malformed .npy header: expected a string before '{}'", where_,
            text_.substr(0, 20));
    const std::size_t end = text_.find(quote, 1);
    require(end != std::string_view::npos, "{}: malformed .npy header: unterminated string",
            where_);
    const std::string_view result = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return result;
  }
  bool boolean() {
    skip_space();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (!text_.starts_with(word)) continue;
      text_.remove_prefix(word.size());
      return value;
    }
    fail("{}: malformed .npy header: expected True or False", where_);
  }
  DType type() {
    skip_space();
    require(!text_.starts_with('['), "{}: expected a plain element type, found a structured one",
            where_);
    const std::string_view descr = quoted();
    require(descr.size() >= 2, "{}: unknown element type '{}'", where_, descr);
    require(descr[0] != '>', "{}: expected little-endian data, found big-endian '{}'", where_,
            descr);
    const std::string_view code = descr.substr(1);
    if (descr[0] == '<' || descr[0] == '|' || descr[0] == '=')
      for (const NumpyType& known : numpy_types)
        if (known.code == code) return known.dtype;
    fail("{}: expected a numeric element type, found '{}'", where_, descr);
  }
  Dims shape() {
    Dims dims;
    expect('(');
    while (!accept(')')) {
      skip_space();
      std::int64_t dim = 0;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), dim);
      require(error == std::errc() && dim >= 0, "{}: malformed .npy header: bad shape before '{}'",
              where_, text_.substr(0, 20));
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      accept('L');  // written by Python 2
      dims.push_back(dim);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    element_count(dims);
    return dims;
  }

  std::string_view text_;
  const std::string& where_;
  bool column_major_ = false;
};

}  // namespace

NpyHeader read_npy_header(const std::function<void(std::span<std::byte>)>& read,
                          const std::string& where) {
  std::array<std::byte, 8> start;
  read(start);
  require(std::memcmp(start.data(), magic.data(), magic.size()) == 0,
          "{}: expected a .npy array, found other bytes", where);
  const int version = std::to_integer<int>(start[6]);
  require(version >= 1 && version <= 3, "{}: .npy version {} is not known (1 to 3 are)", where,
          version);
  std::array<std::byte, 4> length_bytes;
  const std::size_t width = version == 1 ? 2 : 4;
  read(std::span(length_bytes).first(width));
  std::size_t length = 0;
  for (std::size_t i = width; i-- > 0;)
    length = length << 8 | std::to_integer<std::size_t>(length_bytes[i]);
  require(length <= max_header, "{}: .npy header of {} bytes", where, length);
  std::string text(length, '\0');
  read(std::as_writable_bytes(std::span(text)));
  return {.info = HeaderParser(text, where).parse(), .header_bytes = 8 + width + length};
}

std::string npy_header(DType dtype, const Dims& dims) {
  std::string_view code;
  for (const NumpyType& known : numpy_types)
    if (known.dtype == dtype) code = known.code;
  require(!code.empty(), "NumPy has no element type {}", name(dtype));
  std::string shape;
  for (const std::int64_t dim : dims) shape += fmt::format("{}, ", dim);
  if (dims.size() > 1) shape.resize(shape.size() - 2);
  if (dims.size() == 1) shape.resize(shape.size() - 1);
  std::string dict = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}",
                                 code.back() == '1' ? '|' : '<', code, shape);
  const std::size_t unpadded = magic.size() + 4 + dict.size() + 1;
  dict.append((64 - unpadded % 64) % 64, ' ');
  dict += '\n';
  std::string header(magic);
  header += '\1';
  header += '\0';
  header += static_cast<char>(dict.size() & 0xff);
  header += static_cast<char>(dict.size() >> 8);
  return header + dict;
}

std::unique_ptr<ArrayReader> open_npy(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  const std::string where = fmt::format("'{}'", path.string());
  std::span<const std::byte> rest = file->bytes();
  const NpyHeader header = read_npy_header(
      [&](std::span<std::byte> target) {
        require(target.size() <= rest.size(), "{}: the file ends inside the .npy header", where);
        std::memcpy(target.data(), rest.data(), target.size());
        rest = rest.subspan(target.size());
      },
      where);
  return open_mapped_array(std::move(file), header.info, header.header_bytes);
}

}  // namespace onnxpress
