#include "graph/base/error.h"
#include "passes/quantize/request.h"

namespace onnxpress {

Outcome quantize_weights_only(Model&, PassContext&, const QuantizeRequest&) { fail("scheme=weights is not built yet"); }
std::int64_t weights_only_opset(const Model&, const QuantizeRequest&) { return 13; }

}  // namespace onnxpress
