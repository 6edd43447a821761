#include "passes/core/probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "graph/base/random.h"
#include "graph/exec/engine.h"
#include "graph/onnx/mapped_pages.h"

namespace onnxpress {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

bool is_numeric(DType type) { return is_float(type) || is_integer(type) || type == DType::boolean; }

bool same_form(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.dims() == b.dims();
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (!same_form(a, b)) return false;
  if (a.equals(b)) return true;
  if (!is_float(a.dtype()) || is_sub_byte(a.dtype())) return false;
  const Tensor x = a.cast(DType::float64);
  const Tensor y = b.cast(DType::float64);
  const std::size_t width = static_cast<std::size_t>(bits(a.dtype())) / 8;
  for (std::size_t i = 0; i < static_cast<std::size_t>(a.size()); ++i) {
    const bool both_nan = std::isnan(x.data<double>()[i]) && std::isnan(y.data<double>()[i]);
    if (!both_nan &&
        std::memcmp(a.bytes().data() + i * width, b.bytes().data() + i * width, width) != 0)
      return false;
  }
  return true;
}

// Axis over which a classifier's output has its scores, if it looks like one: [N,C], [N,T,C],
// [N,C,1,1].
std::optional<std::size_t> class_axis(const Tensor& tensor) {
  const Dims& dims = tensor.dims();
  if (!is_float(tensor.dtype()) || dims.size() < 2) return std::nullopt;
  const bool trailing_ones = dims.size() > 2 && std::all_of(dims.begin() + 2, dims.end(),
                                                            [](std::int64_t d) { return d == 1; });
  if (dims.size() > 3 && !trailing_ones) return std::nullopt;
  const std::size_t axis = trailing_ones ? 1 : dims.size() - 1;
  return dims[axis] > 1 ? std::optional(axis) : std::nullopt;
}

// Differences of one output, summed over probe sets.
class ErrorSum {
 public:
  void add(const Tensor& expected, const Tensor& found) {
    const std::int64_t rows = expected.rank() > 0 ? expected.dims()[0] : 1;
    error_.samples += rows;
    count(expected, error_.before);
    count(found, error_.after);
    if (!same_form(expected, found) || !is_numeric(expected.dtype())) {
      if (!expected.equals(found)) error_.max_abs = infinity;
      return;
    }
    const Tensor x = expected.cast(DType::float64);
    const Tensor y = found.cast(DType::float64);
    add(x.data<double>(), y.data<double>());
    if (const auto axis = class_axis(expected))
      add_agreement(x.data<double>(), y.data<double>(),
                    static_cast<std::size_t>(expected.dims()[*axis]));
  }

  OutputError finish(std::string output) {
    error_.output = std::move(output);
    error_.range = high_ >= low_ ? high_ - low_ : 0;
    if (error_.max_abs == 0)
      error_.snr_db = infinity;
    else if (std::isinf(error_.max_abs))
      error_.snr_db = -infinity;
    else
      error_.snr_db = signal_ > 0 ? 10 * std::log10(signal_ / noise_) : -infinity;
    if (rows_ > 0)
      error_.top1_agreement = static_cast<double>(agreeing_) / static_cast<double>(rows_);
    return error_;
  }

 private:
  static void count(const Tensor& tensor, NonFinite& found) {
    if (!is_numeric(tensor.dtype())) return;
    const Tensor values = tensor.cast(DType::float64);
    for (const double value : values.data<double>()) found.count(value);
  }

  void add(std::span<const double> expected, std::span<const double> found) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double x = expected[i];
      const double y = found[i];
      if (std::isfinite(x)) {
        low_ = std::min(low_, x);
        high_ = std::max(high_, x);
        signal_ += x * x;
      }
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      const double difference = std::isfinite(x) && std::isfinite(y) ? std::abs(x - y) : infinity;
      error_.max_abs = std::max(error_.max_abs, difference);
      noise_ += difference * difference;
    }
  }

  // Scores are contiguous: class_axis gives the last axis, or one that only ones follow.
  void add_agreement(std::span<const double> expected, std::span<const double> found,
                     std::size_t classes) {
    // -1 when a score is NaN.
    const auto best = [classes](std::span<const double> scores, std::size_t row) {
      const auto row_scores = scores.subspan(row * classes, classes);
      if (std::ranges::any_of(row_scores, [](double score) { return std::isnan(score); }))
        return std::ptrdiff_t{-1};
      return std::ranges::max_element(row_scores) - row_scores.begin();
    };
    for (std::size_t row = 0; row < expected.size() / classes; ++row) {
      ++rows_;
      const std::ptrdiff_t wanted = best(expected, row);
      agreeing_ += wanted >= 0 && wanted == best(found, row);
    }
  }

  OutputError error_;
  double low_ = infinity, high_ = -infinity;
  double signal_ = 0, noise_ = 0;
  std::int64_t rows_ = 0, agreeing_ = 0;
};

// Units in the last place of the largest value that rounding may cost beside its share of the
// range.
double last_place_allowance(const Tensor& expected) {
  if (!is_float(expected.dtype()) || expected.size() == 0) return 0;
  double epsilon = 8 * 0x1p-23;
  if (expected.dtype() == DType::float64) epsilon = 8 * 0x1p-52;
  // Every operator of such a model rounds its result, and a rewrite spares or adds some of these.
  if (expected.dtype() == DType::float16) epsilon = 8 * 0x1p-10;
  if (expected.dtype() == DType::bfloat16) epsilon = 8 * 0x1p-7;
  if (bits(expected.dtype()) <= 8) epsilon = 0.25;
  const Tensor values = expected.cast(DType::float64);
  double largest = 0;
  for (const double value : values.data<double>())
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  return epsilon * largest;
}

std::optional<std::string> changed_form(const std::string& output, const Tensor& expected,
                                        const Tensor& found) {
  if (same_form(expected, found)) return std::nullopt;
  return fmt::format("output '{}' is now {}, expected {}", output, to_string(Type::of(found)),
                     to_string(Type::of(expected)));
}

std::optional<std::string> broken_rounding(const OutputError& error, double allowance,
                                           double own_rounding) {
  const double allowed = std::max(1e-5 * error.range + allowance, 2 * own_rounding);
  if (error.max_abs <= allowed) return std::nullopt;
  return fmt::format(
      "declared effect 'rounding', but output '{}' differs by up to {:.3g} where {:.3g} is allowed "
      "(its range is {:.3g})",
      error.output, error.max_abs, allowed, error.range);
}

}  // namespace

std::int64_t shaped_macs(const Model& model, const InputShapes& shapes) {
  return count_macs(shapes.empty() ? model : *with_input_shapes(model, shapes)).macs;
}

std::vector<std::vector<Tensor>> generate_probes(const Model& model, std::int64_t macs,
                                                 std::uint64_t seed, const InputRanges& ranges,
                                                 const InputShapes& shapes) {
  const bool is_open = !(shapes.empty() ? open_dims(model) : open_dims(*with_input_shapes(model, shapes))).empty();
  // Where the batch is open, a set has two samples.
  const std::int64_t cost = macs * (is_open ? 2 : 1);
  const std::uint64_t sets = cost < 50'000'000 ? 4 : cost < 1'000'000'000 ? 2 : 1;
  std::vector<std::vector<Tensor>> probes;
  for (std::uint64_t i = 0; i < sets; ++i)
    probes.push_back(probe_inputs(model, Random(seed).split(i).next(), ranges, shapes));
  return probes;
}

ProbeOutputs run_probes(const Model& model, const std::vector<std::vector<Tensor>>& probes,
                        ProbeKernels kernels, int threads) {
  Engine engine(model, {.threads = threads,
                        .reference = kernels == ProbeKernels::reference,
                        .fuse = false,
                        .lean = kernels == ProbeKernels::lean});
  ProbeOutputs outputs;
  for (const std::vector<Tensor>& inputs : probes) outputs.push_back(engine.run(inputs));
  release_pages(model);
  return outputs;
}

std::vector<OutputError> measure_errors(const Model& model, const ProbeOutputs& expected,
                                        const ProbeOutputs& found) {
  std::vector<OutputError> errors;
  for (std::size_t i = 0; i < model.graph.outputs().size(); ++i) {
    ErrorSum sum;
    for (std::size_t set = 0; set < expected.size(); ++set)
      sum.add(expected[set].at(i), found[set].at(i));
    errors.push_back(sum.finish(model.graph.outputs()[i]->name()));
  }
  return errors;
}

std::optional<std::string> broken_effect(Effect effect, double min_snr_db,
                                         const ProbeOutputs& expected, const ProbeOutputs& found,
                                         const std::vector<OutputError>& errors,
                                         const std::vector<OutputError>& own_rounding) {
  if (effect == Effect::lossy) return std::nullopt;
  for (std::size_t i = 0; i < errors.size(); ++i) {
    const OutputError& error = errors[i];
    double allowance = 0;
    for (std::size_t set = 0; set < expected.size(); ++set) {
      const Tensor& before = expected[set][i];
      const Tensor& after = found[set][i];
      if (auto broken = changed_form(error.output, before, after)) return broken;
      if (effect == Effect::exact && !same_bits(before, after))
        return fmt::format(
            "declared effect 'exact', but output '{}' is not bit-equal: it differs by up to {:.3g}",
            error.output, error.max_abs);
      allowance = std::max(allowance, last_place_allowance(before));
    }
    if (effect == Effect::rounding)
      if (auto broken = broken_rounding(error, allowance,
                                        own_rounding.empty() ? 0 : own_rounding[i].max_abs))
        return broken;
    const bool is_judged =
        effect == Effect::approximate && !expected.empty() && is_float(expected.front()[i].dtype());
    if (is_judged && !(error.snr_db >= min_snr_db) && error.max_abs > allowance)
      return fmt::format("declared an SNR of at least {:.3g} dB, but output '{}' has {:.3g} dB",
                         min_snr_db, error.output, error.snr_db);
  }
  return std::nullopt;
}

}  // namespace onnxpress
