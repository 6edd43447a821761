// Field numbers of ONNX messages: libonnx's generated constants, and those it may be too old for.
#pragma once

#include <onnx/onnx_pb.h>

namespace onnxpress::field {

// Newer than libonnx 1.12 (onnx.proto of ONNX 1.22).
inline constexpr int node_overload = 8;
inline constexpr int node_metadata = 9;
inline constexpr int value_info_metadata = 4;
inline constexpr int graph_metadata = 16;
inline constexpr int tensor_metadata = 16;
inline constexpr int function_attribute_proto = 11;
inline constexpr int function_value_info = 12;
inline constexpr int function_overload = 13;
inline constexpr int function_metadata = 14;

}  // namespace onnxpress::field
