#include <bit>

#include "graph/ir/model.h"

namespace onnxpress {
namespace {

class ModelHasher {
 public:
  explicit ModelHasher(bool with_names) : with_names_(with_names) {}

  Hash128 hash(const Model& model) {
    out_.add(model.ir_version);
    add(model.opsets);
    add(model.metadata);
    out_.add(model.unknown_fields);
    if (with_names_) {
      out_.add(model.producer_name).add(model.producer_version).add(model.domain);
      out_.add(model.doc_string).add(model.model_version);
    }
    add(model.graph, true);
    add_count(model.functions.size());
    for (const auto& function : model.functions) add(*function);
    return out_.finish();
  }

 private:
  void add_count(std::size_t count) { out_.add(static_cast<std::int64_t>(count)); }
  void add_name(std::string_view name) {
    if (with_names_) out_.add(name);
  }

  void add(const OpsetImports& opsets) {
    add_count(opsets.size());
    for (const auto& [domain, version] : opsets) out_.add(domain).add(version);
  }

  void add(const Metadata& metadata) {
    add_count(metadata.size());
    for (const auto& [key, value] : metadata) out_.add(key).add(value);
  }

  void add(const Type& type) {
    out_.add(static_cast<std::int64_t>(type.kind)).add(static_cast<std::int64_t>(type.elem));
    out_.add(type.shape ? static_cast<std::int64_t>(type.shape->size()) : -1);
    if (type.shape)
      for (const Dim& dim : *type.shape)
        out_.add(dim.value()).add(dim.symbol()).add(dim.denotation);
    out_.add(type.inner ? 1 : 0);
    if (type.inner) add(*type.inner);
    out_.add(type.opaque_domain).add(type.opaque_name).add(type.denotation);
    out_.add(type.unknown_fields);
  }

  void add(const Dims& dims) {
    add_count(dims.size());
    for (const std::int64_t dim : dims) out_.add(dim);
  }

  void add(const Tensor& tensor) {
    out_.add(static_cast<std::int64_t>(tensor.dtype()));
    add(tensor.dims());
    if (tensor.dtype() == DType::string)
      for (const std::string& text : tensor.strings()) out_.add(text);
    else
      out_.add_bytes(tensor.bytes());
  }

  void add(const NamedTensor& named) {
    add(named.tensor);
    add(named.metadata);
    out_.add(named.unknown_fields);
    add_name(named.name);
    add_name(named.doc_string);
  }

  void add(const SparseTensor& sparse) {
    add(sparse.values);
    add(sparse.indices);
    add(sparse.dims);
    out_.add(sparse.unknown_fields);
  }

  void add(const Initializer& initializer) {
    out_.add(initializer.sparse ? 1 : 0);
    if (initializer.sparse)
      add(*initializer.sparse);
    else
      add(initializer.tensor);
    add(initializer.metadata);
    out_.add(initializer.unknown_fields);
    add_name(initializer.doc_string);
  }

  void add(float value) { out_.add(std::bit_cast<std::int32_t>(value)); }
  void add(std::int64_t value) { out_.add(value); }
  void add(const std::string& value) { out_.add(value); }
  void add(std::monostate) {}
  void add(const std::unique_ptr<Graph>& graph) { add(*graph, false); }
  template <class T>
  void add(const std::vector<T>& list) {
    add_count(list.size());
    for (const T& item : list) add(item);
  }

  void add(const Attribute& attribute) {
    out_.add(attribute.kind()).add(attribute.ref).add(attribute.unknown_fields);
    add_name(attribute.doc_string);
    std::visit([this](const auto& value) { add(value); }, attribute.value);
  }

  // What a value says beside its edges: its name and type where they count.
  void add_declaration(const Value& value, bool is_interface) {
    if (is_interface || with_names_) out_.add(value.name());
    if (is_interface || (with_names_ && value.type_in_file)) add(value.type);
    if (is_interface || with_names_) {
      add(value.metadata);
      out_.add(value.unknown_fields);
    }
    add_name(value.doc_string);
  }

  void define(const Value* value) {
    number_.emplace(value, static_cast<std::int64_t>(number_.size()));
  }
  void add_reference(const Value* value) { out_.add(value ? number_.at(value) : -1); }

  void add(const Node& node) {
    out_.add(node.domain()).add(node.op_type()).add(node.overload());
    add(node.metadata);
    out_.add(node.unknown_fields);
    add_name(node.name);
    add_name(node.doc_string);
    add_count(node.input_count());
    for (const Value* input : node.inputs()) add_reference(input);
    add_count(node.output_count());
    for (const Value* output : node.outputs()) {
      add_reference(output);
      if (output) add_declaration(*output, false);
    }
    add_count(node.attributes().size());
    for (const auto& [key, attribute] : node.attributes()) {
      out_.add(key);
      add(attribute);
    }
  }

  void add(const Graph& graph, bool is_main) {
    const std::vector<Node*> nodes = graph.nodes();
    std::vector<Value*> constants = graph.initializers();
    std::erase_if(constants, [](const Value* value) { return value->is_input(); });
    for (const Value* input : graph.inputs()) define(input);
    for (const Value* constant : constants) define(constant);
    for (const Node* node : nodes)
      for (const Value* output : node->outputs())
        if (output) define(output);

    add_count(graph.inputs().size());
    for (const Value* input : graph.inputs()) {
      add_declaration(*input, is_main);
      out_.add(input->initializer() ? 1 : 0);
      if (input->initializer()) add(*input->initializer());
    }
    add_count(constants.size());
    for (const Value* constant : constants) {
      add_declaration(*constant, false);
      add(*constant->initializer());
    }
    add_count(nodes.size());
    for (const Node* node : nodes) add(*node);
    add_count(graph.outputs().size());
    for (const Value* output : graph.outputs()) {
      add_reference(output);
      add_declaration(*output, is_main);
    }
    add(graph.metadata);
    out_.add(graph.unknown_fields);
    add_name(graph.name);
    add_name(graph.doc_string);
  }

  void add(const Function& function) {
    out_.add(function.domain).add(function.name).add(function.overload);
    add(function.opsets);
    add(function.attribute_names);
    add_count(function.attribute_defaults.size());
    for (const auto& [key, attribute] : function.attribute_defaults) {
      out_.add(key);
      add(attribute);
    }
    add(function.metadata);
    out_.add(function.unknown_fields);
    add_name(function.doc_string);
    add(function.body, false);
  }

  Hasher out_;
  bool with_names_;
  std::unordered_map<const Value*, std::int64_t> number_;  // by definition, graphs as they come
};

}  // namespace

Hash128 structural_hash(const Model& model, bool with_names) {
  return ModelHasher(with_names).hash(model);
}

}  // namespace onnxpress
