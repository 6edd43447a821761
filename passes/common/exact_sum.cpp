#include "passes/common/exact_sum.h"

#include <cmath>
#include <cstddef>

namespace onnxpress {
namespace {

constexpr int last_bit = -149;
constexpr int mantissa_bits = 53;

using Words = std::array<std::uint64_t, 6>;

void negate(Words& words) {
  bool carry = true;
  for (std::uint64_t& word : words) {
    word = ~word + (carry ? 1 : 0);
    carry = carry && word == 0;
  }
}

}  // namespace

void ExactSum::add(double value) {
  if (value == 0) return;
  int exponent = 0;
  const double fraction = std::frexp(std::fabs(value), &exponent);
  auto mantissa = static_cast<std::uint64_t>(std::ldexp(fraction, mantissa_bits));
  int position = exponent - mantissa_bits - last_bit;
  if (position < 0) {  // the bits shifted out are zeros
    mantissa >>= -position;
    position = 0;
  }
  Words term{};
  const auto word = static_cast<std::size_t>(position) / 64;
  const int bit = position % 64;
  term[word] = mantissa << bit;
  if (bit > 0 && word + 1 < term.size()) term[word + 1] = mantissa >> (64 - bit);
  if (value < 0) negate(term);
  bool carry = false;
  for (std::size_t i = 0; i < words_.size(); ++i) {
    const std::uint64_t sum = words_[i] + term[i];
    const std::uint64_t with_carry = sum + (carry ? 1 : 0);
    carry = sum < term[i] || with_carry < sum;
    words_[i] = with_carry;
  }
}

double ExactSum::value() const {
  Words magnitude = words_;
  const bool is_negative = (words_.back() >> 63) != 0;
  if (is_negative) negate(magnitude);
  double sum = 0;
  for (std::size_t i = magnitude.size(); i-- > 0;)
    sum += std::ldexp(static_cast<double>(magnitude[i]), static_cast<int>(i) * 64 + last_bit);
  return is_negative ? -sum : sum;
}

}  // namespace onnxpress
