// How the nodes of a graph are gone through in reverse: internal to graph/exec.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graph/exec/plan.h"
#include "graph/exec/prepare.h"
#include "graph/ops/infer.h"

namespace onnxpress {

// One node's gradient, or (with `forward`) the node once more: the outputs that are recomputed.
struct BackwardStep {
  const Node* node = nullptr;
  Kernel forward;
  std::string backend;
  // The row ("vector") gets the data of output 0's gradient before it asks for the last gradient of
  // the same dims, and reads each element before it writes there: both may be in one place.
  bool overwrites = false;
  BackwardKernel kernel;
  std::unique_ptr<NodePreparation> preparation;  // which the kernel may refer to
  std::vector<std::size_t> inputs, outputs;      // values; no_slot where omitted
  std::vector<bool> wanted;                      // by input
  std::vector<std::size_t> reads;                // saved values
  std::vector<std::size_t> release;              // saved values that no later step reads
};

// A value that a step reads, or that has a gradient.
struct BackwardValue {
  const Value* value = nullptr;
  DType gradient_type = DType::undefined;
  std::optional<Dims> dims;       // when known before the run
  bool is_given = false;          // an input of the graph
  std::size_t given = no_slot;    // its number among these
  std::size_t saved = no_slot;    // its number in `kept`; of a recomputed one behind those
  bool is_recomputed = false;
};

class BackwardPlan {
 public:
  std::vector<BackwardValue> values;
  std::vector<BackwardStep> steps;  // in the order they run
  std::vector<const Value*> kept;   // what the forward run must hand over
  std::size_t recomputed = 0;       // values computed again in the run back
  std::vector<std::size_t> differentiated;  // by graph input: value, or no_slot
  std::size_t loss = no_slot;               // value; no_slot: no gradient depends on anything

  // For `graph`, the main graph of `model`, with inputs of the types in `known`. Gradients of the
  // inputs in `wanted` are those of `loss`. With `recompute`, what is cheap to compute again is not
  // kept. Throws Error for an operator without a gradient.
  static std::unique_ptr<BackwardPlan> make(const Model& model, const KnownInputs& known,
                                            const std::unordered_set<const Value*>& wanted, const Value& loss,
                                            const EngineResources& resources, bool recompute);

 private:
  BackwardPlan(const Model& model, bool recompute)
      : inference_(std::make_unique<TypeInference>(model, TypeInferenceOptions{.use_declared = false})),
        recompute_(recompute) {}
  void add_steps(const Graph& graph, const std::unordered_set<const Value*>& wanted,
                 const Value& loss, const EngineResources& resources);
  std::size_t number(const Value& value);
  bool carries_gradient(const Value& value) const;
  // A step of the node, without kernels.
  BackwardStep describe(const Node& node, const EngineResources& resources);
  // Has the value at hand for `step`: kept, given, or computed again by a step before it.
  void read(BackwardStep& step, std::size_t index, const EngineResources& resources);
  void keep(std::size_t index);
  bool is_cheap(const Value& value) const;
  void recompute(std::size_t index, const EngineResources& resources);
  void add_releases();
  BackwardStep prepare(const Node& node, const std::unordered_set<const Value*>& needed,
                       const EngineResources& resources, std::uint64_t& reads_inputs,
                       std::uint64_t& reads_outputs);

  std::unique_ptr<TypeInference> inference_;
  std::unordered_map<const Value*, std::size_t> number_of_;
  bool recompute_;
};

// Runs the node of a step with a forward kernel again: its first output.
Tensor run_again(const BackwardStep& step, std::span<const Tensor* const> inputs, EngineResources& resources);

// Runs the steps for values saved by a forward run (in the order of `kept`) and the graph's inputs.
// Gradients by graph input, undefined where there is none. `saved` is emptied as it goes.
std::vector<Tensor> run_backward(const BackwardPlan& plan, std::vector<Tensor>& saved,
                                 std::span<const Tensor> given, double scale,
                                 EngineResources& resources);

}  // namespace onnxpress
