#include <algorithm>
#include <map>
#include <unordered_set>

#include "graph/ops/infer.h"
#include "graph/rewrite/pattern.h"

namespace onnxpress {
namespace {

// Recomputes one root graph (the main graph or a function's body) and the graphs nested in it.
class Verifier {
 public:
  Verifier(const OpsetImports& opsets, const Graph& root) : opsets_(opsets), root_(root) {}

  void run() {
    require(root_.parent() == nullptr && root_.owner() == nullptr, "the root graph is nested");
    require(&root_.opsets() == &opsets_, "the graph resolves operators by other imports");
    walk(root_, nullptr);
    for (const auto& [value, found] : found_) compare(*value, found);
    for (const Value* value : defined_)
      require(found_.contains(value) || value->is_unused(),
              "value '{}' lists readers that do not read it", value->name());
  }

 private:
  struct Readers {
    std::vector<Use> uses;
    std::vector<const Graph*> listings;
  };

  void define(const Graph& graph, const Value* value, const Node* producer, std::size_t index) {
    const std::string& name = value->name();
    require(!name.empty(), "a value has no name");
    require(&value->graph() == &graph, "value '{}' says it is of another graph", name);
    require(value->producer() == producer && (!producer || value->output_index() == index),
            "value '{}' names the wrong producer", name);
    require(graph.find(name) == value, "value '{}' is not found under its name", name);
    require(defined_.insert(value).second, "value '{}' is defined twice", name);
  }

  void walk(const Graph& graph, const Node* owner) {
    in_context([&] { return fmt::format("graph '{}'", graph.name); }, [&] { check(graph, owner); });
  }

  void check(const Graph& graph, const Node* owner) {
    require(graph.owner() == owner, "the graph names the wrong owner");
    require(graph.parent() == (owner ? &owner->graph() : nullptr),
            "the graph names the wrong parent");
    for (const Value* input : graph.inputs()) {
      require(input->is_input(), "input '{}' is not marked as one", input->name());
      define(graph, input, nullptr, 0);
    }
    for (const Value* value : graph.initializers()) {
      require(value->initializer() != nullptr, "initializer '{}' has no contents", value->name());
      if (!value->is_input()) define(graph, value, nullptr, 0);
      check_contents(*value);
    }
    for (Node* node : graph.nodes())
      in_context([&] { return node->describe(); }, [&] { check(graph, *node); });
    for (const Value* output : graph.outputs()) {
      require(output != nullptr, "an output is missing");
      require(defined_.contains(output), "output '{}' is not defined", output->name());
      require(graph.find_visible(output->name()) == output,
              "output '{}' is hidden by another value", output->name());
      found_[output].listings.push_back(&graph);
    }
  }

  void check(const Graph& graph, Node& node) {
    require(&node.graph() == &graph, "the node says it is of another graph");
    require(!node.op_type().empty(), "the node has no operator type");
    require(opsets_.contains(node.domain()), "domain '{}' is not imported",
            node.domain().empty() ? "ai.onnx" : node.domain());
    for (std::size_t i = 0; i < node.input_count(); ++i) {
      const Value* input = node.input(i);
      if (!input) continue;
      require(defined_.contains(input), "input {} is read before it is defined, or is gone", i);
      require(graph.find_visible(input->name()) == input,
              "input {} '{}' is hidden by another value", i, input->name());
      found_[input].uses.push_back({&node, i});
    }
    for (const Graph* nested : node.subgraphs()) {
      require(nested != nullptr, "an attribute holds no graph");
      walk(*nested, &node);
    }
    for (std::size_t i = 0; i < node.output_count(); ++i)
      if (const Value* output = node.output(i)) define(graph, output, &node, i);
  }

  static void check_contents(const Value& value) {
    const Initializer& initializer = *value.initializer();
    if (initializer.sparse || value.is_input()) return;
    require(value.type == Type::of(initializer.tensor) || !value.type.denotation.empty(),
            "initializer '{}' is declared {}, but holds {}", value.name(), to_string(value.type),
            to_string(Type::of(initializer.tensor)));
  }

  static void compare(const Value& value, const Readers& found) {
    const auto is_listed = [&](const Use& use) {
      return std::ranges::count(value.uses(), use) == 1;
    };
    require(value.uses().size() == found.uses.size() && std::ranges::all_of(found.uses, is_listed),
            "value '{}' lists {} readers, found {}", value.name(), value.uses().size(),
            found.uses.size());
    const auto same_count = [&](const Graph* listing) {
      return std::ranges::count(value.output_of(), listing) ==
             std::ranges::count(found.listings, listing);
    };
    require(value.output_of().size() == found.listings.size() &&
                std::ranges::all_of(found.listings, same_count),
            "value '{}' says it is an output {} times, found {}", value.name(),
            value.output_of().size(), found.listings.size());
  }

  const OpsetImports& opsets_;
  const Graph& root_;
  std::unordered_set<const Value*> defined_;
  std::unordered_map<const Value*, Readers> found_;
};

bool is_contradicted(const Shape& declared, const Shape& found) {
  if (declared.size() != found.size()) return true;
  for (std::size_t i = 0; i < found.size(); ++i)
    if (declared[i].is_known() && found[i].is_known() && declared[i] != found[i]) return true;
  return false;
}

// What contradicts the declared shape, or nothing.
std::optional<std::string> contradiction(std::string_view role, const Value& value,
                                         const TypeInference& inference) {
  const Type& found = inference.type(&value);
  const bool both = value.type.is_tensor() && found.is_tensor() && value.type.shape && found.shape;
  if (!both || !is_contradicted(*value.type.shape, *found.shape)) return std::nullopt;
  return fmt::format("{} '{}' is declared {}, but computed as {}", role, value.name(),
                     to_string(value.type), to_string(found));
}

void check_interface(const Model& model, const TypeInference& inference,
                     std::span<const std::string> known) {
  for (const Value* output : model.graph.outputs()) {
    const Type& declared = output->type;
    const Type& found = inference.type(output);
    if (!declared.is_tensor() || !found.is_tensor()) continue;
    require(declared.elem == DType::undefined || found.elem == DType::undefined ||
                declared.elem == found.elem,
            "output '{}' is declared {}, but computed as {}", output->name(), to_string(declared),
            to_string(found));
    const std::optional<std::string> text = contradiction("output", *output, inference);
    require(!text || std::ranges::find(known, *text) != known.end(), "{}", text.value_or(""));
  }
}

}  // namespace

std::vector<std::string> contradicted_declarations(const Model& model) {
  TypeInference inference(model);
  inference.run();
  std::vector<std::string> texts;
  const auto add = [&](std::string_view role, const Value& value) {
    if (auto text = contradiction(role, value, inference)) texts.push_back(std::move(*text));
  };
  for (const Value* output : model.graph.outputs()) add("output", *output);
  for (const Node* node : model.graph.nodes())
    for (const Value* value : node->outputs())
      if (value && !value->is_output()) add("value", *value);
  return texts;
}

void verify(const Model& model, std::span<const std::string> known) {
  Verifier(model.opsets, model.graph).run();
  for (const auto& function : model.functions)
    in_context([&] { return fmt::format("function '{}'", function->name); },
               [&] { Verifier(function->opsets, function->body).run(); });
  TypeInference inference(model);
  inference.run();
  check_interface(model, inference, known);
}

}  // namespace onnxpress
