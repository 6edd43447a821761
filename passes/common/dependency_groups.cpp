#include "passes/common/dependency_groups.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <set>

#include "graph/ops/concat_split.h"
#include "graph/ops/conv.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/registry.h"
#include "passes/common/channel_sets.h"
#include "passes/common/reshape_targets.h"
#include "passes/common/weights.h"

namespace onnxpress {
namespace {

using Kind = AxisRole::Kind;

// Operators whose attributes or arguments say how many channels there are, beside those that are
// adapted.
bool has_fixed_sizes(const Node& node) {
  static const std::set<std::string_view> adaptable = {"Gelu",      "BiasGelu",    "FastGelu",
                                                       "QuickGelu", "FusedMatMul", "FusedGemm"};
  static const std::set<std::string_view> fixed = {"DeformConv", "ConvInteger", "QLinearConv", "GroupNormalization"};
  if (!node.domain().empty()) return node.domain() != "com.microsoft" || !adaptable.contains(node.op_type());
  if (node.is("Resize")) return node.input(3) != nullptr && node.input(3)->producer() == nullptr;
  return fixed.contains(node.op_type());
}

// Whether the node takes statistics over `axis` of its input.
bool is_normalized_over(const Node& node, std::size_t axis, std::size_t rank) {
  if (!node.is("LayerNormalization") && !node.is("RMSNormalization") && !node.is("SimplifiedLayerNormalization"))
    return false;
  return static_cast<std::int64_t>(axis) >= normalize_axis(LayerNormAttrs::from(node).axis, rank);
}

}  // namespace

bool has_weight(const Node& node) {
  return std::ranges::any_of(weight_operands(node, WeightKinds::linear),
                             [&](const OperandWeight& weight) { return node.input(weight.operand)->is_constant(); });
}

// Builds the sets by following ties from the axes of all weights.
class DependencyBuilder {
 public:
  explicit DependencyBuilder(Model& model) : graph_(model.graph) {
    infer_types(model);
    for (Node* node : graph_.nodes())
      for (const OperandWeight& weight : weight_operands(*node, WeightKinds::linear)) {
        Value* value = node->input(weight.operand);
        if (!value->is_constant()) continue;
        if (weight.channel_axis) visit(value, static_cast<std::size_t>(*weight.channel_axis));
        if (weight.input_axis) visit(value, static_cast<std::size_t>(*weight.input_axis));
        weighted_.push_back(node);
      }
    while (!queue_.empty()) {
      const std::size_t slot = queue_.front();
      queue_.pop_front();
      explore(slot);
    }
  }

  DependencyGroups build() {
    DependencyGroups result;
    std::map<std::size_t, ChannelSet> sets;  // by root
    for (std::size_t s = 0; s < slots_.size(); ++s)
      for (std::size_t e = 0; e < slots_[s].count; ++e)
        sets[sets_.root(slots_[s].first + e)].members.emplace_back(s, static_cast<std::int64_t>(e));
    std::map<std::vector<std::size_t>, DependencyGroup> by_slots;
    for (auto& [top, set] : sets) {
      if (sets_.blocked(top) != nullptr) continue;
      std::vector<std::size_t> through;
      for (const auto& [slot, element] : set.members)
        if (through.empty() || through.back() != slot) through.push_back(slot);
      DependencyGroup& group = by_slots[through];
      group.slots = through;
      group.is_normalized |= normalized_.contains(top);
      group.sets.push_back(std::move(set));
    }
    for (auto& [through, group] : by_slots)
      if (group.sets.size() > 1) result.groups_.push_back(std::move(group));
    for (const Node* node : weighted_) {
      const Value* output = node->output();
      for (const AxisSlot& slot : slots_) {
        const std::string* why = slot.value == output ? sets_.blocked(sets_.root(slot.first)) : nullptr;
        if (why == nullptr) continue;
        result.obstacles_.emplace_back(output, *why);
        break;
      }
    }
    result.slots_ = std::move(slots_);
    return result;
  }

 private:
  // --- elements and their sets --------------------------------------------------------------------

  void unite(std::size_t a, std::size_t b) {
    if (normalized_.erase(sets_.unite(a, b)) > 0) normalized_.insert(sets_.root(a));
  }

  // The slot's number; nothing where the size is not known. A new one will be explored.
  std::optional<std::size_t> visit(Value* value, std::size_t axis) {
    if (const auto found = numbers_.find({value, axis}); found != numbers_.end()) return found->second;
    const auto& shape = value->type.shape;
    if (!shape || axis >= shape->size() || !(*shape)[axis].is_known()) return std::nullopt;
    const std::size_t number = slots_.size();
    const auto count = static_cast<std::size_t>((*shape)[axis].value());
    slots_.push_back({value, axis, sets_.add(count), count});
    numbers_.emplace(std::pair(value, axis), number);
    queue_.push_back(number);
    return number;
  }

  void block(std::size_t slot, const std::string& reason) {
    sets_.block(slots_[slot].first, slots_[slot].count, reason);
  }

  // Element e of `slot` and elements offset + e * repeat up to (e + 1) * repeat of the other are one.
  void tie(std::size_t slot, Value* other, std::size_t axis, std::size_t offset = 0, std::size_t repeat = 1) {
    const std::optional<std::size_t> peer = visit(other, axis);
    if (!peer || slots_[*peer].count < offset + slots_[slot].count * repeat)
      return block(slot, fmt::format("axis {} of '{}' is not known to have the same channels", axis, other->name()));
    for (std::size_t e = 0; e < slots_[slot].count; ++e)
      for (std::size_t i = 0; i < repeat; ++i)
        unite(slots_[slot].first + e, slots_[*peer].first + offset + e * repeat + i);
  }

  // --- ties ---------------------------------------------------------------------------------------

  void explore(std::size_t slot) {
    Value* const value = slots_[slot].value;
    if (value->is_input()) block(slot, fmt::format("'{}' is an input", value->name()));
    if (value->is_output()) block(slot, fmt::format("'{}' is an output", value->name()));
    if (value->initializer() != nullptr) {
      const Tensor* tensor = value->constant();
      if (tensor == nullptr || tensor->dtype() == DType::string || bits(tensor->dtype()) < 8)
        block(slot, fmt::format("'{}' is sparse, overridable or of packed elements", value->name()));
    }
    if (Node* producer = value->producer()) touch(*producer, slot, std::nullopt);
    const std::vector<Use> uses(value->uses().begin(), value->uses().end());
    for (const Use& use : uses) {
      if (&use.node->graph() == &graph_)
        touch(*use.node, slot, use.index);
      else
        block(slot, fmt::format("{} reads '{}' in a subgraph", use.node->describe(), value->name()));
    }
  }

  // `operand`: which the slot's value is; nothing: an output.
  void touch(Node& node, std::size_t slot, std::optional<std::size_t> operand) {
    if (operand && (node.is("Shape") || node.is("Size"))) return;  // follow by themselves
    if (!node.subgraphs().empty() || has_fixed_sizes(node))
      return block(slot, fmt::format("the sizes of {} cannot be changed", node.describe()));
    if (is_reshape(node)) return touch_reshape(node, slot, operand);
    if (node.is("Split")) return touch_split(node, slot, operand);
    if (node.is("Concat") && along_concat(node, slot)) return touch_concat(node, slot);
    if ((node.is("Conv") || node.is("ConvTranspose")) && ConvAttrs::from(node).group > 1)
      return touch_grouped(node, slot, operand);
    touch_roles(node, slot, operand);
  }

  void touch_roles(Node& node, std::size_t slot, std::optional<std::size_t> operand) {
    const AxisSlot at = slots_[slot];
    const OpDef* op = operators().find(node);
    if (op == nullptr || op->axes == nullptr)
      return block(slot, fmt::format("nothing is known of the axes of {}", node.describe()));
    for (std::size_t i = 1; i < node.output_count(); ++i)
      if (node.output(i) != nullptr && !node.output(i)->is_unused())
        return block(slot, fmt::format("a further result of {} is read", node.describe()));
    const OperandAxes roles = op->axes(node);
    if (!operand) return tie_operands(node, roles, slot);
    if (*operand >= roles.size() || at.axis >= roles[*operand].size())
      return block(slot,
                   fmt::format("nothing is known of the axes of '{}' in {}", at.value->name(), node.describe()));
    const AxisRole role = roles[*operand][at.axis];
    if (role.kind == Kind::output) {
      tie(slot, node.output(), static_cast<std::size_t>(role.output_axis));
    } else if (role.kind == Kind::reduced) {
      tie_contraction(node, roles, slot, *operand);
    } else {
      block(slot, fmt::format("{} does not keep the channels of '{}' apart", node.describe(), at.value->name()));
    }
  }

  // An axis of the result with those of all operands that become it.
  void tie_operands(Node& node, const OperandAxes& roles, std::size_t slot) {
    const AxisSlot at = slots_[slot];
    if (is_normalized_over(node, at.axis, at.value->type.shape->size()))
      for (std::size_t e = 0; e < at.count; ++e) normalized_.insert(sets_.root(at.first + e));
    bool is_tied = false;
    for (std::size_t i = 0; i < roles.size(); ++i)
      for (std::size_t axis = 0; axis < roles[i].size(); ++axis)
        if (roles[i][axis].kind == Kind::output && roles[i][axis].output_axis == static_cast<std::int64_t>(at.axis)) {
          tie(slot, node.input(i), axis);
          is_tied = true;
        }
    if (is_tied) return;
    block(slot, fmt::format("{} makes the channels of '{}' of no single ones", node.describe(), at.value->name()));
  }

  // What is summed over with the same axis of the other factor.
  void tie_contraction(Node& node, const OperandAxes& roles, std::size_t slot, std::size_t operand) {
    bool is_tied = false;
    for (std::size_t i = 0; i < roles.size(); ++i) {
      if (i == operand) continue;
      const auto count = std::ranges::count(roles[i], Kind::reduced, &AxisRole::kind);
      if (count == 0) continue;
      if (count > 1) return block(slot, fmt::format("{} sums over several axes", node.describe()));
      const auto axis = std::ranges::find(roles[i], Kind::reduced, &AxisRole::kind) - roles[i].begin();
      tie(slot, node.input(i), static_cast<std::size_t>(axis));
      is_tied = true;
    }
    if (is_tied) return;
    block(slot, fmt::format("{} reduces the channels of '{}'", node.describe(), slots_[slot].value->name()));
  }

  bool along_concat(const Node& node, std::size_t slot) const {
    const AxisSlot& at = slots_[slot];
    const std::int64_t axis = normalize_axis(concat_axis(node), at.value->type.shape->size());
    return axis == static_cast<std::int64_t>(at.axis);
  }

  // `whole` along the slot's axis is the parts, one behind the other.
  void tie_parts(std::size_t slot, Value* whole, std::span<Value* const> parts) {
    const std::size_t axis = slots_[slot].axis;
    std::size_t offset = 0;
    for (Value* part : parts) {
      const std::optional<std::size_t> peer = part != nullptr ? visit(part, axis) : std::nullopt;
      if (!peer) return block(slot, fmt::format("not all sizes of the parts of '{}' are known", whole->name()));
      tie(*peer, whole, axis, offset);
      offset += slots_[*peer].count;
    }
  }

  void touch_concat(Node& node, std::size_t slot) { tie_parts(slot, node.output(), node.inputs()); }

  void touch_split(Node& node, std::size_t slot, std::optional<std::size_t> operand) {
    if (operand.value_or(0) != 0) return block(slot, fmt::format("{} reads it as sizes", node.describe()));
    const SplitAttrs attrs = SplitAttrs::from(node);
    const auto axis = static_cast<std::size_t>(normalize_axis(attrs.axis, slots_[slot].value->type.shape->size()));
    if (axis == slots_[slot].axis) return tie_parts(slot, node.input(0), node.outputs());
    if (!operand) return tie(slot, node.input(0), slots_[slot].axis);
    for (Value* part : node.outputs())
      if (part != nullptr) tie(slot, part, slots_[slot].axis);
  }

  void touch_reshape(Node& node, std::size_t slot, std::optional<std::size_t> operand) {
    if (operand.value_or(0) != 0) return block(slot, fmt::format("{} reads it as an argument", node.describe()));
    Value* const other = operand ? node.output() : node.input(0);
    const std::optional<ReshapedAxis> axis = reshaped_axis(*slots_[slot].value, slots_[slot].axis, *other);
    if (!axis || !can_retarget(node))
      return block(slot,
                   fmt::format("{} takes the channels of '{}' apart", node.describe(), slots_[slot].value->name()));
    if (axis->repeat > 0) return tie(slot, other, axis->axis, 0, static_cast<std::size_t>(axis->repeat));
    // Several elements of this slot are one of the other.
    const std::optional<std::size_t> peer = visit(other, axis->axis);
    if (peer) tie(*peer, slots_[slot].value, slots_[slot].axis, 0, slots_[slot].count / slots_[*peer].count);
  }

  // Whole groups go: their channels of input and output are one set.
  void touch_grouped(Node& node, std::size_t slot, std::optional<std::size_t> operand) {
    const bool is_transposed = node.is("ConvTranspose");
    const std::size_t axis = slots_[slot].axis;
    const bool is_channel = !operand || *operand == 0 ? axis == 1 : axis == 0;
    if (!operand || *operand == 0) {
      if (axis == 0) return tie(slot, operand ? node.output() : node.input(0), 0);
    }
    if (!is_channel) return block(slot, fmt::format("{} has groups", node.describe()));
    const auto groups = static_cast<std::size_t>(ConvAttrs::from(node).group);
    const auto x = visit(node.input(0), 1), y = visit(node.output(), 1), w = visit(node.input(1), 0);
    const bool fits = x && y && w && slots_[*x].count % groups == 0 && slots_[*y].count % groups == 0;
    if (!fits) return block(slot, fmt::format("the channels of {} are not known", node.describe()));
    tie(*w, is_transposed ? node.input(0) : node.output(), 1);
    if (node.input(2) != nullptr) tie(*y, node.input(2), 0);
    const std::size_t in = slots_[*x].count / groups, out = slots_[*y].count / groups;
    for (std::size_t g = 0; g < groups; ++g) {
      const std::size_t first = slots_[*x].first + g * in;
      for (std::size_t c = 1; c < in; ++c) unite(first, first + c);
      for (std::size_t c = 0; c < out; ++c) unite(first, slots_[*y].first + g * out + c);
    }
  }

  Graph& graph_;
  std::vector<const Node*> weighted_;
  std::vector<AxisSlot> slots_;
  std::map<std::pair<const Value*, std::size_t>, std::size_t> numbers_;
  std::deque<std::size_t> queue_;
  ChannelSets sets_;
  std::set<std::size_t> normalized_;  // their numbers
};

DependencyGroups DependencyGroups::of(Model& model) { return DependencyBuilder(model).build(); }

std::vector<double> channel_importance(const DependencyGroups& groups, const DependencyGroup& group) {
  std::map<std::size_t, std::vector<double>> shares;  // by slot: of each element
  for (const std::size_t slot : group.slots) {
    const AxisSlot& at = groups.slots()[slot];
    const Tensor* tensor = at.value->constant();
    if (tensor == nullptr || !is_float(tensor->dtype()) || tensor->rank() < 2) continue;
    std::vector<double> energy(at.count, 0);
    const std::span<const std::int64_t> dims = tensor->dims();
    const std::int64_t inner = element_count(dims.subspan(at.axis + 1));
    const std::vector<float> values = tensor->to_floats();
    double total = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double square = double{values[i]} * double{values[i]};
      energy[i / static_cast<std::size_t>(inner) % at.count] += square;
      total += square;
    }
    if (total > 0)
      for (double& value : energy) value /= total;
    shares.emplace(slot, std::move(energy));
  }
  std::vector<double> importance;
  for (const ChannelSet& set : group.sets) {
    double sum = 0;
    for (const auto& [slot, element] : set.members)
      if (const auto found = shares.find(slot); found != shares.end())
        sum += found->second[static_cast<std::size_t>(element)];
    importance.push_back(sum);
  }
  return importance;
}

}  // namespace onnxpress
