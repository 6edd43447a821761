#include "graph/base/error.h"
#include "passes/quantize/request.h"

namespace onnxpress {

Outcome quantize_dynamic(Model&, PassContext&, const QuantizeRequest&) { fail("scheme=dynamic is not built yet"); }
std::int64_t dynamic_opset(const Model&, const QuantizeRequest&) { return 11; }

}  // namespace onnxpress
