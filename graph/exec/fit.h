// Training over epochs: batches drawn at random, a held-out part that tells when to stop and which
// parameters were the best.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/exec/dataset.h"
#include "graph/exec/fit_observer.h"
#include "graph/exec/trainer.h"

namespace onnxpress {

// All that the rest of a training depends on, by name.
using FitState = std::map<std::string, Tensor>;

// Which samples a batch is made of, and when.
struct BatchPlace {
  std::int64_t epoch = 0;                 // from 1; 0: held-out samples that are judged
  std::span<const std::int64_t> samples;  // their numbers in the dataset, by row
};

// What a loss compares with.
struct TargetSource {
  enum class Kind {
    labels,
    input,     // number `index` of the required inputs: what is reconstructed
    further,   // Batch::further[name]
    computed,  // number `index` of what FitOptions::compute_targets gives
  };
  Kind kind = Kind::labels;
  std::size_t index = 0;
  std::string name = {};
  // Brought to these dims behind the axis of samples (labels [N] of an output [N,1]); nothing: as
  // they are.
  std::optional<Dims> row = {};
};

struct FitOptions {
  std::int64_t epochs = 10;
  std::int64_t batch = 32;         // of a model whose batch is open; else the model's
  std::int64_t accumulation = 1;   // batches to an update
  double hold_out = 0.1;           // share of the samples that only tell how good the model is
  std::int64_t patience = 0;       // epochs without a better loss before it stops; 0: never
  bool keep_best = true;           // parameters of the epoch with the lowest held-out loss
  bool keep_start = false;         // with keep_best: the parameters at the start are one candidate
  double average = 0;              // decay of the moving average that is kept instead; 0: none
  std::uint64_t seed = 0;          // of order and held-out part
  int threads = 0;                 // of judging the held-out part; 0: available_cpus()
  std::size_t most_bytes = std::size_t{1} << 30;  // samples in memory: more are shuffled in parts
  // By target of the losses. Empty: the labels for all.
  std::vector<TargetSource> targets;
  // Changes a batch before it is trained on (augmentation); held-out samples are judged as they are.
  std::function<void(Batch&, const BatchPlace&)> transform = {};
  // Targets that follow from a batch, as it was transformed: a teacher's outputs.
  std::function<std::vector<Tensor>(const Batch&, const BatchPlace&)> compute_targets = {};
  // Sees every sample that is read, untransformed, before any of that part is trained on; throws
  // Error for those that do not fit.
  std::function<void(const Batch&, const BatchPlace&)> check = {};
  // Called with the state after every epoch and, unless 0, every `checkpoint_updates` updates. The
  // same training that goes on from such a state ends with the same parameters, bit for bit (on the
  // same kind of processor and as many threads).
  std::function<void(const FitState&)> checkpoint = {};
  std::int64_t checkpoint_updates = 0;
  FitState resume = {};  // a state to go on from; empty: from the start
};

struct FitResult {
  std::vector<EpochRecord> epochs;
  std::int64_t best_epoch = 0;  // 0: that of the start, or there was no held-out part
  bool stopped_early = false;
  std::vector<std::string> notes;
};

// The batch size that the model's inputs are fixed to; nothing when it is open.
std::optional<std::int64_t> fixed_batch(const Model& model);

// Updates of one epoch over `samples` samples that are all held in memory.
std::int64_t updates_per_epoch(const Model& model, std::int64_t samples, const FitOptions& options);

// Trains until the epochs are done or nothing gets better; the trainer then has the parameters to
// keep. `model` is the one the trainer was made of, `losses` its losses. Throws Error for data without
// labels where a loss asks for them, for a state of another training, and what Trainer::step throws;
// NotFinite for losses of held-out samples and for parameters that a checkpoint would keep.
FitResult fit(Trainer& trainer, const Model& model, std::span<const LossTerm> losses, Dataset& data,
              const FitOptions& options, const FitObserver& observer = {});

}  // namespace onnxpress
