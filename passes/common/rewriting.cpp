#include "passes/common/rewriting.h"

#include <algorithm>

#include "graph/ir/clone.h"

namespace onnxpress {
namespace {

constexpr std::int64_t most_shared_elements = 16;

bool has_reference(const Node& node) {
  return std::ranges::any_of(node.attributes(),
                             [](const auto& entry) { return !entry.second.ref.empty(); });
}

constexpr std::string_view runtime_domain = "com.microsoft";

bool uses_runtime_domain(const Graph& graph) {
  bool found = false;
  graph.for_each_graph([&](const Graph& nested) {
    for (const Node* node : nested.nodes()) found = found || node->domain() == runtime_domain;
  });
  return found;
}

Value* equal_constant(const Graph& graph, const Tensor& tensor) {
  if (tensor.size() > most_shared_elements) return nullptr;
  const Graph* root = &graph;
  while (root->parent()) root = root->parent();
  for (Value* value : root->initializers()) {
    const Tensor* known = value->constant();
    if (known && !value->is_output() && known->equals(tensor) &&
        graph.find_visible(value->name()) == value)
      return value;
  }
  return nullptr;
}

}  // namespace

bool same_shape(const Type& a, const Type& b) {
  return a.shape && b.shape && std::ranges::equal(*a.shape, *b.shape, same_dim);
}

bool same_type(const Type& a, const Type& b) {
  return a.is_tensor() && b.is_tensor() && a.elem != DType::undefined && a.elem == b.elem &&
         same_shape(a, b);
}

bool has_open_attributes(const Node& node) {
  return has_reference(node) || std::ranges::any_of(node.inputs(), [](const Value* input) {
           return input && input->producer() && has_reference(*input->producer());
         });
}

bool is_unread(const Node& node) {
  return std::ranges::all_of(node.outputs(),
                             [](const Value* output) { return !output || output->is_unused(); });
}

Attributes copy_attributes(const Node& node) {
  Attributes copy;
  ValueMap unchanged;
  for (const auto& [name, attribute] : node.attributes())
    copy.emplace(name, clone_attribute(attribute, &node.graph(), unchanged));
  return copy;
}

WithRuntimeDomain::WithRuntimeDomain(Model& model) {
  const auto import = [&](OpsetImports& opsets, const Graph& graph) {
    if (opsets.emplace(runtime_domain, 1).second) added_.push_back({&opsets, &graph});
  };
  import(model.opsets, model.graph);
  for (const auto& function : model.functions) import(function->opsets, function->body);
}

WithRuntimeDomain::~WithRuntimeDomain() {
  for (const Import& made : added_)
    if (!uses_runtime_domain(*made.graph)) made.opsets->erase(std::string(runtime_domain));
}

std::optional<std::string> handing_on_obstacle(const Value& old, const Value& source) {
  for (const Graph* listing : old.output_of()) {
    if (listing != &old.graph())
      return fmt::format("its result '{}' is an output of a graph inside", old.name());
    const auto but = [&](std::string_view what) {
      return fmt::format("its result '{}' is a graph output, and '{}' is {}", old.name(),
                         source.name(), what);
    };
    if (&source.graph() != listing) return but("of a graph around it");
    if (!source.producer()) return but(source.is_input() ? "a graph input" : "a constant");
    if (source.is_output()) return but("one too");
  }
  return std::nullopt;
}

Patch::Ref shared_constant(Patch& patch, const Graph& graph, std::string hint, Tensor tensor) {
  if (Value* known = equal_constant(graph, tensor)) return known;
  return patch.constant(std::move(hint), std::move(tensor));
}

Patch::Ref add_call(Patch& patch, const Graph& graph, OpCall call, std::vector<Patch::Ref> inputs,
                    std::string name) {
  for (Tensor& constant : call.constants) {
    if (!constant.defined())
      inputs.emplace_back();
    else
      inputs.push_back(shared_constant(patch, graph, fmt::format("{}_{}", call.op_type, inputs.size()),
                                       std::move(constant)));
  }
  return patch.node({.op_type = std::move(call.op_type),
                     .name = std::move(name),
                     .inputs = std::move(inputs),
                     .attributes = std::move(call.attributes)});
}

}  // namespace onnxpress
