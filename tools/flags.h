// Options that several verbs share. Values are kept as text until the verb runs, so that a recipe
// can give defaults and every wrong value gets a message of ours.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tools/data/data.h"
#include "tools/gates.h"
#include "tools/model_file.h"

namespace onnxpress {

// Preprocessing, layout, batching, ranges of generated inputs.
class DataFlags {
 public:
  void declare(CLI::App& app);
  DataOptions options() const;  // throws Error naming the option
  InputRanges ranges() const;
  // "scale 1/255, mean 0.5": what a report records; empty when nothing was said.
  std::map<std::string, std::string> said() const;

 private:
  std::string scale_, mean_, std_, layout_, batch_, labels_;
  std::vector<std::string> batch_axis_, ranges_;
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

// name=1x3x8x8 of --input-shape; throws Error for names that are no inputs of the model.
std::map<std::string, Dims> parse_input_shapes(const std::vector<std::string>& texts,
                                               const Model& model);

}  // namespace onnxpress
