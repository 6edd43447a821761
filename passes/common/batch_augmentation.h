// The option `augment` of passes that train.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "graph/exec/augmentation.h"
#include "passes/common/loss_choice.h"
#include "passes/core/pass.h"

namespace onnxpress {

using BatchTransform = std::function<void(Batch&, const BatchPlace&)>;

// Augmentation by `asked`, and behind it `next`, which may be empty. `targets` are those of the losses: class numbers
// that mixup makes probabilities of get the output's row. `notes` are told what is done. Throws Error when no
// input fits, and for labels that cannot be mixed.
BatchTransform augmented(const AugmentationOptions& asked, const Model& model, const ChosenLosses& losses,
                         const FirstBatch& first, std::vector<TargetSource>& targets, PassContext& context,
                         BatchTransform next, std::vector<std::string>& notes);

}  // namespace onnxpress
