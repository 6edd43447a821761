#include "graph/ir/parse_literal.h"

#include <algorithm>
#include <iterator>

#include "graph/base/random.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace text {
namespace {

bool is_number(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

Dim read_dim(Lexer& lexer) {
  if (lexer.peek() == '"') return Dim(lexer.quoted());
  const std::string text = lexer.until(",]\n");
  if (text.empty()) lexer.fail_expecting("a dimension");
  if (text == "?") return Dim();
  return is_number(text) ? Dim(to_number<std::int64_t>(text)) : Dim(text);
}

Shape read_shape(Lexer& lexer) {
  Shape shape;
  lexer.expect('[');
  if (lexer.accept(']')) return shape;
  do {
    shape.push_back(read_dim(lexer));
  } while (lexer.accept(','));
  lexer.expect(']');
  return shape;
}

Type read_tensor_type(Lexer& lexer) {
  Type type = Type::tensor(read_dtype(lexer));
  if (lexer.peek_on_line() == '[') type.shape = read_shape(lexer);
  return type;
}

Type wrapped(Type::Kind kind, Type inner) {
  Type type{.kind = kind};
  type.inner = std::make_shared<const Type>(std::move(inner));
  return type;
}

template <class T, class Parse>
Tensor from_texts(const Dims& dims, const std::vector<std::string>& texts, Parse parse) {
  std::vector<T> values;
  std::ranges::transform(texts, std::back_inserter(values), parse);
  return Tensor::of<T>(dims, values);
}

Tensor from_elements(DType type, const Dims& dims, std::vector<std::string> elements) {
  require(elements.size() == static_cast<std::size_t>(element_count(dims)),
          "expected {} elements for shape {}, found {}", element_count(dims), to_string(dims),
          elements.size());
  if (type == DType::string) return Tensor::of_strings(dims, std::move(elements));
  if (type == DType::float64) return from_texts<double>(dims, elements, to_number<double>);
  if (type == DType::uint64)
    return from_texts<std::uint64_t>(dims, elements, to_number<std::uint64_t>);
  if (is_float(type)) return from_texts<float>(dims, elements, to_number<float>).cast(type);
  const auto integer = [type](const std::string& text) {
    const auto value = to_number<std::int64_t>(text);
    const bool fits = type == DType::boolean
                          ? value == 0 || value == 1
                          : value >= integer_min(type) && value <= integer_max(type);
    require(fits, "{} is out of range for {}", value, name(type));
    return value;
  };
  require(is_integer(type) || type == DType::boolean, "elements of type {} cannot be given in text",
          name(type));
  return from_texts<std::int64_t>(dims, elements, integer).cast(type);
}

std::vector<std::string> read_elements(Lexer& lexer, DType type) {
  std::vector<std::string> elements;
  lexer.expect('{');
  require(lexer.peek_on_line() != '#', "a tensor's contents are not in the text, only their hash");
  if (lexer.accept('}')) return elements;
  do {
    elements.push_back(type == DType::string && lexer.peek() == '"' ? lexer.quoted()
                                                                    : lexer.number_text());
  } while (lexer.accept(','));
  lexer.expect('}');
  return elements;
}

Tensor random_floats(DType type, const Dims& dims, Random& random, double low, double high) {
  std::vector<float> values(static_cast<std::size_t>(element_count(dims)));
  std::ranges::generate(values, [&] { return static_cast<float>(random.uniform(low, high)); });
  return Tensor::of<float>(dims, values).cast(type);
}

Tensor random_integers(DType type, const Dims& dims, Random& random, std::int64_t low,
                       std::int64_t high) {
  require(low <= high && low >= integer_min(type) && high <= integer_max(type),
          "random range {}..{} is not one of {}", low, high, name(type));
  std::vector<std::int64_t> values(static_cast<std::size_t>(element_count(dims)));
  const std::uint64_t choices =
      static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) + 1;
  require(choices != 0, "the random range is too wide");
  std::ranges::generate(
      values, [&] { return low + static_cast<std::int64_t>(random.below(choices)); });
  return Tensor::of<std::int64_t>(dims, values).cast(type);
}

// "(seed[,low,high])"; floats in [low, high), integers in low..high.
Tensor read_random(Lexer& lexer, DType type, const Dims& dims) {
  lexer.expect('(');
  Random random(static_cast<std::uint64_t>(lexer.integer()));
  std::string low, high;
  if (lexer.accept(',')) {
    low = lexer.number_text();
    lexer.expect(',');
    high = lexer.number_text();
  }
  lexer.expect(')');
  if (is_float(type))
    return random_floats(type, dims, random, low.empty() ? -1 : to_number<double>(low),
                         high.empty() ? 1 : to_number<double>(high));
  require(is_integer(type), "a {} tensor cannot be random", name(type));
  const std::int64_t least = std::max<std::int64_t>(integer_min(type), -128);
  const std::int64_t most = std::min<std::int64_t>(integer_max(type), 127);
  return random_integers(type, dims, random, low.empty() ? least : to_number<std::int64_t>(low),
                         high.empty() ? most : to_number<std::int64_t>(high));
}

template <class Read>
auto read_whole(std::string_view source, Read read) {
  Lexer lexer(source);
  auto result = read(lexer);
  if (!lexer.at_end()) lexer.fail_expecting("the end");
  return result;
}

}  // namespace

DType read_dtype(Lexer& lexer) {
  const std::string word = lexer.word();
  const std::optional<DType> type = dtype_from_name(word);
  require(type.has_value(), "'{}' is not an element type", word);
  return *type;
}

Type read_type(Lexer& lexer) {
  if (lexer.accept('?')) return {};
  const auto in_parentheses = [&](auto read) {
    lexer.expect('(');
    Type type = read();
    lexer.expect(')');
    return type;
  };
  if (lexer.accept_word("sequence"))
    return in_parentheses([&] { return wrapped(Type::Kind::sequence, read_type(lexer)); });
  if (lexer.accept_word("optional"))
    return in_parentheses([&] { return wrapped(Type::Kind::optional, read_type(lexer)); });
  if (lexer.accept_word("sparse"))
    return in_parentheses([&] {
      Type type = read_tensor_type(lexer);
      type.kind = Type::Kind::sparse_tensor;
      return type;
    });
  if (lexer.accept_word("map"))
    return in_parentheses([&] {
      const DType key = read_dtype(lexer);
      lexer.expect(',');
      Type type = wrapped(Type::Kind::map, read_type(lexer));
      type.elem = key;
      return type;
    });
  if (lexer.accept_word("opaque"))
    return in_parentheses([&] {
      Type type{.kind = Type::Kind::opaque};
      type.opaque_domain = lexer.quoted();
      lexer.expect(',');
      type.opaque_name = lexer.quoted();
      return type;
    });
  return read_tensor_type(lexer);
}

Dims read_dims(Lexer& lexer) {
  const Shape shape = read_shape(lexer);
  const std::optional<Dims> dims = concrete(shape);
  require(dims.has_value(), "a tensor cannot have shape {}", to_string(shape));
  return *dims;
}

Tensor read_contents(Lexer& lexer, DType type, const Dims& dims) {
  if (lexer.peek() == '{') return from_elements(type, dims, read_elements(lexer, type));
  if (lexer.accept_word("random")) return read_random(lexer, type, dims);
  if (lexer.accept_word("zeros")) return Tensor(type, dims);
  if (lexer.accept_word("ones"))
    return from_elements(
        type, dims, std::vector<std::string>(static_cast<std::size_t>(element_count(dims)), "1"));
  lexer.fail_expecting("elements: {...}, zeros, ones or random(seed)");
}

Tensor read_tensor(Lexer& lexer) {
  const DType type = read_dtype(lexer);
  const Dims dims = read_dims(lexer);
  return read_contents(lexer, type, dims);
}

SparseTensor read_sparse(Lexer& lexer) {
  SparseTensor sparse;
  sparse.dims = read_dims(lexer);
  lexer.expect('(');
  sparse.values.tensor = read_tensor(lexer);
  lexer.expect(',');
  sparse.indices.tensor = read_tensor(lexer);
  lexer.expect(')');
  return sparse;
}

}  // namespace text

Type parse_type(std::string_view source) { return text::read_whole(source, text::read_type); }

Tensor parse_tensor(std::string_view source) { return text::read_whole(source, text::read_tensor); }

}  // namespace onnxpress
