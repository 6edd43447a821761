// Losses appended to a model that is to be trained.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// A term of what is minimized. Formulas: graph/ops/training_loss.h.
struct LossTerm {
  enum class Kind {
    cross_entropy,         // targets: labels, or probabilities
    distillation,          // targets: the teacher's logits
    decoupled_distillation,  // targets: the teacher's logits, then labels
    logits_mse,            // targets: the teacher's logits
    attention_transfer,    // targets: the teacher's maps [N,C,...]
    relational_distance,   // targets: the teacher's values [N,...]
    relational_angle,      // the same
    binary_cross_entropy,  // targets: 0 to 1, of the output's dims
    mse,
    l1,
    huber,
    kl,           // the output holds log-probabilities
    gaussian_kl,  // no targets
    ctc,          // targets [N,L], then lengths of inputs and of targets, unless left out
  };
  Kind kind = Kind::cross_entropy;
  std::string output;        // of the graph, or any value of it; empty: the first output
  std::string log_variance;  // gaussian_kl: `output` holds the means
  double weight = 1;
  double label_smoothing = 0;               // cross_entropy
  std::optional<std::int64_t> ignored;      // cross_entropy: a label that counts nowhere
  double temperature = 1;                   // distillation, decoupled_distillation
  double target_weight = 1, other_weight = 8;  // decoupled_distillation
  double delta = 1;                         // huber
  bool by_sample = false;  // element losses: summed over a sample, mean over the batch
  // ctc: the symbol that separates, logits [N,T,C] instead of [T,N,C], and whether there are lengths;
  // without, all are as long as the tensors.
  std::int64_t blank = 0;
  bool batch_first = false;
  bool has_lengths = true, has_target_lengths = true;
};

std::string_view name(LossTerm::Kind kind);  // "cross_entropy", ...
// nullopt for text that names none.
std::optional<LossTerm::Kind> loss_from_name(std::string_view text);

struct AppendedLoss {
  std::string output;                // the output that holds the (weighted) sum
  std::vector<std::string> terms;    // the outputs that hold each term, when there are several
  std::vector<std::string> targets;  // the inputs added, in order
  std::vector<std::string> notes;    // "loss on the input of Softmax 'x'"
};

// Adds the loss as nodes, with inputs for the targets, and outputs for the sum and the terms.
// Losses on scores work on logits: a Softmax, LogSoftmax or Sigmoid that gives the output is
// recognized, and its input is used. Throws Error for values that are not there or do not fit.
AppendedLoss append_loss(Model& model, std::span<const LossTerm> terms);

// What a Softmax, LogSoftmax or Sigmoid behind `value` (through Identity) was applied to; `value`
// itself where there is none.
Value* logits_of(Value* value);

}  // namespace onnxpress
