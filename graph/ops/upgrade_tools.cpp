#include "graph/ops/upgrade_tools.h"

namespace onnxpress::upgrading {

bool refers(const UpgradeContext& c, std::string_view name) {
  const Attribute* attribute = c.node.attribute(name);
  return attribute && !attribute->ref.empty();
}

std::string text_attribute(const UpgradeContext& c, std::string_view name) {
  const Attribute* attribute = c.node.attribute(name);
  const std::string* text = attribute ? std::get_if<std::string>(&attribute->value) : nullptr;
  return text ? *text : "";
}

Value* constant(const UpgradeContext& c, std::string_view name_hint, Tensor tensor) {
  const std::string name = c.graph.unique_name(name_hint);
  if (!c.in_function) return c.graph.add_initializer(name, std::move(tensor));
  NodeSpec spec{.op_type = "Constant", .outputs = {name}};
  spec.attributes.emplace("value", std::move(tensor));
  return c.graph.add_node(std::move(spec), &c.node)->output();
}

std::string hint(const UpgradeContext& c, std::string_view what) {
  return fmt::format("{}_{}", c.node.output() ? c.node.output()->name() : c.node.op_type(), what);
}

Value* ints_constant(const UpgradeContext& c, std::string_view what, const Ints& values) {
  return constant(c, hint(c, what),
                  Tensor::of<std::int64_t>({static_cast<std::int64_t>(values.size())}, values));
}

Value* add_before(const UpgradeContext& c, std::string op_type, std::string_view what,
                  std::vector<Value*> inputs, Attributes attributes) {
  return c.graph
      .add_node({.op_type = std::move(op_type),
                 .inputs = std::move(inputs),
                 .outputs = {c.graph.unique_name(hint(c, what))},
                 .attributes = std::move(attributes)},
                &c.node)
      ->output();
}

void take_over(const UpgradeContext& c, std::size_t index, Value* replacement) {
  Value* old = c.node.output(index);
  replacement->type = old->type;
  replacement->type_in_file = old->type_in_file;
  c.graph.replace_uses(old, replacement);
}

}  // namespace onnxpress::upgrading
