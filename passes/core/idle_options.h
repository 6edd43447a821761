// Options that were said although nothing reads them beside the others.
#pragma once

#include <span>
#include <string_view>

#include "passes/core/pass.h"

namespace onnxpress {

// An option, whether it is read beside the others, and with what it would be: "scheme=static".
struct OptionPlace {
  std::string_view option;
  bool is_read;
  std::string_view belongs_to;
};

// Throws Error for the first option that was said and is not read.
void refuse_idle(const Options& options, std::span<const OptionPlace> places);

}  // namespace onnxpress
