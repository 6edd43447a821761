// Whether a model changed, at the cost of hashing each tensor once.
#pragma once

#include <map>
#include <tuple>

#include "graph/base/hash.h"
#include "graph/ir/model.h"

namespace onnxpress {

// structural_hash with names, of the model with each large tensor replaced by the hash of its
// contents. `tensors` remembers those hashes by where the contents lie: they hold as long as the
// model lives and is not edited, or a clone made before an edit does.
struct Fingerprint {
  using Place = std::tuple<const void*, std::size_t, DType>;

  Hash128 hash;
  std::map<Place, Hash128> tensors;
};

// `known` is of a model that shares tensors with this one and still lives; may be nullptr.
Fingerprint fingerprint(const Model& model, const Fingerprint* known = nullptr);

}  // namespace onnxpress
