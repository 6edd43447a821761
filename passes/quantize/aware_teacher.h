// The float model as the teacher of its quantized form.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/exec/engine.h"
#include "graph/exec/fit.h"

namespace onnxpress {

// Losses between the outputs of a model and those of its copy before quantization: soft targets at a temperature for
// class scores (a final Softmax or LogSoftmax, or `labels_are_classes` for scores without one), binary cross-entropy
// for a Sigmoid's output, else mean squared error by the mean square of the teacher's output on the first batch.
class SelfTeacher {
 public:
  // Throws Unsuitable when no output is a float tensor.
  SelfTeacher(const Model& model, const Batch& first, bool labels_are_classes, double temperature, double weight,
              int threads);

  const std::vector<LossTerm>& terms() const { return terms_; }
  std::vector<TargetSource> targets() const;  // computed ones, in the order of the terms
  const std::string& text() const { return text_; }
  std::vector<Tensor> compute(const Batch& batch);

 private:
  std::unique_ptr<Engine> engine_;
  std::vector<LossTerm> terms_;
  std::string text_;
};

}  // namespace onnxpress
