// Calibrations kept in a file: internal to calibration.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "passes/common/calibration.h"

namespace onnxpress {

// JSON ("onnxpress.calibration/1"): the hash of the data, and statistics for each model that passes
// of one pipeline calibrated, in that order.
class CalibrationCache {
 public:
  struct Entry {
    CalibrationRequest request;
    Calibration calibration;
  };

  // Reads the file where there is one. Throws Error when it is no such file, holds numbers that no
  // calibration gives, or belongs to other data.
  CalibrationCache(std::filesystem::path path, std::string data_hash);

  // Throws Error naming both models when the file has entries, none of this model, and `expected`
  // says that it must have one: no pass has calibrated before in this run.
  void require_model(const std::string& model_hash, bool expected) const;
  const Entry* find(const std::string& model_hash) const;
  // Replaces the entry of that model, or adds one, and writes the file.
  void store(Entry entry);

 private:
  void read();
  void write() const;

  std::filesystem::path path_;
  std::string data_hash_;
  std::vector<Entry> entries_;
};

// Whether statistics gathered for `kept` hold everything that `wanted` asks for.
bool covers(const CalibrationRequest& kept, const CalibrationRequest& wanted);
// Everything that either asks for; where both want channels of a value, as `second` has it.
CalibrationRequest joined(const CalibrationRequest& first, const CalibrationRequest& second);

}  // namespace onnxpress
