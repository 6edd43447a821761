#include "passes/core/fingerprint.h"

#include "graph/onnx/mapped_pages.h"

namespace onnxpress {
namespace {

constexpr std::size_t small_tensor_bytes = 256;

Hash128 contents_hash(const Tensor& tensor, const Fingerprint* known, Fingerprint& now) {
  const Fingerprint::Place place{tensor.bytes().data(), tensor.byte_size(), tensor.dtype()};
  if (const auto found = now.tensors.find(place); found != now.tensors.end()) return found->second;
  if (known)
    if (const auto found = known->tensors.find(place); found != known->tensors.end())
      return now.tensors[place] = found->second;
  Hasher hasher;
  for_each_block(tensor.bytes(), [&](std::span<const std::byte> block) { hasher.add_bytes(block); });
  return now.tensors[place] = hasher.finish();
}

// Type, dims and contents in 32 bytes or little more.
Tensor digest(const Tensor& tensor, const Hash128& contents) {
  std::vector<std::int64_t> parts = {static_cast<std::int64_t>(contents.high),
                                     static_cast<std::int64_t>(contents.low),
                                     static_cast<std::int64_t>(tensor.dtype())};
  parts.insert(parts.end(), tensor.dims().begin(), tensor.dims().end());
  const Dims dims = {static_cast<std::int64_t>(parts.size())};
  return Tensor::of<std::int64_t>(dims, parts);
}

}  // namespace

Fingerprint fingerprint(const Model& model, const Fingerprint* known) {
  Fingerprint now;
  const std::unique_ptr<Model> skeleton = model.clone();
  skeleton->for_each_graph([&](Graph& graph) {
    for (Value* value : graph.initializers()) {
      const Tensor& tensor = value->initializer()->tensor;
      if (value->initializer()->sparse || tensor.dtype() == DType::string ||
          tensor.byte_size() <= small_tensor_bytes)
        continue;
      Tensor small = digest(tensor, contents_hash(tensor, known, now));
      if (value->is_input())
        graph.set_default(value, {.tensor = std::move(small)});
      else
        graph.set_initializer(value, std::move(small));
    }
  });
  now.hash = structural_hash(*skeleton, true);
  return now;
}

}  // namespace onnxpress
