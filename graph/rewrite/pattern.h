// Patterns, rules and the one driver that runs them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/model.h"
#include "graph/ops/infer.h"
#include "graph/rewrite/live_types.h"
#include "graph/rewrite/patch.h"

namespace onnxpress {

// A tree of operators rooted at the last node. `name`s bind nodes and values in the Match; a name
// that occurs twice must bind the same value (or node) both times.
class Pattern {
 public:
  static Pattern any(std::string name = "");       // any value, also an omitted one (not bound)
  static Pattern constant(std::string name = "");  // a dense constant
  // A node of one of `op_types` ("Conv", "com.microsoft.Gelu"; '|' separates). The listed inputs
  // must match; inputs beyond them are free. `output` is the index the parent reads.
  static Pattern op(std::string_view op_types, std::string name, std::vector<Pattern> inputs = {});
  Pattern commutative() &&;  // first two inputs in either order
  Pattern from_output(std::size_t output) &&;

 private:
  friend class Matcher;
  enum class Kind { any, constant, op } kind_ = Kind::any;
  std::vector<std::pair<std::string, std::string>> op_types_;  // domain, type
  std::string name_;
  std::vector<Pattern> inputs_;
  bool commutative_ = false;
  std::size_t output_ = 0;
};

class Match {
 public:
  Node* root = nullptr;
  Node* node(std::string_view name) const;    // bound by Pattern::op; nullptr if not bound
  Value* value(std::string_view name) const;  // bound by any/constant, or the node's read output
  const Tensor& constant(std::string_view name) const;
  std::vector<Node*> interior;  // matched nodes but the root
  // What is known of the types of the model's values; only in a match that apply_rules made.
  const TypeInference& types() const;
  const Type& type(const Value* value) const { return types().type(value); }

 private:
  friend class Matcher;
  friend class Driver;
  LiveTypes* types_ = nullptr;
  std::map<std::string, Node*, std::less<>> nodes_;
  std::map<std::string, Value*, std::less<>> values_;
};

// The match at `root`, or why not: once the root's operator and at least one input operator fit (or
// the pattern has none), `reason` says which condition failed first, in the attempt that got
// furthest (else it stays empty: not even a near miss). Proves that interior values have no readers
// outside the match and are not outputs. Interior nodes are in the root's graph; constants may be
// of a graph around it.
std::optional<Match> match(const Pattern& pattern, Node* root, std::string* reason = nullptr);

struct Rule {
  std::string name;
  Pattern pattern;
  // Why the match must be left alone, or nothing. Optional.
  std::function<std::optional<std::string>(const Match&)> when;
  // Fills the patch (of the root's graph); interior nodes and the root are removed by the driver
  // once unread, and so are nodes of the same graph that only they read. A patch left empty changes
  // nothing and is not counted; one that was declined is a near miss besides.
  std::function<void(const Match&, Patch&)> replace;
};

struct RuleCounts {
  std::map<std::string, std::int64_t> applied;  // by rule name
  struct Miss {
    std::string rule, subject, reason;
  };
  std::vector<Miss> misses;  // in graph order, at the fixed point only
  bool limit_reached = false;
};

// Applies the rules greedily, main graph, functions and nested graphs alike, until none matches or
// `limit` rewrites were made. Earlier rules win at the same node. Throws Error, with rule and node
// named, when a patch does not apply; rewrites made before it stay.
RuleCounts apply_rules(Model& model, const std::vector<Rule>& rules,
                       std::int64_t limit = 1'000'000);

// What remove_unused found.
struct RemovedCounts {
  std::int64_t nodes = 0;
  std::int64_t initializers = 0;
};
// Removes nodes whose outputs nobody reads and constants nobody reads, in this graph and those
// nested in it. Nodes without outputs stay.
RemovedCounts remove_unused(Graph& graph);

// Structure recomputed from scratch: uses, order, names, outputs, ownership; operator domains
// imported; then shape rules find no contradiction, not even with the declared types of the main
// graph's outputs, but for those in `known` (of contradicted_declarations). Changes nothing. Throws
// Error naming graph and node.
void verify(const Model& model, std::span<const std::string> known = {});

// Shapes that the file declares of outputs and intermediate values of the main graph and that the
// shape rules contradict: "output 'y' is declared float32[2,4], but computed as float32[2,5]". The
// computed ones are what counts in here. Throws Error as verify() does for the rules themselves.
std::vector<std::string> contradicted_declarations(const Model& model);

}  // namespace onnxpress
