#include <algorithm>

#include "passes/common/calibration.h"

namespace onnxpress {
namespace {

constexpr std::int64_t few_samples = 32;
constexpr std::size_t listed = 5;

// "'a', 'b' and 7 more".
std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), listed); ++i)
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  if (names.size() > listed) text += fmt::format(" and {} more", names.size() - listed);
  return text;
}

std::string values(std::size_t count) { return count == 1 ? "1 value" : fmt::format("{} values", count); }

}  // namespace

std::vector<std::string> calibration_warnings(const Calibration& calibration) {
  std::vector<std::string> warnings;
  if (calibration.generated)
    warnings.emplace_back(
        "CALIBRATED ON GENERATED DATA: ranges of real inputs may be others; give samples with --calib");
  else if (calibration.samples < few_samples)
    warnings.push_back(fmt::format("FEW CALIBRATION SAMPLES: {} of {}; ranges of other inputs may be wider (at "
                                   "least {} samples are advised)",
                                   calibration.samples, calibration.data, few_samples));
  std::vector<std::string> constant, nonfinite;
  for (const auto& [key, statistics] : calibration.values) {
    if (statistics.nonfinite > 0) nonfinite.push_back(key);
    if (statistics.count > 1 && statistics.min == statistics.max) constant.push_back(key);
  }
  if (!nonfinite.empty())
    warnings.push_back(fmt::format("{} held NaN or infinity on the calibration data, which their ranges leave out: {}",
                                   values(nonfinite.size()), list(nonfinite)));
  if (!constant.empty())
    warnings.push_back(fmt::format("{} had one and the same number everywhere in the calibration data: {}",
                                   values(constant.size()), list(constant)));
  if (!calibration.unseen.empty())
    warnings.push_back(fmt::format("{} never computed on the calibration data (a branch not taken, or nothing "
                                   "depends on it): {}",
                                   calibration.unseen.size() == 1 ? "1 value was"
                                                                  : values(calibration.unseen.size()) + " were",
                                   list({calibration.unseen.begin(), calibration.unseen.end()})));
  return warnings;
}

}  // namespace onnxpress
