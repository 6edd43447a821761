#include "graph/ops/permutation.h"

#include "graph/ops/attributes.h"
#include "graph/ops/transpose.h"

namespace onnxpress {

bool is_identity(const Permutation& permutation) {
  for (std::size_t i = 0; i < permutation.size(); ++i)
    if (permutation[i] != static_cast<std::int64_t>(i)) return false;
  return true;
}

Permutation inverse(const Permutation& permutation) {
  Permutation result(permutation.size());
  for (std::size_t i = 0; i < permutation.size(); ++i)
    result[static_cast<std::size_t>(permutation[i])] = static_cast<std::int64_t>(i);
  return result;
}

Permutation composed(const Permutation& first, const Permutation& second) {
  Permutation result;
  for (const std::int64_t axis : second) result.push_back(first[static_cast<std::size_t>(axis)]);
  return result;
}

std::optional<Permutation> permutation_of(const Node& node, const TypeInference& types) {
  if (!node.is("Transpose") || node.input(0) == nullptr || node.output() == nullptr)
    return std::nullopt;
  const Attribute* given = node.attribute("perm");
  if (given && !given->ref.empty()) return std::nullopt;
  const Type& type = types.type(node.input(0));
  if (type.is_tensor() && type.shape) return transpose_permutation(node, type.shape->size());
  if (!given) return std::nullopt;
  return transpose_permutation(node, get_ints(node, "perm").size());
}

}  // namespace onnxpress
