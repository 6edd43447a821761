// Cross-layer equalization (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and
// Bias Correction", arXiv 1906.04721, section 4.1): channels between two linear operators are scaled so
// that each has as large a share of the one weight's range as of the other's.
//
// With r1 and r2 the largest magnitude of channel i in the weight that makes it and in the one that
// reads it, dividing the channel by s_i = sqrt(r1_i / r2_i) makes both sqrt(r1_i r2_i) (equation 11).
// Layers are done in turn until nothing moves. Here a channel may have several makers and readers (a
// residual sum, a concatenation, a branch): r1 and r2 are then the largest among them.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "passes/core/registry.h"
#include "passes/core/selector.h"
#include "passes/quantize/absorb_biases.h"
#include "passes/quantize/channel_classes.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "absorb",
     .kind = OptionSpec::Kind::choice,
     .default_value = "proven",
     .help = "move the part of a bias that a Relu never cuts into the next layer: proven by the signs of weights and "
             "inputs (absorb_biases moves what is likely)",
     .choices = "none|proven"},
    {.name = "select", .kind = OptionSpec::Kind::selector, .help = "linear operators to equalize; default: all"},
};

constexpr int most_sweeps = 100;
// A factor that is nearer to 1 is no change; sweeps end where none is further.
constexpr double smallest_change = 0.05, converged = 0.01;
constexpr double largest_scale = 0x1p60;

class Equalizer {
 public:
  Equalizer(const ChannelClasses& channels, const Selector& selector) : channels_(channels), scales_(channels.classes().size(), 1.0) {
    for (std::size_t number = 0; number < scales_.size(); ++number)
      if (is_wanted(channels.classes()[number], selector)) groups_[ends_of(channels.classes()[number])].push_back(number);
  }

  // Sweeps over the groups in order until no factor moves.
  const std::vector<double>& solve() {
    for (int sweep = 0; sweep < most_sweeps; ++sweep) {
      double moved = 0;
      for (const auto& [ends, numbers] : groups_) moved = std::max(moved, balance(ends, numbers));
      if (moved < std::log(1 + converged)) break;
    }
    const bool any = std::ranges::any_of(scales_, [](double s) { return std::fabs(std::log(s)) > std::log(1 + smallest_change); });
    if (!any) std::ranges::fill(scales_, 1.0);
    return scales_;
  }

 private:
  // Both sides are operators with weights or BatchNormalizations, all of them selected.
  bool is_wanted(const ChannelClass& of, const Selector& selector) const {
    bool has_weight = false;
    for (const auto* members : {&of.producers, &of.consumers}) {
      bool has_end = false;
      for (const ChannelClass::Member& member : *members) {
        const ScalingEnd& end = channels_.ends()[member.end];
        if (end.kind == ScalingEnd::Kind::add) continue;
        if (end.kind == ScalingEnd::Kind::norm || end.kind == ScalingEnd::Kind::multiply) return false;
        if (end.kind == ScalingEnd::Kind::linear && !selector.matches(*end.node)) return false;
        has_weight |= end.kind == ScalingEnd::Kind::linear;
        has_end = true;
      }
      if (!has_end) return false;
    }
    return has_weight;
  }

  static std::vector<std::size_t> ends_of(const ChannelClass& of) {
    std::set<std::size_t> ends;
    for (const auto* members : {&of.producers, &of.consumers})
      for (const ChannelClass::Member& member : *members) ends.insert(member.end);
    return {ends.begin(), ends.end()};
  }

  std::vector<double> factors(const std::vector<std::size_t>& classes, bool divided) const {
    std::vector<double> factor;
    for (const std::size_t number : classes) {
      const double scale = number == ChannelClasses::fixed ? 1.0 : scales_[number];
      factor.push_back(divided ? 1 / scale : scale);
    }
    return factor;
  }

  // What the channels of an end span with the factors as they are: of a weight its largest magnitudes;
  // what a BatchNormalization makes lies within 3 standard deviations of its mean.
  ChannelRanges ranges(const ScalingEnd& end) const {
    if (end.kind == ScalingEnd::Kind::linear)
      return channel_ranges(*end.linear, factors(end.out, true), factors(end.in, false));
    ChannelRanges found;
    if (end.kind != ScalingEnd::Kind::batch_norm) return found;
    const std::vector<float> gamma = end.node->input(1)->constant()->to_floats(), beta = end.node->input(2)->constant()->to_floats();
    const std::vector<double> by = factors(end.out, true);
    for (std::size_t c = 0; c < by.size(); ++c)
      found.out.push_back((3 * std::fabs(static_cast<double>(gamma[c])) + std::fabs(static_cast<double>(beta[c]))) * by[c]);
    return found;
  }

  // Moves the factors of the classes between these ends; returns the largest move, as a logarithm.
  double balance(const std::vector<std::size_t>& ends, const std::vector<std::size_t>& numbers) {
    std::map<std::size_t, ChannelRanges> spans;
    double largest_out = 0;
    for (const std::size_t end : ends) {
      spans.emplace(end, ranges(channels_.ends()[end]));
      for (const double range : spans[end].out) largest_out = std::max(largest_out, range);
    }
    double moved = 0;
    for (const std::size_t number : numbers) {
      const ChannelClass& of = channels_.classes()[number];
      double made = 0, read = 0;
      bool reads_weight = false;
      for (const ChannelClass::Member& member : of.producers)
        if (const auto& out = spans.at(member.end).out; !out.empty()) made = std::max(made, out[static_cast<std::size_t>(member.channel)]);
      for (const ChannelClass::Member& member : of.consumers)
        if (const auto& in = spans.at(member.end).in; !in.empty()) {
          read = std::max(read, in[static_cast<std::size_t>(member.channel)]);
          reads_weight = true;
        }
      // A BatchNormalization takes any factor: rows before it may all be as large as the largest.
      if (!reads_weight) read = made > 0 ? largest_out * largest_out / made : 0;
      if (made <= 0 || read <= 0 || !std::isfinite(made) || !std::isfinite(read)) continue;
      const double factor = reads_weight ? std::sqrt(made / read) : made / largest_out;
      const double scale = std::clamp(scales_[number] * factor, 1 / largest_scale, largest_scale);
      moved = std::max(moved, std::fabs(std::log(scale / scales_[number])));
      scales_[number] = scale;
    }
    return moved;
  }

  const ChannelClasses& channels_;
  std::vector<double> scales_;
  std::map<std::vector<std::size_t>, std::vector<std::size_t>> groups_;  // classes by their ends
};

// The mean over channels of how much of the weight's range each has (equation 8 and on).
double precision(const std::vector<double>& ranges) {
  const double largest = *std::ranges::max_element(ranges);
  double sum = 0;
  for (const double range : ranges) sum += largest > 0 ? range / largest : 1;
  return sum / static_cast<double>(ranges.size());
}

class Equalize : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "equalize",
      .summary = "scales channels between linear operators so that weights are alike in all of them; needs no data",
      .options = option_specs,
      .effect = Effect::rounding};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    const Selector selector(context.options.text("select"));
    Outcome outcome;
    const ChannelClasses channels = ChannelClasses::of(model, pass_info.name, context.near_misses);
    std::map<std::size_t, std::pair<double, double>> before;
    for (std::size_t i = 0; i < channels.ends().size(); ++i) before[i] = precisions(channels.ends()[i]);
    Equalizer equalizer(channels, selector);
    const std::vector<double>& scales = equalizer.solve();
    const bool scaled = channels.apply(scales);
    if (scaled) tell(channels, scales, before, outcome);
    const std::size_t absorbed =
        context.options.text("absorb") == "none" ? 0 : absorb_biases(model, selector, AbsorbWhat::proven).channels;
    outcome.counts["equalized"] = outcome.layers.size();
    outcome.counts["biases_absorbed"] = absorbed;
    outcome.changed = scaled || absorbed > 0;
    if (!outcome.changed) outcome.notes.emplace_back("no channels to equalize");
    return outcome;
  }

 private:
  static std::pair<double, double> precisions(const ScalingEnd& end) {
    if (end.kind != ScalingEnd::Kind::linear) return {1, 1};
    const ChannelRanges ranges = channel_ranges(*end.linear, {}, {});
    return {precision(ranges.out), precision(ranges.in)};
  }

  static void tell(const ChannelClasses& channels, const std::vector<double>& scales,
                   const std::map<std::size_t, std::pair<double, double>>& before, Outcome& outcome) {
    for (std::size_t i = 0; i < channels.ends().size(); ++i) {
      const ScalingEnd& end = channels.ends()[i];
      if (end.kind != ScalingEnd::Kind::linear) continue;
      std::size_t count = 0;
      double low = 1, high = 1;
      for (const auto* classes : {&end.out, &end.in})
        for (const std::size_t number : *classes) {
          if (number == ChannelClasses::fixed || scales[number] == 1.0) continue;
          low = std::min(low, scales[number]);
          high = std::max(high, scales[number]);
          ++count;
        }
      if (count == 0) continue;
      LinearOperator now = LinearOperator::of(*end.node);
      const ChannelRanges ranges = channel_ranges(now, {}, {});
      outcome.layers.push_back({{"node", end.node->name},
                                {"op", end.node->op_type()},
                                {"channels_scaled", count},
                                {"scale_min", low},
                                {"scale_max", high},
                                {"precision_out_before", before.at(i).first},
                                {"precision_out_after", precision(ranges.out)},
                                {"precision_in_before", before.at(i).second},
                                {"precision_in_after", precision(ranges.in)}});
    }
  }
};

}  // namespace

PASS(equalize) { registry.add(std::make_unique<Equalize>()); }

}  // namespace onnxpress
