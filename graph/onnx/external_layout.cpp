#include "graph/onnx/external_layout.h"

#include <algorithm>
#include <array>
#include <utility>
#include <variant>

#include "graph/onnx/mapped_pages.h"

namespace onnxpress {

namespace {

// Large tensors start on a page, so that a reader can map them alone.
constexpr std::size_t large_tensor = std::size_t{1} << 20;
constexpr std::size_t large_alignment = 4096;
constexpr std::size_t small_alignment = 64;

std::size_t aligned(std::size_t offset, std::size_t bytes) {
  const std::size_t alignment = bytes >= large_tensor ? large_alignment : small_alignment;
  return (offset + alignment - 1) / alignment * alignment;
}

}  // namespace

bool writes_constants_as_nodes(const Graph& graph, const Model& model) {
  if (&graph == &model.graph) return false;
  return graph.parent() == nullptr || model.ir_version <= 3;
}

ExternalLayout::ExternalLayout(const Model& model, std::size_t threshold, bool attributes)
    : attributes_(attributes) {
  model.for_each_graph([&](const Graph& graph) {
    if (attributes || !writes_constants_as_nodes(graph, model))
      for (const Value* value : graph.initializers())
        if (value->initializer()->tensor.defined()) add(value->initializer()->tensor, threshold);
    if (!attributes) return;
    for (const Node* node : graph.nodes()) add_attributes(*node, threshold);
  });
  Hasher hasher;
  for (const Place& place : tensors_) {
    hasher.add(static_cast<std::int64_t>(place.offset));
    for_each_block(place.bytes, [&](auto block) { hasher.add_bytes(block); });
  }
  content_hash_ = hasher.finish().hex().substr(0, 16);
}

void ExternalLayout::add(const Tensor& tensor, std::size_t threshold) {
  if (tensor.dtype() == DType::string || tensor.byte_size() < std::max<std::size_t>(threshold, 1))
    return;
  const std::size_t offset = aligned(end_, tensor.byte_size());
  if (!offsets_.emplace(std::pair(tensor.bytes().data(), tensor.byte_size()), offset).second)
    return;
  tensors_.push_back({tensor.bytes(), offset});
  end_ = offset + tensor.byte_size();
}

void ExternalLayout::add_attributes(const Node& node, std::size_t threshold) {
  for (const auto& [name, attribute] : node.attributes()) {
    if (const auto* one = std::get_if<NamedTensor>(&attribute.value)) add(one->tensor, threshold);
    if (const auto* many = std::get_if<std::vector<NamedTensor>>(&attribute.value))
      for (const NamedTensor& named : *many) add(named.tensor, threshold);
  }
}

const std::size_t* ExternalLayout::find(const Tensor& tensor) const {
  if (tensor.dtype() == DType::string) return nullptr;
  const auto found = offsets_.find({tensor.bytes().data(), tensor.byte_size()});
  return found == offsets_.end() ? nullptr : &found->second;
}

void ExternalLayout::write(StagedFiles::Sink& sink) const {
  constexpr std::array<std::byte, large_alignment> zeros{};
  std::size_t written = 0;
  for (const Place& place : tensors_) {
    sink.write(std::span(zeros).first(place.offset - written));
    for_each_block(place.bytes, [&](auto block) { sink.write(block); });
    written = place.offset + place.bytes.size();
  }
}

}  // namespace onnxpress
