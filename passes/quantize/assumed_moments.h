// Means and variances by channel of a model's values, without data.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "graph/ir/model.h"
#include "graph/ops/infer.h"

namespace onnxpress {

// Of one value, each channel taken as normally distributed.
struct NormalChannels {
  std::vector<double> mean, variance;  // by channel; one entry: the same in all
  std::size_t axis = 0;                // of the channels; of no account with one entry
  // Follows from a normalization's scale and bias; else from inputs taken as standard normal.
  bool from_statistics = false;
};

// What is known of the values of the main graph: behind BatchNormalization (and other
// normalizations) mean beta and deviation |gamma| (Nagel et al. 2019, arXiv 1906.04721, section 4.2.1);
// from there on through Relu and Clip as clipped normal distributions (equation 19 and appendix C),
// through linear operators and sums as if what they sum were independent, through what only moves
// elements as it is. Nothing is known behind other operators. Inputs are taken as standard normal.
class AssumedMoments {
 public:
  // Throws Error when the shape rules find a contradiction.
  explicit AssumedMoments(const Model& model);

  // nullptr: nothing is known.
  const NormalChannels* find(const Value& value) const;

 private:
  void propagate(const Node& node);
  std::optional<NormalChannels> result(const Node& node) const;
  std::optional<NormalChannels> linear(const Node& node) const;
  std::optional<NormalChannels> normalized(const Node& node) const;
  std::optional<NormalChannels> elementwise(const Node& node) const;
  std::optional<NormalChannels> combined(const Node& node) const;
  std::optional<NormalChannels> moved(const Node& node) const;
  std::optional<std::size_t> rank(const Value* value) const;

  TypeInference types_;
  std::map<const Value*, NormalChannels> known_;
};

// Mean and variance of clamp(x, low, high) for normally distributed x; bounds may be infinite.
struct Normal {
  double mean = 0, variance = 0;
};
Normal clipped_normal(const Normal& x, double low, double high);

}  // namespace onnxpress
