// The one executor: constant folding, calibration, equivalence checks, accuracy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/model.h"
#include "graph/ir/runtime_value.h"

namespace onnxpress {

// Sees the required inputs of the graph and the values its nodes produce, in that order, each once
// per run (values of a subgraph once per run of the subgraph). Values known when the plan is made
// are shown in their place too, except large ones that only other such values are computed from.
// Values that no output depends on are not computed, hence not seen. An observer must keep
// summaries only: the memory of the tensor is used again.
//
// Sequences and optionals are not shown.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual bool wants(const Value& value) = 0;  // asked before each observe(): cheap
  virtual void observe(const Value& value, const Tensor& tensor) = 0;
  // Whether the tensor of an image may come with its channels last, as the engine has it at hand,
  // its dims in the order of memory.
  virtual bool any_layout(const Value&) { return false; }
};

// One executed step of a plan, as it ended. A step that runs a subgraph is told after the steps of
// the subgraph, and its time contains theirs.
struct StepTiming {
  std::string_view node_name, op_type, backend;  // valid during the call
  std::int64_t macs = 0;                         // 0: none, or not known before the run
  double start_us = 0, duration_us = 0;          // since the engine was made
};

struct EngineOptions {
  int threads = 0;         // 0: available_cpus()
  bool reference = false;  // plain kernels only (tests)
  // Steps that do the work of several nodes, the fastest algorithms, and float32 between operators
  // on float16 and bfloat16. Without, every node is computed by itself, as its formula says: for comparing models whose nodes differ. Runs with an
  // observer are so in any case, unless `kept` says which values it is about.
  bool fuse = true;
  // For models as large as memory that run once or twice: large constants are read where they lie
  // instead of being kept in the layout that is fastest, what is computed from them alone is computed
  // in every run, and pages of mapped files are given back step by step.
  bool lean = false;
  // Of the values of Engine::model(): plans that fuse produce these, and observers see them (not
  // those known when the plan is made); others may stay inside a step. float16 and bfloat16 are not
  // widened then. Asked when a plan is made.
  std::function<bool(const Value&)> kept = {};
  std::size_t plans = 4;  // LRU of plans by input shapes
  // Called on the thread that runs, after every step; must not throw.
  std::function<void(const StepTiming&)> on_step = {};
};

// What one plan knows: for tests, reports and --verbose.
struct PlanSummary {
  struct Step {
    std::string node, op_type, backend;  // backend "reference" or that of a kernel row
    std::int64_t macs = 0;
  };
  std::vector<Step> steps;
  std::size_t arena_bytes = 0;
  std::size_t unshared_bytes = 0;  // the sum of all planned values: what no reuse would take
  std::size_t dynamic_values = 0;  // of data-dependent size, from the pool
};

class Engine {
 public:
  // Clones the model (weights shared) and inlines its functions. Throws Error listing every
  // operator without a kernel.
  explicit Engine(const Model& model, EngineOptions options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // "LSTM (ai.onnx 17), Foo (my.domain 1)": operators of the model that cannot run; empty when all
  // can.
  static std::vector<std::string> unsupported(const Model& model);

  // The model's required inputs in order; outputs in order. Inputs are checked against the
  // declared types (element type, rank, fixed dims, symbols consistent). Throws Error.
  // Returned tensors keep their memory, also beyond the engine. Not reentrant: one Engine per
  // thread. Sets the calling thread's oneDNN (OpenMP) thread count to this engine's.
  std::vector<Tensor> run(std::span<const Tensor> inputs, Observer* observer = nullptr);
  // The same with sequences and optionals among inputs and outputs, which the above refuses.
  std::vector<RuntimeValue> run(std::span<const RuntimeValue> inputs, Observer* observer = nullptr);

  // The engine's own copy, functions inlined: what observers' values belong to.
  const Model& model() const;
  // The plan for these input types (concrete shapes, required inputs in order), made if need be.
  // Subgraphs are not in it: they are planned when they first run.
  PlanSummary summary(std::span<const Type> inputs);
  // Plans made so far: runs whose input shapes no kept plan fitted.
  std::size_t plans_made() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Multiply-accumulates of one run by the cost rules, symbolic and unknown dims of inputs taken
// as 1. Functions count at each call, subgraphs once each; `unknown` counts nodes with a cost rule
// whose shapes are not known.
struct MacCount {
  std::int64_t macs = 0;
  std::int64_t unknown = 0;
};
MacCount count_macs(const Model& model);

}  // namespace onnxpress
