#include "passes/quantize/closest_codes.h"

#include <algorithm>
#include <cmath>

namespace onnxpress {
namespace {

class Searcher {
 public:
  Searcher(const CodeSearch& search, std::int64_t most, std::span<std::int32_t> codes)
      : search_(search), depth_(codes.size()), left_(most), codes_(codes), tried_(codes.size()), errors_(codes.size()) {
    best_ = error_of(codes);
  }

  bool run() {
    descend(depth_, 0);
    return changed_;
  }

 private:
  double factor(std::size_t row, std::size_t column) const {
    return static_cast<double>(search_.factor[row * depth_ + column]);
  }
  double error(std::size_t i, std::int64_t code) const {
    return static_cast<double>(search_.target[i]) - static_cast<double>(dequantize(code, search_.parameters[i]));
  }

  double fed_back(std::size_t i) const {  // by the errors of the elements behind
    double sum = 0;
    for (std::size_t row = i + 1; row < depth_; ++row) sum += errors_[row] * factor(row, i);
    return sum;
  }

  // Summed as descend() does, so that the same codes have the same error.
  double error_of(std::span<const std::int32_t> codes) {
    double total = 0;
    for (std::size_t i = depth_; i-- > 0;) {
      errors_[i] = error(i, codes[i]);
      const double sum = fed_back(i) + errors_[i] * factor(i, i);
      total += sum * sum;
    }
    return total;
  }

  // Elements from `end` on are chosen, at the cost of `so_far`.
  void descend(std::size_t end, double so_far) {
    if (end == 0) {
      best_ = so_far;
      std::ranges::copy(tried_, codes_.begin());
      changed_ = true;
      return;
    }
    const std::size_t i = end - 1;
    const double diagonal = factor(i, i);
    const double from_behind = fed_back(i);
    const QuantizationParameters& parameters = search_.parameters[i];
    const auto wanted = static_cast<float>(static_cast<double>(search_.target[i]) + from_behind / diagonal);
    const std::int64_t nearest = quantize(wanted, parameters, search_.type);
    // Outwards in turn: errors grow on both sides.
    std::int64_t below = nearest, above = nearest + 1;
    const auto cost = [&](std::int64_t code) {
      const double sum = from_behind + error(i, code) * diagonal;
      return so_far + sum * sum;
    };
    bool is_low_open = true, is_high_open = true;
    while (left_ > 0) {
      is_low_open = is_low_open && below >= search_.type.min();
      is_high_open = is_high_open && above <= search_.type.max();
      if (!is_low_open && !is_high_open) return;
      const double low = is_low_open ? cost(below) : 0, high = is_high_open ? cost(above) : 0;
      const bool takes_low = is_low_open && (!is_high_open || low <= high);
      if (!((takes_low ? low : high) < best_)) return;
      --left_;
      const std::int64_t code = takes_low ? below-- : above++;
      tried_[i] = static_cast<std::int32_t>(code);
      errors_[i] = error(i, code);
      descend(i, takes_low ? low : high);
    }
  }

  const CodeSearch& search_;
  std::size_t depth_;
  std::int64_t left_;
  std::span<std::int32_t> codes_;
  std::vector<std::int32_t> tried_;
  std::vector<double> errors_;
  double best_ = 0;
  bool changed_ = false;
};

}  // namespace

bool find_closest_codes(const CodeSearch& search, std::int64_t most, std::span<std::int32_t> codes) {
  return Searcher(search, most, codes).run();
}

}  // namespace onnxpress
