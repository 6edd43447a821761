// Training block by block towards the values of the float model: no labels, and no gradient through the whole model.
// After Li et al. 2021, "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction"
// (arXiv 2102.05426), with scales and weights that are trained as in quantization-aware training.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "passes/common/training_stage.h"
#include "passes/quantize/fake_graph.h"

namespace onnxpress {

// What is between two values that all paths go through.
struct Block {
  std::string begin;              // a value of the main graph; empty: the model's inputs
  std::vector<std::string> ends;  // a value, or of the last block the (scores behind the) outputs
};

// The fewest operators with weights to a block: a residual is one, and so is a layer of a chain with what follows
// it. `weights`: initializers that are trained; values that do not depend on them count nowhere. `may_end` says which
// values a block may end with.
std::vector<Block> find_blocks(const Model& model, const std::vector<std::string>& weights,
                               const std::function<bool(const Value&)>& may_end);

// The part of a model: `begin` (unless empty) becomes an input behind those that are still read, `ends` the outputs.
std::unique_ptr<Model> cut_block(const Model& model, const std::string& begin, const std::vector<std::string>& ends);

struct BlockTraining {
  std::int64_t samples = 0;
  const std::vector<std::string>& parameters;  // of fake.model
  const std::map<std::string, Tensor>& masks;  // TrainingTask::masks
  std::function<void(const std::string&, const Tensor&, Regularization&)> adjust;
};

// Trains fake.model, whose float form is `model`, on samples of context.training: each block sees what the blocks
// before it give once they are trained, and aims at what the float model makes of the same samples. The record lists
// the blocks under "blocks". Throws Unsuitable for data that are sequences.
TrainingReport train_blocks(const Model& model, FakeQuantized& fake, const BlockTraining& how, const Options& options,
                            PassContext& context);

}  // namespace onnxpress
