// What the recognisers of written-out operators share: walking over the nodes around a match.
#pragma once

#include <array>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/rewrite/pattern.h"

namespace onnxpress {

// Nodes that one operator stands for: `last` makes the value that it replaces.
struct Region {
  std::vector<Node*> nodes;
  Node* last = nullptr;
};

// Coefficients by power of x.
using Polynomial = std::array<double, 4>;

using OpTypes = std::initializer_list<std::string_view>;

// Reads the graph of a match and what is known of its types. Nodes count where they are of the
// root's graph and domain ai.onnx.
class Tracer {
 public:
  explicit Tracer(const Match& match) : match_(&match), graph_(&match.root->graph()) {}

  // The node whose first output is `value`, when it is one of `ops`.
  Node* maker(const Value* value, OpTypes ops) const;
  // The one read of the node's only output in use, by one of `ops`; nothing when that is a graph
  // output or read elsewhere too.
  std::optional<Use> only_reader(const Node* node, OpTypes ops) const;
  // All its reads by one of `ops`, whoever else reads it.
  std::vector<Use> readers(const Node* node, OpTypes ops) const;

  // Contents of a value that is the same in every run.
  const Tensor* known(const Value* value) const { return match_->types().known_value(value); }
  // The one element of a known value.
  std::optional<double> number(const Value* value) const;
  // The same for a floating value which does not change the shape of `beside` when both are
  // broadcast.
  std::optional<double> factor(const Value* value, const Value* beside) const;
  // The factor is `wanted`, up to how exactly its element type can hold it.
  bool is_factor(const Value* value, const Value* beside, double wanted) const;
  bool is_near(double value, double wanted, DType type) const;

  const Type& type(const Value* value) const { return match_->type(value); }
  const Shape* shape(const Value* value) const;  // nullptr: not known
  std::optional<std::size_t> rank(const Value* value) const;
  DType dtype(const Value* value) const;    // undefined: not known
  bool is_float(const Value* value) const;  // known to be
  // Why no operator that ONNX Runtime has for float32 and float16 only can take `x`.
  std::optional<std::string> type_obstacle(const Value* x) const;

  // The one axis, counted from the end, that a ReduceSum or the like of constant axes reduces and
  // keeps as 1.
  std::optional<std::int64_t> reduced_axis(const Node& reduce) const;

  // `value` as a polynomial in x of the same shape, written with sums, products, powers and
  // numbers. Adds the nodes that it takes.
  std::optional<Polynomial> polynomial(const Value* value, const Value* x,
                                       std::vector<Node*>& nodes) const;

  // The result of `gate`, multiplied by x and a number in any order.
  struct Gated {
    Value* x = nullptr;  // nullptr: by a number only
    double number = 1;
    Region region;  // without the gate
  };
  // All readings, those of most nodes first; others may read what is in between.
  std::vector<Gated> gated(Node* gate) const;

  // Adds what computes `dims`, an integer input of one of the region's nodes, as far as only the
  // region reads it.
  void absorb_dims(Region& region, const Value* dims) const;
  // Only nodes of the region read it, and it is no graph output.
  bool is_private(const Region& region, const Value* value) const;

  // Why the nodes of the region but its last cannot go: another reader or a graph output.
  std::optional<std::string> obstacle(const Region& region) const;

 private:
  std::optional<Polynomial> expand(const Value* value, const Value* x, std::vector<Node*>& nodes,
                                   int depth) const;
  void extend(const Node* from, const Gated& so_far, std::vector<Gated>& found) const;
  void take_factor(const Use& reader, const Node* from, const Gated& so_far,
                   std::vector<Gated>& found) const;

  const Match* match_;
  const Graph* graph_;
};

bool is_one_of(const Node& node, OpTypes ops);
// How far a number written in `type` may be from what it stands for.
double written_tolerance(DType type);

// Replaces the region by a new node. Its nodes go.
void replace_region(Patch& patch, const Region& region, Patch::NodeTemplate node);

// A rule that finds its region by itself. `find` returns nothing, and says why in its argument when
// the attempt came near; `build` replaces what was found.
template <class Found>
Rule recognition_rule(std::string name, std::string_view root_ops,
                      std::function<std::optional<Found>(const Match&, std::string& reason)> find,
                      std::function<void(const Match&, const Found&, Patch&)> build) {
  return {.name = std::move(name),
          .pattern = Pattern::op(root_ops, "root"),
          .when = [find](const Match& match) -> std::optional<std::string> {
            std::string reason;
            if (find(match, reason)) return std::nullopt;
            return reason;
          },
          .replace =
              [find, build](const Match& match, Patch& patch) {
                std::string reason;
                if (const auto found = find(match, reason)) build(match, *found, patch);
              }};
}

}  // namespace onnxpress
