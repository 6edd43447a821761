// What is needed to see a rolled-back step fail again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

struct Reproducer {
  std::string name;              // of the folder, "2-quantize_weights"
  const Model* model = nullptr;  // before the step
  std::string step;              // pipeline text
  std::uint64_t seed = 0;
  std::string data;  // what else the step was given; may be empty
  const std::vector<std::vector<Tensor>>* probes = nullptr;
  std::string failure;
};

// Writes a new folder under `parent` with model.onnx, step.txt, seed.txt, error.txt, README and the
// probe inputs as an ONNX test set (test_data_set_N/input_M.pb). Throws Error.
std::filesystem::path write_reproducer(const Reproducer& reproducer,
                                       const std::filesystem::path& parent);

}  // namespace onnxpress
