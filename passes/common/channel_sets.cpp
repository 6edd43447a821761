#include "passes/common/channel_sets.h"

#include <numeric>
#include <utility>

namespace onnxpress {

std::size_t ChannelSets::add(std::size_t count) {
  const std::size_t first = parents_.size();
  parents_.resize(first + count);
  std::iota(parents_.begin() + static_cast<std::ptrdiff_t>(first), parents_.end(), first);
  return first;
}

std::size_t ChannelSets::root(std::size_t element) {
  while (parents_[element] != element) element = parents_[element] = parents_[parents_[element]];
  return element;
}

std::size_t ChannelSets::unite(std::size_t a, std::size_t b) {
  a = root(a);
  b = root(b);
  if (a == b) return a;
  if (b < a) std::swap(a, b);
  parents_[b] = a;
  if (const auto found = reasons_.find(b); found != reasons_.end()) {
    reasons_.emplace(a, found->second);
    reasons_.erase(b);
  }
  return b;
}

void ChannelSets::block(std::size_t first, std::size_t count, const std::string& reason) {
  for (std::size_t i = 0; i < count; ++i) reasons_.emplace(root(first + i), reason);
}

const std::string* ChannelSets::blocked(std::size_t root) const {
  const auto found = reasons_.find(root);
  return found == reasons_.end() ? nullptr : &found->second;
}

}  // namespace onnxpress
