#include "graph/ir/attribute.h"

#include "graph/ir/graph.h"

namespace onnxpress {

Attribute::Attribute() = default;
Attribute::Attribute(Attribute&&) noexcept = default;
Attribute& Attribute::operator=(Attribute&&) noexcept = default;
Attribute::~Attribute() = default;

int Attribute::kind() const { return ref.empty() ? static_cast<int>(value.index()) : ref_kind; }

std::vector<Graph*> Attribute::subgraphs() const {
  std::vector<Graph*> graphs;
  if (const auto* one = std::get_if<std::unique_ptr<Graph>>(&value)) {
    graphs.push_back(one->get());
  } else if (const auto* many = std::get_if<std::vector<std::unique_ptr<Graph>>>(&value)) {
    for (const auto& graph : *many) graphs.push_back(graph.get());
  }
  return graphs;
}

}  // namespace onnxpress
