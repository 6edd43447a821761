// Disjoint sets of channels (Tarjan 1975), each free or blocked for a reason.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace onnxpress {

class ChannelSets {
 public:
  // New elements, each a set of its own; the number of the first.
  std::size_t add(std::size_t count);
  // The set's number, which is that of its first element.
  std::size_t root(std::size_t element);
  // Makes one set of two; it is blocked when one of them was. The number of the set that is no more, or that
  // of both where they were one.
  std::size_t unite(std::size_t a, std::size_t b);
  // Blocks the sets of elements [first, first + count); those that are blocked keep their reason.
  void block(std::size_t first, std::size_t count, const std::string& reason);
  // Why a set is blocked; nullptr when it is not.
  const std::string* blocked(std::size_t root) const;

 private:
  std::vector<std::size_t> parents_;
  std::map<std::size_t, std::string> reasons_;  // of roots
};

}  // namespace onnxpress
