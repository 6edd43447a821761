// From an element type at run time to one at compile time.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "graph/base/dtype.h"
#include "graph/base/error.h"

namespace onnxpress {

// Calls fn(std::type_identity<T>()) for the C++ type of `type`, which must be one of Ts; throws
// Error otherwise.
template <class... Ts, class Fn>
void dispatch(DType type, Fn&& fn) {
  const bool found = ((type == dtype_of<Ts> ? (fn(std::type_identity<Ts>()), true) : false) || ...);
  require(found, "element type {} is not supported here", name(type));
}

// What arithmetic_type() (compute_type.h) leaves, in three widths of choice.
template <class Fn>
void dispatch_floats(DType type, Fn&& fn) {
  dispatch<float, double>(type, std::forward<Fn>(fn));
}
template <class Fn>
void dispatch_numbers(DType type, Fn&& fn) {
  dispatch<float, double, std::int64_t, std::uint64_t>(type, std::forward<Fn>(fn));
}

}  // namespace onnxpress
