// Samples for a model's inputs, in batches.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

struct Batch {
  std::vector<Tensor> inputs;   // the model's required inputs, in order
  Tensor labels;                // undefined when the data has none; leading axis counts samples
  std::int64_t samples = 0;     // real ones; a padded last slice of a fixed batch has more rows
};

// A source of samples bound to one model's inputs. One pass at a time; rewind() starts over and
// gives the same batches again.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t samples() const = 0;
  virtual bool labelled() const = 0;
  virtual void rewind() = 0;
  virtual bool next(Batch& batch) = 0;          // false at the end
  virtual std::string description() const = 0;  // "digits_test.npz (500 samples)"
  virtual std::string hash() const = 0;         // of the data, hex; empty for generated data
  virtual bool generated() const { return false; }  // random data: said in a report's first line
};

// What the probe generator may know about an input (--input-range name=0..1).
using InputRanges = std::map<std::string, std::pair<double, double>>;

// Seeded random samples within what the consumers of each input allow: indices for Gather within
// the table, masks 0/1 for integers and booleans that act as such, floats from a normal
// distribution. Symbolic dims get small sizes, the same for the same symbol; `fixed` overrides
// dims by input name. Throws Error for inputs that cannot be generated (sequences, strings).
std::vector<Tensor> probe_inputs(const Model& model, std::uint64_t seed,
                                 const InputRanges& ranges = {},
                                 const std::map<std::string, Dims>& fixed = {});

}  // namespace onnxpress
