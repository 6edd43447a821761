#include "graph/base/error.h"
#include "passes/quantize/request.h"

namespace onnxpress {

Outcome quantize_static(Model&, PassContext&, const QuantizeRequest&) { fail("scheme=static is not built yet"); }
std::int64_t static_opset(const Model&, const QuantizeRequest&) { return 13; }

}  // namespace onnxpress
