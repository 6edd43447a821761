#include <doctest/doctest.h>

#include "graph/ir/model.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

const char* const kText = R"(model ir=8 opset=17
metadata "key" = "value"
input x: float32[n]
initializer w: float32[2] = {1,2}
initializer b: float32[2] = {3,4}
a = Mul(x, w) {axis=1} "mul"
c = Relu(x) "relu"
y = If(a) {then_branch=graph {
  t = Add(a, b)
  output t
}}
z = Add(y, c)
output z: float32[n]
function local.F(alpha) opset=17 {
  input v
  r = Elu(v) {alpha=@alpha(float)}
  output r
}
)";

// The text with the first `from` replaced.
std::string with(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

Hash128 hash_of(const std::string& text, bool with_names = false) {
  return structural_hash(*parse_model(text), with_names);
}

TEST_CASE("what a model computes counts") {
  const Hash128 hash = hash_of(kText);
  CHECK(hash == hash_of(kText));
  const std::pair<const char*, const char*> changes[] = {
      {"ir=8", "ir=9"},           {"opset=17", "opset=18"},
      {"\"value\"", "\"other\""}, {"input x: float32[n]", "input x: float32[m]"},
      {"{1,2}", "{1,3}"},         {"float32[2] = {3,4}", "float64[2] = {3,4}"},
      {"axis=1", "axis=2"},       {"axis=1", "axis=1.0"},
      {"axis=1", "axes=1"},       {"Mul(x, w)", "Mul(w, x)"},
      {"Mul(x, w)", "Mul(x, b)"}, {"Mul(x, w)", "Mul(x)"},
      {"Mul(", "Div("},           {"Mul(", "other.Mul("},
      {"Add(a, b)", "Add(x, b)"}, {"output z: float32[n]", "output z: float32[2]"},
      {"local.F", "local.G"},     {"Elu(v)", "Elu()"},
      {"@alpha", "@beta"},        {"(float)}", "(int)}"},
      {"F(alpha)", "F(beta)"},    {"c = Relu(x)", "c, d = Relu(x)"}};
  for (const std::pair<const char*, const char*>& change : changes) {
    CAPTURE(change.first);
    CAPTURE(change.second);
    CHECK(hash_of(with(kText, change.first, change.second)) != hash);
  }
  const std::string other_output = with(kText, "output z", "output y");
  CHECK(hash_of(other_output) != hash);
}

TEST_CASE("interior names, types and documentation count only when asked for") {
  const auto differs_only_with_names = [](const Model& a, const Model& b) {
    return structural_hash(a) == structural_hash(b) &&
           structural_hash(a, true) != structural_hash(b, true);
  };
  const auto original = parse_model(kText);
  const auto changed = original->clone();
  CHECK(structural_hash(*changed, true) == structural_hash(*original, true));
  Value* a = changed->graph.find("a");
  SUBCASE("value") { changed->graph.rename(a, "renamed"); }
  SUBCASE("constant") { changed->graph.rename(changed->graph.find("w"), "weight"); }
  SUBCASE("node") { a->producer()->name = "renamed"; }
  SUBCASE("type") {
    a->type = Type::tensor(DType::float32);
    a->type_in_file = true;
  }
  SUBCASE("documentation of the model") { changed->doc_string = "documented"; }
  SUBCASE("documentation of a node") { a->producer()->doc_string = "documented"; }
  SUBCASE("producer") { changed->producer_name = "somebody"; }
  SUBCASE("version") { changed->model_version = 3; }
  SUBCASE("graph") { changed->graph.name = "renamed"; }
  CHECK(differs_only_with_names(*original, *changed));
}

TEST_CASE("interface names and unknown fields always count") {
  const std::string unknown("\x7a\x01", 2);
  const auto original = parse_model(kText);
  const auto changed = original->clone();
  SUBCASE("input") { changed->graph.rename(changed->graph.find("x"), "renamed"); }
  SUBCASE("output") { changed->graph.rename(changed->graph.find("z"), "renamed"); }
  SUBCASE("model") { changed->unknown_fields = unknown; }
  SUBCASE("node") { changed->graph.nodes()[0]->unknown_fields = unknown; }
  SUBCASE("node metadata") { changed->graph.nodes()[0]->metadata = {{"k", "v"}}; }
  SUBCASE("function") { changed->functions[0]->unknown_fields = unknown; }
  SUBCASE("order of nodes") {
    const std::vector<Node*> nodes = changed->graph.nodes();
    changed->graph.move_before(nodes[1], nodes[0]);
  }
  SUBCASE("a default") {
    changed->graph.set_default(changed->graph.find("x"), {.tensor = Tensor::scalar(1.0F)});
  }
  CHECK(structural_hash(*original) != structural_hash(*changed));
}

TEST_CASE("types found by inference do not count") {
  const auto original = parse_model(kText);
  const auto changed = original->clone();
  changed->graph.find("a")->type = Type::tensor(DType::float32);
  CHECK(structural_hash(*original, true) == structural_hash(*changed, true));
}

TEST_CASE("how a tensor is stored does not count") {
  const auto original = parse_model(kText);
  const auto changed = original->clone();
  auto bytes = std::make_shared<std::vector<float>>(std::vector<float>{1, 2});
  changed->graph.set_initializer(
      changed->graph.find("w"),
      Tensor::view(DType::float32, {2}, std::as_bytes(std::span(*bytes)), bytes));
  CHECK(structural_hash(*original, true) == structural_hash(*changed, true));
}

}  // namespace
}  // namespace onnxpress
