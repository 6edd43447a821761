// The learning rate by step.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace onnxpress {

struct Schedule {
  enum class Kind {
    constant,
    step,         // times `factor` every `period` steps
    exponential,  // times `factor` each `period` steps, continuously
    cosine,       // to `final_rate` along half a cosine: Loshchilov and Hutter 2017
    one_cycle,    // up to `rate` over `warmup`, down to `final_rate` along cosines: Smith 2018
  };
  Kind kind = Kind::constant;
  double rate = 0.01;
  double factor = 0.1;
  std::int64_t period = 1;
  double final_rate = 0;
  std::int64_t warmup = 0;  // steps over which the rate rises linearly from rate / warmup
  std::int64_t total = 0;   // steps of the whole training: cosine, one_cycle

  // Of step `index`, from 0.
  double at(std::int64_t index) const;
};

std::string_view name(Schedule::Kind kind);
std::optional<Schedule::Kind> schedule_from_name(std::string_view text);

}  // namespace onnxpress
