// How one graph is executed for one set of concrete types: internal to graph/exec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "graph/base/threads.h"
#include "graph/exec/engine.h"
#include "graph/exec/pool.h"
#include "graph/ir/model.h"
#include "graph/ops/registry.h"

namespace onnxpress {

// What all plans of an engine share.
struct EngineResources {
  explicit EngineResources(int thread_count) : threads(thread_count), pool(thread_count) {}

  int threads;
  bool reference = false;
  ThreadPool pool;
  BufferPool buffers;
  // Results computed from initializers alone, kept from plan to plan.
  std::unordered_map<const Value*, Tensor> folded;
};

// What is known of a value before its graph runs: its type and, for constants, its contents.
struct KnownInput {
  Type type;
  const Tensor* constant = nullptr;
};
// For the inputs of a graph and, when it is a subgraph, for the values it captures.
using KnownInputs = std::unordered_map<const Value*, KnownInput>;

class GraphPlan;

// Plans of one subgraph of one step by the types of its inputs and captured values.
struct SubgraphPlans {
  const Graph* graph = nullptr;
  std::vector<std::size_t> captured;  // slots of the outer plan
  struct Entry {
    std::vector<Type> types;  // of graph inputs, then captured values
    std::unique_ptr<GraphPlan> plan;
  };
  std::list<Entry> plans;  // most recently used first
  std::size_t made = 0;
};

// One value of the plan.
struct Slot {
  enum class Source {
    constant,  // known when the plan was made
    given,     // a graph input or captured value
    arena,     // at `offset` of the plan's arena
    pool,      // allocated when produced: outputs of the graph and data-dependent sizes
    alias,     // expected to share the storage of slot `root`; else as pool
  };
  const Value* value = nullptr;
  Source source = Source::pool;
  Type type;
  Tensor constant;
  std::size_t bytes = 0, offset = 0;
  std::size_t root = 0;
};

inline constexpr std::size_t no_slot = static_cast<std::size_t>(-1);

// A node to execute, or one whose outputs are known (`kernel` empty), listed for observers only.
struct PlanStep {
  const Node* node = nullptr;
  std::string backend;
  Kernel kernel;
  std::int64_t macs = 0;
  std::vector<std::size_t> inputs, outputs;                     // slots; no_slot where omitted
  std::vector<std::size_t> release;                             // slots not needed after this step
  std::map<std::string, SubgraphPlans, std::less<>> subgraphs;  // by attribute name
};

// A plan and the memory its runs use; one run at a time.
class GraphPlan {
 public:
  std::vector<Slot> slots;
  std::vector<PlanStep> steps;
  std::vector<std::size_t> inputs;    // slots of required graph inputs, in order
  std::vector<std::size_t> captured;  // slots of captured values, in the order of Node::captured()
  std::vector<std::size_t> outputs;
  std::size_t arena_bytes = 0, unshared_bytes = 0, dynamic_values = 0;

  // Memory of the current run.
  std::vector<RuntimeValue> values;  // by slot; those in the arena stay from run to run
  std::shared_ptr<void> arena;
  bool running = false;
};

// Makes the plan of `graph`, a main graph or subgraph of `model`, for inputs (and captured values)
// as `known` has them; `captured` lists the latter. Throws Error with the node's context.
std::unique_ptr<GraphPlan> make_plan(const Model& model, const Graph& graph,
                                     const KnownInputs& known,
                                     std::span<const Value* const> captured,
                                     EngineResources& resources);

// Runs `plan`; values are given in the order of `plan.inputs` and `plan.captured`. The outputs'
// memory is their own or comes from the pool, so that they stay valid when the plan runs again.
std::vector<RuntimeValue> run_plan(GraphPlan& plan, const Model& model,
                                   std::span<const RuntimeValue> inputs,
                                   std::span<const RuntimeValue> captured,
                                   EngineResources& resources, Observer* observer);

}  // namespace onnxpress
