#include "passes/core/step_record.h"

#include "graph/onnx/writer.h"

namespace onnxpress {

ModelStats measure(const Model& model, const InputShapes& shapes, const ModelStats* similar) {
  if (shapes.empty()) return model_stats(model, similar);
  ModelStats stats = model_stats(*with_input_shapes(model, shapes), similar);
  stats.serialized_bytes = static_cast<std::int64_t>(serialized_size(model));
  return stats;
}

void set_sizes(PassRecord& record, const ModelStats& before, const ModelStats& after) {
  record.bytes_before = before.serialized_bytes;
  record.bytes_after = after.serialized_bytes;
  record.parameters_before = before.parameters;
  record.parameters_after = after.parameters;
  record.zeros_before = before.zeros;
  record.zeros_after = after.zeros;
  record.macs_before = before.macs;
  record.macs_after = after.macs;
  record.nodes_before = before.nodes;
  record.nodes_after = after.nodes;
}

std::string describe_data(const RunOptions& options) {
  std::string text;
  if (options.calibration) text += "calibration: " + options.calibration->description();
  if (options.training)
    text += (text.empty() ? "" : "; ") + std::string("training: ") + options.training->description();
  return text;
}

}  // namespace onnxpress
