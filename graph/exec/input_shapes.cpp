#include "graph/exec/input_shapes.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "graph/base/error.h"
#include "graph/ops/infer.h"

namespace onnxpress {
namespace {

struct Bound {
  std::int64_t number = 0;
  std::string input;
};
using Symbols = std::map<std::string, Bound, std::less<>>;

void bind(const Value& input, const Dims& dims, Symbols& symbols) {
  require(input.type.is_tensor(), "input '{}' is {}: it has no shape", input.name(),
          to_string(input.type));
  if (!input.type.shape) return;
  const Shape& declared = *input.type.shape;
  bool fits = declared.size() == dims.size();
  for (std::size_t axis = 0; fits && axis < declared.size(); ++axis)
    fits = !declared[axis].is_known() || declared[axis].value() == dims[axis];
  require(fits, "input '{}' is declared {}, found {}", input.name(), to_string(declared),
          to_string(dims));
  for (std::size_t axis = 0; axis < declared.size(); ++axis) {
    if (!declared[axis].is_symbol()) continue;
    const auto [known, is_new] =
        symbols.try_emplace(declared[axis].symbol(), Bound{dims[axis], input.name()});
    require(is_new || known->second.number == dims[axis],
            "'{}' is {} in input '{}' and {} in input '{}'", declared[axis].symbol(),
            known->second.number, known->second.input, dims[axis], input.name());
  }
}

void substitute(Value& value, const Symbols& symbols) {
  if (!value.type.shape) return;
  for (Dim& dim : *value.type.shape) {
    if (!dim.is_symbol()) continue;
    if (const auto bound = symbols.find(dim.symbol()); bound != symbols.end())
      dim = bound->second.number;
  }
}

}  // namespace

std::unique_ptr<Model> with_input_shapes(const Model& model, const InputShapes& shapes) {
  std::unique_ptr<Model> fixed = model.clone();
  std::vector<std::string> names;
  Symbols symbols;
  for (const Value* input : fixed->required_inputs()) {
    names.push_back(input->name());
    if (const auto shape = shapes.find(input->name()); shape != shapes.end())
      bind(*input, shape->second, symbols);
  }
  for (const auto& [name, dims] : shapes)
    if (std::ranges::find(names, name) == names.end()) {
      const std::string nearest = nearest_name(name, names);
      fail("the model has no input '{}'{}", name,
           nearest.empty() ? fmt::format(" (inputs: {})", fmt::join(names, ", "))
                           : fmt::format("; did you mean '{}'?", nearest));
    }
  fixed->graph.for_each_graph([&](Graph& graph) {
    for (Value* input : graph.inputs()) substitute(*input, symbols);
    for (Node* node : graph.nodes())
      for (Value* output : node->outputs())
        if (output) substitute(*output, symbols);
  });
  for (Value* input : fixed->required_inputs())
    if (const auto shape = shapes.find(input->name()); shape != shapes.end())
      input->type.shape = to_shape(shape->second);
  infer_types(*fixed);
  return fixed;
}

std::vector<std::string> open_dims(const Model& model) {
  std::vector<std::string> names;
  for (const Value* input : model.required_inputs()) {
    if (!input->type.shape) continue;
    for (std::size_t axis = 0; axis < input->type.shape->size(); ++axis) {
      const Dim& dim = (*input->type.shape)[axis];
      if (dim.is_known()) continue;
      std::string name =
          dim.is_symbol() ? dim.symbol() : fmt::format("{}[{}]", input->name(), axis);
      if (std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
    }
  }
  return names;
}

}  // namespace onnxpress
