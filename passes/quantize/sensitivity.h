// What quantizing one layer alone does to a model's outputs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "passes/quantize/output_judge.h"
#include "passes/quantize/request.h"

namespace onnxpress {

// What is quantized together: a weight (or the weights of one node), and with scheme=static the
// activations of the node.
struct QuantizedUnit {
  std::string selector;  // of it alone: "name:conv1", "tensor:embedding.weight"
  std::string node, op;
  std::vector<std::string> tensors;
  std::int64_t elements = 0;  // of the weights
  std::int64_t bytes_before = 0;
};

// A unit at one width, the rest in float.
struct UnitSensitivity {
  std::size_t unit = 0;
  int bits = 0;
  OutputQuality quality;
  std::int64_t bytes = 0;               // of the unit's weights, scales and zero points included
  std::optional<double> weight_snr_db;  // nothing: exact
  std::optional<double> local_snr_db;   // of the node's own result, where it was measured
  std::vector<Json> records;            // of the trial's report
  std::string failure;                  // why there is no such form; then nothing else is known
};

// Quantizes clones of one model in many ways. Statistics of activations are gathered once, into a
// temporary file unless context.calibration_cache names one.
class QuantizationTrials {
 public:
  // `request` says all but which nodes and widths; weights are rounded to nearest or by mse, biases
  // stay as they are. The model must be at the opset that the widths need, and outlive the trials.
  QuantizationTrials(const Model& model, PassContext& context, const QuantizeRequest& request);
  ~QuantizationTrials();
  QuantizationTrials(const QuantizationTrials&) = delete;
  QuantizationTrials& operator=(const QuantizationTrials&) = delete;

  // What the scheme quantizes at the request's own width, in node order. What the user's overrides
  // give a width of its own is left out.
  const std::vector<QuantizedUnit>& units() const { return units_; }
  // The model with these overrides behind the user's own, and what was reported. Throws Error when
  // there is no such form.
  struct Trial {
    std::unique_ptr<Model> model;
    Outcome outcome;
    std::vector<NearMiss> left;  // what was not quantized, and why
  };
  Trial run(const std::vector<BitsRule>& rules);
  // One unit, the others in float; bytes and weight SNR from the report of the trial.
  UnitSensitivity measure(std::size_t unit, int bits, const OutputJudge& judge, bool local = false);

 private:
  double local_noise(const Model& quantized, const QuantizedUnit& unit, const OutputJudge& judge) const;

  const Model& model_;
  PassContext& context_;
  QuantizeRequest request_;
  std::filesystem::path cache_, temporary_;
  std::vector<QuantizedUnit> units_;
};

// A selector for exactly one node or tensor: characters of globs escaped.
std::string exact_selector(std::string_view kind, std::string_view name);

// So many samples that measuring `trials` models takes minutes at most, judged by MACs; 16 to 512.
std::int64_t affordable_samples(const Model& model, std::size_t trials);

}  // namespace onnxpress
