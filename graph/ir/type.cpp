#include "graph/ir/type.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

namespace onnxpress {
namespace {

bool is_plain_symbol(const std::string& symbol) {
  const auto starts = [](unsigned char c) { return std::isalpha(c) || c == '_'; };
  const auto continues = [](unsigned char c) {
    return std::isalnum(c) ||
           std::string_view("_.:/+*- ").find(static_cast<char>(c)) != std::string_view::npos;
  };
  return starts(symbol.front()) && symbol.back() != ' ' && std::ranges::all_of(symbol, continues);
}

std::string with_shape(std::string text, const Type& type) {
  text += name(type.elem);
  if (type.shape) text += to_string(*type.shape);
  return text;
}

}  // namespace

std::string Dim::to_string() const {
  if (is_known()) return fmt::format("{}", value_);
  if (!is_symbol()) return "?";
  return is_plain_symbol(symbol_) ? symbol_ : quoted(symbol_);
}

Shape to_shape(const Dims& dims) { return Shape(dims.begin(), dims.end()); }

std::optional<Dims> concrete(const Shape& shape) {
  Dims dims;
  dims.reserve(shape.size());
  for (const Dim& dim : shape) {
    if (!dim.is_known()) return std::nullopt;
    dims.push_back(dim.value());
  }
  return dims;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (const Dim& dim : shape) {
    if (text.size() > 1) text += ',';
    text += dim.to_string();
  }
  return text + ']';
}

bool Type::operator==(const Type& other) const {
  if (kind != other.kind || elem != other.elem || shape != other.shape ||
      opaque_domain != other.opaque_domain || opaque_name != other.opaque_name ||
      denotation != other.denotation || unknown_fields != other.unknown_fields)
    return false;
  if (!inner || !other.inner) return inner == other.inner;
  return *inner == *other.inner;
}

std::string to_string(const Type& type) {
  const std::string inner = type.inner ? to_string(*type.inner) : "?";
  switch (type.kind) {
    case Type::Kind::unknown:
      return "?";
    case Type::Kind::tensor:
      return with_shape("", type);
    case Type::Kind::sparse_tensor:
      return with_shape("sparse(", type) + ')';
    case Type::Kind::sequence:
      return fmt::format("sequence({})", inner);
    case Type::Kind::optional:
      return fmt::format("optional({})", inner);
    case Type::Kind::map:
      return fmt::format("map({},{})", name(type.elem), inner);
    case Type::Kind::opaque:
      return fmt::format("opaque({},{})", quoted(type.opaque_domain), quoted(type.opaque_name));
  }
  return "?";
}

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      result += {'\\', c};
    else if (c == '\n')
      result += "\\n";
    else if (byte < 0x20 || byte == 0x7f)
      result += fmt::format("\\x{:02x}", byte);
    else
      result += c;
  }
  return result + '"';
}

}  // namespace onnxpress
