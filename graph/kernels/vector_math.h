// Elementary functions on vectors of floats, for loops compiled per instruction set.
//
// To be included by a file that foreach_target.h (of Highway) includes once for each instruction
// set, behind it and <hwy/highway.h>; such a file must not include Eigen, whose inline functions
// would then differ between instruction sets. NaN gives NaN. Errors are relative to the exact
// result where that is at least 1e-37.
#include <limits>

#if defined(ONNXPRESS_VECTOR_MATH_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ONNXPRESS_VECTOR_MATH_H
#undef ONNXPRESS_VECTOR_MATH_H
#else
#define ONNXPRESS_VECTOR_MATH_H
#endif

#include <hwy/highway.h>
// Behind highway.h.
#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// `value` where `x` is a number, else `x`.
template <class D>
HWY_INLINE hn::Vec<D> keep_nan(D, hn::Vec<D> x, hn::Vec<D> value) {
  return hn::IfThenElse(hn::Eq(x, x), value, x);
}

// e^x, within 4e-7; infinity above 88.72, 0 below -104.
template <class D>
HWY_INLINE hn::Vec<D> vector_exp(D d, hn::Vec<D> x) {
  const auto most = hn::Set(d, 88.72283f);  // just below log of the largest float
  const auto y = hn::Exp(d, hn::Min(x, most));
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  return keep_nan(d, x, hn::IfThenElse(hn::Gt(x, most), infinity, y));
}

// 1 / (1 + e^-x), within 1e-6.
template <class D>
HWY_INLINE hn::Vec<D> vector_sigmoid(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1.0f);
  const auto bound = hn::Set(d, 87.0f);
  const auto y = hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(x), bound))));
  return keep_nan(d, x, y);
}

// Within 1e-6.
template <class D>
HWY_INLINE hn::Vec<D> vector_tanh(D d, hn::Vec<D> x) {
  return keep_nan(d, x, hn::Tanh(d, x));
}

}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#endif  // once for each instruction set
