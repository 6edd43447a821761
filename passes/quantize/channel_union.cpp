#include "passes/quantize/channel_union.h"

#include <numeric>

namespace onnxpress {

std::size_t ChannelUnion::root(std::size_t element) {
  while (parents_[element] != element) element = parents_[element] = parents_[parents_[element]];
  return element;
}

const std::string* ChannelUnion::blocked(std::size_t root) const {
  const auto found = blocked_.find(root);
  return found == blocked_.end() ? nullptr : &found->second;
}

void ChannelUnion::unite(std::size_t a, std::size_t b) {
  a = root(a);
  b = root(b);
  if (a == b) return;
  if (b < a) std::swap(a, b);
  parents_[b] = a;
  if (const auto found = blocked_.find(b); found != blocked_.end()) {
    blocked_.emplace(a, found->second);
    blocked_.erase(b);
  }
}

void ChannelUnion::block(const ChannelSpan& span, const std::string& reason) {
  for (std::size_t c = 0; c < span.count; ++c) blocked_.emplace(root(span.first + c), reason);
}

std::optional<ChannelSpan> ChannelUnion::visit(Value* value, std::size_t axis) {
  if (const auto known = spans_.find(value); known != spans_.end()) {
    if (known->second.axis == axis) return known->second;
    block(known->second, fmt::format("'{}' has channels along two axes", value->name()));
    return std::nullopt;
  }
  const Type& type = types_.type(value);
  if (!type.shape || axis >= type.shape->size() || !(*type.shape)[axis].is_known()) return std::nullopt;
  const ChannelSpan span{axis, parents_.size(), static_cast<std::size_t>((*type.shape)[axis].value())};
  parents_.resize(span.first + span.count);
  std::iota(parents_.begin() + static_cast<std::ptrdiff_t>(span.first), parents_.end(), span.first);
  spans_.emplace(value, span);
  queue_.push_back(value);
  return span;
}

Value* ChannelUnion::next() {
  if (queue_.empty()) return nullptr;
  Value* value = queue_.front();
  queue_.pop_front();
  return value;
}

const ChannelSpan* ChannelUnion::find(const Value* value) const {
  const auto found = spans_.find(value);
  return found == spans_.end() ? nullptr : &found->second;
}

void ChannelUnion::tie(const ChannelSpan& span, Value* other, std::size_t axis, std::size_t offset, std::size_t repeat) {
  const std::optional<ChannelSpan> peer = visit(other, axis);
  if (!peer || peer->count < offset + span.count * repeat)
    return block(span, fmt::format("the channels of '{}' are not known to be the same", other->name()));
  for (std::size_t c = 0; c < span.count; ++c)
    for (std::size_t i = 0; i < repeat; ++i) unite(span.first + c, peer->first + offset + c * repeat + i);
}

std::optional<std::size_t> ChannelUnion::rank(const Value* value) const {
  const Type& type = types_.type(value);
  return type.shape ? std::optional(type.shape->size()) : std::nullopt;
}

}  // namespace onnxpress
