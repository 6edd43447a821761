#include "passes/common/residual_blocks.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "graph/ops/infer.h"
#include "graph/rewrite/pattern.h"
#include "passes/common/dependency_groups.h"
#include "passes/common/rewriting.h"

namespace onnxpress {
namespace {

// Whether the types are the same as far as they are known. Exports compute the dims of attention from
// the input's, which inference does not follow; a 1 would broadcast.
bool may_be_same(const Type& a, const Type& b) {
  if (!a.is_tensor() || !b.is_tensor() || a.elem != b.elem || !a.shape || !b.shape) return false;
  return std::ranges::equal(*a.shape, *b.shape, [](const Dim& left, const Dim& right) {
    return same_dim(left, right) || (left.value() != 1 && right.value() != 1 && (!left.is_known() || !right.is_known()));
  });
}

// One Add that brings a value back.
struct Connection {
  Node* add = nullptr;
  Value* skip = nullptr;
  std::string kinds;  // operators of the branch, in order
};

class Finder {
 public:
  explicit Finder(Model& model) : graph_(model.graph) {
    infer_types(model);
    for (Node* node : graph_.nodes()) order_.emplace(node, order_.size());
  }

  std::vector<ResidualChain> run() {
    for (const auto& [node, number] : order_by_number())
      if (node->is("Add") && node->input_count() == 2)
        if (auto connection = read(*node)) connections_.push_back(std::move(*connection));
    std::set<const Node*> adds;
    for (const Connection& connection : connections_) adds.insert(connection.add);
    std::erase_if(connections_, [&](const Connection& connection) {
      const std::set<Node*> branch = branch_of(*connection.add, connection.skip);
      return std::ranges::any_of(branch, [&](const Node* node) { return adds.contains(node); });
    });
    std::map<const Node*, std::size_t> by_add;
    for (std::size_t i = 0; i < connections_.size(); ++i) by_add.emplace(connections_[i].add, i);
    std::vector<std::vector<std::size_t>> chains;
    std::map<std::size_t, std::size_t> chain_of;
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      const std::optional<std::size_t> before = predecessor(connections_[i].skip, by_add);
      const bool follows = before && chain_of.contains(*before) && chains[chain_of[*before]].back() == *before &&
                           may_be_same(connections_[*before].skip->type, connections_[i].skip->type);
      if (!follows) chains.emplace_back();
      chain_of[i] = follows ? chain_of[*before] : chains.size() - 1;
      chains[chain_of[i]].push_back(i);
    }
    std::vector<ResidualChain> result;
    for (const std::vector<std::size_t>& chain : chains) result.push_back(blocks_of(chain));
    return result;
  }

 private:
  std::vector<std::pair<Node*, std::size_t>> order_by_number() const {
    std::vector<std::pair<Node*, std::size_t>> nodes(order_.begin(), order_.end());
    std::ranges::sort(nodes, {}, &std::pair<Node*, std::size_t>::second);
    return nodes;
  }

  // Nodes that the Add reads, and that themselves depend on `skip`, without what is before it. What
  // depends on no more than its shape is not among them.
  std::set<Node*> branch_of(const Node& add, const Value* skip) {
    std::map<Node*, bool> known;  // depends on skip
    const auto visit = [&](const auto& self, Value* value) -> bool {
      if (value == skip) return true;
      Node* node = value->producer();
      if (node == nullptr || &node->graph() != &graph_ || order_.at(node) < first_after(skip)) return false;
      if (node->is("Shape") || node->is("Size")) return false;
      if (const auto found = known.find(node); found != known.end()) return found->second;
      bool depends = false;
      for (Value* input : node->inputs()) depends |= input != nullptr && self(self, input);
      known.emplace(node, depends);
      return depends;
    };
    std::set<Node*> branch;
    for (Value* input : add.inputs())
      if (input != skip) visit(visit, input);
    for (const auto& [node, depends] : known)
      if (depends) branch.insert(node);
    return branch;
  }

  // Nodes before the one that makes `skip` cannot depend on it.
  std::size_t first_after(const Value* skip) const {
    return skip->producer() != nullptr ? order_.at(skip->producer()) : 0;
  }

  std::optional<Connection> read(Node& add) {
    Value *const a = add.input(0), *const b = add.input(1);
    if (a == b || a->is_constant() || b->is_constant() || !may_be_same(a->type, b->type)) return std::nullopt;
    for (Value* skip : {a, b}) {
      if (&skip->graph() != &graph_ || !may_be_same(skip->type, add.output()->type)) continue;
      const std::set<Node*> branch = branch_of(add, skip);
      if (std::ranges::none_of(branch, [](const Node* node) { return has_weight(*node); })) continue;
      std::vector<Node*> nodes(branch.begin(), branch.end());
      std::ranges::sort(nodes, {}, [&](Node* node) { return order_.at(node); });
      Connection connection{&add, skip, {}};
      for (const Node* node : nodes) connection.kinds += node->op_type() + " ";
      return connection;
    }
    return std::nullopt;
  }

  // The connection whose sum is all that `skip` is computed from, by operators without weights.
  std::optional<std::size_t> predecessor(Value* skip, const std::map<const Node*, std::size_t>& by_add) const {
    std::optional<std::size_t> found;
    std::set<const Node*> seen;
    const auto is_alone = [&](const auto& self, Value* value) -> bool {
      if (value->is_constant()) return true;
      Node* node = value->producer();
      if (node == nullptr || &node->graph() != &graph_) return false;
      if (const auto at = by_add.find(node); at != by_add.end()) {
        const bool is_same = !found || *found == at->second;
        found = at->second;
        return is_same;
      }
      if (!seen.insert(node).second) return true;
      if (has_weight(*node) || !node->subgraphs().empty()) return false;
      return std::ranges::all_of(node->inputs(), [&](Value* input) { return input == nullptr || self(self, input); });
    };
    return is_alone(is_alone, skip) ? found : std::nullopt;
  }

  // Connections in a row as blocks: as many of them in one as repeat.
  ResidualChain blocks_of(const std::vector<std::size_t>& chain) const {
    const std::size_t count = chain.size();
    std::size_t period = 1;
    for (std::size_t p = 1; 2 * p <= count; ++p) {
      if (count % p != 0) continue;
      bool repeats = true;
      for (std::size_t i = p; i < count; ++i)
        repeats &= connections_[chain[i]].kinds == connections_[chain[i - p]].kinds;
      if (!repeats) continue;
      period = p;
      break;
    }
    ResidualChain result;
    for (std::size_t i = 0; i < count; i += period) {
      const Connection& first = connections_[chain[i]];
      Value* after = i + period < count ? connections_[chain[i + period]].skip
                                        : connections_[chain[i + period - 1]].add->output();
      result.blocks.push_back({first.skip, after, first.add->describe()});
    }
    return result;
  }

  Graph& graph_;
  std::map<Node*, std::size_t> order_;
  std::vector<Connection> connections_;
};

}  // namespace

std::vector<ResidualChain> residual_chains(Model& model) { return Finder(model).run(); }

std::vector<std::size_t> evenly_kept(std::size_t count, double share) {
  require(share > 0 && share <= 1, "expected a share above 0 and up to 1, found {}", share);
  // Rounding up must not see the last bit of a share like 1/3.
  const auto wanted = static_cast<std::size_t>(std::ceil(share * static_cast<double>(count) - 1e-9));
  const std::size_t kept = std::clamp<std::size_t>(wanted, std::min<std::size_t>(count, 1), count);
  std::vector<std::size_t> numbers;
  for (std::size_t i = 1; i <= kept; ++i) numbers.push_back(i * count / kept - 1);
  return numbers;
}

void drop_blocks(Model& model, const std::vector<ResidualBlock>& blocks) {
  // From the last on: what a block hands its input to may be the input of one behind it.
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block)
    model.graph.replace_uses(block->output, block->input);
  remove_unused(model.graph);
}

}  // namespace onnxpress
