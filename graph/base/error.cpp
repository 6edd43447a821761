#include "graph/base/error.h"

#include <algorithm>
#include <cstddef>

namespace onnxpress {

namespace {

// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours
// (Damerau 1964), each substring edited at most once.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, substituted});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        current[j] = std::min(current[j], before[j - 2] + 1);
    }
    before.swap(previous);
    previous.swap(current);
  }
  return previous[b.size()];
}

}  // namespace

Error::Error(std::string message) : message_(std::move(message)) { render(); }

Error& Error::within(std::string context) {
  trail_.insert(trail_.begin(), std::move(context));
  render();
  return *this;
}

void Error::render() {
  text_.clear();
  for (const std::string& context : trail_) {
    if (!text_.empty()) text_ += " / ";
    text_ += context;
  }
  if (!text_.empty()) text_ += ": ";
  text_ += message_;
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  const std::size_t limit = std::max<std::size_t>(1, name.size() / 3);
  std::size_t best = limit + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace onnxpress
