#include "passes/quantize/static_convert.h"

#include <algorithm>
#include <limits>
#include <map>
#include <unordered_map>

#include "graph/ops/clip.h"
#include "graph/ops/quantize_linear.h"
#include "graph/rewrite/patch.h"
#include "passes/quantize/static_lookup.h"

namespace onnxpress {
namespace {

class Converter {
 public:
  Converter(Model& model, const StaticPlan& plan, const std::vector<ActivationGrid>& grids, const StaticTypes& kinds,
            const Calibration& calibration)
      : model_(model), plan_(plan), grids_(grids), kinds_(kinds), calibration_(calibration), constants_(plan.groups) {}

  StaticConversion run(const std::vector<StaticWeight>& weights, const std::vector<StaticBias>& biases) {
    for (const CodedValue& value : plan_.values) code_value(value);
    code_operands();
    remove_absorbed();
    for (const StaticWeight& weight : weights)
      if (weight.rounded.quantized) code_weight(weight);
    for (const StaticBias& bias : biases) code_bias(bias);
    return std::move(done_);
  }

 private:
  // --- activations ------------------------------------------------------------------------------

  // Scale and zero point of a group: initializers of the main graph, made when first asked for.
  struct GridConstants {
    Value* scale = nullptr;
    Value* zero_point = nullptr;
    Value* least = nullptr;  // codes that are clipped to, where levels are restricted
    Value* most = nullptr;
  };
  const GridConstants& constants_of(std::size_t group, const std::string& hint) {
    GridConstants& known = constants_[group];
    if (known.scale) return known;
    known.scale = model_.graph.add_initializer(model_.graph.unique_name(hint + "_scale"), grids_[group].scale());
    known.zero_point = model_.graph.add_initializer(model_.graph.unique_name(hint + "_zero_point"), grids_[group].zero_point());
    return known;
  }

  Value* code_constant(const std::string& hint, std::int64_t code, DType type) {
    return model_.graph.add_initializer(model_.graph.unique_name(hint), Tensor::scalar(code).cast(type));
  }

  // The bounds of restricted levels; values of a group share them.
  const GridConstants& bounds_of(std::size_t group, const std::string& hint) {
    GridConstants& known = constants_[group];
    const ActivationType& type = grids_[group].type;
    if (!known.least) {
      known.least = code_constant(hint + "_least_code", type.least_code(), type.storage);
      known.most = code_constant(hint + "_most_code", type.most_code(), type.storage);
    }
    return known;
  }

  // QuantizeLinear, and Clip where its type has more codes than there are levels: on codes, so that runtimes
  // still find the operator between codes.
  Patch::Ref quantized(Patch& patch, const CodedValue& coded, Value* source, const GridConstants& constants) {
    const std::string base = coded.value->name();
    const Patch::Ref codes = patch.node({.op_type = "QuantizeLinear",
                                         .name = base + "_QuantizeLinear",
                                         .inputs = {source, constants.scale, constants.zero_point},
                                         .attributes = {}});
    ++done_.quantize_nodes;
    // What moves elements gets levels that are restricted already.
    if (!grids_[coded.group].type.is_restricted() || !coded.is_source) return codes;
    const GridConstants& bounds = bounds_of(coded.group, base);
    return patch.node({.op_type = "Clip",
                       .name = base + "_Clip",
                       .inputs = {codes, bounds.least, bounds.most},
                       .attributes = {}});
  }

  // Whether the Relu or Clip behind the maker does nothing that saturation does not do.
  bool is_redundant(const CodedValue& value, const Node& bounds) const {
    const ActivationGrid& grid = grids_[value.group];
    if (bounds.is("Relu")) return grid.saturates_at(0, std::numeric_limits<double>::infinity());
    const auto clip = ClipBounds::from(bounds);
    return clip && grid.saturates_at(clip->low, clip->high);
  }

  void code_value(const CodedValue& coded) {
    Value* value = coded.value;
    const GridConstants constants = constants_of(coded.group, value->name());
    record_value(coded);
    // Readers in nested graphs get a DequantizeLinear of their own beside them.
    std::map<std::size_t, std::pair<Graph*, std::vector<Use>>> nested;
    std::vector<Use> here;
    for (const Use& use : coded.readers) {
      Graph* graph = &use.node->graph();
      if (graph == &value->graph()) {
        here.push_back(use);
        continue;
      }
      auto found = std::ranges::find_if(nested, [&](const auto& entry) { return entry.second.first == graph; });
      if (found == nested.end()) found = nested.emplace(nested.size(), std::pair(graph, std::vector<Use>{})).first;
      found->second.second.push_back(use);
    }
    Value* source = value;
    if (coded.made_on_codes && coded.maker->absorbed && value == coded.maker->result &&
        is_redundant(coded, *coded.maker->absorbed)) {
      source = coded.maker->node->output(0);
      ++done_.absorbed;
    }
    const std::string base = value->name();
    Patch patch(value->graph());
    const Patch::Ref codes = quantized(patch, coded, source, constants);
    const bool everyone = coded.made_on_codes && !value->is_input();
    if (everyone || !here.empty()) {
      const Patch::Ref floats = dequantized(patch, base, codes, constants);
      if (everyone)
        patch.replace(value, floats);
      else
        for (const Use& use : here) patch.replace_input(use.node, use.index, floats);
    }
    for (const auto& [order, entry] : nested)
      for (const Use& use : entry.second) patch.place_before(use.node);
    if (source != value) absorbed_.push_back(coded.maker->absorbed);
    patch.apply();
    Value* written = patch.value(codes);
    for (const auto& [order, entry] : nested) {
      const auto& [graph, uses] = entry;
      Patch inner(*graph);
      const Patch::Ref floats = dequantized(inner, base, written, constants);
      for (const Use& use : uses) inner.replace_input(use.node, use.index, floats);
      inner.apply();
    }
  }

  // Only now: until here the plan refers to them, as readers of what they were made from and, where
  // the target computes them on codes, as nodes.
  void remove_absorbed() {
    for (Node* node : absorbed_) {
      Patch patch(node->graph());
      patch.remove_if_unread(node);
      patch.remove_unread_producers();
      patch.apply();
    }
  }

  Patch::Ref dequantized(Patch& patch, const std::string& base, Patch::Ref codes, const GridConstants& constants) {
    ++done_.dequantize_nodes;
    return patch.node({.op_type = "DequantizeLinear",
                       .name = base + "_DequantizeLinear",
                       .inputs = {codes, constants.scale, constants.zero_point},
                       .attributes = {}});
  }

  void record_value(const CodedValue& coded) {
    const ActivationGrid& grid = grids_[coded.group];
    const ValueStatistics* statistics = calibration_.find(*coded.value);
    QuantizedRecord record{.tensor = coded.value->name(),
                           .node = coded.maker ? coded.maker->node->name : "",
                           .op = coded.maker ? coded.maker->node->op_type() : "",
                           .kind = QuantizedKind::activation,
                           .form = "QuantizeLinear",
                           .bits = grid.type.bits,
                           .storage = grid.type.storage,
                           .granularity = {},
                           .scale_min = grid.parameters.scale,
                           .scale_max = grid.parameters.scale,
                           .zero_point = grid.parameters.zero_point,
                           .note = {}};
    if (grid.is_unmasked) {
      record.note = "its range leaves out what a mask makes";
    } else if (const auto error = statistics ? expected_error(*statistics, grid) : std::nullopt) {
      record.clipped = error->clipped_share;
      record.snr_db = error->snr_db;
    }
    if (!coded.is_source) record.note = "grid of what it is made from";
    done_.records.push_back(std::move(record));
  }

  // Constants that arithmetic on codes reads: on a grid of their own range.
  void code_operands() {
    std::unordered_map<const Value*, Value*> known;
    for (const PlannedNode& planned : plan_.nodes) {
      if (!planned.on_codes) continue;
      for (const std::size_t i : planned.use.data) {
        Value* value = planned.node->input(i);
        const Tensor* tensor = value->constant();
        if (!tensor) continue;
        const ActivationGrid grid = operand_grid(plan_, *value, kinds_.activation_of(planned.activation_bits));
        Patch patch(planned.node->graph());
        const Patch::Ref floats =
            patch.node({.op_type = "DequantizeLinear",
                        .name = value->name() + "_DequantizeLinear",
                        .inputs = {patch.constant(value->name() + "_quantized", codes_of(*tensor, grid)),
                                   patch.constant(value->name() + "_scale", grid.scale()),
                                   patch.constant(value->name() + "_zero_point", grid.zero_point())},
                        .attributes = {}});
        record_operand(planned, *value, grid, codes_of(*tensor, grid));
        patch.replace_input(planned.node, i, floats);
        patch.apply();
      }
    }
  }

  static Tensor codes_of(const Tensor& tensor, const ActivationGrid& grid) {
    const std::vector<float> elements = tensor.to_floats();
    if (!grid.type.is_integer()) {
      std::vector<float> scaled;
      for (const float element : elements) scaled.push_back(element / grid.parameters.scale);
      return Tensor::of<float>(tensor.dims(), scaled).cast(grid.type.storage);
    }
    const float least = static_cast<float>(grid.type.min()), most = static_cast<float>(grid.type.max());
    std::vector<std::int64_t> codes;
    for (const float element : elements)
      codes.push_back(static_cast<std::int64_t>(
          std::clamp(std::nearbyint(element / grid.parameters.scale) + static_cast<float>(grid.parameters.zero_point), least, most)));
    return Tensor::of<std::int64_t>(tensor.dims(), codes).cast(grid.type.storage);
  }

  void record_operand(const PlannedNode& planned, const Value& value, const ActivationGrid& grid, const Tensor& codes) {
    done_.records.push_back({.tensor = value.name(),
                             .node = planned.node->name,
                             .op = planned.node->op_type(),
                             .kind = QuantizedKind::weight,
                             .form = "DequantizeLinear",
                             .bits = grid.type.bits,
                             .storage = grid.type.storage,
                             .granularity = {},
                             .elements = codes.size(),
                             .scale_min = grid.parameters.scale,
                             .scale_max = grid.parameters.scale,
                             .zero_point = grid.parameters.zero_point,
                             .bytes_before = value.constant()->byte_size(),
                             .bytes_after = codes.byte_size(),
                             .note = {}});
  }

  // --- constants --------------------------------------------------------------------------------

  void code_weight(const StaticWeight& weight) {
    const bool only_lookups = is_looked_up_as_codes(*weight.weight.value, weight.type.storage) &&
                              weight.readers.size() == weight.weight.value->uses().size();
    const QuantizedTensor& quantized = *weight.rounded.quantized;
    QuantizedRecord record = weight_record(weight.weight, quantized, weight.type,
                                           only_lookups ? "Gather, DequantizeLinear" : "DequantizeLinear");
    record.output_snr_db = weight.rounded.output_snr_db;
    record.note = weight.rounded.note;
    done_.records.push_back(std::move(record));
    if (only_lookups) {
      quantize_lookups(*weight.weight.value, quantized);
      return;
    }
    Value* value = weight.weight.value;
    const std::string base = value->name();
    Patch patch(value->graph());
    const Patch::Ref codes = patch.constant(base + "_quantized", quantized.codes);
    const Patch::Ref scale = patch.constant(base + "_scale", quantized.scale);
    const Patch::Ref zero = quantized.zero_point.defined() ? patch.constant(base + "_zero_point", quantized.zero_point)
                            : needs_zero_point(weight)     ? Patch::Ref(zeros_like(quantized))
                                                           : Patch::Ref();
    const auto node = [&](Patch& target, Patch::Ref c, Patch::Ref s, Patch::Ref z) {
      const bool by_axis = quantized.granularity.kind != Granularity::Kind::tensor;
      const QuantizeAttrs attrs{.axis = by_axis ? quantized.granularity.axis : QuantizeAttrs{}.axis,
                                .block_size = quantized.granularity.kind == Granularity::Kind::block ? quantized.granularity.block : 0};
      return target.node({.op_type = "DequantizeLinear",
                          .name = base + "_DequantizeLinear",
                          .inputs = {c, s, z},
                          .attributes = attrs.to_attributes()});
    };
    patch.replace(value, node(patch, codes, scale, zero));
    patch.apply();
  }

  // ONNX Runtime makes no QGemm of a weight that has scales by channel and no zero points.
  bool needs_zero_point(const StaticWeight& weight) const {
    return is_integer(weight.type.storage) && std::ranges::any_of(weight.readers, [&](std::size_t place) {
      const PlannedNode& planned = plan_.nodes[place];
      return planned.on_codes && (planned.node->is("Gemm") || planned.node->is("MatMul"));
    });
  }

  // Zeros for as many scales, one constant for all weights of as many channels.
  Value* zeros_like(const QuantizedTensor& quantized) {
    Value*& known = zeros_[{quantized.codes.dtype(), quantized.scale.dims()}];
    if (!known)
      known = model_.graph.add_initializer(model_.graph.unique_name("weight_zero_point"),
                                           Tensor(quantized.codes.dtype(), quantized.scale.dims()));
    return known;
  }

  void code_bias(const StaticBias& bias) {
    const PlannedNode& planned = plan_.nodes[bias.place];
    const std::string base = bias.value->name();
    Patch patch(planned.node->graph());
    const Patch::Ref floats = patch.node({.op_type = "DequantizeLinear",
                                          .name = base + "_DequantizeLinear",
                                          .inputs = {patch.constant(base + "_quantized", bias.codes),
                                                     patch.constant(base + "_scale", bias.scale)},
                                          .attributes = QuantizeAttrs{.axis = bias.scale.rank() > 0 ? 0 : QuantizeAttrs{}.axis}.to_attributes()});
    const std::vector<float> scales = bias.scale.to_floats();
    done_.records.push_back({.tensor = base,
                             .node = planned.node->name,
                             .op = planned.node->op_type(),
                             .kind = QuantizedKind::bias,
                             .form = "DequantizeLinear",
                             .bits = 32,
                             .storage = DType::int32,
                             .granularity = bias.scale.rank() > 0 ? Granularity::per_channel(0) : Granularity::per_tensor(),
                             .elements = bias.codes.size(),
                             .scale_min = *std::ranges::min_element(scales),
                             .scale_max = *std::ranges::max_element(scales),
                             .zero_point = 0,
                             .snr_db = bias.snr_db,
                             .bytes_before = bias.value->constant()->byte_size(),
                             .bytes_after = bias.codes.byte_size() + bias.scale.byte_size(),
                             .note = {}});
    patch.replace_input(planned.node, *planned.use.bias, floats);
    patch.apply();
  }

  Model& model_;
  const StaticPlan& plan_;
  const std::vector<ActivationGrid>& grids_;
  const StaticTypes& kinds_;
  const Calibration& calibration_;
  std::vector<GridConstants> constants_;
  std::map<std::pair<DType, Dims>, Value*> zeros_;
  std::vector<Node*> absorbed_;  // whose results nobody reads any more
  StaticConversion done_;
};

}  // namespace

StaticConversion convert_static(Model& model, const StaticPlan& plan, const std::vector<ActivationGrid>& grids,
                                const std::vector<StaticWeight>& weights, const std::vector<StaticBias>& biases,
                                const StaticTypes& kinds, const Calibration& calibration) {
  return Converter(model, plan, grids, kinds, calibration).run(weights, biases);
}

}  // namespace onnxpress
