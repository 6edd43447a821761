// Runs a pipeline: verifies, probes, measures, rolls back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graph/exec/input_shapes.h"
#include "graph/exec/metrics.h"
#include "graph/exec/stats.h"
#include "passes/core/pipeline.h"

namespace onnxpress {

// What the runner measured of one step.
struct PassRecord {
  std::string pass;
  Json options;                         // values used
  std::string text;                     // the step as pipeline text
  Effect effect = Effect::exact;
  bool changed = false;
  bool rolled_back = false;
  bool probed = false;                  // outputs compared on probe inputs
  std::string failure;                  // why it was rolled back
  std::string reason;                   // why the runner put the step in, or ran it again; else empty
  std::filesystem::path reproducer;     // folder with model, step and inputs, when rolled back
  double seconds = 0;                   // of the pass
  double verification_seconds = 0;      // of checking its result: structure, types, probe outputs
  std::int64_t bytes_before = 0, bytes_after = 0;          // serialized, inline
  std::int64_t parameters_before = 0, parameters_after = 0;
  std::int64_t zeros_before = 0, zeros_after = 0;
  std::int64_t macs_before = 0, macs_after = 0;
  std::int64_t nodes_before = 0, nodes_after = 0;
  std::vector<OutputError> errors;      // against the model before the pass, on probe inputs; empty
                                        // when nothing changed
  std::vector<OutputError> total_errors;  // against the original model; empty while all is exact
  std::optional<Evaluation> evaluation;   // after this pass, when RunOptions::evaluate is set
  Outcome outcome;
  std::vector<NearMiss> near_misses;
};

struct RunOptions {
  std::uint64_t seed = 0;
  int threads = 0;
  bool keep_going = false;              // go on after a rollback
  bool explain = false;                 // collect near misses
  Dataset* calibration = nullptr;
  Dataset* training = nullptr;
  std::vector<TeacherSource> teachers;  // empty: the model given, for passes that need one
  // Of the first step that trains; the checkpoint of the n-th one carries ".n" behind its name.
  TrainingSupport support = {};
  // The observer of a step that trains, by the name of its pass; may be empty.
  std::function<FitObserver(const std::string& pass)> observe;
  std::filesystem::path calibration_cache;  // what was observed, kept from run to run; empty: none
  // Probe inputs taken from data; empty: generated (probe_inputs).
  std::vector<std::vector<Tensor>> probes;
  InputRanges input_ranges;
  // Of inputs with open dims, for generated probes and for counting MACs; the model keeps its own.
  InputShapes input_shapes;
  // Called with what the last step left before its outputs are compared, where the model given is
  // large: what is likely to be done with it can begin. RunResult::is_offered says whether it stayed.
  std::function<void(std::shared_ptr<const Model>)> offer;
  std::filesystem::path reproducer_folder;  // parent of reproducers; empty: none are written
  std::function<Evaluation(const Model&)> evaluate;   // per-pass attribution; may be empty
  // "running quantize_weights", steps done and steps in all.
  std::function<void(const std::string&, std::size_t, std::size_t)> progress;
};

struct RunResult {
  std::unique_ptr<Model> model;
  std::vector<PassRecord> passes;
  bool verified = true;                 // the engine ran the model and outputs were compared
  std::string unverified_reason;        // "no kernel for LSTM (ai.onnx 17)"
  bool judgeable = true;                // false: the engine ran the model given, but none of its
                                        // outputs on the probe inputs has a finite element
  bool generated_probes = false;
  std::vector<std::string> notes;       // opset upgrades, ...
  bool rolled_back = false;             // a requested pass did not stay
  bool is_offered = false;              // `model` is what RunOptions::offer was called with
  ModelStats before, after;             // of the model given and of `model`, with input_shapes
};

// Checks needs and options of every step first (Error). A pass that throws, breaks the model or its
// interface, lies about "changed" or breaks its declared effect is rolled back; without keep_going
// the run then stops. Where a step needs a higher opset, `upgrade_opset` is run before it as a step
// of its own, and undone with it when the step does not stay or changes nothing. Throws Error when
// the model given does not verify, when a step's selector matches nothing, for what does not suit
// a step (Unsuitable), and without keep_going for a pass that needs to run a model with operators that the engine does
// not know.
RunResult run_pipeline(std::unique_ptr<Model> model, const Pipeline& pipeline,
                       const RunOptions& options);

}  // namespace onnxpress
