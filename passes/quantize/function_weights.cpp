#include "passes/quantize/function_weights.h"

#include "graph/base/error.h"
#include "graph/rewrite/inline.h"
#include "passes/common/weights.h"
#include "passes/core/selector.h"

namespace onnxpress {
namespace {

std::size_t weight_bytes(const Model& model) {
  std::size_t bytes = 0;
  for (const Weight& weight : collect_weights(model, WeightKinds::all, Selector(""), "quantize", nullptr))
    bytes += weight.value->constant()->byte_size();
  return bytes;
}

}  // namespace

std::unique_ptr<Model> with_function_weights(const Model& model) {
  if (model.functions.empty()) return nullptr;
  std::unique_ptr<Model> inlined = model.clone();
  try {
    inline_functions(*inlined);
  } catch (const Error&) {
    return nullptr;  // a function that cannot be: what it reads stays as it is
  }
  return weight_bytes(*inlined) > weight_bytes(model) ? std::move(inlined) : nullptr;
}

}  // namespace onnxpress
