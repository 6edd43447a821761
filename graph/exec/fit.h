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

// What is told when fitting begins.
struct FitStart {
  std::int64_t samples = 0, held_out = 0;  // trained on in an epoch, and held out
  std::int64_t epochs = 0, batch = 0;
  std::int64_t first_epoch = 1;  // later when a run is resumed
};

// One batch.
struct StepRecord {
  std::int64_t step = 0;   // updates so far
  std::int64_t epoch = 0;  // from 1
  std::int64_t done = 0, total = 0;  // samples of the epoch
  double loss = 0;
  std::vector<double> terms;  // of the loss, when there are several
  double rate = 0;            // the learning rate of the last update
  double norm = 0;            // of its gradients; 0 unless clipped by norm
};

struct EpochRecord {
  std::int64_t epoch = 0;  // from 1; 0: how the model was at the start (FitOptions::keep_start)
  std::int64_t step = 0;   // updates so far
  double loss = 0;         // mean over the steps
  std::optional<double> held_loss, held_accuracy;  // accuracy where labels are classes
  double rate = 0;         // the learning rate of the last step
  double seconds = 0;
  std::int64_t samples = 0;
};

struct FitResult {
  std::vector<EpochRecord> epochs;
  std::int64_t best_epoch = 0;  // 0: that of the start, or there was no held-out part
  bool stopped_early = false;
  std::vector<std::string> notes;
};

// What has been done, told as it is done.
struct FitObserver {
  std::function<void(const FitStart&)> begin = {};
  std::function<void(const StepRecord&)> step = {};
  std::function<void(const EpochRecord&)> epoch = {};
};

// The batch size that the model's inputs are fixed to; nothing when it is open.
std::optional<std::int64_t> fixed_batch(const Model& model);

// Updates of one epoch over `samples` samples that are all held in memory.
std::int64_t updates_per_epoch(const Model& model, std::int64_t samples, const FitOptions& options);

// Trains until the epochs are done or nothing gets better; the trainer then has the parameters to
// keep. `model` is the one the trainer was made of, `losses` its losses. Throws Error for data without
// labels where a loss asks for them, for a state of another training, and what Trainer::step throws.
FitResult fit(Trainer& trainer, const Model& model, std::span<const LossTerm> losses, Dataset& data,
              const FitOptions& options, const FitObserver& observer = {});

}  // namespace onnxpress
