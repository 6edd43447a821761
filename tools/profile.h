// Where the time of a run goes: by operator, by node, and step by step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/base/files.h"
#include "graph/exec/engine.h"
#include "passes/core/pass.h"

namespace onnxpress {

class Profile {
 public:
  // What EngineOptions::on_step tells.
  void add(const StepTiming& timing);

  // For the report: `seconds` of all steps, `steps`, `operators` (`operator`, `calls`, `seconds`,
  // `share`, `macs`, `gflops`: two operations a multiply-accumulate, null where no MACs are known)
  // and `nodes`, the slowest 20 (with `backend`). A step that runs a subgraph counts the time that
  // its subgraph's steps do not.
  Json section() const;

  // The Trace Event Format of Chrome: one complete event ("ph": "X") a step, in microseconds.
  void write_trace(StagedFiles::Sink& sink) const;

 private:
  struct Step {
    std::size_t node = 0;  // index in nodes_
    double start_us = 0, duration_us = 0;
    double own_us = 0;  // without the steps of its subgraph
    std::int64_t macs = 0;
  };
  struct Node {
    std::string name, op_type, backend;
    bool operator==(const Node&) const = default;
  };

  std::size_t index_of(const StepTiming& timing);

  std::vector<Node> nodes_;
  std::vector<Step> steps_;
};

}  // namespace onnxpress
