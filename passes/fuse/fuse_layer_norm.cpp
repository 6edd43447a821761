// LayerNormalization and InstanceNormalization written out.
#include "graph/ops/group_norm.h"
#include "graph/ops/introduced.h"
#include "graph/ops/layer_norm.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"
#include "passes/fuse/row_norm.h"

namespace onnxpress {
namespace {

Patch::NodeTemplate layer_norm(const Tracer& tracer, const RowNorm& norm, Patch& patch) {
  const LayerNormAttrs attrs{.axis = norm.axes.front(),
                             .epsilon = static_cast<float>(norm.epsilon)};
  Patch::NodeTemplate node{.op_type = "LayerNormalization",
                           .inputs = {norm.x, row_parameter(tracer, patch, norm.scale, norm, 1)},
                           .attributes = attrs.to_attributes()};
  if (norm.bias != nullptr) node.inputs.push_back(row_parameter(tracer, patch, norm.bias, norm, 0));
  return node;
}

// One value per channel (axis 1) of x, or the same for all: a constant of as many elements, the
// other axes being 1.
bool fits_channels(const Tracer& tracer, const Value* parameter, const Value* x) {
  const Shape* const shape = tracer.shape(x);
  const Tensor* const constant = tracer.known(parameter);
  if (shape == nullptr || constant == nullptr || constant->rank() > shape->size()) return false;
  if (constant->size() == 1) return true;
  Dims dims(shape->size() - constant->rank(), 1);
  dims.insert(dims.end(), constant->dims().begin(), constant->dims().end());
  return constant->size() == dims[1] && (*shape)[1].value() == dims[1];
}

Patch::Ref channel_parameter(const Tracer& tracer, Patch& patch, const Value* parameter,
                             const RowNorm& norm, double otherwise) {
  const std::int64_t channels = (*tracer.shape(norm.x))[1].value();
  const Tensor* const known = parameter != nullptr ? tracer.known(parameter) : nullptr;
  const DType type = tracer.dtype(norm.x);
  if (known != nullptr && known->size() == channels)
    return patch.constant(parameter->name(), known->reshaped({channels}));
  const double value = parameter != nullptr ? *tracer.number(parameter) : otherwise;
  const std::vector<double> values(static_cast<std::size_t>(channels), value);
  return patch.constant(norm.region.last->output()->name() + (otherwise == 1 ? "_scale" : "_bias"),
                        Tensor::of<double>({channels}, values).cast(type));
}

Patch::NodeTemplate instance_norm(const Tracer& tracer, const RowNorm& norm, Patch& patch) {
  const GroupNormAttrs attrs{.epsilon = static_cast<float>(norm.epsilon)};
  return {.op_type = "InstanceNormalization",
          .inputs = {norm.x, channel_parameter(tracer, patch, norm.scale, norm, 1),
                     channel_parameter(tracer, patch, norm.bias, norm, 0)},
          .attributes = attrs.to_attributes()};
}

void take_scale_and_bias(const Tracer& tracer, RowNorm& norm,
                         const std::function<bool(const Value*)>& fits) {
  norm.scale = take_parameter(tracer, norm, "Mul", fits);
  norm.bias = take_parameter(tracer, norm, "Add", fits);
}

// With scale and bias by element of a row.
std::optional<RowNorm> find_layer_norm(const Match& match, std::string& reason, bool any_opset) {
  const Tracer tracer(match);
  auto norm = find_row_norm(tracer, match.root, true, reason);
  if (!norm) return std::nullopt;
  if (!norm->over_last_axes()) {
    reason = "it normalizes over other than the last axes";
    return std::nullopt;
  }
  if (const auto missing = missing_operator(match.root->graph(), "LayerNormalization");
      missing && !any_opset) {
    reason = *missing;
    return std::nullopt;
  }
  take_casts(tracer, *norm);
  take_scale_and_bias(tracer, *norm, [&](const Value* parameter) {
    return fits_rows(tracer, parameter, norm->x, norm->axes.size());
  });
  if (!tracer.is_float(norm->x)) {
    reason = fmt::format("the type of '{}' is not known", norm->x->name());
    return std::nullopt;
  }
  return norm;
}

// Over all axes behind the channels, with scale and bias by channel.
std::optional<RowNorm> find_instance_norm(const Match& match, std::string& reason) {
  const Tracer tracer(match);
  auto norm = find_row_norm(tracer, match.root, true, reason);
  if (!norm) return std::nullopt;
  reason.clear();  // those of a LayerNormalization
  const Shape* const shape = tracer.shape(norm->x);
  const bool over_cells = shape != nullptr && shape->size() >= 3 && norm->over_last_axes() &&
                          norm->axes.size() + 2 == shape->size();
  if (!over_cells) return std::nullopt;
  if (const auto obstacle = tracer.type_obstacle(norm->x)) {
    reason = *obstacle;
    return std::nullopt;
  }
  if (!(*shape)[1].is_known()) {
    reason = fmt::format("the number of channels of '{}' is not known", norm->x->name());
    return std::nullopt;
  }
  take_scale_and_bias(tracer, *norm, [&](const Value* parameter) {
    return fits_channels(tracer, parameter, norm->x);
  });
  std::string ignored;
  const auto by_element = find_layer_norm(match, ignored, false);
  if (by_element && by_element->region.nodes.size() >= norm->region.nodes.size())
    return std::nullopt;
  // Ones and zeros that the file did not have must not outweigh the nodes that go.
  constexpr std::int64_t most_made_up = 8;
  std::int64_t made_up = 0;
  for (const Value* parameter : {norm->scale, norm->bias})
    if (parameter == nullptr || tracer.number(parameter)) made_up += (*shape)[1].value();
  if (made_up > most_made_up * std::int64_t{2}) {
    reason = "its scale and bias would have to be made up for many channels";
    return std::nullopt;
  }
  return norm;
}

template <Patch::NodeTemplate (*make)(const Tracer&, const RowNorm&, Patch&)>
void build(const Match& match, const RowNorm& norm, Patch& patch) {
  replace_region(patch, norm.region, make(Tracer(match), norm, patch));
}

constexpr std::string_view quotient = "Div|Mul";

Rule layer_norm_rule(bool any_opset) {
  const auto find = [any_opset](const Match& match, std::string& reason) {
    return find_layer_norm(match, reason, any_opset);
  };
  return recognition_rule<RowNorm>("fuse_layer_norm", quotient, find, build<layer_norm>);
}

class FuseLayerNorm : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_layer_norm",
      .summary = "LayerNormalization and InstanceNormalization written out become one operator",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 2};

  const PassInfo& info() const override { return pass_info; }

  // At level=runtime the opset is raised for the operator.
  std::int64_t required_opset(const Model& model, const Options& options) const override {
    return is_runtime_level(options)
               ? opset_for(model, *introduced_in("LayerNormalization"), layer_norm_rule(true))
               : 0;
  }

 protected:
  std::vector<Rule> rules(const Model&, const Options&) const override {
    const auto instance = [](const Match& match, std::string& reason) {
      return find_instance_norm(match, reason);
    };
    return {
        recognition_rule<RowNorm>("fuse_instance_norm", quotient, instance, build<instance_norm>),
        layer_norm_rule(false)};
  }
};

}  // namespace

PASS(fuse_layer_norm) { registry.add(std::make_unique<FuseLayerNorm>()); }

}  // namespace onnxpress
