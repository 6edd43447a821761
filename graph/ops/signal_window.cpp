// HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix (17): tables of signal processing.
#include <cmath>
#include <numbers>

#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

DType output_type(const Node& node) {
  const auto type = static_cast<DType>(get_int(node, "output_datatype", 1));
  require(is_float(type) || (is_integer(type) && !is_sub_byte(type)),
          "attribute 'output_datatype': expected a number type, found {}",
          get_int(node, "output_datatype", 1));
  return type;
}

Dim known_dim(InferContext& context, std::size_t index) {
  const auto values = context.input_ints(index);
  return values && values->size() == 1 && values->front() >= 0 ? Dim(values->front()) : Dim();
}

// a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N); N is the size, or one less when not periodic.
struct Coefficients {
  double a0, a1, a2;
};

Coefficients coefficients(const Node& node) {
  if (node.is("HannWindow")) return {0.5, 0.5, 0};
  if (node.is("HammingWindow")) return {25.0 / 46, 21.0 / 46, 0};
  return {0.42, 0.5, 0.08};
}

Kernel prepare_window(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return [c = coefficients(node), type = output_type(node),
          periodic = get_bool(node, "periodic", true)](KernelContext& context) {
    const Tensor& given = context.required_input(0);
    require(given.size() == 1 && is_integer(given.dtype()), "expected one integer, found {}{}",
            name(given.dtype()), to_string(given.dims()));
    const std::int64_t size = given.to_ints().front();
    require(size >= 0, "expected a size of at least 0, found {}", size);
    Tensor values = Tensor::uninitialized(DType::float64, {size});
    const auto out = values.mutable_data<double>();
    const auto span = static_cast<double>(periodic || size == 1 ? size : size - 1);
    for (std::size_t n = 0; n < out.size(); ++n) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(n) / span;
      out[n] = c.a0 - c.a1 * std::cos(angle) + c.a2 * std::cos(2 * angle);
    }
    context.forward_output(0, values.cast(type));
  };
}

void infer_window(InferContext& context) {
  context.set_output(0, output_type(context.node()), Shape{known_dim(context, 0)});
}

// The triangular filters that map a spectrum to the mel scale, 2595 log10(1 + f / 700); inputs
// (num_mel_bins, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz).
Kernel prepare_mel_weights(const PrepareContext& prepare) {
  return [type = output_type(prepare.node())](KernelContext& context) {
    const auto scalar = [&](std::size_t index) {
      const Tensor& tensor = context.required_input(index);
      require(tensor.size() == 1, "input {}: expected one element, found {}", index,
              to_string(tensor.dims()));
      return tensor.cast(DType::float64).data<double>()[0];
    };
    const auto integer = [&](std::size_t index, double least) {
      const double value = scalar(index);
      require(least <= value && value <= 0x1p40, "input {}: expected at least {}, found {}", index,
              least, value);
      return static_cast<std::int64_t>(value);
    };
    const std::int64_t bins = integer(0, 0), length = integer(1, 1), rate = integer(2, 1);
    const std::int64_t spectrum = length / 2 + 1;
    const auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
    const double low = mel(scalar(3)), high = mel(scalar(4));
    require(std::isfinite(low) && std::isfinite(high), "expected edges of at least 0 hertz");
    const double step = (high - low) / static_cast<double>(bins + 2);
    const auto edge = [&](std::int64_t i) {
      const double hertz = 700 * (std::pow(10, (static_cast<double>(i) * step + low) / 2595) - 1);
      const double bin =
          std::floor(static_cast<double>(length + 1) * hertz / static_cast<double>(rate));
      require(0 <= bin && bin < static_cast<double>(spectrum),
              "expected edges within {} bins of the spectrum, found bin {}", spectrum, bin);
      return static_cast<std::int64_t>(bin);
    };
    Tensor weights(DType::float64, {spectrum, bins});
    double* const out = weights.mutable_data<double>().data();
    for (std::int64_t i = 0; i < bins; ++i) {
      const std::int64_t left = edge(i), center = edge(i + 1), right = edge(i + 2);
      const auto rising = static_cast<double>(center - left);
      const auto falling = static_cast<double>(right - center);
      if (center == left) out[center * bins + i] = 1;
      for (std::int64_t j = left; j <= center && rising > 0; ++j)
        out[j * bins + i] = static_cast<double>(j - left) / rising;
      for (std::int64_t j = center; j < right; ++j)
        out[j * bins + i] = static_cast<double>(right - j) / falling;
    }
    context.forward_output(0, weights.cast(type));
  };
}

void infer_mel_weights(InferContext& context) {
  const Dim length = known_dim(context, 1);
  context.set_output(
      0, output_type(context.node()),
      Shape{length.is_known() ? Dim(length.value() / 2 + 1) : Dim(), known_dim(context, 0)});
}

}  // namespace

OPERATORS(signal_window) {
  for (const char* name : {"HannWindow", "HammingWindow", "BlackmanWindow"})
    registry.add(
        OpDef{.name = name, .since = 17, .infer = infer_window, .prepare = prepare_window});
  registry.add(OpDef{.name = "MelWeightMatrix",
                     .since = 17,
                     .infer = infer_mel_weights,
                     .prepare = prepare_mel_weights});
}

}  // namespace onnxpress
