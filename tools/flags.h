// Options that several verbs share. Values are kept as text until the verb runs, so that a recipe
// can give defaults and every wrong value gets a message of ours.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/exec/input_shapes.h"
#include "tools/data/data.h"
#include "tools/gates.h"
#include "tools/model_file.h"

namespace onnxpress {

// --input-shape NAME=1x3x8x8.
class InputShapeFlag {
 public:
  void declare(CLI::App& app, const std::string& group);
  bool given() const { return !texts_.empty(); }
  InputShapes shapes() const;  // throws Error naming the option
  // The model with these shapes; throws Error when they do not fit it.
  std::unique_ptr<Model> applied(const Model& model) const;
  std::string said() const;

 private:
  std::vector<std::string> texts_;
};

// How samples are read, as said; empty: nothing was said.
struct ReadingTexts {
  std::string scale, mean, std, layout;

  // Into `options`, from --input-scale and so on, or --PREFIXinput-scale; throws Error naming the option.
  void apply(DataOptions& options, const std::string& prefix = "") const;
};

// Preprocessing, layout, batching, ranges and shapes of generated inputs.
class DataFlags {
 public:
  void declare(CLI::App& app);
  DataOptions options() const;  // throws Error naming the option
  InputRanges ranges() const;
  const InputShapeFlag& shapes() const { return shapes_; }
  const std::string& labels() const { return labels_; }
  // "scale 1/255, mean 0.5": what a report records; empty when nothing was said.
  std::map<std::string, std::string> said() const;

 private:
  ReadingTexts reading_;
  std::string batch_, labels_;
  std::vector<std::string> batch_axis_, ranges_;
  InputShapeFlag shapes_;
};

class GateFlags {
 public:
  void declare(CLI::App& app, const std::string& data_option);
  // Throws Error naming the option for wrong values.
  GateLimits limits() const;
  // Throws Error when a gate that needs data has none.
  void require_data(bool given) const;

 private:
  std::string data_option_;
  std::string max_drop_, min_ratio_, max_size_, min_agreement_, max_latency_ratio_;
};

class MetricFlag {
 public:
  void declare(CLI::App& app);
  std::optional<Metric> metric() const;  // throws Error with the nearest name

 private:
  std::string text_;
};

class DeflatedFlag {
 public:
  void declare(CLI::App& app);
  DeflatedSize size() const;

 private:
  std::string text_ = "auto";
};

// A whole number within limits; throws Error naming the option.
std::int64_t parse_integer(const std::string& option, const std::string& text, std::int64_t least,
                           std::int64_t most);

}  // namespace onnxpress
