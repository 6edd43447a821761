// Channels that can only be removed together.
//
// Removing one slice of a tensor along an axis forces others: the rows of the weight that makes it,
// the columns of every weight that reads it, its BatchNormalization's parameters, the same channel of
// whatever it is added to. Slices so tied together are one set, and sets that go through the same
// tensors one group, of which any part can be removed ("dependency groups": Fang et al. 2023,
// "DepGraph: Towards Any Structural Pruning"). Ties follow from the `axes` of the operators' rows
// (graph/ops/registry.h), and from what Concat, Split, Reshape and convolutions by group do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// Whether the operator contracts a constant; reductions and pooling contract too, but no weight.
bool has_weight(const Node& node);

// One axis of a value.
struct AxisSlot {
  Value* value = nullptr;
  std::size_t axis = 0;
  std::size_t first = 0, count = 0;  // its elements' numbers: [first, first + count)
};

// What is removed as one: elements of slots, in order.
struct ChannelSet {
  std::vector<std::pair<std::size_t, std::int64_t>> members;  // slot, element along its axis
};

struct DependencyGroup {
  std::vector<std::size_t> slots;
  std::vector<ChannelSet> sets;
  // A normalization takes statistics over the channels: removing channels that nothing reads changes
  // what it makes of the others.
  bool is_normalized = false;
};

class DependencyGroups {
 public:
  // Of the main graph, whose functions are inlined, from opset 7 on. Fills in the types of the
  // model's values first. Throws Error when the shape rules find a contradiction.
  static DependencyGroups of(Model& model);

  const std::vector<AxisSlot>& slots() const { return slots_; }
  // Groups whose sets can be removed, by the first value that goes through them.
  const std::vector<DependencyGroup>& groups() const { return groups_; }
  // By value: why its channels cannot be removed. Of results of operators with a weight.
  const std::vector<std::pair<const Value*, std::string>>& obstacles() const { return obstacles_; }

 private:
  friend class DependencyBuilder;
  std::vector<AxisSlot> slots_;
  std::vector<DependencyGroup> groups_;
  std::vector<std::pair<const Value*, std::string>> obstacles_;
};

// By set of the group: what it has of the energy (sum of squares) of each weight that goes through
// the group, summed over the weights. Larger is more important (the group norm of Fang et al. 2023,
// every weight counting alike).
std::vector<double> channel_importance(const DependencyGroups& groups, const DependencyGroup& group);

// Removes the listed sets of each group (by number, sorted; as many lists as groups) from the model
// that the groups are of: slices constants, adapts groups of convolutions, parts of Split and targets
// of Reshape, and types. The groups are then of a model that is no more. Throws Error when nothing of
// a group would be left.
void remove_channels(Model& model, const DependencyGroups& groups,
                     const std::vector<std::vector<std::size_t>>& removed);

}  // namespace onnxpress
