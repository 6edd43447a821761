// Normalization written out: (x - mean) / sqrt(variance + epsilon), or x / sqrt(mean square +
// epsilon), in the spellings of the exporters.
#pragma once

#include "passes/fuse/tracer.h"

namespace onnxpress {

struct RowNorm {
  Value* x = nullptr;
  bool centered = false;  // the mean is subtracted
  double epsilon = 0;
  std::vector<std::int64_t> axes;  // sorted, counted from the end (-1: the last)
  // Behind the quotient; nullptr: none.
  Value* scale = nullptr;
  Value* bias = nullptr;
  Region region;

  bool over_last_axes() const;
};

// The normalization whose quotient is the root of the match, scale and bias left out. When
// `region` could not go as a whole, says so in `reason`.
std::optional<RowNorm> find_row_norm(const Tracer& tracer, Node* root, bool centered,
                                     std::string& reason);

// Extends `norm` by the operator behind it, Mul or Add, whose other operand `fits` accepts; returns
// that operand or nullptr.
Value* take_parameter(const Tracer& tracer, RowNorm& norm, std::string_view op,
                      const std::function<bool(const Value*)>& fits);

// Where the normalization is computed in float32 for a 16-bit x (Cast before, Cast behind), takes
// the casts in.
void take_casts(const Tracer& tracer, RowNorm& norm);

// Whether a scale or bias can be the operator's: one number, or a value for each element of the
// last `count` axes of x.
bool fits_rows(const Tracer& tracer, const Value* parameter, const Value* x, std::size_t count);
// It in that form; nullptr stands for `otherwise` everywhere.
Patch::Ref row_parameter(const Tracer& tracer, Patch& patch, Value* parameter, const RowNorm& norm,
                         double otherwise);

}  // namespace onnxpress
