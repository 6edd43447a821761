// SmoothQuant (Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for
// Large Language Models", arXiv 2211.10438): channels of activations that are much larger than others
// are divided by a factor that the weights behind take, where it does less harm.
//
// s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) (equation 4), the weights of all products that read the
// channel taken together; the factor goes into the normalization, Mul or linear operator in front.
#include <algorithm>
#include <cmath>

#include "passes/common/calibration.h"
#include "passes/core/registry.h"
#include "passes/quantize/smoothing.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "alpha",
     .kind = OptionSpec::Kind::number,
     .default_value = "0.5",
     .help = "how much of the activations' range moves into the weights: 0 none, 1 all",
     .min = 0,
     .max = 1},
    {.name = "insert",
     .kind = OptionSpec::Kind::flag,
     .default_value = "false",
     .help = "put a Mul where what is in front can take no factors"},
    {.name = "select", .kind = OptionSpec::Kind::selector, .help = "MatMul and Gemm nodes; default: all"},
};

double magnitude(const ValueStatistics& statistics, std::size_t channel) {
  return std::max(std::fabs(static_cast<double>(statistics.channel_min[channel])),
                  std::fabs(static_cast<double>(statistics.channel_max[channel])));
}

class SmoothQuant : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "smooth_quant",
      .summary = "moves large channels of activations into the weights of the MatMul or Gemm behind",
      .options = option_specs,
      .effect = Effect::rounding,
      .needs = Needs::calibration};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    const double alpha = context.options.number("alpha");
    Outcome outcome;
    const ChannelClasses channels = ChannelClasses::of(model, pass_info.name, nullptr);
    const std::vector<SmoothingSite> sites = find_smoothing_sites(
        model, channels, Selector(context.options.text("select")), context.options.flag("insert"), pass_info.name, context.near_misses);
    if (sites.empty()) {
      outcome.notes.emplace_back("no MatMul or Gemm whose input channels can be scaled");
      return outcome;
    }
    CalibrationRequest request{.histograms = false};
    for (const SmoothingSite& site : sites)
      for (const SmoothingSite::Reader& reader : site.readers) {
        const std::string key = calibration_key(*reader.input);
        request.values.insert(key);
        request.channels[key] = static_cast<std::int64_t>(reader.axis);
      }
    const Calibration calibration = calibrate(model, context, request);
    outcome.notes = calibration_warnings(calibration);
    std::vector<std::vector<double>> scales;
    for (const SmoothingSite& site : sites) scales.push_back(scale_of(site, calibration, alpha, outcome, context.near_misses));
    const std::size_t count = smooth(channels, sites, scales);
    outcome.changed = count > 0;
    outcome.counts["smoothed"] = count;
    if (count == 0) outcome.layers.clear();
    return outcome;
  }

 private:
  static std::vector<double> scale_of(const SmoothingSite& site, const Calibration& calibration, double alpha,
                                      Outcome& outcome, std::vector<NearMiss>* near_misses) {
    const auto channels = static_cast<std::size_t>(site.readers[0].linear.in.count);
    std::vector<double> data(channels), weight(channels);
    for (const SmoothingSite::Reader& reader : site.readers) {
      const ValueStatistics* statistics = calibration.find(*reader.input);
      if (!statistics || statistics->channel_max.size() != channels) {
        if (near_misses)
          near_misses->push_back({std::string(pass_info.name), reader.linear.node->describe(),
                                  fmt::format("nothing was seen of the channels of '{}'", reader.input->name())});
        return {};
      }
      const std::vector<double> rows = channel_ranges(reader.linear, {}, {}).in;
      for (std::size_t c = 0; c < channels; ++c) {
        data[c] = std::max(data[c], magnitude(*statistics, c));
        weight[c] = std::max(weight[c], rows[c]);
      }
    }
    std::vector<double> scale(channels, 1.0);
    for (std::size_t c = 0; c < channels; ++c) {
      if (data[c] <= 0 || weight[c] <= 0 || !std::isfinite(data[c]) || !std::isfinite(weight[c])) continue;
      scale[c] = std::clamp(std::pow(data[c], alpha) / std::pow(weight[c], 1 - alpha), 1e-5, 1e5);
    }
    if (std::ranges::all_of(scale, [](double s) { return std::fabs(std::log(s)) < 0.05; })) return {};
    double before = 0, after = 0, sum_before = 0, sum_after = 0;
    for (std::size_t c = 0; c < channels; ++c) {
      before = std::max(before, data[c]);
      after = std::max(after, data[c] / scale[c]);
      sum_before += data[c];
      sum_after += data[c] / scale[c];
    }
    const auto spread = [&](double largest, double sum) { return sum > 0 ? largest * static_cast<double>(channels) / sum : 1; };
    for (const SmoothingSite::Reader& reader : site.readers)
      outcome.layers.push_back({{"node", reader.linear.node->name},
                                {"op", reader.linear.node->op_type()},
                                {"channels", channels},
                                {"taken_by", site.classes.empty() ? "a Mul" : "what is in front"},
                                {"scale_min", *std::ranges::min_element(scale)},
                                {"scale_max", *std::ranges::max_element(scale)},
                                {"input_peak_over_mean_before", spread(before, sum_before)},
                                {"input_peak_over_mean_after", spread(after, sum_after)}});
    return scale;
  }
};

}  // namespace

PASS(smooth_quant) { registry.add(std::make_unique<SmoothQuant>()); }

}  // namespace onnxpress
