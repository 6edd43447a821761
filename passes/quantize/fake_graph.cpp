#include "passes/quantize/fake_graph.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "graph/ops/fake_quantize.h"
#include "graph/ops/training_loss.h"
#include "graph/rewrite/patch.h"

namespace onnxpress {
namespace {

// What the codes stand for, in the type of the weight.
Tensor dequantized(const QuantizedTensor& quantized, const WeightGrid& grid, const Tensor& weight) {
  const std::vector<std::int64_t> codes = quantized.codes.to_ints();
  Tensor result(DType::float32, weight.dims());
  const auto values = result.mutable_data<float>();
  for_each_scale_run(weight.dims(), grid.granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(begin + count); ++i)
      values[i] = dequantize(codes[i], grid.parameters[static_cast<std::size_t>(group)]);
  });
  return result.cast(weight.dtype());
}

class Builder {
 public:
  Builder(const Model& model, const TunedGrids& grids) : grids_(grids) {
    done_.model = model.clone();
    done_.model->opsets[std::string(training_domain)] = 1;
    const std::vector<Node*> here = model.graph.nodes(), there = done_.model->graph.nodes();
    for (std::size_t i = 0; i < here.size(); ++i) twins_.emplace(here[i], there[i]);
    main_ = &model.graph;
  }

  FakeQuantized build() {
    for (const TunedWeight& weight : grids_.weights) done_.weights.push_back(add_weight(weight));
    if (grids_.plan != nullptr) add_activations();
    if (nested_ > 0)
      done_.notes.push_back(
          fmt::format("{} weights and values of nested graphs are quantized, but not trained with", nested_));
    if (float_codes_ > 0)
      done_.notes.push_back(
          fmt::format("{} weights with float codes are quantized, but not trained with", float_codes_));
    return std::move(done_);
  }

 private:
  Graph& graph() { return done_.model->graph; }

  LearnedGrid add_constants(const std::string& base, Tensor scale, const std::vector<std::int64_t>& zeros,
                            std::int64_t lowest, std::int64_t highest) {
    LearnedGrid grid;
    std::int64_t reach = 1;
    for (const std::int64_t zero : zeros) reach = std::max({reach, highest - zero, zero - lowest});
    grid.reach = static_cast<double>(reach);
    const Dims dims = scale.dims();
    grid.scale = graph().unique_name(base + "_learned_scale");
    graph().add_initializer(grid.scale, std::move(scale));
    if (std::ranges::all_of(zeros, [](std::int64_t zero) { return zero == 0; })) return grid;
    grid.zero_point = graph().unique_name(base + "_learned_zero_point");
    graph().add_initializer(grid.zero_point, Tensor::of<std::int64_t>(dims, zeros).cast(DType::float32));
    return grid;
  }

  Patch::Ref fake(Patch& patch, Value* value, const LearnedGrid& grid, const FakeQuantizeAttrs& attrs) {
    std::vector<Patch::Ref> inputs{value, graph().find(grid.scale)};
    if (!grid.zero_point.empty()) inputs.emplace_back(graph().find(grid.zero_point));
    return patch.node({.op_type = "FakeQuantize",
                       .domain = std::string(training_domain),
                       .name = value->name() + "_FakeQuantize",
                       .inputs = std::move(inputs),
                       .attributes = attrs.to_attributes()});
  }

  std::optional<LearnedGrid> add_weight(const TunedWeight& tuned) {
    if (&tuned.weight.value->graph() != main_) {
      ++nested_;
      return std::nullopt;
    }
    if (tuned.type.has_float_codes()) {
      ++float_codes_;
      return std::nullopt;
    }
    Value* value = graph().find(tuned.weight.value->name());
    const WeightGrid grid = grid_of(*tuned.rounded->quantized, tuned.type);
    std::vector<float> scales;
    std::vector<std::int64_t> zeros;
    for (const QuantizationParameters& p : grid.parameters) {
      scales.push_back(p.scale);
      zeros.push_back(p.zero_point);
    }
    if (grids_.chosen_codes) graph().set_initializer(value, dequantized(*tuned.rounded->quantized, grid, *value->constant()));
    FakeQuantizeAttrs attrs{.lowest = tuned.type.min(), .highest = tuned.type.max()};
    if (tuned.granularity.kind != Granularity::Kind::tensor) attrs.scales.axis = tuned.granularity.axis;
    if (tuned.granularity.kind == Granularity::Kind::block) attrs.scales.block_size = tuned.granularity.block;
    const LearnedGrid learned =
        add_constants(value->name(), Tensor::of<float>(tuned.granularity.scale_dims(value->constant()->dims()), scales),
                      zeros, attrs.lowest, attrs.highest);
    Patch patch(graph());
    patch.replace(value, fake(patch, value, learned, attrs));
    patch.apply();
    return learned;
  }

  void add_activations() {
    const StaticPlan& plan = *grids_.plan;
    done_.activations.resize(plan.groups);
    for (const CodedValue& coded : plan.values) {
      if (!coded.is_source) continue;  // elements of what is on the grid already
      if (&coded.value->graph() != main_) {
        ++nested_;
        continue;
      }
      add_activation(coded);
    }
    add_operands();
  }

  void add_activation(const CodedValue& coded) {
    const ActivationGrid& grid = (*grids_.activations)[coded.group];
    if (!grid.type.is_integer()) {
      ++float_codes_;
      return;
    }
    Value* value = graph().find(coded.value->name());
    const FakeQuantizeAttrs attrs{
        .lowest = grid.type.least_code(), .highest = grid.type.most_code(), .scales = {}, .has_batch = true};
    std::optional<LearnedGrid>& learned = done_.activations[coded.group];
    if (!learned)
      learned = add_constants(value->name(), Tensor::scalar(grid.parameters.scale), {grid.parameters.zero_point},
                              attrs.lowest, attrs.highest);
    Patch patch(graph());
    const Patch::Ref rounded = fake(patch, value, *learned, attrs);
    // As the converter has it: what is made on codes is read from codes by everyone.
    const bool everyone = coded.made_on_codes && !coded.value->is_input();
    if (everyone) {
      patch.replace(value, rounded);
    } else {
      for (const Use& use : coded.readers)
        if (&use.node->graph() == main_) patch.replace_input(twins_.at(use.node), use.index, rounded);
    }
    patch.apply();
    if (everyone) done_.replaced.emplace(coded.value->name(), patch.value(rounded)->name());
  }

  // Constants that arithmetic on codes reads are coded from their own range, which training must not move.
  void add_operands() {
    for (const PlannedNode& planned : grids_.plan->nodes) {
      if (!planned.on_codes || &planned.node->graph() != main_) continue;
      for (const std::size_t i : planned.use.data) {
        if (!planned.node->input(i)->constant()) continue;
        const ActivationGrid grid = operand_grid(*grids_.plan, *planned.node->input(i), grids_.kinds->activation_of(planned.activation_bits));
        if (!grid.type.is_integer()) continue;
        Value* value = graph().find(planned.node->input(i)->name());
        const FakeQuantizeAttrs attrs{.lowest = grid.type.min(), .highest = grid.type.max()};
        const LearnedGrid fixed = add_constants(value->name(), Tensor::scalar(grid.parameters.scale),
                                                {grid.parameters.zero_point}, attrs.lowest, attrs.highest);
        Patch patch(graph());
        patch.replace_input(twins_.at(planned.node), i, fake(patch, value, fixed, attrs));
        patch.apply();
        done_.fixed.push_back(planned.node->input(i)->name());
      }
    }
  }

  const TunedGrids& grids_;
  const Graph* main_ = nullptr;
  FakeQuantized done_;
  std::unordered_map<const Node*, Node*> twins_;
  std::size_t nested_ = 0, float_codes_ = 0;
};

std::vector<float> scales_of(const Model& model, const LearnedGrid& grid) {
  std::vector<float> scales = model.graph.find(grid.scale)->constant()->to_floats();
  for (float& scale : scales) {
    require(std::isfinite(scale), "a scale of '{}' was trained to {}", grid.scale, scale);
    scale = std::max(std::fabs(scale), std::numeric_limits<float>::min());
  }
  return scales;
}

// Rounded as FakeQuantize does.
std::vector<std::int64_t> zeros_of(const Model& model, const LearnedGrid& grid, std::size_t count, std::int64_t lowest,
                                   std::int64_t highest) {
  std::vector<std::int64_t> zeros(count, 0);
  if (grid.zero_point.empty()) return zeros;
  const std::vector<float> given = model.graph.find(grid.zero_point)->constant()->to_floats();
  for (std::size_t i = 0; i < count; ++i) {
    require(std::isfinite(given[i]), "a zero point of '{}' was trained to {}", grid.zero_point, given[i]);
    zeros[i] = std::clamp(static_cast<std::int64_t>(std::nearbyint(given[i])), lowest, highest);
  }
  return zeros;
}

void take_constants(const Model& trained, Model& model) {
  for (Value* value : model.graph.initializers()) {
    const Tensor* mine = value->constant();
    const Value* other = mine != nullptr ? trained.graph.find(value->name()) : nullptr;
    const Tensor* found = other != nullptr ? other->constant() : nullptr;
    if (found == nullptr || found->shares_storage_with(*mine) || found->equals(*mine)) continue;
    model.graph.set_initializer(value, *found);
  }
}

}  // namespace

FakeQuantized fake_quantize(const Model& model, const TunedGrids& grids) { return Builder(model, grids).build(); }

void take_trained(const FakeQuantized& trained, Model& model, TunedGrids& grids, ThreadPool& pool) {
  take_constants(*trained.model, model);
  for (std::size_t i = 0; i < grids.weights.size(); ++i) {
    if (!trained.weights[i]) continue;
    TunedWeight& tuned = grids.weights[i];
    WeightGrid grid = grid_of(*tuned.rounded->quantized, tuned.type);
    const std::vector<float> scales = scales_of(*trained.model, *trained.weights[i]);
    const std::vector<std::int64_t> zeros =
        zeros_of(*trained.model, *trained.weights[i], scales.size(), tuned.type.min(), tuned.type.max());
    for (std::size_t k = 0; k < scales.size(); ++k) {
      grid.parameters[k] = {scales[k], zeros[k]};
      grid.parameters[k].scale = storable_scale(grid.parameters[k], tuned.type, grid.scale_type);
    }
    tuned.rounded->quantized = round_to_nearest(*tuned.weight.value->constant(), grid, &pool);
    tuned.rounded->output_snr_db.reset();
  }
  for (std::size_t group = 0; group < trained.activations.size(); ++group) {
    if (!trained.activations[group]) continue;
    ActivationGrid& grid = (*grids.activations)[group];
    QuantizationParameters& p = grid.parameters;
    p.scale =
        Tensor::scalar(scales_of(*trained.model, *trained.activations[group])[0]).cast(grid.scale_type).to_floats()[0];
    p.zero_point =
        zeros_of(*trained.model, *trained.activations[group], 1, grid.type.least_code(), grid.type.most_code())[0];
    grid.low = static_cast<float>(grid.type.least_code() - p.zero_point) * p.scale;
    grid.high = static_cast<float>(grid.type.most_code() - p.zero_point) * p.scale;
  }
}

}  // namespace onnxpress
