// Scan-8 runs along axis 1 of batches: a Scan-9 over the batch whose body is a Scan-9 over the
// steps.
#include "graph/ir/clone.h"
#include "graph/ops/upgrade_tools.h"

namespace onnxpress::upgrading {
namespace {

// Distinct also where outputs are omitted.
std::string output_name(const UpgradeContext& c, std::size_t index, std::string_view suffix) {
  const Value* output = c.node.output(index);
  return c.graph.unique_name(output ? fmt::format("{}_{}", output->name(), suffix)
                                    : fmt::format("{}_{}_{}", c.node.op_type(), suffix, index));
}

// Types inside one entry of the batch.
Type entry_type(const Type& of_step, bool has_steps) {
  Type type = of_step;
  if (has_steps && type.is_tensor() && type.shape) type.shape->insert(type.shape->begin(), Dim());
  return type;
}

}  // namespace

Result scan_9(const UpgradeContext& c) {
  // The one made here, met again.
  if (c.node.attribute("scan_input_directions")) return std::nullopt;
  if (c.node.input(0)) return "Scan-8 with lengths of its sequences";
  const Attribute* body = c.node.attribute("body");
  const std::unique_ptr<Graph>* steps =
      body ? std::get_if<std::unique_ptr<Graph>>(&body->value) : nullptr;
  if (!steps) return "attribute 'body' is missing";
  const auto scanned = take<std::int64_t>(c, "num_scan_inputs");
  if (!scanned) return "attribute 'num_scan_inputs' is missing";
  const auto inputs = static_cast<std::int64_t>(c.node.input_count()) - 1;
  if (*scanned < 1 || *scanned > inputs)
    return "attribute 'num_scan_inputs' does not fit its inputs";
  if ((*steps)->inputs().size() != static_cast<std::size_t>(inputs))
    return "its body does not take its inputs";

  auto entry = std::make_unique<Graph>(&c.graph);
  entry->name = hint(c, "entry");
  NodeSpec inner{.op_type = "Scan", .name = c.node.name};
  for (std::int64_t i = 0; i < inputs; ++i) {
    const Value& of_step = *(*steps)->inputs()[static_cast<std::size_t>(i)];
    inner.inputs.push_back(entry->add_input(c.graph.unique_name(of_step.name() + "_entry"),
                                            entry_type(of_step.type, i >= inputs - *scanned)));
  }
  inner.outputs.clear();
  for (std::size_t i = 0; i < c.node.output_count(); ++i)
    inner.outputs.push_back(output_name(c, i, "entry"));
  const Ints forward(static_cast<std::size_t>(*scanned), 0);
  inner.attributes["scan_input_directions"] = take<Ints>(c, "directions").value_or(forward);
  inner.attributes["num_scan_inputs"] = *scanned;
  ValueMap map;
  inner.attributes["body"] = clone_attribute(*body, entry.get(), map);
  Node* scan = entry->add_node(std::move(inner));
  for (Value* output : scan->outputs()) entry->add_output(output);

  NodeSpec outer{.op_type = "Scan", .name = c.node.name.empty() ? "" : c.node.name + "_batch"};
  for (std::size_t i = 1; i < c.node.input_count(); ++i) outer.inputs.push_back(c.node.input(i));
  outer.outputs.clear();
  for (std::size_t i = 0; i < c.node.output_count(); ++i)
    outer.outputs.push_back(output_name(c, i, "batch"));
  outer.attributes["scan_input_directions"] = Ints(static_cast<std::size_t>(inputs), 0);
  outer.attributes["num_scan_inputs"] = inputs;
  outer.attributes["body"] = std::move(entry);
  Node* batch = c.graph.add_node(std::move(outer), &c.node);
  for (std::size_t i = 0; i < c.node.output_count(); ++i)
    if (c.node.output(i)) take_over(c, i, batch->output(i));
  c.graph.remove(&c.node);
  return std::nullopt;
}

}  // namespace onnxpress::upgrading
