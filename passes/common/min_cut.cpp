#include "passes/common/min_cut.h"

#include <algorithm>
#include <deque>
#include <limits>

namespace onnxpress {

std::size_t MinCut::add_vertex() {
  out_.emplace_back();
  return out_.size() - 1;
}

void MinCut::add_edge(std::size_t from, std::size_t to, int capacity) {
  if (from == to) return;
  out_[from].push_back(edges_.size());
  edges_.push_back({to, capacity});
  out_[to].push_back(edges_.size());
  edges_.push_back({from, 0});
}

std::vector<bool> MinCut::source_side() {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  while (true) {
    std::vector<std::size_t> reached_by(out_.size(), none);
    std::vector<bool> reached(out_.size(), false);
    reached[source] = true;
    std::deque<std::size_t> queue{source};
    while (!queue.empty() && !reached[sink]) {
      const std::size_t from = queue.front();
      queue.pop_front();
      for (const std::size_t index : out_[from]) {
        const Edge& edge = edges_[index];
        if (edge.capacity == 0 || reached[edge.to]) continue;
        reached[edge.to] = true;
        reached_by[edge.to] = index;
        queue.push_back(edge.to);
      }
    }
    if (!reached[sink]) return reached;
    int flow = unlimited;
    for (std::size_t at = sink; at != source; at = edges_[reached_by[at] ^ 1].to)
      flow = std::min(flow, edges_[reached_by[at]].capacity);
    for (std::size_t at = sink; at != source; at = edges_[reached_by[at] ^ 1].to) {
      edges_[reached_by[at]].capacity -= flow;
      edges_[reached_by[at] ^ 1].capacity += flow;
    }
  }
}

}  // namespace onnxpress
