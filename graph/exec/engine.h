// The one executor: constant folding, calibration, equivalence checks, accuracy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// Sees values as they are produced. It must keep summaries only.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual bool wants(const Value& value) = 0;               // asked once per plan
  virtual void observe(const Value& value, const Tensor& tensor) = 0;
};

struct EngineOptions {
  int threads = 0;            // 0: available_cpus()
  bool reference = false;     // plain kernels only (tests)
  std::size_t plans = 4;      // LRU of plans by input shapes
};

// What one plan knows: for tests, reports and --verbose.
struct PlanSummary {
  struct Step {
    std::string node, op_type, backend;  // backend "reference" or "onednn"
    std::int64_t macs = 0;
  };
  std::vector<Step> steps;
  std::size_t arena_bytes = 0;
  std::size_t unshared_bytes = 0;  // the sum of all planned values: what no reuse would take
  std::size_t dynamic_values = 0;  // of data-dependent size, from the pool
};

class Engine {
 public:
  // Clones the model (weights shared). Throws Error listing every operator without a kernel.
  explicit Engine(const Model& model, EngineOptions options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // "LSTM (ai.onnx 17), Foo (my.domain 1)": operators of the model that cannot run; empty when all can.
  static std::vector<std::string> unsupported(const Model& model);

  // The model's required inputs in order; outputs in order. Inputs are checked against the
  // declared types (element type, rank, fixed dims, symbols consistent). Throws Error.
  // Returned tensors own their memory. Not reentrant: one Engine per thread.
  std::vector<Tensor> run(std::span<const Tensor> inputs, Observer* observer = nullptr);

  // The engine's own copy: what observers' values belong to.
  const Model& model() const;
  // The plan for these input shapes, made if need be.
  PlanSummary summary(std::span<const Type> inputs);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Multiply-accumulates of one run with the given input shapes by the cost rules; `unknown` counts
// nodes without enough shape information.
struct MacCount {
  std::int64_t macs = 0;
  std::int64_t unknown = 0;
};
MacCount count_macs(const Model& model);

}  // namespace onnxpress
