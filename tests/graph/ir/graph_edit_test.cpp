#include <doctest/doctest.h>

#include "graph/ir/graph.h"
#include "graph/ir/parse.h"
#include "invariants.h"

namespace onnxpress {
namespace {

const Type kFloat = Type::tensor(DType::float32, {Dim(2)});

struct Fixture {
  OpsetImports opsets{{"", 17}, {"com.microsoft", 1}};
  Graph graph{&opsets};
  Value* x = graph.add_input("x", kFloat);
  Value* w = graph.add_initializer("w", Tensor::of<float>({2}, {1, 2}));
};

TEST_CASE_FIXTURE(Fixture, "values of each origin") {
  Node* node = graph.add_node({.op_type = "Add", .inputs = {x, w}, .outputs = {"y"}});
  Value* y = node->output();
  graph.add_output(y);
  CHECK(x->is_input());
  CHECK_FALSE(x->initializer());
  CHECK(w->is_constant());
  CHECK(w->constant()->data<float>()[1] == 2);
  CHECK(w->type == kFloat);
  CHECK(y->producer() == node);
  CHECK(y->is_output());
  CHECK(x->uses().size() == 1);
  CHECK(x->uses()[0] == Use{node, 0});
  CHECK(w->uses()[0] == Use{node, 1});
  CHECK(graph.find("y") == y);
  CHECK_FALSE(graph.find("z"));
  CHECK(node->describe() == "node of 'y' (Add)");
  node->name = "sum";
  CHECK(node->describe() == "node 'sum' (Add)");
  CHECK(node->opset() == 17);
  Invariants::check(graph);
}

TEST_CASE_FIXTURE(Fixture, "names must be new in their graph") {
  CHECK_THROWS_WITH_AS(graph.add_input("x", kFloat), "duplicate value name 'x'", Error);
  CHECK_THROWS_AS(graph.add_initializer("x", Tensor::scalar(1.0F)), Error);
  CHECK_THROWS_AS(graph.add_input("", kFloat), Error);
  CHECK_THROWS_AS(graph.rename(w, "x"), Error);
  CHECK_THROWS_AS(graph.add_node({.op_type = "Relu", .inputs = {x}, .outputs = {"w"}}), Error);
  CHECK_THROWS_AS(graph.add_node({.op_type = "Split", .inputs = {x}, .outputs = {"a", "a"}}),
                  Error);
  CHECK(graph.node_count() == 0);
  CHECK(graph.find("a") == nullptr);
  graph.rename(w, "v");
  CHECK(graph.find("w") == nullptr);
  CHECK(graph.add_input("w", kFloat) != nullptr);
  Invariants::check(graph);
}

TEST_CASE_FIXTURE(Fixture, "domains have one spelling") {
  const Node* node = graph.add_node({.op_type = "Relu", .domain = "ai.onnx", .inputs = {x}});
  CHECK(node->is("Relu"));
  CHECK(node->domain().empty());
  CHECK(graph.opset("ai.onnx") == 17);
  CHECK(graph.opset("com.microsoft") == 1);
  CHECK(graph.opset("other") == 0);
  Node* other = graph.add_node({.op_type = "Gelu", .domain = "com.microsoft", .inputs = {x}});
  CHECK(other->opset() == 1);
  CHECK(other->describe() == "node of 'Gelu' (com.microsoft.Gelu)");
  graph.set_operator(other, "Erf", "ai.onnx");
  CHECK(other->is("Erf"));
  CHECK_THROWS_AS(graph.set_operator(other, ""), Error);
  CHECK_THROWS_AS(graph.add_node({.op_type = "", .inputs = {x}}), Error);
}

TEST_CASE_FIXTURE(Fixture, "made-up names avoid all names of the tree") {
  Node* first = graph.add_node({.op_type = "Relu", .inputs = {x}});
  CHECK(first->output()->name() == "Relu");
  auto inner = std::make_unique<Graph>(&graph);
  inner->add_node({.op_type = "Relu", .inputs = {x}, .outputs = {"Relu_1"}});
  Node* second = graph.add_node({.op_type = "Relu", .name = "Relu", .inputs = {x}});
  CHECK(second->output()->name() == "Relu_2");
  inner.reset();
  CHECK(graph.unique_name("Relu") == "Relu_1");
  CHECK(graph.unique_name("") == "value");
  Node* pair = graph.add_node({.op_type = "Split", .inputs = {x}, .outputs = {"", "Split"}});
  CHECK(pair->output(0)->name() == "Split_1");
  for (int i = 0; i < 100; ++i) graph.add_node({.op_type = "Erf", .inputs = {x}});
  CHECK(graph.find("Erf_99"));
  Invariants::check(graph);
}

TEST_CASE_FIXTURE(Fixture, "omitted inputs and outputs") {
  Node* node = graph.add_node({.op_type = "Op",
                               .inputs = {nullptr, x, nullptr},
                               .outputs = {"a", "", "c", ""},
                               .omitted_outputs = {1, 3}});
  CHECK(node->input_count() == 2);
  CHECK_FALSE(node->input(0));
  CHECK_FALSE(node->input(7));
  CHECK(node->output_count() == 4);
  CHECK_FALSE(node->output(1));
  CHECK_FALSE(node->output(9));
  graph.set_node_input(node, 4, w);
  CHECK(node->input_count() == 5);
  graph.set_node_input(node, 4, nullptr);
  CHECK(node->input_count() == 2);
  CHECK(w->is_unused());
  graph.set_node_input(node, 9, nullptr);
  CHECK(node->input_count() == 2);
  graph.add_output(node->output(2));
  CHECK_THROWS_WITH_AS(graph.omit_node_output(node, 2), "output 'c' is still used", Error);
  graph.omit_node_output(node, 0);
  graph.omit_node_output(node, 1);
  CHECK(node->output_count() == 4);
  CHECK_FALSE(graph.find("a"));
  Invariants::check(graph);
}

TEST_CASE_FIXTURE(Fixture, "the same value in several inputs is several uses") {
  Node* node = graph.add_node({.op_type = "Mul", .inputs = {x, x}, .outputs = {"y"}});
  CHECK(x->uses().size() == 2);
  graph.set_node_input(node, 0, w);
  CHECK(x->uses().size() == 1);
  CHECK(x->uses()[0] == Use{node, 1});
}

TEST_CASE_FIXTURE(Fixture, "what is used is not removed") {
  Node* first = graph.add_node({.op_type = "Relu", .inputs = {w}, .outputs = {"a"}});
  Node* second = graph.add_node({.op_type = "Relu", .inputs = {first->output()}, .outputs = {"b"}});
  CHECK_THROWS_WITH_AS(graph.remove(first),
                       "node of 'a' (Relu) cannot be removed: 'a' is still used", Error);
  CHECK_THROWS_AS(graph.remove_initializer(w), Error);
  graph.add_output(second->output());
  CHECK_THROWS_AS(graph.remove(second), Error);
  graph.remove_output(0);
  CHECK_THROWS_AS(graph.remove_output(0), Error);
  graph.remove(second);
  graph.remove(first);
  graph.remove_initializer(w);
  graph.remove_input(x);
  CHECK(graph.node_count() == 0);
  CHECK(graph.inputs().empty());
  CHECK(graph.initializers().empty());
  CHECK(graph.unique_name("a") == "a");
  Invariants::check(graph);
}

TEST_CASE_FIXTURE(Fixture, "defaults and constants") {
  graph.set_default(x, {.tensor = Tensor::of<float>({2}, {5, 6})});
  CHECK(x->initializer());
  CHECK_FALSE(x->is_constant());
  CHECK_FALSE(x->constant());
  CHECK(graph.initializers() == std::vector<Value*>{x, w});
  CHECK_THROWS_AS(graph.set_initializer(x, Tensor::scalar(1.0F)), Error);
  CHECK_THROWS_AS(graph.remove_initializer(x), Error);
  CHECK_THROWS_AS(graph.set_default(w, {}), Error);
  CHECK_THROWS_AS(graph.drop_input(w), Error);
  graph.drop_input(x);
  CHECK(graph.inputs().empty());
  CHECK(x->is_constant());
  graph.set_initializer(x, Tensor::of<std::int8_t>({3}, {1, 2, 3}));
  CHECK(x->type == Type::tensor(DType::int8, {Dim(3)}));
  CHECK_THROWS_AS(graph.drop_input(x), Error);
}

TEST_CASE_FIXTURE(Fixture, "sparse constants have the dense type and no dense tensor") {
  Initializer initializer;
  initializer.sparse = std::make_unique<SparseTensor>();
  initializer.sparse->values.tensor = Tensor::of<float>({1}, {4});
  initializer.sparse->indices.tensor = Tensor::of<std::int64_t>({1}, {1});
  initializer.sparse->dims = {3};
  Value* value = graph.add_initializer("s", std::move(initializer));
  CHECK(value->type == Type::tensor(DType::float32, {Dim(3)}));
  CHECK(value->is_constant());
  CHECK_FALSE(value->constant());
  CHECK(value->initializer()->dense().equals(Tensor::of<float>({3}, {0, 4, 0})));
  CHECK(value->initializer()->clone().dense().equals(Tensor::of<float>({3}, {0, 4, 0})));
  graph.set_initializer(value, Tensor::scalar(1.0F));
  CHECK(value->constant());
}

TEST_CASE_FIXTURE(Fixture, "nodes are placed and moved") {
  Node* b = graph.add_node({.op_type = "Relu", .inputs = {x}, .outputs = {"b"}});
  Node* a = graph.add_node({.op_type = "Relu", .inputs = {x}, .outputs = {"a"}}, b);
  CHECK(graph.nodes() == std::vector<Node*>{a, b});
  graph.move_before(b, a);
  CHECK(graph.nodes() == std::vector<Node*>{b, a});
  graph.move_before(b, nullptr);
  graph.move_before(a, a);
  CHECK(graph.nodes() == std::vector<Node*>{a, b});
}

TEST_CASE_FIXTURE(Fixture, "another graph's things are refused") {
  Graph other(&opsets);
  Value* foreign = other.add_input("q", kFloat);
  Node* node = graph.add_node({.op_type = "Relu", .inputs = {x}, .outputs = {"y"}});
  CHECK_THROWS_WITH_AS(graph.set_node_input(node, 0, foreign),
                       "value 'q' is not visible from graph ''", Error);
  CHECK_THROWS_AS(graph.add_node({.op_type = "Relu", .inputs = {foreign}}), Error);
  CHECK_THROWS_AS(graph.add_output(foreign), Error);
  CHECK_THROWS_AS(graph.replace_uses(x, foreign), Error);
  CHECK_THROWS_AS(graph.rename(foreign, "z"), Error);
  CHECK_THROWS_AS(other.remove(node), Error);
  CHECK_THROWS_AS(other.move_before(node, nullptr), Error);
  CHECK_THROWS_AS(other.set_attribute(node, "axis", 1), Error);
  CHECK(foreign->is_unused());
  Invariants::check(graph);
}

TEST_CASE_FIXTURE(Fixture, "subgraphs capture values of the graphs around them") {
  auto inner = std::make_unique<Graph>(&graph);
  Node* reader = inner->add_node({.op_type = "Add", .inputs = {x, w}, .outputs = {"t"}});
  auto innermost = std::make_unique<Graph>(inner.get());
  innermost->add_node({.op_type = "Neg", .inputs = {w}, .outputs = {"u"}});
  innermost->add_output(reader->output());
  NodeSpec holder{.op_type = "If", .inputs = {x}, .outputs = {"v"}};
  holder.attributes["then_branch"] = std::move(innermost);
  Node* nested = inner->add_node(std::move(holder));
  inner->add_output(nested->output());
  CHECK(inner->owner() == nullptr);

  NodeSpec spec{.op_type = "If", .outputs = {"y"}};
  spec.attributes["body"] = std::move(inner);
  Node* node = graph.add_node(std::move(spec));
  Graph* body = node->subgraphs().at(0);
  CHECK(body->owner() == node);
  CHECK(body->parent() == &graph);
  CHECK(node->captured() == std::vector<Value*>{x, w});
  CHECK(nested->captured() == std::vector<Value*>{w, reader->output()});
  CHECK(x->uses().size() == 2);
  CHECK(w->uses().size() == 2);
  CHECK(graph.holder(reader) == node);
  CHECK(graph.holder(node) == node);
  CHECK(body->holder(node) == nullptr);
  CHECK(body->is_within(graph));
  CHECK_FALSE(graph.is_within(*body));
  CHECK(body->find_visible("x") == x);
  CHECK(body->find("x") == nullptr);
  CHECK(graph.unique_name("u") == "u_1");
  Invariants::check(graph);

  int graphs = 0;
  graph.for_each_graph([&](const Graph&) { ++graphs; });
  CHECK(graphs == 3);
  graph.remove(node);
  CHECK(x->is_unused());
  CHECK(w->is_unused());
  CHECK(graph.unique_name("u") == "u");
  Invariants::check(graph);
}

TEST_CASE_FIXTURE(Fixture, "attributes that hold graphs are adopted and let go") {
  Node* node = graph.add_node({.op_type = "If", .inputs = {x}, .outputs = {"y"}});
  const auto branch = [&](const char* output) {
    auto inner = std::make_unique<Graph>(&graph);
    Node* reader = inner->add_node({.op_type = "Relu", .inputs = {w}, .outputs = {output}});
    inner->add_output(reader->output());
    return inner;
  };
  graph.set_attribute(node, "then_branch", branch("t"));
  graph.set_attribute(node, "else_branch", branch("t"));
  CHECK(w->uses().size() == 2);
  Invariants::check(graph);
  graph.set_attribute(node, "then_branch", branch("s"));
  CHECK(w->uses().size() == 2);
  CHECK(graph.unique_name("t") == "t_1");
  graph.remove_attribute(node, "else_branch");
  graph.remove_attribute(node, "missing");
  CHECK(w->uses().size() == 1);
  CHECK(graph.unique_name("t") == "t");
  graph.set_attribute(node, "then_branch", 3);
  CHECK(w->is_unused());
  Invariants::check(graph);

  auto elsewhere = std::make_unique<Graph>(&opsets);
  CHECK_THROWS_AS(graph.set_attribute(node, "then_branch", std::move(elsewhere)), Error);
  CHECK_THROWS_AS(graph.set_attribute(node, "then_branch", std::unique_ptr<Graph>()), Error);
  CHECK(std::get<std::int64_t>(node->attribute("then_branch")->value) == 3);
  {
    const auto dropped = branch("t");
    CHECK(w->uses().size() == 1);
  }
  CHECK(w->is_unused());
}

TEST_CASE_FIXTURE(Fixture, "an inner name may hide an outer one until both are needed") {
  NodeSpec spec{.op_type = "Loop", .outputs = {"y"}};
  spec.attributes["body"] = std::make_unique<Graph>(&graph);
  Node* loop = graph.add_node(std::move(spec));
  Graph* body = loop->subgraphs().at(0);
  Value* inner_x = body->add_input("x", kFloat);
  Node* node = body->add_node({.op_type = "Relu", .inputs = {inner_x}, .outputs = {"w"}});
  CHECK(body->find_visible("x") == inner_x);
  Invariants::check(graph);

  SUBCASE("reading the outer value renames the inner one") {
    body->set_node_input(node, 0, x);
    CHECK(inner_x->name() == "x_1");
    CHECK(body->find_visible("x") == x);
  }
  SUBCASE("renaming a captured value gives way too") {
    Value* other = graph.add_initializer("other", Tensor::scalar(1.0F));
    body->add_node({.op_type = "Neg", .inputs = {other}});
    graph.rename(w, "free");
    graph.rename(other, "w");
    CHECK(node->output()->name() == "w_1");
  }
  SUBCASE("a name already read from around cannot be hidden") {
    Value* other = graph.add_initializer("other", Tensor::scalar(1.0F));
    body->add_node({.op_type = "Neg", .inputs = {other}});
    CHECK_THROWS_WITH_AS(
        body->add_input("other", kFloat),
        "duplicate value name 'other': graph '' reads it from a graph around it", Error);
    CHECK_THROWS_AS(body->rename(inner_x, "other"), Error);
    Value* free = graph.add_initializer("free", Tensor::scalar(1.0F));
    CHECK_THROWS_AS(
        body->add_node({.op_type = "Neg", .inputs = {free}, .outputs = {"free"}}), Error);
    body->add_output(free);
    CHECK_THROWS_AS(body->add_input("free", kFloat), Error);
  }
  Invariants::check(graph);
}

TEST_CASE("removing a node whose subgraph reads the node's own output is refused") {
  OpsetImports opsets{{"", 17}};
  Graph graph(&opsets);
  Node* node = graph.add_node({.op_type = "If", .outputs = {"y"}});
  auto inner = std::make_unique<Graph>(&graph);
  inner->add_node({.op_type = "Relu", .inputs = {node->output()}});
  graph.set_attribute(node, "body", std::move(inner));
  CHECK_THROWS_AS(graph.remove(node), Error);
  CHECK_THROWS_AS(graph.sort(), Error);
}

}  // namespace
}  // namespace onnxpress
