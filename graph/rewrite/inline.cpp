#include "graph/rewrite/inline.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/base/error.h"
#include "graph/ir/clone.h"
#include "graph/ops/upgrade_rules.h"

namespace onnxpress {
namespace {

std::string describe(const Function& function) {
  return fmt::format("function '{}' ({}{})", function.name, function.domain,
                     function.overload.empty() ? "" : ", overload " + function.overload);
}

template <class Body>
void for_each_node(const Graph& graph, const Body& body) {
  graph.for_each_graph([&](const Graph& inner) {
    for (const Node* node : inner.nodes()) body(*node);
  });
}

// Depth-first over calls between functions; `active` is the path from where it began.
void check_recursion(const Model& model, const Function& function,
                     std::vector<const Function*>& active, std::set<const Function*>& done) {
  if (done.contains(&function)) return;
  const auto cycle = std::find(active.begin(), active.end(), &function);
  if (cycle != active.end()) {
    std::string path;
    for (auto it = cycle; it != active.end(); ++it) path += (*it)->name + " -> ";
    fail("{} calls itself: {}{}", describe(function), path, function.name);
  }
  active.push_back(&function);
  for_each_node(function.body, [&](const Node& node) {
    if (const Function* callee = model.function(node))
      check_recursion(model, *callee, active, done);
  });
  active.pop_back();
  done.insert(&function);
}

// Whether the form of a node means the same in both versions of its operator set.
bool same_meaning(const Node& node, std::int64_t a, std::int64_t b) {
  if (!node.domain().empty()) return false;
  for (std::int64_t version = std::min(a, b) + 1; version <= std::max(a, b); ++version)
    if (find_upgrade_rule(node.op_type(), version)) return false;
  return true;
}

// `imports`, of the model or of a function that calls this one, must give the body's operators the
// meaning that the function's give them.
void reconcile_opsets(const Model& model, OpsetImports& imports, const Function& function) {
  for_each_node(function.body, [&](const Node& node) {
    if (model.function(node)) return;
    const auto wanted = function.opsets.find(node.domain());
    require(wanted != function.opsets.end(), "{}: {} is of domain '{}', which it does not import",
            describe(function), node.describe(), node.domain());
    const auto [found, added] = imports.emplace(node.domain(), wanted->second);
    if (added || found->second == wanted->second) return;
    require(same_meaning(node, wanted->second, found->second),
            "{}: {} is of operator set '{}' {}, expected the model's {}", describe(function),
            node.describe(), node.domain(), wanted->second, found->second);
  });
}

// Of the calls in the body: their domains, where their functions stay.
void import_callees(const Model& model, OpsetImports& imports, const Function& function) {
  for_each_node(function.body, [&](const Node& node) {
    const auto called = function.opsets.find(node.domain());
    if (model.function(node) && called != function.opsets.end())
      imports.emplace(node.domain(), called->second);
  });
}

const Attribute* argument(const Node& call, const Function& function, const std::string& name) {
  if (const Attribute* given = call.attribute(name)) return given;
  for (const auto& [key, value] : function.attribute_defaults)
    if (key == name) return &value;
  return nullptr;
}

// Replaces references to the function's attributes throughout `body`, a copy made for this call.
void bind_attributes(const Node& call, const Function& function, Graph& body) {
  body.for_each_graph([&](Graph& graph) {
    for (Node* node : graph.nodes()) {
      std::vector<std::pair<std::string, std::string>> references;
      for (const auto& [name, attribute] : node->attributes())
        if (!attribute.ref.empty()) references.emplace_back(name, attribute.ref);
      for (const auto& [name, reference] : references) {
        if (const Attribute* value = argument(call, function, reference)) {
          ValueMap none;
          graph.set_attribute(node, name, clone_attribute(*value, &graph, none));
        } else {
          graph.remove_attribute(node, name);
        }
      }
    }
  });
}

// Names of the nodes of a graph and the graphs in it: runtimes want them to differ.
class NodeNames {
 public:
  explicit NodeNames(const Graph& graph) {
    for_each_node(graph, [&](const Node& node) { taken_.insert(node.name); });
  }

  // `name`, with a number where it is taken.
  std::string take(const std::string& name) {
    std::string free = name;
    for (int number = 1; !taken_.insert(free).second; ++number)
      free = fmt::format("{}_{}", name, number);
    return free;
  }

 private:
  std::set<std::string> taken_;
};

// Renames what `body` defines, so that it can move into the graph of the call.
void rename_interior(const Node& call, const std::string& prefix, Graph& body, NodeNames& names) {
  body.for_each_graph([&](Graph& graph) {
    const auto rename = [&](Value* value) {
      std::string name = call.graph().unique_name(prefix + value->name());
      while (name != value->name() && body.unique_name(name) != name)
        name = call.graph().unique_name(name + "_1");
      graph.rename(value, name);
    };
    for (Value* value : graph.inputs()) rename(value);
    for (Value* value : graph.initializers())
      if (!value->is_input()) rename(value);
    for (Node* node : graph.nodes()) {
      if (!prefix.empty() || !node->name.empty())
        node->name = names.take(prefix + (node->name.empty() ? node->op_type() : node->name));
      for (Value* value : node->outputs())
        if (value) rename(value);
    }
  });
}

// `prefix` goes before the names inside.
void inline_call(Node& call, const Function& function, const std::string& prefix,
                 NodeNames& names) {
  Graph& target = call.graph();
  require(call.input_count() <= function.body.inputs().size(),
          "expected at most {} inputs, found {}", function.body.inputs().size(),
          call.input_count());
  require(call.output_count() <= function.body.outputs().size(),
          "expected at most {} outputs, found {}", function.body.outputs().size(),
          call.output_count());
  for (const std::string& name : function.attribute_names)
    require(call.attribute(name) != nullptr, "attribute '{}' is required, found none", name);

  Graph body(&target.opsets());
  ValueMap copied;
  clone_graph(function.body, body, copied);
  bind_attributes(call, function, body);
  rename_interior(call, prefix, body, names);

  ValueMap inlined;
  for (std::size_t i = 0; i < body.inputs().size(); ++i) inlined[body.inputs()[i]] = call.input(i);
  splice_graph(body, target, &call, inlined);
  std::vector<std::pair<Value*, std::string>> results;
  for (std::size_t i = 0; i < call.output_count(); ++i) {
    Value* output = call.output(i);
    if (!output || output->is_unused()) continue;
    Value* replacement = inlined.at(body.outputs()[i]);
    require(replacement != nullptr, "output {} is an input that the call omits", i);
    const bool is_made_inside = body.outputs()[i]->producer() != nullptr;
    if (is_made_inside && !output->is_output()) results.emplace_back(replacement, output->name());
    target.replace_uses(output, replacement);
  }
  target.remove(&call);
  // The call's results keep their names.
  for (const auto& [value, name] : results)
    if (target.unique_name(name) == name) target.rename(value, name);
}

// What the names inside begin with: the call's name, else the function's.
std::string prefix_of(const Node& call, const Function& function) {
  return (call.name.empty() ? call.graph().unique_name(function.name) : call.name) + "/";
}

bool inline_calls_once(Model& model) {
  std::vector<Node*> calls;
  model.graph.for_each_graph([&](Graph& graph) {
    for (Node* node : graph.nodes())
      if (model.function(*node)) calls.push_back(node);
  });
  std::reverse(calls.begin(), calls.end());  // those inside a call's own subgraphs first
  NodeNames names(model.graph);
  for (Node* call : calls) {
    const Function& function = *model.function(*call);
    in_context([&] { return call->describe(); },
               [&] { inline_call(*call, function, prefix_of(*call, function), names); });
  }
  return !calls.empty();
}

}  // namespace

void splice_graph(const Graph& body, Graph& target, Node* before, ValueMap& map) {
  for (const Value* value : body.initializers())
    if (!value->is_input())
      map[value] =
          target.add_initializer(target.unique_name(value->name()), value->initializer()->clone());
  for (const Node* node : body.nodes()) clone_node(*node, target, map, before);
}

void inline_functions(Model& model) {
  std::set<const Function*> done;
  for (const auto& function : model.functions) {
    std::vector<const Function*> active;
    check_recursion(model, *function, active, done);
  }
  for (const auto& function : model.functions) reconcile_opsets(model, model.opsets, *function);
  while (inline_calls_once(model)) {
  }
  model.functions.clear();
}

std::int64_t inline_function(Model& model, const Function& function) {
  std::vector<const Function*> active;
  std::set<const Function*> done;
  check_recursion(model, function, active, done);

  struct Caller {
    const Graph* root;
    OpsetImports* imports;
    std::vector<Node*> calls;
  };
  std::vector<Caller> callers;
  std::int64_t count = 0;
  const auto collect = [&](Graph& root, OpsetImports& imports) {
    Caller caller{&root, &imports, {}};
    root.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes())
        if (model.function(*node) == &function) caller.calls.push_back(node);
    });
    std::reverse(caller.calls.begin(),
                 caller.calls.end());  // those inside another's subgraphs first
    count += std::ssize(caller.calls);
    if (!caller.calls.empty()) callers.push_back(std::move(caller));
  };
  collect(model.graph, model.opsets);
  for (const auto& other : model.functions) collect(other->body, other->opsets);

  for (const Caller& caller : callers) {
    reconcile_opsets(model, *caller.imports, function);
    import_callees(model, *caller.imports, function);
    NodeNames names(*caller.root);
    for (Node* call : caller.calls) {
      in_context([&] { return call->describe(); },
                 [&] {
                   for (const auto& [name, value] : function.attribute_defaults) {
                     const Attribute* given = call->attribute(name);
                     require(
                         !given || given->ref.empty(),
                         "attribute '{}' is its caller's, which may not have it, and has a default",
                         name);
                   }
                   inline_call(*call, function, count == 1 ? "" : prefix_of(*call, function),
                               names);
                 });
    }
  }
  std::erase_if(model.functions, [&](const auto& each) { return each.get() == &function; });
  return count;
}

}  // namespace onnxpress
