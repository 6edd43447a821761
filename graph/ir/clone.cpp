#include "graph/ir/clone.h"

#include <algorithm>

#include "graph/ir/model.h"

namespace onnxpress {
namespace {

Value* mapped(Value* value, const ValueMap& map) {
  const auto found = map.find(value);
  return found == map.end() ? value : found->second;
}

void copy_annotations(const Value& source, Value& target) {
  target.type = source.type;
  target.type_in_file = source.type_in_file;
  target.doc_string = source.doc_string;
  target.metadata = source.metadata;
  target.unknown_fields = source.unknown_fields;
}

// The node with its outputs, but no inputs and attributes yet.
Node* clone_shell(const Node& node, Graph& target, std::vector<std::string> output_names,
                  ValueMap& map, Node* before) {
  NodeSpec spec{.op_type = node.op_type(),
                .domain = node.domain(),
                .overload = node.overload(),
                .name = node.name,
                .outputs = std::move(output_names)};
  for (std::size_t i = 0; i < node.output_count(); ++i)
    if (!node.output(i)) spec.omitted_outputs.push_back(i);
  Node* copy = target.add_node(std::move(spec), before);
  copy->doc_string = node.doc_string;
  copy->metadata = node.metadata;
  copy->unknown_fields = node.unknown_fields;
  for (std::size_t i = 0; i < node.output_count(); ++i) {
    if (!node.output(i)) continue;
    copy_annotations(*node.output(i), *copy->output(i));
    map[node.output(i)] = copy->output(i);
  }
  return copy;
}

void fill_shell(const Node& node, Node* copy, ValueMap& map) {
  Graph& target = copy->graph();
  for (std::size_t i = 0; i < node.input_count(); ++i)
    if (node.input(i)) target.set_node_input(copy, i, mapped(node.input(i), map));
  for (auto& [key, attribute] : clone_attributes(node, &target, map))
    target.set_attribute(copy, key, std::move(attribute));
}

std::unique_ptr<Graph> clone_subgraph(const Graph& source, Graph* parent, ValueMap& map) {
  auto copy = std::make_unique<Graph>(parent);
  clone_graph(source, *copy, map);
  return copy;
}

void clone_function(const Function& source, Function& target) {
  target.domain = source.domain;
  target.name = source.name;
  target.overload = source.overload;
  target.doc_string = source.doc_string;
  target.attribute_names = source.attribute_names;
  target.opsets = source.opsets;
  target.metadata = source.metadata;
  target.unknown_fields = source.unknown_fields;
  ValueMap map;
  for (const auto& [key, attribute] : source.attribute_defaults)
    target.attribute_defaults.emplace_back(key, clone_attribute(attribute, &target.body, map));
  clone_graph(source.body, target.body, map);
}

}  // namespace

Attribute clone_attribute(const Attribute& attribute, Graph* parent, ValueMap& map) {
  Attribute copy;
  copy.ref = attribute.ref;
  copy.ref_kind = attribute.ref_kind;
  copy.doc_string = attribute.doc_string;
  copy.unknown_fields = attribute.unknown_fields;
  std::visit(
      [&]<class T>(const T& value) {
        if constexpr (std::is_same_v<T, std::unique_ptr<Graph>>) {
          copy.value = clone_subgraph(*value, parent, map);
        } else if constexpr (std::is_same_v<T, std::vector<std::unique_ptr<Graph>>>) {
          T graphs;
          for (const auto& graph : value) graphs.push_back(clone_subgraph(*graph, parent, map));
          copy.value = std::move(graphs);
        } else {
          copy.value = value;
        }
      },
      attribute.value);
  return copy;
}

Attributes clone_attributes(const Node& node, Graph* parent, ValueMap& map) {
  Attributes copies;
  for (const auto& [key, attribute] : node.attributes())
    copies.emplace(key, clone_attribute(attribute, parent, map));
  return copies;
}

void clone_graph(const Graph& source, Graph& target, ValueMap& map) {
  target.name = source.name;
  target.doc_string = source.doc_string;
  target.metadata = source.metadata;
  target.unknown_fields = source.unknown_fields;
  for (const Value* input : source.inputs()) {
    Value* copy = target.add_input(input->name(), input->type);
    if (input->initializer()) target.set_default(copy, input->initializer()->clone());
    copy_annotations(*input, *copy);
    map[input] = copy;
  }
  for (const Value* constant : source.initializers()) {
    if (constant->is_input()) continue;
    Value* copy = target.add_initializer(constant->name(), constant->initializer()->clone());
    copy_annotations(*constant, *copy);
    map[constant] = copy;
  }
  // All values before all edges: a subgraph may come before what it captures.
  std::vector<std::pair<const Node*, Node*>> copies;
  for (const Node* node : source.nodes()) {
    std::vector<std::string> output_names;
    for (const Value* output : node->outputs())
      output_names.push_back(output ? output->name() : "");
    copies.emplace_back(node, clone_shell(*node, target, std::move(output_names), map, nullptr));
  }
  for (const auto& [node, copy] : copies) fill_shell(*node, copy, map);
  for (Value* output : source.outputs()) target.add_output(mapped(output, map));
}

Node* clone_node(const Node& node, Graph& target, ValueMap& map, Node* before) {
  std::vector<std::string> output_names;
  for (const Value* output : node.outputs()) {
    std::string free = output ? target.unique_name(output->name()) : "";
    while (output && std::ranges::find(output_names, free) != output_names.end())
      free = target.unique_name(free + "_1");
    output_names.push_back(std::move(free));
  }
  Node* copy = clone_shell(node, target, std::move(output_names), map, before);
  fill_shell(node, copy, map);
  return copy;
}

std::unique_ptr<Model> Model::clone() const {
  auto copy = std::make_unique<Model>();
  copy->ir_version = ir_version;
  copy->opsets = opsets;
  copy->producer_name = producer_name;
  copy->producer_version = producer_version;
  copy->domain = domain;
  copy->doc_string = doc_string;
  copy->model_version = model_version;
  copy->metadata = metadata;
  copy->unknown_fields = unknown_fields;
  copy->external_data = external_data;
  ValueMap map;
  clone_graph(graph, copy->graph, map);
  for (const auto& function : functions)
    clone_function(*function, *copy->functions.emplace_back(std::make_unique<Function>()));
  return copy;
}

}  // namespace onnxpress
