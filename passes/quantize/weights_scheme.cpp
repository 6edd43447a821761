// Weight-only quantization: weights become integers or small floats that the model turns back into
// floats, or that operators of com.microsoft multiply with as they are. Rounding to nearest on min-max
// grids (Krishnamoorthi 2018, arXiv 1806.08342, section 3.1) unless a method is asked for.
#include <algorithm>
#include <map>

#include "graph/ops/identity.h"
#include "graph/ops/quantize_linear.h"
#include "graph/rewrite/patch.h"
#include "passes/common/quantization.h"
#include "passes/common/weights.h"
#include "passes/quantize/codebook.h"
#include "passes/quantize/contrib_weights.h"
#include "passes/quantize/indirect_weights.h"
#include "passes/quantize/records.h"
#include "passes/quantize/rounding.h"
#include "passes/quantize/storage.h"
#include "passes/quantize/tied_weights.h"
#include "passes/quantize/tuning.h"

namespace onnxpress {
namespace {

struct Selected {
  std::vector<Weight> weights;
  std::vector<NearMiss> left;
};

// Weights that operators read, and those that reach them moved, in that order.
Selected select_weights(const Model& model, const QuantizeRequest& request) {
  Selected selected;
  const Selector selector(request.select);
  std::vector<NearMiss> misses;
  selected.weights = collect_weights(model, WeightKinds::all, selector, request.pass, &misses);
  IndirectWeights indirect = indirect_weights(model, selector, request.pass, selected.weights);
  selected.weights.insert(selected.weights.end(), indirect.moved.begin(), indirect.moved.end());
  // First: they are the ones worth a look.
  selected.left = std::move(indirect.left);
  selected.left.insert(selected.left.end(), misses.begin(), misses.end());
  return selected;
}

Patch::Ref put(Patch& patch, OpCall call, std::string name, std::vector<Patch::Ref> inputs) {
  return patch.node({.op_type = std::move(call.op_type),
                     .name = std::move(name),
                     .inputs = std::move(inputs),
                     .attributes = std::move(call.attributes)});
}

// DequantizeLinear in the place of the weight. Its scales are multiplied with that of the tensor first
// (NVFP4), or cast to the weight's type.
void replace_by_dequantized(const StoredWeight& stored, QuantizedTensor quantized) {
  Value* const weight = stored.weight.value;
  const DType type = weight->constant()->dtype();
  const std::string base = weight->name();
  Patch patch(weight->graph());
  const Patch::Ref codes = patch.constant(base + "_quantized", std::move(quantized.codes));
  const DType scale_type = quantized.scale.dtype();
  Patch::Ref scale = patch.constant(base + "_scale", std::move(quantized.scale));
  QuantizeAttrs attrs;
  if (quantized.granularity.kind != Granularity::Kind::tensor) attrs.axis = quantized.granularity.axis;
  if (quantized.granularity.kind == Granularity::Kind::block) attrs.block_size = quantized.granularity.block;
  if (quantized.outer_scale.defined()) {
    scale = put(patch, {.op_type = "DequantizeLinear"}, base + "_scale_DequantizeLinear",
                {scale, patch.constant(base + "_tensor_scale", std::move(quantized.outer_scale))});
    if (type != DType::float32) attrs.output = type;
  } else if (scale_type == DType::float8e8m0) {
    attrs.output = type;
  } else if (scale_type != type) {
    scale = put(patch, make_cast(type), base + "_scale_Cast", {scale});
  }
  std::vector<Patch::Ref> inputs{codes, scale};
  if (quantized.zero_point.defined())
    inputs.push_back(patch.constant(base + "_zero_point", std::move(quantized.zero_point)));
  patch.replace(weight, put(patch, {.op_type = "DequantizeLinear", .attributes = attrs.to_attributes()},
                            base + "_DequantizeLinear", std::move(inputs)));
  patch.apply();
}

class WeightsOnly {
 public:
  WeightsOnly(Model& model, PassContext& context, const QuantizeRequest& request)
      : model_(model), context_(context), request_(request) {}

  Outcome run() {
    tie();
    Selected selected = select_weights(model_, request_);
    StoragePlan plan = plan_storage(model_, request_, selected.weights, request_.pass);
    misses_ = std::move(selected.left);
    misses_.insert(misses_.end(), plan.left.begin(), plan.left.end());
    outcome_.notes.insert(outcome_.notes.end(), plan.notes.begin(), plan.notes.end());
    quantize_grids(plan);
    quantize_codebooks(plan);
    return finish();
  }

 private:
  // Operators of com.microsoft read codes in one order only: there a twin has its own.
  void tie() {
    if (request_.form == Form::contrib) return;
    tied_ = tie_transposed_weights(select_weights(model_, request_).weights);
    if (tied_ > 0)
      outcome_.notes.push_back(fmt::format("{} matrices are the transpose of another one: stored once, with Transpose "
                                           "in front of their operators", tied_));
  }

  void quantize_grids(const StoragePlan& plan) {
    std::vector<RoundingTask> tasks;
    std::vector<const StoredWeight*> stored;
    for (const StoredWeight& weight : plan.weights) {
      if (weight.form == Form::codebook) continue;
      tasks.push_back({weight.weight, weight.type, weight.granularity, weight.grid});
      stored.push_back(&weight);
    }
    std::vector<RoundingResult> results = round_weights(model_, tasks, context_, request_);
    tune_weights(model_, tasks, results, request_);
    std::vector<QuantizedRecord> records;
    for (std::size_t i = 0; i < results.size(); ++i)
      records.push_back(results[i].quantized ? grid_record(*stored[i], results[i]) : QuantizedRecord());
    const std::vector<std::optional<ContribWeight>> packed = pack(stored, results);
    for (std::size_t i = 0; i < results.size(); ++i) {
      RoundingResult& result = results[i];
      if (!result.quantized) {
        leave(stored[i]->weight, result.obstacle);
        continue;
      }
      wider_scales_ += stored[i]->grid.scale_type == DType::float16 && result.quantized->scale.dtype() != DType::float16;
      const bool contrib = packed[i].has_value();
      keep(*stored[i], records[i]);
      dequantized_ += !contrib;
      products_ += !contrib && is_fast_product(*stored[i]);
      if (contrib) replace_by_contrib(model_, *stored[i], *packed[i], request_.accuracy_level);
      else replace_by_dequantized(*stored[i], *std::move(result.quantized));
      result.quantized.reset();
    }
  }

  static QuantizedRecord grid_record(const StoredWeight& stored, const RoundingResult& result) {
    const bool contrib = stored.form == Form::contrib;
    QuantizedRecord record = weight_record(stored.weight, *result.quantized, stored.type,
                                           contrib ? contrib_name(stored.weight) : "DequantizeLinear");
    record.output_snr_db = result.output_snr_db;
    record.note = result.note;
    return record;
  }

  // Those that operators of com.microsoft read, in their order; the codes in the order of the weight go.
  std::vector<std::optional<ContribWeight>> pack(const std::vector<const StoredWeight*>& stored,
                                                 std::vector<RoundingResult>& results) {
    std::vector<std::optional<ContribWeight>> packed(results.size());
    context_.pool.parallel_for(std::ssize(results), 1, [&](std::int64_t begin, std::int64_t) {
      const auto i = static_cast<std::size_t>(begin);
      if (!results[i].quantized || stored[i]->form != Form::contrib) return;
      packed[i].emplace(*stored[i], *results[i].quantized, context_.pool);
      results[i].quantized->codes = Tensor();
    });
    return packed;
  }

  // What the runtime makes MatMulNBits of (docs/runtime-support.md).
  static bool is_fast_product(const StoredWeight& stored) {
    const Value& value = *stored.weight.value;
    return is_integer(stored.type.storage) && bits(stored.type.storage) <= 8 && value.constant()->rank() == 2 &&
           std::ranges::all_of(value.uses(), [](const Use& use) { return use.node->is("MatMul") && use.index == 1; });
  }

  static std::string_view contrib_name(const Weight& weight) {
    return weight.node->is("Gather") ? "GatherBlockQuantized" : "MatMulNBits";
  }

  void quantize_codebooks(const StoragePlan& plan) {
    for (const StoredWeight& stored : plan.weights) {
      if (stored.form != Form::codebook) continue;
      const std::optional<Codebook> codebook = make_codebook(stored, context_.pool);
      if (!codebook) {
        leave(stored.weight, fmt::format("'{}' holds NaN or infinity", stored.weight.value->name()));
        continue;
      }
      const Value& value = *stored.weight.value;
      keep(stored, {.tensor = value.name(),
                    .node = stored.weight.node->name,
                    .op = stored.weight.node->op_type(),
                    .form = "Gather",
                    .bits = stored.type.bits,
                    .storage = stored.type.storage,
                    .granularity = stored.granularity,
                    .elements = codebook->indices.size(),
                    .zeros = codebook->zeros,
                    .snr_db = codebook->snr_db,
                    .bytes_before = value.constant()->byte_size(),
                    .bytes_after = codebook->indices.byte_size() + palette_bytes(stored),
                    .note = {}});
      replace_by_codebook(stored, *codebook);
    }
  }

  void leave(const Weight& weight, std::string reason) {
    misses_.push_back({std::string(request_.pass), weight.node->describe(), std::move(reason)});
  }

  void keep(const StoredWeight& stored, const QuantizedRecord& record) {
    before_ += *record.bytes_before;
    after_ += *record.bytes_after;
    for (const DType type : {record.storage, stored.grid.scale_type})
      if (is_known(type)) model_.ir_version = std::max<std::int64_t>(model_.ir_version, first_ir_version(type));
    outcome_.layers.push_back(record.to_json());
  }

  Outcome finish() {
    outcome_.changed = tied_ > 0 || !outcome_.layers.empty();
    outcome_.counts = {{"quantized", outcome_.layers.size()},
                       {"tied", tied_},
                       {"left", misses_.size()},
                       {"bytes_before", before_},
                       {"bytes_after", after_}};
    if (dequantized_ > 0)
      outcome_.notes.push_back(
          fmt::format("ONNX Runtime multiplies with {} of the {} weights behind DequantizeLinear as they are stored (it "
                      "makes MatMulNBits of both), and dequantizes the others in every run: smaller, not faster",
                      products_, dequantized_));
    if (wider_scales_ > 0)
      outcome_.notes.push_back(fmt::format("{} weights have scales of their own type: float16 does not reach as far", wider_scales_));
    if (!outcome_.changed) outcome_.notes.emplace_back("no weight to quantize");
    if (!misses_.empty())
      outcome_.notes.push_back(fmt::format("{} weights left as they were, the first: {}: {}", misses_.size(),
                                           misses_[0].subject, misses_[0].reason));
    if (context_.near_misses)
      context_.near_misses->insert(context_.near_misses->end(), misses_.begin(), misses_.end());
    return std::move(outcome_);
  }

  Model& model_;
  PassContext& context_;
  const QuantizeRequest& request_;
  std::vector<NearMiss> misses_;
  Outcome outcome_;
  std::size_t tied_ = 0, products_ = 0, dequantized_ = 0, wider_scales_ = 0, before_ = 0, after_ = 0;
};

}  // namespace

Outcome quantize_weights_only(Model& model, PassContext& context, const QuantizeRequest& request) {
  return WeightsOnly(model, context, request).run();
}

std::int64_t weights_only_opset(const Model& model, const QuantizeRequest& request) {
  return plan_storage(model, request, select_weights(model, request).weights, request.pass).opset;
}

}  // namespace onnxpress
