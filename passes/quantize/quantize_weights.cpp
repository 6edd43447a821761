// Weight-only quantization: weights become integers that DequantizeLinear turns back into floats.
// Rounding to nearest on min-max grids (Krishnamoorthi 2018, arXiv 1806.08342, section 3.1).
#include <algorithm>
#include <cmath>
#include <map>

#include "graph/ops/quantize_linear.h"
#include "graph/rewrite/patch.h"
#include "passes/common/quantization.h"
#include "passes/common/weights.h"
#include "passes/core/registry.h"
#include "passes/quantize/indirect_weights.h"
#include "passes/quantize/storage.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "bits",
     .kind = OptionSpec::Kind::integer,
     .default_value = "8",
     .help = "width of a weight: 2^bits levels, 2^bits - 1 when symmetric (3 for 2 bits)",
     .min = 2,
     .max = 8},
    {.name = "symmetric",
     .kind = OptionSpec::Kind::flag,
     .default_value = "true",
     .help = "zero in the middle of the levels and no zero point; else levels span smallest to largest"},
    {.name = "granularity",
     .kind = OptionSpec::Kind::choice,
     .default_value = "channel",
     .help = "one scale per output channel or per tensor",
     .choices = "channel|tensor"},
    {.name = "storage",
     .kind = OptionSpec::Kind::choice,
     .default_value = "loadable",
     .help = "loadable: only opsets and types that the reference ONNX Runtime runs; smallest: the smallest ONNX has",
     .choices = "loadable|smallest"},
    {.name = "select",
     .kind = OptionSpec::Kind::selector,
     .help = "nodes or tensors to quantize; default: weights of Conv, ConvTranspose, Gemm, MatMul, Gather, LSTM, GRU, RNN"},
};

StorageRequest request_of(const Options& options) {
  return {.bits = static_cast<int>(options.integer("bits")),
          .symmetric = options.flag("symmetric"),
          .per_channel = options.text("granularity") == "channel",
          .only_loadable = options.text("storage") == "loadable"};
}

// At most the file's bytes around the tensors: names (each stands twice, that of the result once per
// reader), operator, dims, framing.
std::size_t overhead_bytes(const Weight& weight, bool symmetric) {
  return (symmetric ? 130 : 170) + 20 * weight.value->uses().size() + 8 * weight.value->name().size();
}

std::size_t quantized_bytes(const QuantizedTensor& quantized) {
  return quantized.codes.byte_size() + quantized.scale.byte_size() +
         (quantized.zero_point.defined() ? quantized.zero_point.byte_size() : 0);
}

Json layer_record(const Weight& weight, const QuantizedTensor& quantized, int width) {
  const std::vector<float> scales = quantized.scale.to_floats();
  const auto [low, high] = std::minmax_element(scales.begin(), scales.end());
  const bool per_channel = quantized.granularity.kind == Granularity::Kind::channel;
  return {{"tensor", weight.value->name()},
          {"node", weight.node->name},
          {"op", weight.node->op_type()},
          {"form", "DequantizeLinear"},
          {"bits", width},
          {"storage", name(quantized.codes.dtype())},
          {"granularity", per_channel ? "channel" : "tensor"},
          {"axis", per_channel ? Json(quantized.granularity.axis) : Json()},
          {"elements", quantized.codes.size()},
          {"zeros", quantized.zeros},
          {"scale_min", *low},
          {"scale_max", *high},
          {"snr_db", std::isfinite(quantized.snr_db) ? Json(quantized.snr_db) : Json()},
          {"bytes_before", weight.value->constant()->byte_size()},
          {"bytes_after", quantized_bytes(quantized)}};
}

void replace_weight(const Weight& weight, QuantizedTensor quantized) {
  Patch patch(weight.value->graph());
  const std::string& base = weight.value->name();
  const Patch::Ref codes = patch.constant(base + "_quantized", std::move(quantized.codes));
  const Patch::Ref scale = patch.constant(base + "_scale", std::move(quantized.scale));
  std::vector<Patch::Ref> inputs{codes, scale};
  if (quantized.zero_point.defined())
    inputs.push_back(patch.constant(base + "_zero_point", std::move(quantized.zero_point)));
  const bool per_channel = quantized.granularity.kind == Granularity::Kind::channel;
  const QuantizeAttrs attrs{.axis = per_channel ? quantized.granularity.axis : QuantizeAttrs{}.axis};
  patch.replace(weight.value, patch.node({.op_type = "DequantizeLinear",
                                          .name = base + "_DequantizeLinear",
                                          .inputs = std::move(inputs),
                                          .attributes = attrs.to_attributes()}));
  patch.apply();
}

class QuantizeWeights : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "quantize_weights",
      .summary = "weights as 2- to 8-bit integers and DequantizeLinear: smaller, not faster",
      .options = option_specs,
      .effect = Effect::lossy,
      .min_opset = 10};

  const PassInfo& info() const override { return pass_info; }

  std::int64_t required_opset(const Model& model, const Options& given) const override {
    std::vector<NearMiss> misses;
    const std::vector<Weight> weights = select(model, given, misses);
    if (weights.empty()) return 0;
    return plan_storage(model, request_of(given), weights).opset;
  }

  Outcome run(Model& model, PassContext& context) const override {
    std::vector<NearMiss> misses;
    const std::vector<Weight> weights = select(model, context.options, misses);
    Outcome outcome;
    std::size_t before = 0, after = 0;
    if (!weights.empty()) {
      const StorageRequest request = request_of(context.options);
      const StoragePlan plan = plan_storage(model, request, weights);
      outcome.notes = plan.notes;
      std::map<DType, std::int64_t> larger;
      for (const Weight& weight : weights) {
        const DType storage = storage_for(weight, plan.type, request.only_loadable);
        const std::size_t bytes = weight.value->constant()->byte_size();
        const Tensor& tensor = *weight.value->constant();
        const std::optional<WeightGrid> grid =
            min_max_grid(tensor, {request.bits, request.symmetric, storage},
                         plan.per_channel && weight.channel_axis ? Granularity::per_channel(*weight.channel_axis)
                                                                 : Granularity::per_tensor());
        std::optional<QuantizedTensor> quantized;
        if (grid) quantized = round_to_nearest(tensor, *grid);
        if (const auto reason = why_not(weight, quantized)) {
          misses.push_back({std::string(pass_info.name), weight.node->describe(), *reason});
          continue;
        }
        before += bytes;
        after += quantized_bytes(*quantized);
        model.ir_version = std::max<std::int64_t>(model.ir_version, first_ir_version(storage));
        larger[storage] += bits(storage) > bits(plan.type);
        outcome.layers.push_back(layer_record(weight, *quantized, request.bits));
        replace_weight(weight, std::move(*quantized));
      }
      for (const auto& [type, count] : larger) {
        if (count > 0)
          outcome.notes.push_back(fmt::format("{} weights of matrix products are stored as {}: the reference runtime computes "
                                              "wrong results with {}", count, name(type), name(plan.type)));
      }
    }
    // First: they are the ones worth a look.
    const std::vector<NearMiss> indirect =
        indirect_weights(model, Selector(context.options.text("select")), pass_info.name);
    misses.insert(misses.begin(), indirect.begin(), indirect.end());
    outcome.changed = !outcome.layers.empty();
    outcome.counts = {{"quantized", outcome.layers.size()},
                      {"left", misses.size()},
                      {"bytes_before", before},
                      {"bytes_after", after}};
    if (!outcome.changed) outcome.notes.push_back("no weight to quantize");
    if (!misses.empty())
      outcome.notes.push_back(fmt::format("{} weights left as they were, the first: {}: {}", misses.size(),
                                          misses[0].subject, misses[0].reason));
    if (context.near_misses)
      context.near_misses->insert(context.near_misses->end(), misses.begin(), misses.end());
    return outcome;
  }

 private:
  // Weights worth a plan: no opset is raised for others.
  static std::vector<Weight> select(const Model& model, const Options& given, std::vector<NearMiss>& misses) {
    std::vector<Weight> weights =
        collect_weights(model, WeightKinds::all, Selector(given.text("select")), pass_info.name, &misses);
    const StorageRequest request = request_of(given);
    std::erase_if(weights, [&](const Weight& weight) {
      const Tensor& tensor = *weight.value->constant();
      std::optional<std::string> reason;
      if (tensor.dtype() == DType::float64) {
        reason = fmt::format("'{}' is float64: DequantizeLinear has no such scales", weight.value->name());
      } else {
        const std::size_t codes = (static_cast<std::size_t>(tensor.size()) * static_cast<std::size_t>(request.bits) + 7) / 8;
        reason = growth(weight, codes, request.symmetric);
      }
      if (reason) misses.push_back({std::string(pass_info.name), weight.node->describe(), *reason});
      return reason.has_value();
    });
    return weights;
  }

  static std::optional<std::string> growth(const Weight& weight, std::size_t tensors, bool symmetric) {
    const std::size_t bytes = weight.value->constant()->byte_size();
    const std::size_t smaller = tensors + overhead_bytes(weight, symmetric);
    if (smaller < bytes) return std::nullopt;
    return fmt::format("'{}' would not shrink: {} bytes now, {} quantized with its scales and node",
                       weight.value->name(), bytes, smaller);
  }

  static std::optional<std::string> why_not(const Weight& weight, const std::optional<QuantizedTensor>& quantized) {
    if (!quantized) return fmt::format("'{}' holds NaN or infinity", weight.value->name());
    return growth(weight, quantized_bytes(*quantized), !quantized->zero_point.defined());
  }
};

}  // namespace

PASS(quantize_weights) { registry.add(std::make_unique<QuantizeWeights>()); }

}  // namespace onnxpress
