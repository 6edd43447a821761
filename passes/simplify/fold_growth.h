// The option that `fold_constants` and its group share.
#pragma once

#include "passes/core/pass.h"

namespace onnxpress {

inline constexpr OptionSpec fold_growth{
    .name = "growth",
    .kind = OptionSpec::Kind::integer,
    .default_value = "0",
    .help = "bytes by which folding one value may grow the file: fewer operators instead",
    .min = 0};

}  // namespace onnxpress
