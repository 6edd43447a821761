// Outputs of the models that a run goes through, on probe inputs: internal to the runner.
#pragma once

#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "graph/exec/metrics.h"
#include "graph/exec/stats.h"
#include "passes/core/fingerprint.h"
#include "passes/core/probe.h"
#include "passes/core/runner.h"

namespace onnxpress {

// The model as far as steps have brought it, and what is known of it.
struct CurrentModel {
  std::unique_ptr<Model> model;
  Hash128 form;  // form_hash
  ModelStats stats;
  std::map<ProbeKernels, ProbeOutputs> outputs;  // made when first asked for
  std::vector<OutputError> total_errors;
  std::optional<Evaluation> evaluation;

  CurrentModel clone() const { return {model->clone(), form, stats, outputs, total_errors, evaluation}; }
};

// Runs models on probe inputs and compares their outputs, as far as they run. What the result says of
// verification is written into the RunResult given. References are kept.
class OutputChecks {
 public:
  OutputChecks(const RunOptions& options, RunResult& result) : options_(options), result_(result) {}

  // Large models run on few threads, most of the time waiting for memory: `beside` other work, where
  // there is a thread for it.
  void set_large(bool is_large, bool beside) { is_large_ = is_large, is_beside_ = beside; }

  // The inputs, and the outputs of the model given where some step may change them, on their way.
  void prepare(CurrentModel& given, const Pipeline& pipeline);

  // Before anything is compared, and before the end: whether the model given runs is part of the result.
  void await_original(CurrentModel& given);

  // Why `next`, which the step left, is not what its effect allows, or nothing.
  std::optional<std::string> check(const PipelineStep& step, CurrentModel& current, CurrentModel& next, PassRecord& record);

  // Empty: outputs are not compared.
  const std::vector<std::vector<Tensor>>& probes() const { return probes_; }

  // Runs `work` on a thread of its own where the model is large, else when it is asked for.
  template <class Work>
  std::future<std::invoke_result_t<Work>> beside(Work work) const {
    return std::async(is_beside_ ? std::launch::async : std::launch::deferred, std::move(work));
  }

 private:
  ProbeKernels quick_kernels() const;
  int threads(ProbeKernels kernels, std::int64_t macs) const;
  bool can_run(const Model& model, std::string_view since);
  void give_up(std::string reason);
  const ProbeOutputs& outputs(CurrentModel& of, ProbeKernels kernels, std::int64_t macs);
  std::optional<std::string> compare(const PipelineStep& step, CurrentModel& current, CurrentModel& next,
                                     PassRecord& record, ProbeKernels kernels);
  void check_judgeable(const std::vector<OutputError>& errors);

  const RunOptions& options_;
  RunResult& result_;
  bool is_large_ = false, is_beside_ = false;
  std::vector<std::vector<Tensor>> probes_;
  std::optional<ProbeOutputs> original_outputs_;  // by quick_kernels(), when some step is not exact
  std::future<ProbeOutputs> original_run_;        // that makes them
};

}  // namespace onnxpress
