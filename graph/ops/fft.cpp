#include "graph/ops/fft.h"

#include <bit>
#include <numbers>
#include <utility>

#include "graph/base/error.h"

namespace onnxpress {
namespace {

constexpr std::int64_t longest = std::int64_t{1} << 26;

}  // namespace

FourierTransform::FourierTransform(std::int64_t length, bool inverse) : length_(length) {
  require(1 <= length && length <= longest, "expected a transform of 1 to {} points, found {}",
          longest, length);
  const double turn = (inverse ? 2 : -2) * std::numbers::pi / static_cast<double>(length);
  const auto size = static_cast<std::size_t>(length);
  if (std::has_single_bit(size)) {
    for (std::size_t k = 0; k < size / 2; ++k)
      roots_.push_back(std::polar(1.0, turn * static_cast<double>(k)));
    return;
  }
  // n k = (n^2 + k^2 - (k - n)^2) / 2; n^2 counts modulo two turns.
  std::int64_t square = 0;
  for (std::int64_t n = 0; n < length; ++n) {
    chirp_.push_back(std::polar(1.0, turn / 2 * static_cast<double>(square)));
    square = (square + 2 * n + 1) % (2 * length);
  }
  const auto padded = std::bit_ceil(2 * size - 1);
  forward_ = std::make_shared<FourierTransform>(static_cast<std::int64_t>(padded), false);
  backward_ = std::make_shared<FourierTransform>(static_cast<std::int64_t>(padded), true);
  spectrum_.assign(padded, 0.0);
  for (std::size_t n = 0; n < size; ++n)
    spectrum_[n] = spectrum_[(padded - n) % padded] = std::conj(chirp_[n]);
  forward_->run(spectrum_.data());
}

void FourierTransform::run(std::complex<double>* values) const {
  if (chirp_.empty())
    run_powers(values);
  else
    run_bluestein(values);
}

void FourierTransform::run_powers(std::complex<double>* values) const {
  const auto size = static_cast<std::size_t>(length_);
  for (std::size_t i = 1, reversed = 0; i < size; ++i) {
    std::size_t bit = size >> 1;
    for (; reversed & bit; bit >>= 1) reversed ^= bit;
    reversed ^= bit;
    if (i < reversed) std::swap(values[i], values[reversed]);
  }
  for (std::size_t half = 1; half < size; half *= 2) {
    const std::size_t step = size / (2 * half);
    for (std::size_t start = 0; start < size; start += 2 * half)
      for (std::size_t k = 0; k < half; ++k) {
        std::complex<double>& a = values[start + k];
        std::complex<double>& b = values[start + k + half];
        const std::complex<double> root = roots_[k * step];
        // Written out: operator* of complex checks for infinities.
        const std::complex<double> turned(b.real() * root.real() - b.imag() * root.imag(),
                                          b.real() * root.imag() + b.imag() * root.real());
        b = a - turned;
        a += turned;
      }
  }
}

void FourierTransform::run_bluestein(std::complex<double>* values) const {
  const auto size = static_cast<std::size_t>(length_);
  const std::size_t padded = spectrum_.size();
  std::vector<std::complex<double>> work(padded, 0.0);
  for (std::size_t n = 0; n < size; ++n) work[n] = values[n] * chirp_[n];
  forward_->run(work.data());
  for (std::size_t k = 0; k < padded; ++k) work[k] *= spectrum_[k];
  backward_->run(work.data());
  const double scale = 1 / static_cast<double>(padded);
  for (std::size_t k = 0; k < size; ++k) values[k] = work[k] * chirp_[k] * scale;
}

}  // namespace onnxpress
