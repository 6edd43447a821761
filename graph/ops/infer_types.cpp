// Propagation of types through a model.
#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "graph/ir/clone.h"
#include "graph/ops/attributes.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/infer.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// What is known of one value.
struct Fact {
  Type type;
  std::optional<Tensor> value;
  std::optional<Shape> contents;
};

const Type unknown_type;
constexpr int deepest_call = 64;

// Dims of an integer tensor's elements; negative ones are unknown.
Shape as_contents(const Tensor& tensor) {
  Shape contents;
  for (const std::int64_t element : tensor.to_ints())
    contents.push_back(element >= 0 ? Dim(element) : Dim());
  return contents;
}

// The found type where it says something, what is declared elsewhere.
Type completed(const Type& found, const Type& declared) {
  if (found.kind == Type::Kind::unknown) return declared;
  if (found.kind == declared.kind && found.inner && declared.inner) {
    Type result = found;
    result.inner = std::make_shared<const Type>(completed(*found.inner, *declared.inner));
    return result;
  }
  if (!found.is_tensor() || !declared.is_tensor()) return found;
  if (found.elem != DType::undefined && declared.elem != DType::undefined)
    require(found.elem == declared.elem, "declared as {}, but the operator gives {}",
            to_string(declared), to_string(found));
  Type result = found;
  if (result.elem == DType::undefined) result.elem = declared.elem;
  if (!result.shape) {
    result.shape = declared.shape;
  } else if (declared.shape && declared.shape->size() == result.shape->size()) {
    for (std::size_t i = 0; i < result.shape->size(); ++i) {
      Dim& dim = (*result.shape)[i];
      if (!dim.is_known() && !dim.is_symbol()) dim = (*declared.shape)[i];
    }
  }
  return result;
}

// A function's body with the attributes of one call in place of its parameters.
std::unique_ptr<Graph> instantiate(const Function& function, const Node& call) {
  auto graph = std::make_unique<Graph>(&function.opsets);
  ValueMap map;
  clone_graph(function.body, *graph, map);
  const auto argument = [&](const std::string& name) -> const Attribute* {
    if (const Attribute* given = call.attribute(name)) return given;
    for (const auto& [parameter, otherwise] : function.attribute_defaults)
      if (parameter == name) return &otherwise;
    return nullptr;
  };
  graph->for_each_graph([&](Graph& part) {
    for (Node* node : part.nodes()) {
      std::vector<std::pair<std::string, std::string>> references;
      for (const auto& [name, attribute] : node->attributes())
        if (!attribute.ref.empty()) references.emplace_back(name, attribute.ref);
      for (const auto& [name, parameter] : references) {
        if (const Attribute* given = argument(parameter))
          part.set_attribute(node, name, clone_attribute(*given, &part, map));
        else
          part.remove_attribute(node, name);
      }
    }
  });
  return graph;
}

}  // namespace

struct TypeInference::State {
  class Context;

  const Model& model;
  TypeInferenceOptions options;
  std::unordered_map<const Value*, Fact> facts;
  std::map<std::string, std::int64_t, std::less<>> bound_symbols;
  std::unordered_map<const Node*, std::unique_ptr<Graph>> calls;
  ThreadPool pool{1};
  int depth = 0;

  Type declared(const Value& value) const {
    Type type = value.type;
    if (type.shape)
      for (Dim& dim : *type.shape)
        if (const auto bound = bound_symbols.find(dim.symbol());
            dim.is_symbol() && bound != bound_symbols.end())
          dim = bound->second;
    return type;
  }

  const Fact* fact(const Value* value) const {
    const auto found = facts.find(value);
    return found != facts.end() ? &found->second : nullptr;
  }

  const Type& type(const Value* value) const {
    if (const Fact* known = fact(value)) return known->type;
    return value->is_constant() ? value->type : unknown_type;
  }

  const Tensor* known_value(const Value* value) const {
    if (const Tensor* constant = value->constant()) return constant;
    const Fact* known = fact(value);
    return known != nullptr && known->value ? &*known->value : nullptr;
  }

  std::optional<Shape> symbolic(const Value* value) const {
    if (const Tensor* tensor = known_value(value)) {
      if (tensor->rank() > 1 || !is_integer(tensor->dtype()) ||
          tensor->size() > options.value_limit)
        return std::nullopt;
      return as_contents(*tensor);
    }
    const Fact* known = fact(value);
    return known != nullptr ? known->contents : std::nullopt;
  }

  void infer_graph(const Graph& graph) {
    for (const Value* value : graph.initializers())
      if (value->is_constant()) facts[value] = {.type = value->type};
    for (Node* node : graph.nodes())
      in_context([&] { return node->describe(); }, [&] { infer_node(*node); });
  }

  void infer_node(const Node& node);
  void update(const Node& node);
  void infer_call(const Node& node, const Function& function);
  void evaluate_outputs(const Node& node, const OpDef& op);

  std::vector<Type> infer_subgraph(const Graph& graph, std::span<const Type> inputs) {
    for (std::size_t i = 0; i < graph.inputs().size(); ++i) {
      const Value* input = graph.inputs()[i];
      const Type known = declared(*input);
      facts[input] = {.type = i < inputs.size() ? completed(inputs[i], known) : known};
    }
    infer_graph(graph);
    std::vector<Type> types;
    for (const Value* output : graph.outputs()) types.push_back(type(output));
    return types;
  }
};

class TypeInference::State::Context final : public InferContext {
 public:
  Context(State& state, const Node& node)
      : state_(state), node_(node), found_(node.output_count()) {}

  const Node& node() const override { return node_; }
  const Type* input_type(std::size_t index) const override {
    const Value* value = node_.input(index);
    return value != nullptr ? &state_.type(value) : nullptr;
  }
  const Tensor* input_value(std::size_t index) const override {
    const Value* value = node_.input(index);
    return value != nullptr ? state_.known_value(value) : nullptr;
  }
  std::optional<Shape> input_symbolic(std::size_t index) const override {
    const Value* value = node_.input(index);
    return value != nullptr ? state_.symbolic(value) : std::nullopt;
  }

  void set_output(std::size_t index, Type type) override {
    if (index < found_.size()) found_[index].type = std::move(type);
  }
  void set_output_symbolic(std::size_t index, Shape contents) override {
    if (index >= found_.size()) return;
    Fact& fact = found_[index];
    const std::optional<Dims> elements = concrete(contents);
    if (elements && fact.type.shape && is_integer(fact.type.elem)) {
      const std::optional<Dims> dims = concrete(*fact.type.shape);
      if (dims && element_count(*dims) == static_cast<std::int64_t>(elements->size()))
        fact.value = Tensor::of<std::int64_t>(*dims, *elements).cast(fact.type.elem);
    }
    fact.contents = std::move(contents);
  }
  void set_output_value(std::size_t index, Tensor value) override {
    if (index < found_.size()) found_[index].value = std::move(value);
  }
  std::vector<Type> infer_subgraph(std::string_view attribute,
                                   std::span<const Type> inputs) override {
    return state_.infer_subgraph(require_graph(node_, attribute), inputs);
  }

  std::vector<Fact> take() { return std::move(found_); }

 private:
  State& state_;
  const Node& node_;
  std::vector<Fact> found_;
};

void TypeInference::State::infer_node(const Node& node) {
  if (const Function* function = model.function(node)) return infer_call(node, *function);
  const OpDef* op = operators().find(node);
  std::vector<Fact> found(node.output_count());
  if (op != nullptr && op->infer != nullptr) {
    Context context(*this, node);
    op->infer(context);
    found = context.take();
  } else {
    for (const Graph* graph : node.subgraphs()) infer_subgraph(*graph, {});
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Value* output = node.output(i);
    if (output == nullptr) continue;
    const bool believe = options.use_declared || found[i].type.kind == Type::Kind::unknown;
    Type declaration = believe ? declared(*output) : Type::tensor(output->type.elem);
    found[i].type = completed(found[i].type, declaration);
    facts[output] = std::move(found[i]);
  }
  if (op != nullptr) evaluate_outputs(node, *op);
}

void TypeInference::State::evaluate_outputs(const Node& node, const OpDef& op) {
  if (!op.deterministic || op.prepare == nullptr || !node.subgraphs().empty()) return;
  bool wanted = false;
  for (const Value* output : node.outputs()) {
    if (output == nullptr) continue;
    const Fact& known = facts[output];
    const auto dims = known.type.shape ? concrete(*known.type.shape) : std::nullopt;
    if (!dims || element_count(*dims) > options.value_limit) return;
    wanted = wanted || !known.value;
  }
  if (!wanted) return;
  std::vector<const Tensor*> inputs;
  for (const Value* input : node.inputs()) {
    const Tensor* tensor = input != nullptr ? known_value(input) : nullptr;
    if (input != nullptr && (tensor == nullptr || tensor->size() > options.value_limit)) return;
    inputs.push_back(tensor);
  }
  try {
    std::vector<Tensor> outputs = evaluate(op, node, inputs, pool);
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (node.output(i) != nullptr && outputs[i].defined()) {
        Fact& known = facts[node.output(i)];
        known.type = Type::of(outputs[i]);
        known.value = std::move(outputs[i]);
      }
  } catch (const Error&) {
    // What cannot be computed here stays unknown: the same error, if real, ends the run itself.
  }
}

void TypeInference::State::infer_call(const Node& node, const Function& function) {
  require(depth < deepest_call, "function calls nest deeper than {}", deepest_call);
  auto& body = calls[&node];
  if (body == nullptr) body = instantiate(function, node);
  const Graph& graph = *body;
  for (std::size_t i = 0; i < graph.inputs().size(); ++i) {
    const Value* argument = node.input(i);
    Fact passed;
    if (argument != nullptr) {
      passed.type = type(argument);
      passed.contents = symbolic(argument);
      if (const Tensor* value = known_value(argument)) passed.value = *value;
    }
    facts[graph.inputs()[i]] = std::move(passed);
  }
  ++depth;
  infer_graph(graph);
  --depth;
  for (std::size_t i = 0; i < node.output_count() && i < graph.outputs().size(); ++i) {
    const Value* output = node.output(i);
    if (output == nullptr) continue;
    const Value* result = graph.outputs()[i];
    Fact found{.type = completed(type(result), options.use_declared ? declared(*output) : Type()),
               .contents = symbolic(result)};
    if (const Tensor* value = known_value(result)) found.value = *value;
    facts[output] = std::move(found);
  }
}

TypeInference::TypeInference(const Model& model, TypeInferenceOptions options)
    : state_(new State{.model = model, .options = options}) {
  for (const Value* input : model.graph.inputs()) state_->facts[input] = {.type = input->type};
}

TypeInference::~TypeInference() = default;

void TypeInference::set_input(const Value* input, Type type) {
  if (type.shape && input->type.shape && type.shape->size() == input->type.shape->size())
    for (std::size_t i = 0; i < type.shape->size(); ++i) {
      const Dim& dim = (*input->type.shape)[i];
      if (dim.is_symbol() && (*type.shape)[i].is_known())
        state_->bound_symbols[dim.symbol()] = (*type.shape)[i].value();
    }
  state_->facts[input].type = std::move(type);
}

void TypeInference::set_input_value(const Value* input, Tensor value) {
  set_input(input, Type::of(value));
  state_->facts[input].value = std::move(value);
}

void TypeInference::State::update(const Node& node) {
  calls.erase(&node);
  in_context([&] { return node.describe(); }, [&] { infer_node(node); });
}

void TypeInference::run() { state_->infer_graph(state_->model.graph); }

void TypeInference::run(const Graph& subgraph) { state_->infer_graph(subgraph); }

void TypeInference::update(const Node& node) { state_->update(node); }

void TypeInference::forget(const Value* value) { state_->facts.erase(value); }

const Type& TypeInference::type(const Value* value) const { return state_->type(value); }

const Tensor* TypeInference::known_value(const Value* value) const {
  return state_->known_value(value);
}

std::optional<Shape> TypeInference::symbolic(const Value* value) const {
  return state_->symbolic(value);
}

std::size_t infer_types(Model& model) {
  TypeInference inference(model);
  inference.run();
  std::size_t open = 0;
  const auto update = [&](Value* value) {
    const Type& found = inference.type(value);
    const bool interface =
        value->is_output() &&
        std::ranges::find(value->output_of(), &model.graph) != value->output_of().end();
    if (!interface) {
      Type type = completed(found, value->type);
      type.denotation = value->type.denotation;
      value->type = std::move(type);
    }
    const Type& now = value->type;
    open += now.kind == Type::Kind::unknown || (now.is_tensor() && !now.shape);
  };
  model.graph.for_each_graph([&](Graph& graph) {
    if (&graph != &model.graph)
      for (Value* input : graph.inputs()) update(input);
    for (Node* node : graph.nodes())
      for (Value* output : node->outputs())
        if (output != nullptr) update(output);
  });
  return open;
}

}  // namespace onnxpress
