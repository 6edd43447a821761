// What the printer and the parser of the text language share; not for other layers.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "graph/ir/attribute.h"

namespace onnxpress::text {

// By AttributeProto.AttributeType.
inline constexpr std::array<std::string_view, 15> kAttributeKinds{
    "none",   "float",   "int",     "string", "tensor", "graph",          "floats", "ints",
    "strings", "tensors", "graphs", "sparse", "sparses", "type",   "types"};

// Letters, digits and _./:-
bool is_name_char(char c);
// The name, in quotes unless it can stand bare.
std::string name_text(std::string_view name);

}  // namespace onnxpress::text
