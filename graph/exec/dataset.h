// Samples for a model's inputs, in batches.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/model.h"
#include "graph/ir/runtime_value.h"

namespace onnxpress {

struct Batch {
  std::vector<Tensor> inputs;  // the model's required inputs, in order
  // The same where some are sequences or optionals; then `inputs` is empty. Only of data opened
  // with DataOptions::accepts_values.
  std::vector<RuntimeValue> values;
  Tensor labels;             // undefined when the data has none; leading axis counts samples
  // Arrays of the data that are neither input nor labels, by name, one row a sample (lengths of
  // sequences, second targets). Only of data opened with DataOptions::keeps_further.
  std::map<std::string, Tensor> further = {};
  std::int64_t samples = 0;  // real ones; a padded last slice of a fixed batch has more rows
};

// A source of samples bound to one model's inputs. One pass at a time; rewind() starts over and
// gives the same batches again.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t samples() const = 0;
  virtual bool labelled() const = 0;
  virtual void rewind() = 0;
  virtual bool next(Batch& batch) = 0;              // false at the end
  virtual std::string description() const = 0;      // "digits_test.npz (500 samples)"
  virtual std::string hash() const = 0;             // of the data, hex; empty for generated data
  virtual bool generated() const { return false; }  // random data: said in a report's first line
  // What was done to the data that its reader should know, one line each.
  virtual std::vector<std::string> notes() const { return {}; }
};

// What the probe generator may know about an input (--input-range name=0..1).
using InputRanges = std::map<std::string, std::pair<double, double>>;

// One seeded random batch for the required inputs, within what the consumers of each allow
// (followed through what moves or casts elements, into subgraphs and functions):
// - indices (Gather and its kin, OneHot) within the smallest table they go into;
// - integers compared with a constant scalar: one of the constants or its neighbours;
// - shapes: for Reshape one that keeps the element count, for Expand, Tile and other shapes ones;
// - sequence lengths: the length of the sequence;
// - 8-bit integers otherwise the whole range, other integers and booleans 0 or 1 (masks);
// - floats from the standard normal distribution.
// `ranges` override the values of an input (uniform, bounds included), `fixed` its dims. Of dims
// that are not numbers the first is 2; those from the third on of inputs of rank 4 or more are 32;
// the rest are 8; a symbol is what it is where it is seen first, or what `fixed` makes it. Throws
// Error for inputs that cannot be generated (sequences, strings, unknown rank), for names in
// `ranges` and `fixed` that are no input, and for dims that contradict the declared ones.
std::vector<Tensor> probe_inputs(const Model& model, std::uint64_t seed,
                                 const InputRanges& ranges = {},
                                 const std::map<std::string, Dims>& fixed = {});

}  // namespace onnxpress
