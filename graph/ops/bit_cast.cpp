// BitCast.
#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

DType target_type(const Node& node) {
  const std::int64_t to = require_int(node, "to");
  const auto type = static_cast<DType>(to);
  require(is_known(type) && type != DType::string,
          "attribute 'to': expected an element type other than string, found {}", to);
  return type;
}

void check_widths(DType from, DType to) {
  require(from != DType::string && bits(from) == bits(to),
          "expected a type of {} bits as {} has, found {}", bits(to), name(to), name(from));
}

// Of bytes that become booleans every one that is not 0 is true: no other has a meaning.
Kernel prepare_bit_cast(const PrepareContext& prepare) {
  return [to = target_type(prepare.node())](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    check_widths(x.dtype(), to);
    Tensor& y = context.output(0, to, x.dims());
    std::ranges::transform(x.bytes(), y.mutable_bytes().begin(), [to](std::byte byte) {
      return to == DType::boolean && byte != std::byte{0} ? std::byte{1} : byte;
    });
  };
}

void infer_bit_cast(InferContext& context) {
  const DType to = target_type(context.node());
  if (is_known(context.input_dtype(0))) check_widths(context.input_dtype(0), to);
  const Shape* x = context.input_shape(0);
  context.set_output(0, to, x != nullptr ? std::optional(*x) : std::nullopt);
}

}  // namespace

OPERATORS(bit_cast) {
  registry.add(
      OpDef{.name = "BitCast", .since = 26, .infer = infer_bit_cast, .prepare = prepare_bit_cast});
}

}  // namespace onnxpress
