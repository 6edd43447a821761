// Channels of values, and which of them are tied together.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>

#include "graph/ops/infer.h"
#include "passes/common/channel_sets.h"

namespace onnxpress {

// Channels of one value: elements [first, first + count) of the union.
struct ChannelSpan {
  std::size_t axis = 0, first = 0, count = 0;
};

// Channels of a model's values in sets that grow together, each free or blocked for a reason. A value
// has channels along one axis.
class ChannelUnion {
 public:
  // Throws Error when the shape rules find a contradiction.
  explicit ChannelUnion(const Model& model) : types_(model) { types_.run(); }

  // The value's channels along `axis`; nothing when they are not known, or when it has others (which
  // are blocked then). One that is new is to be explored.
  std::optional<ChannelSpan> visit(Value* value, std::size_t axis);
  // The next value to explore; nullptr: none.
  Value* next();
  const ChannelSpan* find(const Value* value) const;

  // Channel `c` of the span and channels offset + c * repeat up to (c + 1) * repeat of `other` are one
  // set; blocks the span when `other` has not so many.
  void tie(const ChannelSpan& span, Value* other, std::size_t axis, std::size_t offset = 0, std::size_t repeat = 1);
  void unite(std::size_t a, std::size_t b) { sets_.unite(a, b); }
  void block(const ChannelSpan& span, const std::string& reason) { sets_.block(span.first, span.count, reason); }

  // The set's number, which is that of its first element.
  std::size_t root(std::size_t element) { return sets_.root(element); }
  // Why a set is blocked; nullptr when it is not.
  const std::string* blocked(std::size_t root) const { return sets_.blocked(root); }

  const Type& type(const Value* value) const { return types_.type(value); }
  std::optional<std::size_t> rank(const Value* value) const;

 private:
  TypeInference types_;
  std::map<const Value*, ChannelSpan> spans_;
  std::deque<Value*> queue_;
  ChannelSets sets_;
};

}  // namespace onnxpress
