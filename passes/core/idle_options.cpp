#include "passes/core/idle_options.h"

namespace onnxpress {

void refuse_idle(const Options& options, std::span<const OptionPlace> places) {
  for (const OptionPlace& place : places)
    require(!options.given(place.option) || place.is_read, "option '{}' belongs to {} and would do nothing here",
            place.option, place.belongs_to);
}

}  // namespace onnxpress
