// Einsum: sums of products by index labels, as numpy's einsum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/graph.h"

namespace onnxpress {

// A letter, or einsum_ellipsis + k for the k-th axis from the right of an ellipsis.
using EinsumLabel = int;
using EinsumLabels = std::vector<EinsumLabel>;
inline constexpr EinsumLabel einsum_ellipsis = 256;

// One side of a comma: letters before and after an ellipsis.
struct EinsumTerm {
  std::string before, after;
  bool has_ellipsis = false;

  static EinsumTerm parse(std::string_view text);
  EinsumLabels labels(std::size_t ellipsis_rank) const;
};

struct EinsumAttrs {
  std::vector<EinsumTerm> terms;
  std::optional<EinsumTerm> output;  // nothing: labels that occur once, in alphabetical order

  static EinsumAttrs from(const Node& node);
};

// Labels of every operand's axes and of the output's.
struct EinsumEquation {
  std::vector<EinsumLabels> operands;
  EinsumLabels output;

  // Throws Error when the operands' ranks do not fit the terms.
  EinsumEquation(const EinsumAttrs& attrs, std::span<const std::size_t> ranks);

  // Sizes by label; an axis of 1 stretches.
  std::map<EinsumLabel, Dim> sizes(std::span<const Shape> shapes) const;
};

}  // namespace onnxpress
