// Training over epochs: batches drawn at random, a held-out part that tells when to stop and which
// parameters were the best.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/exec/dataset.h"
#include "graph/exec/trainer.h"

namespace onnxpress {

struct FitOptions {
  std::int64_t epochs = 10;
  std::int64_t batch = 32;         // of a model whose batch is open; else the model's
  std::int64_t accumulation = 1;   // batches to an update
  double hold_out = 0.1;           // share of the samples that only tell how good the model is
  std::int64_t patience = 0;       // epochs without a better loss before it stops; 0: never
  bool keep_best = true;           // parameters of the epoch with the lowest held-out loss
  double average = 0;              // decay of the moving average that is kept instead; 0: none
  std::uint64_t seed = 0;          // of order and held-out part
  std::size_t most_bytes = std::size_t{1} << 30;  // samples in memory: more are shuffled in parts
  // Which of a batch's tensors the losses ask for: by target the number of an input, or nothing for
  // the labels. Empty: the labels for all.
  std::vector<std::optional<std::size_t>> targets;
};

struct EpochRecord {
  std::int64_t epoch = 0;  // from 1
  double loss = 0;         // mean over the steps
  std::optional<double> held_loss, held_accuracy;  // accuracy where labels are classes
  double rate = 0;         // the learning rate of the last step
  double seconds = 0;
  std::int64_t samples = 0;
};

struct FitResult {
  std::vector<EpochRecord> epochs;
  std::int64_t best_epoch = 0;  // 0: there was no held-out part
  bool stopped_early = false;
  std::vector<std::string> notes;
};

// What has been done, told after every step (`done` of `total` samples of the epoch) and epoch.
struct FitObserver {
  std::function<void(std::int64_t epoch, std::int64_t done, std::int64_t total, double loss)> step = {};
  std::function<void(const EpochRecord&)> epoch = {};
};

// Trains until the epochs are done or nothing gets better; the trainer then has the parameters to
// keep. `model` is the one the trainer was made of, `losses` its losses. Throws Error for data without labels
// where a loss asks for them, and what Trainer::step throws.
FitResult fit(Trainer& trainer, const Model& model, std::span<const LossTerm> losses, Dataset& data,
              const FitOptions& options, const FitObserver& observer = {});

}  // namespace onnxpress
