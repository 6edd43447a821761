#include "passes/core/fingerprint.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "graph/onnx/mapped_pages.h"

namespace onnxpress {
namespace {

constexpr std::size_t small_tensor_bytes = 256;

bool is_large(const Initializer& initializer) {
  return !initializer.sparse && initializer.tensor.dtype() != DType::string &&
         initializer.tensor.byte_size() > small_tensor_bytes;
}

// Type, dims and `more` in 32 bytes or little more.
Tensor digest(const Tensor& tensor, std::vector<std::int64_t> more) {
  more.push_back(static_cast<std::int64_t>(tensor.dtype()));
  more.insert(more.end(), tensor.dims().begin(), tensor.dims().end());
  const Dims dims = {static_cast<std::int64_t>(more.size())};
  return Tensor::of<std::int64_t>(dims, more);
}

// structural_hash with `small` of each large tensor in its place.
Hash128 hash_of(const Model& model, const std::function<Tensor(const Tensor&)>& small) {
  const std::unique_ptr<Model> skeleton = model.clone();
  skeleton->for_each_graph([&](Graph& graph) {
    for (Value* value : graph.initializers()) {
      if (!is_large(*value->initializer())) continue;
      Tensor tensor = small(value->initializer()->tensor);
      if (value->is_input())
        graph.set_default(value, {.tensor = std::move(tensor)});
      else
        graph.set_initializer(value, std::move(tensor));
    }
  });
  return structural_hash(*skeleton, true);
}

std::vector<const Tensor*> large_tensors(const Model& model) {
  std::vector<const Tensor*> tensors;
  model.for_each_graph([&](const Graph& graph) {
    for (const Value* value : graph.initializers())
      if (is_large(*value->initializer())) tensors.push_back(&value->initializer()->tensor);
  });
  return tensors;
}

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  if (a.size() != b.size()) return false;
  if (a.data() == b.data()) return true;
  bool same = true;
  for_each_block(a, [&](std::span<const std::byte> block) {
    same = same && std::memcmp(block.data(), b.data(), block.size()) == 0;
    release_pages(b.first(block.size()));
    b = b.subspan(block.size());
  });
  return same;
}

}  // namespace

Hash128 fingerprint(const Model& model) {
  std::map<std::tuple<const void*, std::size_t, DType>, Hash128> known;
  return hash_of(model, [&](const Tensor& tensor) {
    const std::tuple place{static_cast<const void*>(tensor.bytes().data()), tensor.byte_size(), tensor.dtype()};
    const auto [found, is_new] = known.try_emplace(place);
    if (is_new) {
      Hasher hasher;
      for_each_block(tensor.bytes(), [&](std::span<const std::byte> block) { hasher.add_bytes(block); });
      found->second = hasher.finish();
    }
    const Hash128 contents = found->second;
    return digest(tensor, {static_cast<std::int64_t>(contents.high), static_cast<std::int64_t>(contents.low)});
  });
}

Hash128 form_hash(const Model& model) {
  return hash_of(model, [](const Tensor& tensor) { return digest(tensor, {}); });
}

bool same_contents(const Model& a, const Model& b) {
  return std::ranges::equal(large_tensors(a), large_tensors(b), [](const Tensor* one, const Tensor* other) {
    return same_bytes(one->bytes(), other->bytes());
  });
}

}  // namespace onnxpress
