// Quantization-aware training: between choosing grids and converting, the model is trained with fake quantization, its
// scales with it.
#pragma once

#include <string>
#include <vector>

#include "passes/core/pass.h"
#include "passes/quantize/request.h"

namespace onnxpress {

// The options that quantize_aware has beside those of quantize and of training.
inline constexpr OptionSpec aware_options[] = {
    {.name = "objective",
     .kind = OptionSpec::Kind::choice,
     .default_value = "auto",
     .help =
         "labels: the loss; teacher: the outputs of the float model; both; blocks: the float model's values between "
         "blocks, one block after another; auto: labels where the data has any, else teacher",
     .choices = "auto|labels|teacher|both|blocks"},
    {.name = "teacher_share",
     .kind = OptionSpec::Kind::number,
     .default_value = "0.5",
     .help = "objective=both: weight of the teacher, of 1",
     .min = 0,
     .max = 1},
    {.name = "temperature",
     .kind = OptionSpec::Kind::number,
     .default_value = "1",
     .help = "objective=teacher and both: of the class scores",
     .min = 0.01,
     .max = 1000},
    {.name = "learn_scales",
     .kind = OptionSpec::Kind::flag,
     .default_value = "true",
     .help = "scales are trained (LSQ), else they stay as chosen"},
    {.name = "learn_zero_points",
     .kind = OptionSpec::Kind::flag,
     .default_value = "false",
     .help = "zero points too (LSQ+)"},
    {.name = "scale_rate",
     .kind = OptionSpec::Kind::number,
     .default_value = "1",
     .help = "factor of the learning rate for scales and zero points",
     .min = 0,
     .max = 1e6},
    {.name = "calibration_samples",
     .kind = OptionSpec::Kind::integer,
     .default_value = "1024",
     .help = "training samples that first scales are chosen on, where no --calib is given",
     .min = 1,
     .max = 1e9},
    {.name = "block_samples",
     .kind = OptionSpec::Kind::integer,
     .default_value = "4096",
     .help = "objective=blocks: training samples, spread over the data",
     .min = 2,
     .max = 1e9},
};

// What training did.
struct AwareReport {
  Json record;  // Outcome::training
  std::vector<std::string> notes;
};

// Throws Error for options that contradict each other or the request.
void check_aware(const Options& options, const QuantizeRequest& request);
// Trains on context.training by context.options, which hold training_options() and aware_options, and fills `report`.
// Both must outlive the tuner.
Tuner aware_tuner(PassContext& context, AwareReport& report);

}  // namespace onnxpress
