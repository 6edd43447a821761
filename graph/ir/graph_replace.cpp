// Graph::replace_uses.
#include <algorithm>
#include <utility>

#include "graph/ir/graph.h"

namespace onnxpress {

void Graph::replace_uses(Value* old, Value* replacement) {
  if (old == replacement) return;
  for (const Use& use : old->uses_) use.node->graph_->check_visible(replacement);
  std::vector<Graph*> listings;
  for (Graph* listing : old->output_of_) {
    listing->check_visible(replacement);
    if (old->is_input_ && listing == old->graph_ && !listing->parent_)
      fail("output '{}' is also an input: it cannot be replaced and keep its name", old->name_);
    if (std::ranges::find(listings, listing) == listings.end()) listings.push_back(listing);
  }

  const std::vector<Use> uses = std::exchange(old->uses_, {});
  for (const Use& use : uses) add_use(use.node, use.index, replacement);
  for (Graph* listing : listings) listing->replace_output(old, replacement);
}

// `old` as an output of this graph.
void Graph::replace_output(Value* old, Value* replacement) {
  // An input's name stays with it, and an outer value's is not this graph's.
  const bool declared_here = old->graph_ == this && !old->is_input_;
  const bool stands_in = replacement->graph_ == this && replacement->producer_ &&
                         replacement->output_of_.empty();
  std::string output_name;  // made up where empty
  if (declared_here && old->name_ != replacement->name_) {
    output_name = old->name_;
    rename(old, unique_name(output_name));
  }

  Value* output = replacement;
  if (!stands_in)
    output = add_node({.op_type = "Identity", .inputs = {replacement}, .outputs = {output_name}})
                 ->output();
  else if (declared_here)
    rename(replacement, output_name);
  if (declared_here || !stands_in) {
    output->type = old->type;
    output->doc_string = old->doc_string;
    output->metadata = old->metadata;
    output->unknown_fields = old->unknown_fields;
  }
  for (Value*& listed : outputs_) {
    if (listed != old) continue;
    drop_listing(old);
    listed = output;
    output->output_of_.push_back(this);
  }
}

}  // namespace onnxpress
