// Activation-aware weight quantization (Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for
// LLM Compression and Acceleration", arXiv 2306.00978): rows of weights that meet large activations are
// multiplied by a factor before they are rounded, so that rounding hurts them less, and the activations
// are divided by it in what is in front.
//
// s = mean|X|^a, scaled so that its largest and smallest are each other's inverse; a of [0, 1] is the
// one of a grid with the least error of the layer's output, |Q(W s) (X / s) - W X|^2 (equations 4 and
// 5), on samples of the layer's inputs. a = 0 leaves the layer alone.
#include <algorithm>
#include <cmath>

#include <Eigen/Core>

#include "passes/common/calibration.h"
#include "passes/common/quantization.h"
#include "passes/core/registry.h"
#include "passes/quantize/sampled_rows.h"
#include "passes/quantize/smoothing.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "bits", .kind = OptionSpec::Kind::integer, .default_value = "4", .help = "width that the weights will have", .min = 2, .max = 8},
    {.name = "block",
     .kind = OptionSpec::Kind::integer,
     .default_value = "32",
     .help = "inputs that will share a scale; 0: one scale per output channel",
     .min = 0,
     .max = 65536},
    {.name = "symmetric", .kind = OptionSpec::Kind::flag, .default_value = "true", .help = "the levels of the weights have no zero point"},
    {.name = "grid", .kind = OptionSpec::Kind::integer, .default_value = "20", .help = "steps of the search", .min = 1, .max = 1000},
    {.name = "insert",
     .kind = OptionSpec::Kind::flag,
     .default_value = "false",
     .help = "put a Mul where what is in front can take no factors"},
    {.name = "select", .kind = OptionSpec::Kind::selector, .help = "MatMul and Gemm nodes; default: all"},
};

constexpr std::size_t most_rows = 128, rows_per_batch = 16;

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct Levels {
  QuantizedType type;
  std::int64_t block = 0;
};

// The weight as it comes back from its codes; nothing when it holds NaN or infinity.
std::optional<std::vector<float>> rounded(const Tensor& weight, std::size_t in_axis, const Levels& levels) {
  const Granularity granularity = levels.block > 0 ? Granularity::per_block(static_cast<std::int64_t>(in_axis), levels.block)
                                                   : Granularity::per_channel(static_cast<std::int64_t>(1 - in_axis));
  const std::optional<WeightGrid> grid = min_max_grid(weight, levels.type, granularity);
  if (!grid) return std::nullopt;
  std::vector<float> values = weight.to_floats();
  for_each_scale_run(weight.dims(), granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    const QuantizationParameters& parameters = grid->parameters[static_cast<std::size_t>(group)];
    for (std::int64_t i = begin; i < begin + count; ++i) {
      float& value = values[static_cast<std::size_t>(i)];
      value = dequantize(quantize(value, parameters, levels.type), parameters);
    }
  });
  return values;
}

// |Q(W s) (X / s) - W X|^2 of one product; infinite when the scaled weight cannot be rounded.
double output_error(const LinearOperator& linear, const SampledRows& rows, const std::vector<double>& scale, const Levels& levels) {
  const std::size_t in_axis = linear.in.axis;
  const Tensor scaled = linear.scaled_inputs(scale);
  std::optional<std::vector<float>> values = rounded(scaled, in_axis, levels);
  if (!values) return std::numeric_limits<double>::infinity();
  const std::vector<float> exact = linear.weight->to_floats();
  const auto columns = static_cast<std::size_t>(linear.weight->dim(1));
  for (std::size_t i = 0; i < values->size(); ++i) {
    const std::size_t channel = in_axis == 0 ? i / columns : i % columns;
    (*values)[i] = (*values)[i] / static_cast<float>(scale[channel]) - exact[i];
  }
  const Eigen::Map<const Matrix> difference(values->data(), linear.weight->dim(0), linear.weight->dim(1));
  const Eigen::Map<const Matrix> data(rows.values.data(), static_cast<Eigen::Index>(rows.rows()), static_cast<Eigen::Index>(rows.channels));
  const Matrix error = in_axis == 0 ? Matrix(data * difference) : Matrix(data * difference.transpose());
  return error.cast<double>().squaredNorm();
}

class Awq : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "awq",
      .summary = "scales rows of MatMul and Gemm weights by their activations, so that rounding them hurts less",
      .options = option_specs,
      .effect = Effect::rounding,
      .needs = Needs::calibration};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    const Options& options = context.options;
    const bool symmetric = options.flag("symmetric");
    const auto bits = static_cast<int>(options.integer("bits"));
    const Levels levels{{.bits = bits, .symmetric = symmetric, .storage = symmetric ? DType::int8 : DType::uint8}, options.integer("block")};
    Outcome outcome;
    const ChannelClasses channels = ChannelClasses::of(model, pass_info.name, nullptr);
    const std::vector<SmoothingSite> sites =
        find_smoothing_sites(model, channels, Selector(options.text("select")), options.flag("insert"), pass_info.name, context.near_misses);
    if (sites.empty()) {
      outcome.notes.emplace_back("no MatMul or Gemm whose input channels can be scaled");
      return outcome;
    }
    std::map<std::string, std::int64_t, std::less<>> values;
    for (const SmoothingSite& site : sites)
      for (const SmoothingSite::Reader& reader : site.readers) values[calibration_key(*reader.input)] = static_cast<std::int64_t>(reader.axis);
    const auto rows = sample_rows(model, values, context, most_rows, rows_per_batch);
    std::vector<std::vector<double>> scales;
    for (std::size_t i = 0; i < sites.size(); ++i) {
      if (context.progress) context.progress("searching scales", i, sites.size());
      scales.push_back(search(sites[i], rows, levels, context, outcome));
    }
    const std::size_t count = smooth(channels, sites, scales);
    outcome.changed = count > 0;
    outcome.counts["scaled"] = count;
    if (count == 0) outcome.layers.clear();
    return outcome;
  }

 private:
  static std::vector<double> search(const SmoothingSite& site, const std::map<std::string, SampledRows, std::less<>>& rows,
                                    const Levels& levels, PassContext& context, Outcome& outcome) {
    const auto channels = static_cast<std::size_t>(site.readers[0].linear.in.count);
    std::vector<const SampledRows*> data;
    std::vector<double> mean(channels);
    for (const SmoothingSite::Reader& reader : site.readers) {
      const auto found = rows.find(calibration_key(*reader.input));
      if (found == rows.end() || found->second.channels != channels || found->second.rows() == 0 ||
          !std::ranges::all_of(found->second.values, [](float v) { return std::isfinite(v); })) {
        if (context.near_misses)
          context.near_misses->push_back({std::string(pass_info.name), reader.linear.node->describe(),
                                          fmt::format("no finite samples of '{}' were seen", reader.input->name())});
        return {};
      }
      data.push_back(&found->second);
      for (std::size_t i = 0; i < found->second.values.size(); ++i)
        mean[i % channels] += static_cast<double>(std::fabs(found->second.values[i])) / static_cast<double>(found->second.rows());
    }
    const auto steps = static_cast<std::size_t>(context.options.integer("grid"));
    std::vector<double> errors(steps + 1);
    context.pool.parallel_for(static_cast<std::int64_t>(steps + 1), 1, [&](std::int64_t begin, std::int64_t) {
      const auto step = static_cast<std::size_t>(begin);
      const std::vector<double> scale = candidate(mean, static_cast<double>(step) / static_cast<double>(steps));
      for (std::size_t r = 0; r < data.size(); ++r) errors[step] += output_error(site.readers[r].linear, *data[r], scale, levels);
    });
    const auto best = static_cast<std::size_t>(std::ranges::min_element(errors) - errors.begin());
    if (best == 0 || !(errors[best] < errors[0])) return {};
    std::vector<double> scale = candidate(mean, static_cast<double>(best) / static_cast<double>(steps));
    for (const SmoothingSite::Reader& reader : site.readers)
      outcome.layers.push_back({{"node", reader.linear.node->name},
                                {"op", reader.linear.node->op_type()},
                                {"channels", channels},
                                {"taken_by", site.classes.empty() ? "a Mul" : "what is in front"},
                                {"exponent", static_cast<double>(best) / static_cast<double>(steps)},
                                {"scale_min", *std::ranges::min_element(scale)},
                                {"scale_max", *std::ranges::max_element(scale)},
                                {"error_ratio", errors[best] / errors[0]}});
    return scale;
  }

  // mean^exponent, divided by the root of its largest times its smallest.
  static std::vector<double> candidate(const std::vector<double>& mean, double exponent) {
    std::vector<double> scale;
    for (const double value : mean) scale.push_back(std::max(std::pow(std::max(value, 1e-12), exponent), 1e-4));
    const auto [low, high] = std::ranges::minmax_element(scale);
    const double center = std::sqrt(*low * *high);
    for (double& value : scale) value /= center;
    return scale;
  }
};

}  // namespace

PASS(awq) { registry.add(std::make_unique<Awq>()); }

}  // namespace onnxpress
