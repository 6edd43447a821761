// Random patches on random graphs: each applies and leaves a sound model, or throws and leaves all
// as it was.
#include <doctest/doctest.h>

#include <algorithm>

#include "graph/base/random.h"
#include "graph/rewrite/pattern.h"
#include "model_builder.h"

namespace onnxpress {
namespace {

const Type vector_type = Type::tensor(DType::float32, {Dim(4)});

class Maker {
 public:
  explicit Maker(std::uint64_t seed) : random_(seed) {}

  std::unique_ptr<Model> model() {
    auto model = std::make_unique<Model>();
    model->opsets[""] = 17;
    Graph& graph = model->graph;
    graph.add_input("x", vector_type);
    graph.add_initializer("k", Tensor::of<float>({4}, {1, 2, 3, 4}));
    const std::size_t nodes = 2 + below(12);
    for (std::size_t i = 0; i < nodes; ++i) {
      Node* node = graph.add_node({.op_type = below(2) ? "Add" : "Mul",
                                   .name = fmt::format("n{}", i),
                                   .inputs = {any_value(graph), any_value(graph)}});
      node->output()->type = vector_type;
      if (below(4) == 0) node->output()->type_in_file = true;
    }
    const std::size_t outputs = 1 + below(3);
    for (std::size_t i = 0; i < outputs; ++i)
      graph.add_output(graph.nodes()[below(nodes)]->output());
    return model;
  }

  void fill(Patch& patch, Graph& graph) {
    const std::size_t edits = 1 + below(4);
    Patch::Ref made;
    for (std::size_t i = 0; i < edits; ++i) {
      Node* node = graph.nodes()[below(graph.node_count())];
      const auto ref = [&] {
        return below(3) == 0 && made != Patch::Ref() ? made : Patch::Ref(any_value(graph));
      };
      switch (below(6)) {
        case 0:
          made = patch.node({.op_type = "Sub", .inputs = {ref(), ref()}});
          patch.replace(node->output(), made);
          break;
        case 1:
          patch.replace(any_value(graph), ref());
          break;
        case 2:
          patch.replace_input(node, below(2), ref());
          break;
        case 3:
          patch.remove(node);
          break;
        case 4:
          patch.remove_if_unread(node);
          break;
        default:
          made = patch.constant("c", Tensor::of<float>({4}, {0, 1, 0, 1}));
      }
    }
    if (below(3) == 0) patch.remove_unread_producers();
  }

 private:
  std::size_t below(std::size_t bound) { return random_.below(bound); }

  Value* any_value(const Graph& graph) {
    std::vector<Value*> values(graph.inputs().begin(), graph.inputs().end());
    for (Value* value : graph.initializers()) values.push_back(value);
    for (Node* node : graph.nodes()) values.push_back(node->output());
    return values[below(values.size())];
  }

  Random random_;
};

std::vector<std::string> output_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const Value* output : graph.outputs()) names.push_back(output->name());
  return names;
}

TEST_CASE("random patches apply wholly or not at all") {
  int applied = 0;
  int refused = 0;
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    CAPTURE(seed);
    Maker maker(seed);
    const std::unique_ptr<Model> model = maker.model();
    // The same value may be listed twice: one name, fine.
    const std::vector<std::string> names = output_names(model->graph);
    for (int round = 0; round < 3; ++round) {
      CAPTURE(round);
      const Hash128 hash = structural_hash(*model, true);
      const std::string text = to_text(*model);
      CAPTURE(text);
      Patch patch(model->graph);
      maker.fill(patch, model->graph);
      try {
        patch.apply();
        ++applied;
      } catch (const Error& error) {
        ++refused;
        const std::string message = error.what();
        CAPTURE(message);
        REQUIRE(structural_hash(*model, true) == hash);
      }
      REQUIRE_NOTHROW(verify(*model));
      REQUIRE(output_names(model->graph) == names);
      if (model->graph.node_count() == 0) break;
    }
  }
  CHECK(applied > 1000);
  CHECK(refused > 1000);
}

}  // namespace
}  // namespace onnxpress
