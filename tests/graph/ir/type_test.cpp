#include "graph/ir/type.h"

#include <doctest/doctest.h>

namespace onnxpress {
namespace {

TEST_CASE("dimensions") {
  CHECK(Dim(3).is_known());
  CHECK(Dim(0).is_known());
  CHECK(Dim("n").is_symbol());
  CHECK_FALSE(Dim().is_known());
  CHECK_FALSE(Dim().is_symbol());
  CHECK(Dim() == Dim());
  CHECK(Dim("n") != Dim("m"));
  CHECK(Dim(3).value() == 3);
  CHECK(Dim("n").value() == -1);
}

TEST_CASE("shapes are concrete when all dimensions are known") {
  CHECK(concrete({Dim(2), Dim(3)}) == Dims{2, 3});
  CHECK(concrete({}) == Dims{});
  CHECK_FALSE(concrete({Dim(2), Dim("n")}));
  CHECK_FALSE(concrete({Dim()}));
  CHECK(to_shape({2, 3}) == Shape{Dim(2), Dim(3)});
}

TEST_CASE("types as text") {
  CHECK(to_string(Shape{Dim("batch"), Dim(3), Dim()}) == "[batch,3,?]");
  CHECK(to_string(Shape{Dim("n + 1"), Dim("a,b"), Dim("7")}) == "[n + 1,\"a,b\",\"7\"]");
  CHECK(to_string(Type()) == "?");
  CHECK(to_string(Type::tensor(DType::float16)) == "float16");
  CHECK(to_string(Type::tensor(DType::int64, {})) == "int64[]");
  Type sequence{.kind = Type::Kind::sequence};
  CHECK(to_string(sequence) == "sequence(?)");
  sequence.inner = std::make_shared<Type>(Type::tensor(DType::int64, {Dim()}));
  CHECK(to_string(sequence) == "sequence(int64[?])");
  CHECK(to_string(Type::of(Tensor(DType::int8, {2, 2}))) == "int8[2,2]");
}

TEST_CASE("types are compared through") {
  Type a{.kind = Type::Kind::sequence};
  Type b = a;
  CHECK(a == b);
  a.inner = std::make_shared<Type>(Type::tensor(DType::int64));
  CHECK_FALSE(a == b);
  b.inner = std::make_shared<Type>(Type::tensor(DType::int64));
  CHECK(a == b);
  b.inner = std::make_shared<Type>(Type::tensor(DType::int64, {Dim(1)}));
  CHECK_FALSE(a == b);
  CHECK_FALSE(Type::tensor(DType::int64) == Type::tensor(DType::int64, {}));
}

TEST_CASE("quoted text escapes what would end or break the line") {
  CHECK(quoted("plain") == "\"plain\"");
  CHECK(quoted("a\"b\\c\nd\te") == "\"a\\\"b\\\\c\\nd\\x09e\"");
}

}  // namespace
}  // namespace onnxpress
