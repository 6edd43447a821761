// How one graph is executed for one set of concrete types: internal to graph/exec.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
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

// Constants of more bytes are what a lean engine saves.
inline constexpr std::size_t large_constant = std::size_t{64} << 10;

// What all plans of an engine share.
struct EngineResources {
  explicit EngineResources(int thread_count) : threads(thread_count), pool(thread_count) {}

  int threads;
  bool reference = false;
  bool lean = false;
  std::function<void(const StepTiming&)> on_step;
  std::function<bool(const Value&)> kept;
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
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

// Weights with their channels scaled, computed when the kernel that packs them is prepared.
struct ScaledWeights {
  std::size_t source = 0;  // slot of the weights
  std::int64_t axis = 0;   // of the channels
  std::vector<double> factors;
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
  Layout layout = Layout::row_major;
  Type stored;  // channels last: the type with the dims in the order of memory
  bool is_kept = false;  // produced for an observer, whoever reads it
  Tensor constant;
  std::shared_ptr<const ScaledWeights> scaled;  // what `constant` is yet to be computed from
  std::size_t bytes = 0, offset = 0;
  std::size_t root = 0;
  // Of an arena slot that takes over the memory of another one at that one's last use.
  std::optional<std::size_t> takes_over;

  const Type& stored_type() const { return layout == Layout::row_major ? type : stored; }
  // All dims, when they are known before the run.
  std::optional<Dims> dims() const {
    return type.is_tensor() && type.shape ? concrete(*type.shape) : std::nullopt;
  }
};

inline constexpr std::size_t no_slot = static_cast<std::size_t>(-1);

// A node to execute (with others that it absorbed), or one whose outputs are known (`kernel`
// empty), listed for observers only.
struct PlanStep {
  const Node* node = nullptr;
  std::string backend;
  std::vector<PostOp> post_ops;  // what the absorbed nodes do to the first output
  bool is_layout_blind = false;  // elementwise on images with the channels last
  bool is_relayout = false;      // brings input 0 into the other layout, for `node`
  bool is_view = false;          // a relayout that moves nothing
  Kernel kernel;
  std::int64_t macs = 0;
  std::vector<std::size_t> inputs, outputs;  // slots; no_slot where omitted. Operands of absorbed
                                             // nodes follow the node's own inputs.
  std::vector<std::size_t> release;          // slots not needed after this step
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
  bool is_fused = false;
  // Nodes that stand for several of the graph's (Gelu written out).
  OpsetImports made_up_opsets;
  std::unique_ptr<Graph> made_up;
  Graph* made_up_graph();
  // Of the value in a slot, when they are known before the run; nothing for no_slot.
  std::optional<Dims> dims(std::size_t slot) const {
    return slot == no_slot ? std::nullopt : slots[slot].dims();
  }

  // Memory of the current run.
  std::vector<RuntimeValue> values;  // by slot; those in the arena stay from run to run
  std::shared_ptr<void> arena;
  bool running = false;
};

// Makes the plan of `graph`, a main graph or subgraph of `model`, for inputs (and captured values)
// as `known` has them; `captured` lists the latter. With `fuse`, not every value is produced, and
// some have their channels last. Values in `kept` are outputs of the run as well, behind the
// graph's. Throws Error with the node's context.
std::unique_ptr<GraphPlan> make_plan(const Model& model, const Graph& graph,
                                     const KnownInputs& known,
                                     std::span<const Value* const> captured,
                                     EngineResources& resources, bool fuse,
                                     std::span<const Value* const> kept = {});

// The stages of a plan, in this order; the steps have no kernels before the last.
// Removes steps that no output depends on, and with `all` those with known results.
void drop_unneeded_steps(GraphPlan& plan, bool all);
// Replaces operators between DequantizeLinear and QuantizeLinear by those on integers.
void quantize_steps(GraphPlan& plan);
// Takes what makes floats of the sums of MatMulInteger into its step.
void scale_integer_steps(GraphPlan& plan);
// Replaces operators that are written out in several steps (Gelu, Swish, LayerNormalization ...) by
// one step each.
void recognize_steps(GraphPlan& plan);
// Merges elementwise steps into the convolutions and products before them.
void fuse_steps(GraphPlan& plan, ThreadPool& pool);
// Keeps images in channels-last layout between the steps that want it, with reorders around them.
void assign_layouts(GraphPlan& plan);
// Lifetimes, arena, releases.
void assign_memory(GraphPlan& plan);

// Calls visit(slot) for what the step reads, captured values included.
template <class Visit>
void for_each_read(const PlanStep& step, const Visit& visit) {
  for (std::size_t input : step.inputs)
    if (input != no_slot) visit(input);
  for (const auto& [name, subgraph] : step.subgraphs)
    for (std::size_t captured : subgraph.captured) visit(captured);
}
// Not all outputs of the step are constants.
bool is_executed(const GraphPlan& plan, const PlanStep& step);

// Runs `plan`; values are given in the order of `plan.inputs` and `plan.captured`. The outputs'
// memory is their own or comes from the pool, so that they stay valid when the plan runs again.
std::vector<RuntimeValue> run_plan(GraphPlan& plan, const Model& model,
                                   std::span<const RuntimeValue> inputs,
                                   std::span<const RuntimeValue> captured,
                                   EngineResources& resources, Observer* observer);

}  // namespace onnxpress
