// Putting what behaves otherwise in training than in inference into a graph that is trained.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

struct TrainingMode {
  // BatchNormalization computes the batch's statistics, and its running ones follow them; else it
  // keeps what it has. Nodes whose scale is in `frozen` are left alone.
  bool batch_statistics = true;
  std::set<std::string> frozen;  // initializers that are not trained
  bool keep_dropout = true;      // Dropout nodes of the model drop, by their ratios
  std::map<std::string, double> dropout;  // further ratios, by the name of a value
  // Means of a normal distribution and their log variances, by name: what reads the means reads a
  // sample (the model's outputs stay).
  std::map<std::string, std::string> samples;
};

struct TrainingModeChanges {
  // Initializers that the run gives new values of: the output that holds the new one.
  struct Running {
    std::string initializer, output;
  };
  std::vector<Running> running;
  std::string key;  // the int64 input that noise follows from; empty: there is none
  std::vector<std::string> notes;
};

// Changes the main graph; running statistics become outputs behind the others. Throws Error for
// names that are not there.
TrainingModeChanges set_training_mode(Model& model, const TrainingMode& mode);

}  // namespace onnxpress
