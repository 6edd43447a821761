#include <cstring>

#include "graph/ops/concat_split.h"
#include "graph/ops/conv.h"
#include "graph/ops/infer.h"
#include "graph/rewrite/pattern.h"
#include "passes/common/dependency_groups.h"
#include "passes/common/reshape_targets.h"

namespace onnxpress {
namespace {

// The elements of these numbers along the axis, in that order.
Tensor chosen(const Tensor& tensor, std::size_t axis, const std::vector<std::int64_t>& numbers) {
  Dims dims = tensor.dims();
  const std::span<const std::int64_t> all = tensor.dims();
  const std::int64_t outer = element_count(all.first(axis)), count = dims[axis];
  dims[axis] = std::ssize(numbers);
  Tensor result = Tensor::uninitialized(tensor.dtype(), dims);
  const std::size_t width = static_cast<std::size_t>(element_count(all.subspan(axis + 1))) * bits(tensor.dtype()) / 8;
  const std::byte* const from = tensor.bytes().data();
  std::byte* to = result.mutable_bytes().data();
  for (std::int64_t o = 0; o < outer; ++o)
    for (const std::int64_t number : numbers) {
      std::memcpy(to, from + static_cast<std::size_t>(o * count + number) * width, width);
      to += width;
    }
  return result;
}

class Remover {
 public:
  Remover(Model& model, const DependencyGroups& groups) : model_(model), slots_(groups.slots()) {
    for (const AxisSlot& slot : slots_) gone_.emplace_back(slot.count, false);
  }

  void mark(const DependencyGroup& group, const std::vector<std::size_t>& removed) {
    require(removed.size() < group.sets.size(),
            "of '{}': expected at least one channel to be left, found {} of {} removed",
            slots_[group.slots.front()].value->name(), removed.size(), group.sets.size());
    for (const std::size_t number : removed)
      for (const auto& [slot, element] : group.sets.at(number).members)
        gone_[slot][static_cast<std::size_t>(element)] = true;
  }

  void apply() {
    for (std::size_t s = 0; s < slots_.size(); ++s) {
      kept_.emplace_back();
      for (std::size_t e = 0; e < slots_[s].count; ++e)
        if (!gone_[s][e]) kept_.back().push_back(static_cast<std::int64_t>(e));
      if (kept_.back().size() < slots_[s].count) changed_.push_back(s);
    }
    for (const std::size_t s : changed_) shrink(s);
    for (const std::size_t s : changed_) {
      if (Node* producer = slots_[s].value->producer()) adapt_producer(*producer, s);
      const std::vector<Use> uses(slots_[s].value->uses().begin(), slots_[s].value->uses().end());
      for (const Use& use : uses)
        if (use.node->is("Split") && use.index == 0) resplit(*use.node, s);
    }
    remove_unused(model_.graph);
    infer_types(model_);
  }

 private:
  void shrink(std::size_t s) {
    const AxisSlot& slot = slots_[s];
    if (const Tensor* tensor = slot.value->constant())
      return model_.graph.set_initializer(slot.value, chosen(*tensor, slot.axis, kept_[s]));
    (*slot.value->type.shape)[slot.axis] = Dim(std::ssize(kept_[s]));
  }

  // What of the node's attributes and arguments depends on the size of its result.
  void adapt_producer(Node& node, std::size_t s) {
    if (is_reshape(node)) return retarget(node, slots_[s].axis);
    if ((!node.is("Conv") && !node.is("ConvTranspose")) || slots_[s].axis != 1) return;
    const std::int64_t groups = ConvAttrs::from(node).group;
    // Groups went as wholes.
    if (groups > 1) set_conv_groups(node, std::ssize(kept_[s]) * groups / static_cast<std::int64_t>(slots_[s].count));
  }

  void resplit(Node& node, std::size_t s) {
    const auto rank = slots_[s].value->type.shape->size();
    const std::int64_t axis = normalize_axis(SplitAttrs::from(node).axis, rank);
    if (axis != static_cast<std::int64_t>(slots_[s].axis)) return;
    std::vector<std::int64_t> sizes;
    for (const Value* part : node.outputs()) sizes.push_back((*part->type.shape)[slots_[s].axis].value());
    OpCall call = make_split(node.opset(), axis, sizes);
    std::vector<std::string> before;
    for (const auto& [name, attribute] : node.attributes()) before.push_back(name);
    for (const std::string& name : before) model_.graph.remove_attribute(&node, name);
    for (auto& [name, attribute] : call.attributes) model_.graph.set_attribute(&node, name, std::move(attribute));
    for (std::size_t i = 0; i < call.constants.size(); ++i)
      model_.graph.set_node_input(
          &node, i + 1,
          model_.graph.add_initializer(model_.graph.unique_name("split"), std::move(call.constants[i])));
  }

  Model& model_;
  const std::vector<AxisSlot>& slots_;
  std::vector<std::vector<bool>> gone_;          // by slot and element
  std::vector<std::vector<std::int64_t>> kept_;  // by slot
  std::vector<std::size_t> changed_;             // slots
};

}  // namespace

void remove_channels(Model& model, const DependencyGroups& groups,
                     const std::vector<std::vector<std::size_t>>& removed) {
  require(removed.size() == groups.groups().size(), "expected channels of {} groups, found {}",
          groups.groups().size(), removed.size());
  Remover remover(model, groups);
  for (std::size_t g = 0; g < removed.size(); ++g) remover.mark(groups.groups()[g], removed[g]);
  remover.apply();
}

}  // namespace onnxpress
