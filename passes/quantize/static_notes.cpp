#include "passes/quantize/static_notes.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "passes/quantize/softmax_range.h"

namespace onnxpress {
namespace {

// Values whose ranges differ by more than this lose what 3 of 8 bits tell when they share a scale.
constexpr double very_different = 8;

// Between levels of its input; results are off by factors of up to exp(step / 2).
constexpr float widest_softmax_step = 0.5F;

double reach(const ValueStatistics& statistics) {
  return std::max(std::fabs(static_cast<double>(statistics.min)), std::fabs(static_cast<double>(statistics.max)));
}

std::string describe_range(const Value& value, const ValueStatistics& statistics) {
  return fmt::format("'{}' [{:.4g}, {:.4g}]", value.name(), statistics.min, statistics.max);
}

// Whether the value, at most moved, is an output of its graph.
bool feeds_output(const Value& value, int depth = 0) {
  if (value.is_output()) return true;
  if (depth > 16) return false;
  return std::ranges::any_of(value.uses(), [&](const Use& use) {
    static constexpr std::string_view movements[] = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Concat", "Split", "Identity"};
    if (std::ranges::none_of(movements, [&](std::string_view op) { return use.node->is(op); })) return false;
    return std::ranges::any_of(use.node->outputs(), [&](const Value* out) { return out && feeds_output(*out, depth + 1); });
  });
}

// Codes that Softmax reads: where masks are cut off, and where steps are too wide for it.
void note_softmax(const StaticPlan& plan, const Calibration& calibration, const std::vector<ActivationGrid>& grids,
                  std::vector<std::string>& notes) {
  std::size_t masked = 0;
  std::string first;
  for (const CodedValue& value : plan.values) {
    const ActivationGrid& grid = grids[value.group];
    const ValueStatistics* statistics = calibration.find(*value.value);
    if (!statistics || statistics->count == 0 || !grid.type.is_integer()) continue;
    if (value.is_source && grid.is_unmasked && masked++ == 0)
      first = fmt::format("{} is cut off at {:.4g}", describe_range(*value.value, *statistics), grid.low);
    for (const Use& use : value.readers)
      if (use.node->is("Softmax") && grid.parameters.scale > widest_softmax_step)
        notes.push_back(fmt::format("{} reads {} in steps of {:.3g}, which puts its results off by factors of up to {:.2g}: leave it and "
                                    "what makes it in float with overrides, or use 16-bit activations",
                                    use.node->describe(), describe_range(*value.value, *statistics), grid.parameters.scale,
                                    std::exp(grid.parameters.scale / 2)));
  }
  if (masked > 0)
    notes.push_back(fmt::format("{} values that go into Softmax only hold a mask, which their ranges leave out (the first: {}): it "
                                "gives no weight to either", masked, first));
}

}  // namespace

std::set<std::string, std::less<>> static_note_values(const StaticPlan& plan) {
  std::set<std::string, std::less<>> keys = softmax_operands(plan);
  for (const PlannedNode& planned : plan.nodes) {
    if (!planned.node->is("Concat")) continue;
    for (const std::size_t i : planned.use.data)
      if (!planned.node->input(i)->is_constant()) keys.insert(calibration_key(*planned.node->input(i)));
  }
  return keys;
}

std::vector<std::string> static_notes(const StaticPlan& plan, const Calibration& calibration, const StaticTypes& kinds,
                                      const std::vector<ActivationGrid>& grids, bool by_block) {
  std::vector<std::string> notes;
  std::vector<const Node*> unfolded;
  for (const PlannedNode& planned : plan.nodes)
    if (planned.node->is("BatchNormalization")) unfolded.push_back(planned.node);
  if (!unfolded.empty())
    notes.push_back(fmt::format("{} BatchNormalization run in float, which may halve the speed (the first: {}): "
                                "fuse_conv_bn, or fuse, before quantize folds those behind products", unfolded.size(), unfolded[0]->describe()));
  for (const PlannedNode& planned : plan.nodes) {
    if (!planned.node->is("Concat")) continue;
    std::vector<std::pair<double, std::string>> ranges;
    for (const std::size_t i : planned.use.data) {
      const Value& value = *planned.node->input(i);
      const ValueStatistics* statistics = calibration.find(value);
      if (statistics && statistics->count > 0 && reach(*statistics) > 0)
        ranges.emplace_back(reach(*statistics), describe_range(value, *statistics));
    }
    if (ranges.size() < 2) continue;
    const auto [least, most] = std::ranges::minmax_element(ranges);
    if (most->first / least->first <= very_different) continue;
    notes.push_back(fmt::format("{} joins values of very different ranges, {} and {}{}: {}", planned.node->describe(),
                                least->second, most->second, feeds_output(*planned.result) ? ", and is a model output" : "",
                                planned.on_codes ? "they share one scale behind it; leave it in float with overrides"
                                                 : "it is left in float, and each keeps a scale of its own"));
  }
  note_softmax(plan, calibration, grids, notes);
  const bool is_ort = kinds.target.id == Target::Id::ort_cpu || kinds.target.id == Target::Id::ort_cpu_avx2;
  const auto has_kernels = [](DType type) { return is_integer(type) && bits(type) == 8; };
  std::set<std::pair<DType, DType>> told;  // of activations and weights
  for (const PlannedNode& planned : plan.nodes) {
    if (!is_ort || !planned.on_codes || !planned.weights) continue;
    const DType activation = kinds.activation_of(planned.activation_bits).storage, weight = kinds.weight_of(planned.bits).storage;
    if ((has_kernels(activation) && has_kernels(weight)) || !told.emplace(activation, weight).second) continue;
    notes.push_back(fmt::format("{} activations and {} weights are computed in float by {}: only 8-bit integers run on integer kernels",
                                name(activation), name(weight), kinds.target.name()));
  }
  const auto is_invalid_in_kernels = [](DType type, int narrowest) { return !is_integer(type) || bits(type) < narrowest; };
  if (is_ort && !is_integer(kinds.activation.storage))
    notes.emplace_back("ONNX Runtime runs float8 activations with the session option session.disable_quant_qdq=1 only, and those "
                       "behind a Relu or Clip, which it then drops, with all graph optimizations off only");
  else if (is_ort && (is_invalid_in_kernels(kinds.activation.storage, 8) || is_invalid_in_kernels(kinds.weight.storage, 4)))
    notes.emplace_back("ONNX Runtime runs these types with the session option session.disable_quant_qdq=1 only: without it, its "
                       "optimizer hands them to integer kernels that do not take them");
  if (is_ort && by_block)
    notes.emplace_back("scales by block: ONNX Runtime fails where its optimizer puts such products into integer kernels, which have "
                       "scales by tensor and by channel only; the session option session.disable_quant_qdq=1 prevents that");
  if (is_ort && kinds.activation.storage == DType::int8)
    notes.emplace_back("int8 activations run slower than float32 in ONNX Runtime on x86: uint8 is what it is fast with");
  return notes;
}

std::vector<NearMiss> static_near_misses(const StaticPlan& plan, const TypeInference& types, std::string_view pass) {
  std::vector<NearMiss> misses;
  std::unordered_set<const Node*> absorbed;
  for (const CodedValue& coded : plan.values)
    if (coded.maker && coded.made_on_codes && coded.value == coded.maker->result) absorbed.insert(coded.maker->absorbed);
  for (const PlannedNode& planned : plan.nodes) {
    if (planned.on_codes || planned.reason.empty() || absorbed.contains(planned.node)) continue;
    const Value* result = planned.node->output(0);
    if (!result || !is_float(types.type(result).elem) || planned.node->is("Constant")) continue;
    if (planned.node->is("QuantizeLinear") || planned.node->is("DequantizeLinear")) continue;
    misses.push_back({std::string(pass), planned.node->describe(),
                      planned.weights ? "only its weights are quantized: " + planned.reason : planned.reason});
  }
  return misses;
}

}  // namespace onnxpress
