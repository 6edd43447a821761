// GroupNormalization as exporters write it: InstanceNormalization of the groups between two
// Reshapes, then scale and bias by channel.
#include "graph/ops/group_norm.h"
#include "passes/core/registry.h"
#include "passes/core/rule_pass.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

struct FoundGroups {
  Value* x = nullptr;
  std::int64_t groups = 0, channels = 0;
  Value* scale = nullptr;
  Value* bias = nullptr;
  Region region;
};

bool same_shape(const Shape& a, const Shape& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!same_dim(a[i], b[i])) return false;
  return true;
}

// A constant with one value per channel (axis 1 of `rank` axes).
bool is_by_channel(const Value* value, std::size_t rank, std::int64_t channels) {
  const Tensor* const constant = value != nullptr ? value->constant() : nullptr;
  if (constant == nullptr || constant->size() != channels || constant->rank() > rank) return false;
  const std::size_t missing = rank - constant->rank();
  return missing <= 1 && constant->dim(1 - missing) == channels;
}

// The other operand of the operator that alone reads the region, when it goes by channel.
Value* take_parameter(const Tracer& tracer, FoundGroups& found, std::size_t rank,
                      std::string_view op) {
  const auto reader = tracer.only_reader(found.region.last, {op});
  Value* const other = reader ? reader->node->input(1 - reader->index) : nullptr;
  if (!is_by_channel(other, rank, found.channels)) return nullptr;
  found.region.nodes.push_back(reader->node);
  found.region.last = reader->node;
  return other;
}

std::optional<FoundGroups> find_groups(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  Node* const norm = match.root;
  Node* const cut = tracer.maker(norm->input(0), {"Reshape"});
  const auto joined = tracer.only_reader(norm, {"Reshape"});
  if (cut == nullptr || !joined || joined->index != 0) return std::nullopt;
  FoundGroups found{.x = cut->input(0),
                    .region = {.nodes = {cut, norm, joined->node}, .last = joined->node}};
  tracer.absorb_dims(found.region, cut->input(1));
  tracer.absorb_dims(found.region, joined->node->input(1));
  const Shape* const x = tracer.shape(found.x);
  const Shape* const parts = tracer.shape(cut->output());
  const Shape* const y = tracer.shape(joined->node->output());
  if (x == nullptr || parts == nullptr || y == nullptr || x->size() < 3 || parts->size() < 3 ||
      !(*x)[1].is_known() || !(*parts)[1].is_known() || !same_dim((*x)[0], (*parts)[0]) ||
      !same_shape(*x, *y)) {
    reason = "its Reshapes are not known to cut the channels into groups and to join them again";
    return std::nullopt;
  }
  found.channels = (*x)[1].value();
  found.groups = (*parts)[1].value();
  if (found.groups < 1 || found.channels % found.groups != 0) {
    reason = fmt::format("{} channels cannot be cut into {} groups", found.channels, found.groups);
    return std::nullopt;
  }
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}})
    if (norm->input(i) == nullptr || norm->input(i)->constant() == nullptr ||
        norm->input(i)->constant()->size() != found.groups) {
      reason = fmt::format("input {} is not a constant with a value for each group", i);
      return std::nullopt;
    }
  found.scale = take_parameter(tracer, found, x->size(), "Mul");
  found.bias = found.scale != nullptr ? take_parameter(tracer, found, x->size(), "Add") : nullptr;
  if (found.bias == nullptr) {
    reason = "no scale and bias by channel follow";
    return std::nullopt;
  }
  if (norm->graph().opset() < group_norm_by_channel_since) {
    reason = fmt::format("GroupNormalization by channel needs opset {}, the model has {}",
                         group_norm_by_channel_since, norm->graph().opset());
    return std::nullopt;
  }
  if (const auto obstacle = tracer.type_obstacle(found.x)) {
    reason = *obstacle;
    return std::nullopt;
  }
  if (const auto obstacle = tracer.obstacle(found.region)) {
    reason = *obstacle;
    return std::nullopt;
  }
  return found;
}

std::vector<double> values_of(const Value* constant) {
  const Tensor wide = constant->constant()->cast(DType::float64);
  const auto data = wide.data<double>();
  return {data.begin(), data.end()};
}

void build(const Match& match, const FoundGroups& found, Patch& patch) {
  std::vector<double> scale = values_of(found.scale), bias = values_of(found.bias);
  const std::vector<double> by_group = values_of(match.root->input(1));
  const std::vector<double> shift = values_of(match.root->input(2));
  const std::size_t members = static_cast<std::size_t>(found.channels / found.groups);
  for (std::size_t c = 0; c < scale.size(); ++c) {
    bias[c] += shift[c / members] * scale[c];
    scale[c] *= by_group[c / members];
  }
  const auto constant = [&](const Value* like, const std::vector<double>& values) {
    return patch.constant(
        like->name(), Tensor::of<double>({found.channels}, values).cast(like->constant()->dtype()));
  };
  const GroupNormAttrs attrs{.groups = found.groups,
                             .epsilon = GroupNormAttrs::from(*match.root).epsilon};
  replace_region(patch, found.region,
                 {.op_type = "GroupNormalization",
                  .name = match.root->name,
                  .inputs = {found.x, constant(found.scale, scale), constant(found.bias, bias)},
                  .attributes = attrs.to_attributes()});
}

class FuseGroupNorm : public RulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_group_norm",
      .summary = "InstanceNormalization of groups between Reshapes becomes GroupNormalization",
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 3};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    return {recognition_rule<FoundGroups>("fuse_group_norm", "InstanceNormalization", find_groups,
                                          build)};
  }
};

}  // namespace

PASS(fuse_group_norm) { registry.add(std::make_unique<FuseGroupNorm>()); }

}  // namespace onnxpress
