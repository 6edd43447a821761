// scheme=static: weights and activations as codes between explicit QuantizeLinear and
// DequantizeLinear (QDQ), ranges of activations from calibration data.
#include <algorithm>
#include <map>

#include "graph/onnx/writer.h"
#include "passes/common/batch_norm.h"
#include "passes/common/calibration.h"
#include "passes/common/qoperator.h"
#include "passes/quantize/indirect_weights.h"
#include "passes/quantize/request.h"
#include "passes/quantize/softmax_range.h"
#include "passes/quantize/static_convert.h"
#include "passes/quantize/static_notes.h"
#include "passes/quantize/tuning.h"

namespace onnxpress {
namespace {

constexpr std::string_view pass_name = "quantize";

// A plan with all numbers, for the model it was made of.
struct Attempt {
  StaticPlan plan;
  std::vector<ActivationGrid> grids;
  std::vector<StaticWeight> weights;
  std::vector<StaticBias> biases;
  std::vector<std::string> notes;
  std::vector<NearMiss> misses;
};

class StaticScheme {
 public:
  StaticScheme(Model& model, PassContext& context, const QuantizeRequest& request)
      : model_(model), context_(context), request_(request), kinds_(choose_static_types(model, request)) {}

  Outcome run() {
    calibrate_values();
    Attempt attempt = prepare(model_);
    if (!request_.may_grow && may_grow(attempt)) {
      keep_small();
      attempt = prepare(model_);
    }
    if (request_.tune) tune(attempt);
    convert_model(attempt);
    if (request_.form == Form::qoperator) write_operators();
    return std::move(outcome_);
  }

 private:
  // Whether a product would have scales by block.
  static bool has_blocks(const Attempt& attempt) {
    return std::ranges::any_of(attempt.weights, [](const StaticWeight& weight) {
      return weight.granularity.kind == Granularity::Kind::block;
    });
  }

  void write_operators() {
    const bool contrib = kinds_.target.id != Target::Id::generic;
    for (const auto& [rule, count] : to_qoperators(model_, contrib).applied) {
      outcome_.counts[rule] = count;
      outcome_.changed |= count > 0;  // also of nodes that were quantized before
    }
  }

  void tune(Attempt& attempt) {
    TunedGrids grids{.weights = {}, .chosen_codes = request_.rounds_by_inputs(), .plan = &attempt.plan, .activations = &attempt.grids, .kinds = &kinds_};
    for (StaticWeight& weight : attempt.weights)
      if (weight.rounded.quantized) grids.weights.push_back({weight.weight, weight.type, weight.granularity, &weight.rounded});
    request_.tune(model_, grids);
    attempt.biases = static_biases(attempt.plan, attempt.weights, attempt.grids, kinds_, attempt.notes);
  }

  // Every value that any plan may quantize.
  void calibrate_values() {
    TypeInference types(model_);
    types.run();
    const StaticPlan plan = plan_static(model_, types, kinds_, request_, exclusions_);
    CalibrationRequest wanted{.values = static_note_values(plan), .computed_constants = true};
    for (const CodedValue& value : plan.values) wanted.values.insert(calibration_key(*value.value));
    if (wanted.values.empty()) return;
    calibration_ = calibrate(model_, context_, wanted);
    for (std::string& warning : calibration_warnings(calibration_)) outcome_.notes.push_back(std::move(warning));
  }

  Attempt prepare(const Model& model) {
    Attempt attempt;
    TypeInference types(model);
    types.run();
    for (bool settled = false; !settled;) {
      const std::size_t refused = exclusions_.values.size() + exclusions_.nodes.size();
      attempt.plan = plan_static(model, types, kinds_, request_, exclusions_);
      attempt.grids = choose_activation_grids(attempt.plan, calibration_, kinds_, request_, types, exclusions_);
      if (refused == exclusions_.values.size() + exclusions_.nodes.size()) {
        round(model, attempt);
        exclusions_.nodes.merge(half_bias_obstacles(attempt.plan, attempt.weights, attempt.grids, kinds_));
      }
      settled = refused == exclusions_.values.size() + exclusions_.nodes.size();
    }
    attempt.plan.masked_constants = masked_constants(attempt.plan, calibration_);
    attempt.biases = static_biases(attempt.plan, attempt.weights, attempt.grids, kinds_, attempt.notes);
    const std::vector<std::string> notes = static_notes(attempt.plan, calibration_, kinds_, attempt.grids, has_blocks(attempt));
    attempt.notes.insert(attempt.notes.begin(), notes.begin(), notes.end());
    attempt.misses = static_near_misses(attempt.plan, types, pass_name);
    return attempt;
  }

  // Weights are rounded once, though plans are made several times.
  void round(const Model& model, Attempt& attempt) {
    attempt.weights = static_weights(model, attempt.plan, kinds_, request_);
    std::vector<RoundingTask> tasks;
    std::vector<StaticWeight*> asked;
    for (StaticWeight& weight : attempt.weights) {
      const auto known = rounded_.find(weight.readers[0]);
      if (known != rounded_.end() && known->second.granularity == weight.granularity && known->second.bits == weight.type.bits &&
          known->second.tensor == weight.weight.value->name()) {
        weight.rounded = known->second.result;
        continue;
      }
      asked.push_back(&weight);
      tasks.push_back({weight.weight, weight.type, weight.granularity, {.power_of_two = request_.power_of_two}});
    }
    if (tasks.empty()) return;
    std::vector<RoundingResult> results = round_weights(model, tasks, context_, request_);
    for (std::size_t i = 0; i < results.size(); ++i) {
      StaticWeight& weight = *asked[i];
      weight.rounded = std::move(results[i]);
      if (weight.rounded.quantized) {
        rounded_.insert_or_assign(weight.readers[0], Rounded{weight.weight.value->name(), weight.type.bits, weight.granularity, weight.rounded});
        continue;
      }
      for (const std::size_t place : weight.readers)
        exclusions_.nodes.emplace(place, weight.rounded.obstacle);
    }
  }

  // Whether nodes, scales and names might take more bytes than codes save.
  static bool may_grow(const Attempt& attempt) {
    constexpr std::size_t bytes_of_pair = 1024;
    std::size_t bytes = 0;
    for (const StaticWeight& weight : attempt.weights) bytes += weight.weight.value->constant()->byte_size();
    return bytes / 2 < bytes_of_pair * (attempt.plan.values.size() + 2 * attempt.weights.size());
  }

  // Leaves nodes in float, those with the smallest weights first, until the model does not grow.
  void keep_small() {
    const std::size_t before = serialized_size(model_);
    for (;;) {
      const std::unique_ptr<Model> copy = model_.clone();
      const Attempt trial = prepare(*copy);
      Exclusions next = exclusions_;
      const bool can_shrink = leave_smallest(trial, next);
      convert(*copy, trial);
      if (!can_shrink || serialized_size(*copy) <= before) return;
      exclusions_ = std::move(next);
    }
  }

  static bool leave_smallest(const Attempt& trial, Exclusions& next) {
    const auto bytes_of = [](const StaticWeight& weight) { return weight.weight.value->constant()->byte_size(); };
    const auto smallest = std::ranges::min_element(trial.weights, {}, bytes_of);
    if (smallest != trial.weights.end()) {
      for (const std::size_t place : smallest->readers)
        next.nodes.emplace(place, fmt::format("the model would grow: '{}' has only {} bytes", smallest->weight.value->name(), bytes_of(*smallest)));
      return true;
    }
    for (std::size_t place = 0; place < trial.plan.nodes.size(); ++place)
      if (trial.plan.nodes[place].on_codes && next.nodes.emplace(place, "the model would grow, and it has no weights").second) return true;
    return false;
  }

  StaticConversion convert(Model& model, const Attempt& attempt) const {
    std::int64_t version = model.ir_version;
    for (const StaticWeight& weight : attempt.weights) version = std::max<std::int64_t>(version, first_ir_version(weight.type.storage));
    for (const ActivationGrid& grid : attempt.grids) version = std::max<std::int64_t>(version, first_ir_version(grid.type.storage));
    model.ir_version = version;
    // What calibration saw is not what a trained model computes.
    return convert_static(model, attempt.plan, attempt.grids, attempt.weights, attempt.biases, kinds_,
                          request_.tune ? Calibration{} : calibration_);
  }

  void convert_model(const Attempt& attempt) {
    std::vector<Weight> direct;
    for (const StaticWeight& weight : attempt.weights) direct.push_back(weight.weight);
    IndirectWeights indirect = indirect_weights(model_, Selector(request_.select), pass_name, direct);
    std::vector<NearMiss> misses = std::move(indirect.left);
    for (const Weight& moved : indirect.moved)
      misses.push_back({std::string(pass_name), moved.node->describe(),
                        fmt::format("'{}' reaches it moved: only a constant that the operator reads itself is quantized",
                                    moved.value->name())});
    misses.insert(misses.end(), attempt.misses.begin(), attempt.misses.end());
    std::size_t on_codes = 0, only_weights = 0;
    for (const PlannedNode& planned : attempt.plan.nodes) {
      on_codes += planned.on_codes;
      only_weights += planned.weights && !planned.on_codes;
    }
    const StaticConversion done = convert(model_, attempt);
    for (const QuantizedRecord& record : done.records) outcome_.layers.push_back(record.to_json());
    outcome_.changed |= !done.records.empty();
    outcome_.counts = {{"on_codes", on_codes},
                       {"only_weights", only_weights},
                       {"left_in_float", misses.size()},
                       {"quantized_values", done.quantize_nodes},
                       {"absorbed", done.absorbed}};
    outcome_.notes.insert(outcome_.notes.end(), kinds_.notes.begin(), kinds_.notes.end());
    outcome_.notes.insert(outcome_.notes.end(), attempt.notes.begin(), attempt.notes.end());
    if (done.records.empty()) outcome_.notes.emplace_back("nothing to quantize");
    if (!misses.empty())
      outcome_.notes.push_back(fmt::format("{} nodes left in float, at least in part, the first: {}: {}", misses.size(),
                                           misses[0].subject, misses[0].reason));
    if (context_.near_misses) context_.near_misses->insert(context_.near_misses->end(), misses.begin(), misses.end());
  }

  struct Rounded {
    std::string tensor;
    int bits = 0;
    Granularity granularity;
    RoundingResult result;
  };

  Model& model_;
  PassContext& context_;
  const QuantizeRequest& request_;
  StaticTypes kinds_;
  Exclusions exclusions_;
  Calibration calibration_;
  std::map<std::size_t, Rounded> rounded_;  // by the place of the first reader
  Outcome outcome_;
};

}  // namespace

Outcome quantize_static(Model& model, PassContext& context, const QuantizeRequest& request) {
  return StaticScheme(model, context, request).run();
}

void check_static(const QuantizeRequest& request) {
  require(request.form == Form::automatic || request.form == Form::qdq || request.form == Form::qoperator,
          "scheme=static is written as form=qdq or form=qoperator; other forms are of scheme=weights");
  require(request.format == BlockFormat::none, "scheme=static: blocks of floats (mxfp4, mxfp8, nvfp4) are of scheme=weights");
  require(request.weight_type != DType::float4e2m1, "scheme=static: expected weights of integers or float8, found float4e2m1: that is of "
          "scheme=weights");
  const int width = request.activation_bits;
  require((width >= 2 && width <= 8) || width == 16, "scheme=static: expected activations of 2 to 8 or 16 bits, found {}", width);
  const DType type = request.activation_type.value_or(request.target.activation_type(width));
  require((is_integer(type) && bits(type) >= 4) || (is_float(type) && bits(type) == 8),
          "scheme=static: QuantizeLinear makes activations of 4, 8 or 16 bits or float8, found {}", name(type));
  require(!is_integer(type) || width >= bits(type) || bits(type) == 8,
          "scheme=static: levels of 8-bit codes can be restricted, found {} bits of {}", width, name(type));
  const bool symmetric = request.symmetric_activations.value_or(request.target.symmetric_activations());
  require(!request.target.symmetric_activations() || (symmetric && is_signed_integer(type)) || is_float(type),
          "target {} takes signed activations without zero points only, found {}{}", request.target.name(), name(type),
          symmetric ? "" : " with zero points");
  if (request.form != Form::qoperator) return;
  const DType weight = request.weight_type.value_or(DType::int8);
  require((type == DType::uint8 || type == DType::int8) && is_integer(weight) && bits(weight) == 8 &&
              (request.weight_bits > 4 || request.weight_type) && request.weight_bits <= 8,
          "form=qoperator: ONNX has operators on 8-bit codes only, found {} activations and {}-bit {} weights", name(type),
          request.weight_bits, name(weight));
  for (const BitsRule& rule : request.overrides)
    require(rule.bits <= 8, "form=qoperator: ONNX has operators on 8-bit codes only, found {} bits for '{}'", rule.bits, rule.selector);
}

std::vector<std::string> static_preparations(const Model& model) {
  bool computed = false, apart = false;
  model.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) {
      if (node->is("Constant")) computed |= node->output(0) && !node->output(0)->is_unused();
      if (node->is("Add"))
        for (const Value* operand : node->inputs())
          apart |= operand && operand->producer() && operand->producer()->is("MatMul");
      if (node->is("MatMul") || node->is("Gemm") || node->is("Conv")) {
        const Node* maker = node->input(1) ? node->input(1)->producer() : nullptr;
        computed |= maker && maker->input_count() > 0 && maker->input(0) && maker->input(0)->is_constant() &&
                    !maker->is("DequantizeLinear");
      }
    }
  });
  std::vector<std::string> wanted;
  if (computed) wanted.emplace_back("fold_constants");
  if (has_unfolded_batch_norm(model)) wanted.emplace_back("fuse_conv_bn");
  if (apart) wanted.emplace_back("fuse_gemm");
  return wanted;
}

std::int64_t static_opset(const Model& model, const QuantizeRequest& request) {
  return choose_static_types(model, request).opset;
}

}  // namespace onnxpress
