#include "graph/onnx/validate.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "graph/base/dtype.h"

namespace onnxpress {

namespace {

constexpr std::int64_t min_ir_version = 3;
constexpr std::int64_t max_ir_version = 13;
constexpr std::int64_t max_opset = 27;

// Functions by domain, name and overload.
using FunctionKey = std::tuple<std::string_view, std::string_view, std::string_view>;
using FunctionIndex = std::map<FunctionKey, const Function*>;

FunctionKey key_of(const Function& function) {
  return {function.domain, function.name, function.overload};
}
FunctionKey key_of(const Node& node) { return {node.domain(), node.op_type(), node.overload()}; }

// Checks one root graph (the model's, or a function's body) and all that is nested in it.
class Validator {
 public:
  // `function`: whose body this is, or nullptr.
  Validator(const Model& model, const FunctionIndex& functions, const Function* function)
      : model_(model), functions_(functions), function_(function) {}

  void check(const Graph& graph) const {
    for (const Value* value : graph.inputs()) check_value(*value);
    for (const Value* value : graph.outputs()) check_value(*value);
    for (const Value* value : graph.initializers()) {
      check_value(*value);
      in_context([&] { return fmt::format("initializer '{}'", value->name()); },
                 [&] { check_initializer(*value); });
    }
    for (const Node* node : graph.nodes())
      in_context([&] { return node->describe(); }, [&] { check(*node); });
  }

  void check(const Attribute& attribute) const {
    if (!attribute.ref.empty()) {
      check_reference(attribute);
      return;
    }
    std::visit([&](const auto& held) { check_held(held); }, attribute.value);
  }

  void check_opsets(const OpsetImports& opsets) const {
    const auto standard = opsets.find("");
    if (standard == opsets.end()) return;
    require(standard->second >= 1 && standard->second <= max_opset,
            "expected an ai.onnx operator set from 1 to {}, found {}", max_opset, standard->second);
  }

 private:
  void check(const Node& node) const {
    const bool is_import_missing = node.domain().empty() && node.opset() == 0;
    require(!is_import_missing || functions_.contains(key_of(node)),
            "no ai.onnx operator set is imported");
    for (const auto& entry : node.attributes())
      in_context([&] { return fmt::format("attribute '{}'", entry.first); },
                 [&] { check(entry.second); });
    for (const Value* output : node.outputs())
      if (output) check_value(*output);
  }

  void check_value(const Value& value) const {
    in_context([&] { return fmt::format("type of '{}'", value.name()); },
               [&] { check_type(value.type); });
  }

  void check_type(const Type& type) const {
    if (type.elem != DType::undefined) check_element(type.elem);
    if (type.inner) check_type(*type.inner);
  }

  void check_element(DType type) const {
    require(is_known(type), "unknown element type {}", static_cast<int>(type));
    require(first_ir_version(type) <= model_.ir_version, "{} needs IR version {}, the model has {}",
            name(type), first_ir_version(type), model_.ir_version);
  }

  void check_initializer(const Value& value) const {
    const Initializer& initializer = *value.initializer();
    if (initializer.sparse)
      check_held(*initializer.sparse);
    else
      check_tensor(initializer.tensor);
    const DType held =
        initializer.sparse ? initializer.sparse->values.tensor.dtype() : initializer.tensor.dtype();
    require(
        !value.type.is_tensor() || value.type.elem == DType::undefined || value.type.elem == held,
        "declared as {}, but holds {}", name(value.type.elem), name(held));
  }

  void check_tensor(const Tensor& tensor) const {
    require(tensor.defined(), "a tensor has no element type");
    check_element(tensor.dtype());
    const std::size_t found =
        tensor.dtype() == DType::string ? tensor.strings().size() : tensor.bytes().size();
    const std::size_t expected = tensor.dtype() == DType::string
                                     ? static_cast<std::size_t>(tensor.size())
                                     : tensor.byte_size();
    require(found == expected, "{}{} needs {} {}, found {}", name(tensor.dtype()),
            to_string(tensor.dims()), expected,
            tensor.dtype() == DType::string ? "strings" : "bytes", found);
  }

  // Inside a function, an attribute may refer to one of the function's.
  void check_reference(const Attribute& attribute) const {
    require(function_ != nullptr, "refers to attribute '{}' outside a function", attribute.ref);
    const auto& names = function_->attribute_names;
    const auto& defaults = function_->attribute_defaults;
    const bool declared = std::find(names.begin(), names.end(), attribute.ref) != names.end() ||
                          std::any_of(defaults.begin(), defaults.end(), [&](const auto& entry) {
                            return entry.first == attribute.ref;
                          });
    require(declared, "refers to attribute '{}', which function '{}' does not declare",
            attribute.ref, function_->name);
  }

  template <class T>
  void check_held(const T&) const {}  // numbers and strings
  void check_held(const NamedTensor& named) const { check_tensor(named.tensor); }
  void check_held(const Type& type) const { check_type(type); }
  void check_held(const std::unique_ptr<Graph>& graph) const {
    in_context([&] { return fmt::format("subgraph '{}'", graph->name); }, [&] { check(*graph); });
  }
  template <class T>
  void check_held(const std::vector<T>& list) const {
    for (const T& item : list) check_held(item);
  }
  void check_held(const SparseTensor& sparse) const {
    const Tensor& values = sparse.values.tensor;
    const Tensor& indices = sparse.indices.tensor;
    check_tensor(values);
    check_tensor(indices);
    require(values.rank() == 1, "sparse values: expected one axis, found {}",
            to_string(values.dims()));
    const Dims by_coordinate{values.size(), static_cast<std::int64_t>(sparse.dims.size())};
    require(indices.dtype() == DType::int64 &&
                (indices.dims() == Dims{values.size()} || indices.dims() == by_coordinate),
            "sparse indices: expected int64{} or int64{}, found {}{}",
            to_string(Dims{values.size()}), to_string(by_coordinate), name(indices.dtype()),
            to_string(indices.dims()));
    element_count(sparse.dims);
  }

  const Model& model_;
  const FunctionIndex& functions_;
  const Function* function_;
};

void check_function(const Validator& validator, const Function& function) {
  std::set<std::string> attributes;
  const auto add = [&](const std::string& name) {
    require(attributes.insert(name).second, "attribute '{}' is declared twice", name);
  };
  for (const std::string& name : function.attribute_names) add(name);
  validator.check_opsets(function.opsets);
  for (const auto& entry : function.attribute_defaults) {
    add(entry.first);
    in_context([&] { return fmt::format("default of attribute '{}'", entry.first); },
               [&] { validator.check(entry.second); });
  }
  validator.check(function.body);
}

// Functions that call themselves, directly or not, could not be expanded.
void check_recursion(const FunctionIndex& index) {
  enum class State { untouched, open, done };
  std::map<const Function*, State> states;
  std::vector<std::pair<const Function*, bool>> pending;  // with "leave it" instead of "enter it"
  for (const auto& [key, function] : index) pending.emplace_back(function, false);
  while (!pending.empty()) {
    const auto [function, leave] = pending.back();
    pending.pop_back();
    State& state = states[function];
    if (leave) state = State::done;
    if (state != State::untouched) continue;
    state = State::open;
    pending.emplace_back(function, true);
    std::as_const(function->body).for_each_graph([&](const Graph& graph) {
      for (const Node* node : graph.nodes()) {
        const auto callee = index.find(key_of(*node));
        if (callee == index.end()) continue;
        require(states[callee->second] != State::open, "function '{}' calls itself",
                callee->second->name);
        pending.emplace_back(callee->second, false);
      }
    });
  }
}

}  // namespace

void check_ir_version(std::int64_t version) {
  require(version >= min_ir_version && version <= max_ir_version,
          "expected an IR version from {} to {}, found {}", min_ir_version, max_ir_version,
          version);
}

void validate(const Model& model) {
  check_ir_version(model.ir_version);
  FunctionIndex functions;
  for (const auto& function : model.functions)
    require(functions.emplace(key_of(*function), function.get()).second,
            "function '{}' is defined twice", function->name);
  for (const auto& function : model.functions)
    in_context([&] { return fmt::format("function '{}'", function->name); },
               [&] { check_function(Validator(model, functions, function.get()), *function); });
  check_recursion(functions);

  in_context([&] { return fmt::format("graph '{}'", model.graph.name); },
             [&] {
               const Validator validator(model, functions, nullptr);
               validator.check_opsets(model.opsets);
               validator.check(model.graph);
             });
}

}  // namespace onnxpress
