#include "graph/ir/attribute.h"

#include <doctest/doctest.h>

#include "graph/ir/graph.h"

namespace onnxpress {
namespace {

TEST_CASE("attributes take the ONNX kind of what they are made from") {
  OpsetImports opsets{{"", 17}};
  Graph graph(&opsets);
  CHECK(Attribute().kind() == 0);
  CHECK(Attribute(1.5F).kind() == 1);
  CHECK(Attribute(1.5).kind() == 1);
  CHECK(Attribute(3).kind() == 2);
  CHECK(Attribute(true).kind() == 2);
  CHECK(Attribute("text").kind() == 3);
  CHECK(Attribute(std::string("text")).kind() == 3);
  CHECK(Attribute(std::string_view("text")).kind() == 3);
  CHECK(Attribute(Tensor::scalar(1.0F)).kind() == 4);
  CHECK(Attribute(std::make_unique<Graph>(&graph)).kind() == 5);
  CHECK(Attribute(std::vector<float>{1}).kind() == 6);
  CHECK(Attribute(std::vector<std::int64_t>{1}).kind() == 7);
  CHECK(Attribute(std::vector<std::string>{"a"}).kind() == 8);
  CHECK(Attribute(std::vector<NamedTensor>{}).kind() == 9);
  CHECK(Attribute(std::vector<std::unique_ptr<Graph>>{}).kind() == 10);
  CHECK(Attribute(SparseTensor{}).kind() == 11);
  CHECK(Attribute(std::vector<SparseTensor>{}).kind() == 12);
  CHECK(Attribute(Type::tensor(DType::float32)).kind() == 13);
  CHECK(Attribute(std::vector<Type>{}).kind() == 14);
  Attribute reference;
  reference.ref = "alpha";
  reference.ref_kind = 1;
  CHECK(reference.kind() == 1);
}

TEST_CASE("subgraphs of an attribute") {
  OpsetImports opsets{{"", 17}};
  Graph graph(&opsets);
  CHECK(Attribute(1).subgraphs().empty());
  std::vector<std::unique_ptr<Graph>> graphs;
  graphs.push_back(std::make_unique<Graph>(&graph));
  graphs.push_back(std::make_unique<Graph>(&graph));
  const std::vector<Graph*> expected{graphs[0].get(), graphs[1].get()};
  CHECK(Attribute(std::move(graphs)).subgraphs() == expected);
}

SparseTensor sparse(Tensor values, Tensor indices, Dims dims) {
  SparseTensor result;
  result.values.tensor = std::move(values);
  result.indices.tensor = std::move(indices);
  result.dims = std::move(dims);
  return result;
}

TEST_CASE("sparse tensors expand from linear and from coordinate indices") {
  const Tensor values = Tensor::of<float>({2}, {5, 6});
  const Tensor linear = Tensor::of<std::int64_t>({2}, {1, 5});
  const Tensor coordinates = Tensor::of<std::int64_t>({2, 2}, {0, 1, 1, 2});
  const Tensor expected = Tensor::of<float>({2, 3}, {0, 5, 0, 0, 0, 6});
  CHECK(sparse(values, linear, {2, 3}).dense().equals(expected));
  CHECK(sparse(values, coordinates, {2, 3}).dense().equals(expected));
  const Tensor packed = Tensor::of<std::int64_t>({2}, {-3, 7}).cast(DType::int4);
  CHECK(sparse(packed, linear, {2, 3}).dense().to_ints() ==
        std::vector<std::int64_t>{0, -3, 0, 0, 0, 7});
  const Tensor words = Tensor::of_strings({2}, {"a", "b"});
  CHECK(sparse(words, linear, {6}).dense().strings()[5] == "b");
}

TEST_CASE("sparse tensors that do not fit are errors") {
  const Tensor values = Tensor::of<float>({2}, {5, 6});
  const auto indices = [](Dims dims, const std::vector<std::int64_t>& data) {
    return Tensor::of<std::int64_t>(std::move(dims), data);
  };
  CHECK_THROWS_AS(sparse(values, indices({2}, {1, 6}), {2, 3}).dense(), Error);
  CHECK_THROWS_AS(sparse(values, indices({2}, {-1, 0}), {2, 3}).dense(), Error);
  CHECK_THROWS_AS(sparse(values, indices({2, 2}, {0, 3, 0, 0}), {2, 3}).dense(), Error);
  CHECK_THROWS_AS(sparse(values, indices({3}, {0, 1, 2}), {2, 3}).dense(), Error);
  CHECK_THROWS_AS(sparse(values, indices({2}, {0, 1}), {2, -3}).dense(), Error);
  CHECK_THROWS_AS(sparse(values, Tensor::of<float>({2}, {0, 1}), {2, 3}).dense(), Error);
  CHECK_THROWS_AS(sparse(Tensor(), indices({0}, {}), {2}).dense(), Error);
  CHECK_THROWS_AS(sparse(values.reshaped({1, 2}), indices({2}, {0, 1}), {2, 3}).dense(), Error);
}

}  // namespace
}  // namespace onnxpress
