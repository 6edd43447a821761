// A model that computes in floats what its quantized form will compute on codes, for training.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "passes/quantize/tuning.h"

namespace onnxpress {

// Initializers that hold the scales of a weight or of a group of activations, and their zero points as floats.
struct LearnedGrid {
  std::string scale, zero_point;  // zero_point empty: there is none
  double reach = 1;               // largest number of steps of the scale
};

struct FakeQuantized {
  // The model with FakeQuantize (graph/ops/fake_quantize.h) behind weights and coded values; values keep their names.
  std::unique_ptr<Model> model;
  // By TunedGrids::weights and by group; nothing: not trained (in a nested graph, float codes, never read here).
  std::vector<std::optional<LearnedGrid>> weights, activations;
  // Values of the main graph, and what all their readers read instead of them.
  std::map<std::string, std::string> replaced;
  // Constants that keep what they hold, because codes are chosen from their range.
  std::vector<std::string> fixed;
  std::vector<std::string> notes;
};

// Weights begin as they are, or where codes were chosen by a method, as these have them.
FakeQuantized fake_quantize(const Model& model, const TunedGrids& grids);

// Takes over what was trained: constants of `model`, grids, and weights rounded on theirs. Scales become magnitudes
// that their type stores. Throws Error for weights or scales that are not finite.
void take_trained(const FakeQuantized& trained, Model& model, TunedGrids& grids, ThreadPool& pool);

}  // namespace onnxpress
