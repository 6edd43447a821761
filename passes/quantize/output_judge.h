// How far a changed model's outputs are from the original's, on a bounded set of samples that is run
// again and again.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "graph/ir/model.h"
#include "passes/core/pass.h"

namespace onnxpress {

struct OutputQuality {
  // |difference|^2 / |original|^2 over the samples, the mean over floating-point outputs; infinite
  // where something is not finite that was.
  double noise = 0;
  std::optional<double> agreement;  // share of samples with equal top-1; nothing: no class scores
  std::optional<double> accuracy;   // share of samples whose top-1 is the label

  double snr_db() const;  // 10 log10(1 / noise)
  // What is lost against the original: accuracy where there are labels, else agreement; nothing
  // without class scores.
  std::optional<double> drop(const OutputQuality& original) const;
};

class OutputJudge {
 public:
  // Runs the original on context.calibration, on at most `most_samples` of it and as many as inputs
  // and outputs take `most_bytes` together; without data on a few generated inputs. Throws Error when
  // the engine cannot run it.
  OutputJudge(const Model& original, PassContext& context, std::int64_t most_samples,
              std::size_t most_bytes = std::size_t{128} << 20);

  // Of a model with the same interface. Throws Error when the engine cannot run it.
  OutputQuality judge(const Model& other) const;
  const OutputQuality& original() const { return original_; }

  std::int64_t samples() const { return samples_; }
  bool generated() const { return generated_; }
  const std::vector<std::vector<Tensor>>& inputs() const { return inputs_; }

 private:
  OutputQuality compare(const std::vector<std::vector<Tensor>>& outputs) const;
  void add(std::vector<Tensor> inputs, std::vector<Tensor> outputs, Tensor labels, std::int64_t samples);

  int threads_;
  std::int64_t samples_ = 0;
  bool generated_ = false;
  std::vector<std::vector<Tensor>> inputs_, outputs_;  // by batch
  std::vector<Tensor> labels_;
  std::vector<std::int64_t> counts_;  // samples of each batch, padding not counted
  OutputQuality original_;
};

}  // namespace onnxpress
