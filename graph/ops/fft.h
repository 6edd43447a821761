// Discrete Fourier transforms of any length in O(n log n).
#pragma once

#include <complex>
#include <cstdint>
#include <memory>
#include <vector>

namespace onnxpress {

// X[k] = sum over n of x[n] exp(-+2 pi i n k / length): radix 2 (Cooley and Tukey, 1965) for powers
// of two, else through a convolution of such a length (Bluestein, 1970). Not scaled. One object may
// serve several threads.
class FourierTransform {
 public:
  // `length` >= 1; the inverse has exp(+...).
  FourierTransform(std::int64_t length, bool inverse);

  std::int64_t length() const { return length_; }
  // In place; `values` has length() elements.
  void run(std::complex<double>* values) const;

 private:
  void run_powers(std::complex<double>* values) const;
  void run_bluestein(std::complex<double>* values) const;

  std::int64_t length_;
  std::vector<std::complex<double>> roots_;     // powers of two: half a turn
  std::vector<std::complex<double>> chirp_;     // Bluestein: exp(-+pi i n^2 / length)
  std::vector<std::complex<double>> spectrum_;  // of the conjugate chirp, over the padded length
  std::shared_ptr<const FourierTransform> forward_, backward_;  // of the padded length
};

}  // namespace onnxpress
