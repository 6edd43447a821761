// Losses as operators of a domain of their own, for graphs that are trained: never written to a
// file.
//
// Each gives one element, of the type of input 0. "mean" divides the sum by the number of elements
// or positions that count, "batch" by the size of the leading axis.
//
//   CrossEntropy(logits, targets) {axis, label_smoothing, ignore_index}
//     targets: integer labels, of the logits' dims without the class axis, or probabilities of the
//     logits' dims; mean over positions. Without `axis` it is 1 where the labels fit that, else -1.
//   Distillation(logits, teacher logits) {axis, temperature}
//     T^2 KL(softmax(teacher / T) || softmax(logits / T)), mean over positions: Hinton, Vinyals and
//     Dean 2015, "Distilling the Knowledge in a Neural Network".
//   DecoupledDistillation(logits, teacher logits, labels) {axis, temperature, target_weight,
//     other_weight}
//     T^2 times the weighted sum (1 and 8 unless given) of two divergences from the teacher: of the
//     label's class against all others, and of the others among themselves; mean over positions:
//     Zhao et al. 2022, "Decoupled Knowledge Distillation".
//   AttentionTransfer(x, teacher's x)
//     [N,C,positions...]: squared distance of the maps of mean squares over channels, each of unit
//     length; mean over samples and positions: Zagoruyko and Komodakis 2017, "Paying More Attention
//     to Attention". Channels may differ.
//   RelationalDistance(x, teacher's x), RelationalAngle(x, teacher's x)
//     Huber loss between the distances of all pairs of samples, over their mean, and between the
//     cosines of all angles of three; mean over pairs and triplets: Park et al. 2019, "Relational
//     Knowledge Distillation". All axes but the leading one are a sample, and may differ.
//   BinaryCrossEntropy(logits, targets) {reduction}
//   SquaredError(x, targets), AbsoluteError(x, targets), Huber(x, targets) {delta} {reduction}
//   KlDivergence(log-probabilities, target probabilities) {reduction, "batch" unless given}
//   GaussianKl(mean, log variance)
//     KL(N(mean, variance) || N(0, 1)), summed over a sample, mean over the batch: Kingma and
//     Welling 2014, "Auto-Encoding Variational Bayes".
//   CtcLoss(logits, targets, input lengths, target lengths) {blank, batch_first}
//     logits [T,N,C], targets [N,L]: Graves et al. 2006, "Connectionist Temporal Classification";
//     each sequence's loss by its target's length, mean over the batch. Sequences that no path fits
//     count 0.
//   WeightedSum(losses...) {weights}
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "graph/ir/graph.h"

namespace onnxpress {

inline constexpr std::string_view training_domain = "onnxpress.training";

// Positions along the class axis of logits, and what targets they have.
struct ClassLines {
  std::int64_t classes = 0, lines = 0, step = 1;
  bool has_labels = true;  // else probabilities

  // Throws Error for targets that do not fit the logits.
  static ClassLines of(const Dims& logits, const Dims& targets, bool has_labels,
                       std::optional<std::int64_t> axis);
  // The first element of line `line`, and its number among labels.
  std::int64_t start(std::int64_t line) const {
    return line / step * classes * step + line % step;
  }
};

}  // namespace onnxpress
