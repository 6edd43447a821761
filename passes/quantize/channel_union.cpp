#include "passes/quantize/channel_union.h"

namespace onnxpress {

std::optional<ChannelSpan> ChannelUnion::visit(Value* value, std::size_t axis) {
  if (const auto known = spans_.find(value); known != spans_.end()) {
    if (known->second.axis == axis) return known->second;
    block(known->second, fmt::format("'{}' has channels along two axes", value->name()));
    return std::nullopt;
  }
  const Type& type = types_.type(value);
  if (!type.shape || axis >= type.shape->size() || !(*type.shape)[axis].is_known()) return std::nullopt;
  const auto count = static_cast<std::size_t>((*type.shape)[axis].value());
  const ChannelSpan span{axis, sets_.add(count), count};
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
