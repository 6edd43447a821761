#include "passes/quantize/storage.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "graph/ops/gemm.h"
#include "graph/ops/upgrade.h"

namespace onnxpress {
namespace {

DType storage_type(int bits, bool symmetric) {
  if (bits <= 2) return symmetric ? DType::int2 : DType::uint2;
  if (bits <= 4) return symmetric ? DType::int4 : DType::uint4;
  return symmetric ? DType::int8 : DType::uint8;
}

// That DequantizeLinear needs for one weight stored as `type`.
std::int64_t opset_of(DType type, const Weight& weight, bool per_channel) {
  std::int64_t opset = bits(type) == 2 ? 25 : bits(type) == 4 ? 21 : 10;
  if (per_channel && weight.channel_axis) opset = std::max<std::int64_t>(opset, 13);
  if (bits(weight.value->constant()->dtype()) == 16) opset = std::max<std::int64_t>(opset, 19);
  return opset;
}

}  // namespace

StoragePlan plan_storage(const Model& model, const StorageRequest& request,
                         const std::vector<Weight>& weights) {
  StoragePlan plan;
  std::vector<std::string> tried;
  // Smallest first: the types that hold the levels, then the same without per-channel scales.
  for (const bool per_channel : {request.per_channel, false}) {
    for (int width = request.bits; width <= 8; width = width <= 2 ? 4 : width <= 4 ? 8 : 9) {
      const DType type = storage_type(width, request.symmetric);
      std::int64_t opset = 10;
      for (const Weight& weight : weights)
        opset = std::max(opset, opset_of(storage_for(weight, type, request.only_loadable), weight, per_channel));
      if (request.only_loadable && opset > loadable_opset) continue;
      if (opset > model.graph.opset()) {
        const std::vector<std::string> obstacles = upgrade_obstacles(model, opset);
        if (!obstacles.empty()) {
          tried.push_back(fmt::format("{}{} needs opset {}, which the model cannot reach: {}", name(type),
                                      per_channel ? " per channel" : "", opset, obstacles.front()));
          continue;
        }
      }
      plan.type = type;
      plan.per_channel = per_channel;
      plan.opset = opset;
      plan.notes = std::move(tried);
      if (bits(type) > request.bits)
        plan.notes.push_back(fmt::format("{}-bit levels are stored as {}: ONNX has no {}-bit type{}", request.bits,
                                         name(type), request.bits,
                                         request.bits == 2 || request.bits == 4 ? " within reach" : ""));
      if (request.only_loadable && (model.graph.opset() > loadable_opset || model.ir_version > loadable_ir_version))
        plan.notes.push_back(fmt::format("the model is at opset {}, IR version {}: newer than what the reference "
                                         "runtime loads (opset {}, IR version {})", model.graph.opset(),
                                         model.ir_version, loadable_opset, loadable_ir_version));
      return plan;
    }
    if (!request.per_channel) break;
  }
  fail("no form of DequantizeLinear is within reach: {}", fmt::join(tried, "; "));
}

DType storage_for(const Weight& weight, DType type, bool only_loadable) {
  const Dims& dims = weight.value->constant()->dims();
  const std::span<const Use> uses = weight.value->uses();
  // The runtime makes a MatMul of a Gemm whose weight is not transposed.
  const bool in_product = std::any_of(uses.begin(), uses.end(), [](const Use& use) {
    return use.node->is("MatMul") || (use.node->is("Gemm") && !GemmAttrs::from(*use.node).transpose_b);
  });
  const bool wrong_in_runtime =
      only_loadable && bits(type) == 2 && in_product && !dims.empty() && dims.back() % 4 != 0;
  if (!wrong_in_runtime) return type;
  return type == DType::int2 ? DType::int4 : DType::uint4;
}

}  // namespace onnxpress
