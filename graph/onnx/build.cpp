#include "graph/onnx/build.h"

#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace onnxpress::wire {

namespace {

constexpr std::int64_t first_ir_with_free_initializers = 4;

template <class Body>
decltype(auto) in_node(const NodeMessage& message, Body&& body) {
  return in_context([&] { return message.describe(); }, std::forward<Body>(body));
}

// Fills one graph. Nodes are added without inputs first, so that every name can be resolved
// whatever the order of the file; Graph::sort() then restores the order.
class GraphBuilder {
 public:
  struct Counts {
    std::size_t dropped_defaults = 0;    // initializers that no longer are inputs
    std::size_t stale_value_info = 0;    // value_info of no value
    std::size_t contradicted_types = 0;  // declared types that an initializer contradicts
  };

  GraphBuilder(Graph& graph, bool keep_overridable, Counts& counts)
      : graph_(graph), keep_overridable_(keep_overridable), counts_(counts) {}

  void build(GraphMessage message) {
    graph_.name = std::move(message.name);
    graph_.doc_string = std::move(message.doc_string);
    graph_.metadata = std::move(message.metadata);
    graph_.unknown_fields = std::move(message.unknown_fields);
    add_inputs_and_initializers(message);
    build_nodes(std::move(message.nodes));
    for (ValueInfoMessage& info : message.outputs) {
      Value* value = graph_.find_visible(info.name);
      require(value != nullptr, "output '{}' is not produced by any node, input or initializer",
              info.name);
      graph_.add_output(value);
      declare(*value, std::move(info));
    }
    declare_inner(std::move(message.value_info));
  }

  void build_nodes(std::vector<NodeMessage> messages) {
    std::vector<Node*> nodes;
    nodes.reserve(messages.size());
    for (NodeMessage& message : messages)
      nodes.push_back(in_node(message, [&] { return add_node(message); }));
    for (std::size_t i = 0; i < nodes.size(); ++i)
      in_node(messages[i], [&] {
        connect(*nodes[i], messages[i]);
        add_attributes(*nodes[i], std::move(messages[i].attributes));
      });
  }

  // Types of values inside.
  void declare_inner(std::vector<ValueInfoMessage> infos) {
    for (ValueInfoMessage& info : infos) {
      Value* value = graph_.find(info.name);
      if (!value) {
        ++counts_.stale_value_info;
        continue;
      }
      value->type_in_file = true;
      declare(*value, std::move(info));
    }
  }

  // The attribute with its subgraphs built.
  Attribute finish(AttributeMessage message) {
    std::vector<std::unique_ptr<Graph>> graphs;
    for (GraphMessage& inner : message.graphs) {
      const std::string context = fmt::format("subgraph '{}'", inner.name);
      auto& graph = graphs.emplace_back(std::make_unique<Graph>(&graph_));
      // Inputs of a subgraph are bound by position, so all of them stay.
      in_context([&] { return context; },
                 [&] { GraphBuilder(*graph, true, counts_).build(std::move(inner)); });
    }
    if (message.is_graph) message.value.value = std::move(graphs.front());
    if (message.is_graphs) message.value.value = std::move(graphs);
    return std::move(message.value);
  }

 private:
  void add_inputs_and_initializers(GraphMessage& message) {
    std::unordered_set<std::string_view> constants;
    if (!keep_overridable_) {
      for (const NamedTensor& tensor : message.initializers) constants.insert(tensor.name);
      for (const SparseTensor& sparse : message.sparse_initializers)
        constants.insert(sparse.values.name);
    }
    std::unordered_map<std::string, ValueInfoMessage> former_inputs;
    for (ValueInfoMessage& info : message.inputs) {
      if (constants.contains(info.name)) {
        const std::string input = info.name;
        require(former_inputs.emplace(input, std::move(info)).second, "duplicate input '{}'",
                input);
        ++counts_.dropped_defaults;
        continue;
      }
      Value* value = graph_.add_input(info.name, std::move(info.type));
      value->doc_string = std::move(info.doc_string);
      value->metadata = std::move(info.metadata);
      value->unknown_fields = std::move(info.unknown_fields);
    }
    for (NamedTensor& named : message.initializers) {
      Initializer initializer{.tensor = std::move(named.tensor),
                              .doc_string = std::move(named.doc_string),
                              .metadata = std::move(named.metadata),
                              .unknown_fields = std::move(named.unknown_fields)};
      add_initializer(std::move(named.name), std::move(initializer), former_inputs);
    }
    for (SparseTensor& sparse : message.sparse_initializers) {
      std::string sparse_name = sparse.values.name;
      Initializer initializer{.sparse = std::make_unique<SparseTensor>(std::move(sparse))};
      add_initializer(std::move(sparse_name), std::move(initializer), former_inputs);
    }
  }

  void add_initializer(std::string name, Initializer initializer,
                       std::unordered_map<std::string, ValueInfoMessage>& former_inputs) {
    if (Value* input = graph_.find(name); input && input->is_input()) {
      require(!input->initializer(), "duplicate initializer '{}'", name);
      graph_.set_default(input, std::move(initializer));
      return;
    }
    Value* value = graph_.add_initializer(std::move(name), std::move(initializer));
    if (const auto input = former_inputs.find(value->name()); input != former_inputs.end()) {
      // What only a ValueInfoProto can hold needs one when written again.
      const ValueInfoMessage& info = input->second;
      value->type_in_file =
          !info.doc_string.empty() || !info.metadata.empty() || !info.unknown_fields.empty();
      declare(*value, std::move(input->second));
    }
  }

  // Takes over what the file says about a value; what an initializer proves counts more.
  void declare(Value& value, ValueInfoMessage info) {
    if (!info.doc_string.empty()) value.doc_string = std::move(info.doc_string);
    if (!info.metadata.empty()) value.metadata = std::move(info.metadata);
    if (!info.unknown_fields.empty()) value.unknown_fields = std::move(info.unknown_fields);
    if (value.is_constant()) {
      if (contradicts(info.type, value.type)) ++counts_.contradicted_types;
    } else if (value.type.kind == Type::Kind::unknown) {
      value.type = std::move(info.type);
    }
  }

  static bool contradicts(const Type& declared, const Type& proven) {
    if (!declared.is_tensor()) return declared.kind != Type::Kind::unknown;
    if (declared.elem != DType::undefined && declared.elem != proven.elem) return true;
    if (!declared.shape) return false;
    if (declared.shape->size() != proven.shape->size()) return true;
    for (std::size_t i = 0; i < declared.shape->size(); ++i) {
      const Dim& dim = (*declared.shape)[i];
      if (dim.is_known() && dim.value() != (*proven.shape)[i].value()) return true;
    }
    return false;
  }

  Node* add_node(NodeMessage& message) {
    NodeSpec spec{.op_type = message.op_type,
                  .domain = std::move(message.domain),
                  .overload = std::move(message.overload),
                  .name = message.name,
                  .outputs = {}};
    for (std::size_t i = 0; i < message.outputs.size(); ++i) {
      spec.outputs.emplace_back(message.outputs[i]);
      if (message.outputs[i].empty()) spec.omitted_outputs.push_back(i);
    }
    Node* node = graph_.add_node(std::move(spec));
    node->doc_string = std::move(message.doc_string);
    node->metadata = std::move(message.metadata);
    node->unknown_fields = std::move(message.unknown_fields);
    return node;
  }

  void connect(Node& node, const NodeMessage& message) {
    for (std::size_t i = 0; i < message.inputs.size(); ++i) {
      if (message.inputs[i].empty()) continue;
      Value* value = graph_.find_visible(message.inputs[i]);
      require(value != nullptr, "input '{}' is not produced by any node, input or initializer",
              message.inputs[i]);
      graph_.set_node_input(&node, i, value);
    }
  }

  void add_attributes(Node& node, std::vector<AttributeMessage> messages) {
    for (AttributeMessage& message : messages) {
      std::string attribute = std::move(message.name);
      require(!node.attribute(attribute), "duplicate attribute '{}'", attribute);
      graph_.set_attribute(&node, std::move(attribute), finish(std::move(message)));
    }
  }

  Graph& graph_;
  bool keep_overridable_;
  Counts& counts_;
};

// Sorts the graph and those nested in it; notes which of them needed it.
void sort(Graph& root, std::vector<std::string>& notes) {
  std::vector<std::pair<const Graph*, std::vector<Node*>>> before;
  std::as_const(root).for_each_graph(
      [&](const Graph& graph) { before.emplace_back(&graph, graph.nodes()); });
  root.sort();
  for (const auto& [graph, nodes] : before)
    if (graph->nodes() != nodes)
      notes.push_back(
          fmt::format("nodes of graph '{}' were not in topological order: sorted", graph->name));
}

std::unique_ptr<Function> build_function(FunctionMessage message, GraphBuilder::Counts& counts,
                                         std::vector<std::string>& notes) {
  auto function = std::make_unique<Function>();
  function->domain = std::move(message.domain);
  function->name = std::move(message.name);
  function->overload = std::move(message.overload);
  function->doc_string = std::move(message.doc_string);
  function->attribute_names = std::move(message.attribute_names);
  function->opsets = std::move(message.opsets);
  function->metadata = std::move(message.metadata);
  function->unknown_fields = std::move(message.unknown_fields);

  Graph& body = function->body;
  body.name = function->name;
  GraphBuilder builder(body, true, counts);
  for (const std::string_view input : message.inputs) body.add_input(std::string(input), {});
  builder.build_nodes(std::move(message.nodes));
  for (const std::string_view output : message.outputs) {
    Value* value = body.find(output);
    require(value != nullptr, "output '{}' is not produced by any node or input", output);
    body.add_output(value);
  }
  builder.declare_inner(std::move(message.value_info));
  for (AttributeMessage& attribute : message.attribute_defaults) {
    std::string name = std::move(attribute.name);
    function->attribute_defaults.emplace_back(std::move(name),
                                              builder.finish(std::move(attribute)));
  }
  sort(body, notes);
  return function;
}

void add_notes(const GraphBuilder::Counts& counts, std::int64_t ir_version,
               std::vector<std::string>& notes) {
  const auto plural = [](std::size_t count, std::string_view one, std::string_view many) {
    return fmt::format("{} {}", count, count == 1 ? one : many);
  };
  if (counts.dropped_defaults > 0 && ir_version >= first_ir_with_free_initializers)
    notes.push_back(plural(counts.dropped_defaults, "initializer was also an input: now a constant",
                           "initializers were also inputs: now constants"));
  if (counts.stale_value_info > 0)
    notes.push_back(plural(counts.stale_value_info, "type was declared for a value",
                           "types were declared for values") +
                    " that is not there: dropped");
  if (counts.contradicted_types > 0)
    notes.push_back(plural(counts.contradicted_types, "declared type contradicted its initializer",
                           "declared types contradicted their initializers") +
                    ": dropped");
}

}  // namespace

std::unique_ptr<Model> build_model(ModelMessage message, const ReadOptions& options,
                                   std::vector<std::string>& notes) {
  auto model = std::make_unique<Model>();
  model->ir_version = message.ir_version;
  model->opsets = std::move(message.opsets);
  model->producer_name = std::move(message.producer_name);
  model->producer_version = std::move(message.producer_version);
  model->domain = std::move(message.domain);
  model->doc_string = std::move(message.doc_string);
  model->model_version = message.model_version;
  model->metadata = std::move(message.metadata);
  model->unknown_fields = std::move(message.unknown_fields);

  GraphBuilder::Counts counts;
  for (FunctionMessage& function : message.functions) {
    const std::string context = fmt::format("function '{}'", function.name);
    in_context(
        [&] { return context; },
        [&] { model->functions.push_back(build_function(std::move(function), counts, notes)); });
  }
  const std::string context = fmt::format("graph '{}'", message.graph.name);
  in_context([&] { return context; },
             [&] {
               GraphBuilder(model->graph, options.keep_overridable, counts)
                   .build(std::move(message.graph));
               sort(model->graph, notes);
             });
  add_notes(counts, model->ir_version, notes);
  return model;
}

}  // namespace onnxpress::wire
