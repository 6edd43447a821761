// Minimum cuts of small networks.
#pragma once

#include <cstddef>
#include <vector>

namespace onnxpress {

// Capacities are added edge by edge, then the cut is asked for once.
class MinCut {
 public:
  static constexpr std::size_t source = 0, sink = 1;
  static constexpr int unlimited = 1 << 28;

  std::size_t add_vertex();
  void add_edge(std::size_t from, std::size_t to, int capacity);
  // True for the vertices on the source's side of a minimum cut, as few as there can be. Shortest
  // augmenting paths (Edmonds and Karp, 1972): meant for flows of a few hundred.
  std::vector<bool> source_side();

 private:
  struct Edge {
    std::size_t to;
    int capacity;
  };
  // Edge i and its reverse i ^ 1.
  std::vector<Edge> edges_;
  std::vector<std::vector<std::size_t>> out_{2};
};

}  // namespace onnxpress
