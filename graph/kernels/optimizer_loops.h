// How parameters follow their gradients, element by element, compiled for every instruction set and
// chosen at run time.
#pragma once

#include <cstdint>
#include <limits>

namespace onnxpress {

// The gradient as a method sees it: bounded(g factor) + l2 w + l1 sign(w).
template <class T>
struct GradientTerms {
  T factor = 1;
  T limit = std::numeric_limits<T>::infinity();  // elements are bounded to [-limit, limit]
  T l1 = 0, l2 = 0;
};

// One step of a method (graph/exec/optimizer.h has the formulas). Every parameter is multiplied by
// `keep` before it moves.
template <class T>
struct MomentumStep {  // sgd is momentum 0: `m` is not used
  T rate = 0, keep = 1, momentum = 0;
  bool nesterov = false;
};
template <class T>
struct AdamStep {
  T size = 0;   // the learning rate over 1 - beta1^steps
  T scale = 1;  // 1 / sqrt(1 - beta2^steps)
  T keep = 1, beta1 = 0, rest1 = 1, beta2 = 0, rest2 = 1, epsilon = 0;  // rest: 1 - beta
};
template <class T>
struct RmspropStep {
  T rate = 0, keep = 1, smoothing = 0, rest = 1, epsilon = 0;
};

// Parameters w, gradients g and what the method remembers (m, v; m of MomentumStep may be null) of
// `count` elements, in place. float and double.
template <class T>
void momentum_loop(const MomentumStep<T>& step, const GradientTerms<T>& terms, T* w, const T* g, T* m,
                   std::int64_t count);
template <class T>
void adam_loop(const AdamStep<T>& step, const GradientTerms<T>& terms, T* w, const T* g, T* m, T* v,
               std::int64_t count);
template <class T>
void rmsprop_loop(const RmspropStep<T>& step, const GradientTerms<T>& terms, T* w, const T* g, T* v,
                  std::int64_t count);

// The sum of g^2, in float64 and a fixed order.
template <class T>
double squares_loop(const T* g, std::int64_t count);

}  // namespace onnxpress
