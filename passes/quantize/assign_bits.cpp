// Mixed precision: widths chosen by measured sensitivity.
//
// Every unit is quantized alone at every candidate width, and the noise this makes in the model's
// outputs is measured. Noises of small errors add, so the widths that make the least noise within a
// size are a knapsack with one choice per unit; it is solved greedily along the lower convex hulls of
// noise over bytes (multiple-choice knapsack: Sinha and Zoltners 1979), which is within one step of the
// best. What was chosen is measured as a whole beside the uniform widths of no larger size, and the
// best of them is taken.
#include <algorithm>
#include <cmath>
#include <map>

#include "graph/base/error.h"
#include "passes/quantize/sensitivity.h"

namespace onnxpress {
namespace {

constexpr std::int64_t verification_samples = 2048;

// A width of one unit.
struct Choice {
  int bits = 0;
  double bytes = 0, noise = 0;
};

// From a unit's choice to the next smaller one on the hull.
struct Move {
  std::size_t unit = 0, to = 0;
  double slope = 0;  // noise per byte saved
};

std::vector<int> candidate_widths(const Model& model, const QuantizeRequest& request) {
  if (request.scheme == Scheme::dynamic) return {8};
  if (request.scheme == Scheme::static_ranges) {
    using Id = Target::Id;
    const Id id = request.target.id;
    return id == Id::qnn || id == Id::openvino || id == Id::generic ? std::vector<int>{16, 8} : std::vector<int>{8};
  }
  std::vector<int> widths{8, 4};
  QuantizeRequest narrow = request;
  narrow.automatic_bits = false;
  narrow.weight_bits = 2;
  try {
    if (weights_only_opset(model, narrow) <= model.graph.opset()) widths.push_back(2);
  } catch (const Error&) {
    // No form of 2 bits is within reach.
  }
  return widths;
}

// The choices of one unit by falling bytes, those left out that are above a line between two others.
std::vector<Choice> lower_hull(std::vector<Choice> choices) {
  std::ranges::sort(choices, [](const Choice& a, const Choice& b) { return a.bytes != b.bytes ? a.bytes > b.bytes : a.noise < b.noise; });
  std::vector<Choice> hull;
  for (const Choice& choice : choices) {
    if (!std::isfinite(choice.noise)) continue;
    // More bytes and no less noise.
    while (!hull.empty() && hull.back().noise >= choice.noise) hull.pop_back();
    if (!hull.empty() && hull.back().bytes == choice.bytes) continue;
    const auto slope = [](const Choice& a, const Choice& b) { return (b.noise - a.noise) / (a.bytes - b.bytes); };
    while (hull.size() >= 2 && slope(hull[hull.size() - 2], hull.back()) >= slope(hull.back(), choice)) hull.pop_back();
    hull.push_back(choice);
  }
  return hull;
}

class Assigner {
 public:
  Assigner(const Model& model, PassContext& context, const QuantizeRequest& request)
      : model_(model), context_(context), request_(request), trials_(model, context, request), widths_(candidate_widths(model, request)) {}

  BitsAssignment assign() {
    if (trials_.units().empty()) return {};
    measure();
    const std::vector<Move> moves = ordered_moves();
    if (request_.budget_bits)
      by_budget(moves);
    else
      by_drop(moves);
    tell();
    return std::move(result_);
  }

 private:
  using State = std::vector<std::size_t>;  // choice on its hull, by unit

  struct Picked {
    std::vector<BitsRule> rules;
    double bytes = 0;
    OutputQuality quality;
    std::string what;
  };

  void measure() {
    const std::size_t count = trials_.units().size() * widths_.size();
    const OutputJudge judge(model_, context_, affordable_samples(model_, count));
    if (judge.generated()) result_.notes.emplace_back("bits=auto: sensitivity was measured on random inputs: real ones may look otherwise");
    std::size_t done = 0;
    for (std::size_t unit = 0; unit < trials_.units().size(); ++unit) {
      const QuantizedUnit& of = trials_.units()[unit];
      std::vector<Choice> choices{{0, static_cast<double>(of.bytes_before), 0}};
      std::string text;
      for (const int bits : widths_) {
        if (context_.progress) context_.progress("measuring sensitivity", done++, count);
        const UnitSensitivity found = trials_.measure(unit, bits, judge);
        if (!found.failure.empty()) continue;
        choices.push_back({bits, static_cast<double>(found.bytes), found.quality.noise});
        text += fmt::format("{}{}: {:.1f} dB", text.empty() ? "" : ", ", bits, found.quality.snr_db());
      }
      for (const std::string& tensor : of.tensors) result_.sensitivity[tensor] = text;
      all_.push_back(choices);
      hulls_.push_back(lower_hull(std::move(choices)));
    }
    samples_ = judge.samples();
  }

  // Steps from the widest choices to the narrowest, the cheapest in noise first.
  std::vector<Move> ordered_moves() const {
    std::vector<Move> moves;
    for (std::size_t unit = 0; unit < hulls_.size(); ++unit)
      for (std::size_t to = 1; to < hulls_[unit].size(); ++to) {
        const Choice &from = hulls_[unit][to - 1], &next = hulls_[unit][to];
        moves.push_back({unit, to, (next.noise - from.noise) / (from.bytes - next.bytes)});
      }
    // Slopes of one hull rise, so its moves stay in order.
    std::ranges::stable_sort(moves, {}, &Move::slope);
    return moves;
  }

  State after(const std::vector<Move>& moves, std::size_t count) const {
    State state(hulls_.size(), 0);
    for (std::size_t i = 0; i < count; ++i) state[moves[i].unit] = moves[i].to;
    return state;
  }

  double bytes(const State& state) const {
    double sum = 0;
    for (std::size_t unit = 0; unit < state.size(); ++unit) sum += hulls_[unit][state[unit]].bytes;
    return sum;
  }

  double elements() const {
    double sum = 0;
    for (const QuantizedUnit& unit : trials_.units()) sum += static_cast<double>(unit.elements);
    return sum;
  }

  std::vector<BitsRule> rules(const State& state) const {
    std::vector<BitsRule> rules;
    for (std::size_t unit = 0; unit < state.size(); ++unit)
      rules.push_back({trials_.units()[unit].selector, hulls_[unit][state[unit]].bits});
    return rules;
  }

  // One width for all that have it; nothing when some have not and stay float.
  std::optional<std::pair<std::vector<BitsRule>, double>> uniform(int bits) const {
    std::vector<BitsRule> rules;
    double sum = 0;
    for (std::size_t unit = 0; unit < all_.size(); ++unit) {
      const auto found = std::ranges::find(all_[unit], bits, &Choice::bits);
      if (found == all_[unit].end()) return std::nullopt;
      rules.push_back({trials_.units()[unit].selector, bits});
      sum += found->bytes;
    }
    return std::pair(rules, sum);
  }

  void by_budget(const std::vector<Move>& moves) {
    const double budget = *request_.budget_bits * elements() / 8;
    std::size_t count = 0;
    State state = after(moves, 0);
    while (bytes(state) > budget && count < moves.size()) state = after(moves, ++count);
    require(bytes(state) <= budget, "option 'budget': {} bits per weight is less than the narrowest widths take ({:.2f}, scales included)",
            *request_.budget_bits, bytes(state) * 8 / elements());
    fill_up(state, budget);
    const OutputJudge judge(model_, context_, std::min(verification_samples, 8 * samples_));
    Picked best = picked(state, judge);
    for (const int bits : widths_) {
      const auto same = uniform(bits);
      if (!same || same->second > budget) continue;
      const Picked candidate{same->first, same->second, judge.judge(*trials_.run(same->first).model), fmt::format("{} bits everywhere", bits)};
      result_.notes.push_back(fmt::format("bits=auto: {} bits everywhere would take {:.2f} bits per weight at {:.1f} dB", bits,
                                          candidate.bytes * 8 / elements(), candidate.quality.snr_db()));
      if (candidate.quality.noise < best.quality.noise) best = candidate;
    }
    take(best);
  }

  // Bytes that are left go where they take away the most noise.
  void fill_up(State& state, double budget) const {
    for (;;) {
      const double left = budget - bytes(state);
      std::size_t best = state.size();
      double gain = 0;
      for (std::size_t unit = 0; unit < state.size(); ++unit) {
        if (state[unit] == 0) continue;
        const Choice &now = hulls_[unit][state[unit]], &wider = hulls_[unit][state[unit] - 1];
        if (wider.bytes - now.bytes > left || now.noise - wider.noise <= gain) continue;
        gain = now.noise - wider.noise;
        best = unit;
      }
      if (best == state.size()) return;
      --state[best];
    }
  }

  // The most moves whose model loses no more than is allowed.
  void by_drop(const std::vector<Move>& moves) {
    const double allowed = *request_.max_drop;
    const OutputJudge judge(model_, context_, verification_samples);
    require(judge.original().agreement.has_value(), "bits=auto with a bound for what is lost (max_drop, --max-drop) needs an output of class scores, [samples,classes], found none: "
            "budget=4.5bpw needs none");
    if (!judge.original().accuracy)
      result_.notes.emplace_back("bits=auto: the calibration data has no labels: agreement with the original stands for accuracy");
    const auto try_moves = [&](std::size_t count) { return picked(after(moves, count), judge); };
    std::size_t low = 0, high = moves.size();
    Picked best = try_moves(0);
    while (low < high) {
      const std::size_t middle = low + (high - low + 1) / 2;
      if (context_.progress) context_.progress("choosing widths", low, moves.size());
      Picked found = try_moves(middle);
      if (found.quality.drop(judge.original()).value_or(1) <= allowed + 1e-12) {
        best = std::move(found);
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    if (request_.scheme == Scheme::weights && std::ranges::find(widths_, 2) == widths_.end())
      result_.notes.push_back(fmt::format("bits=auto: 2 bits were not tried: they need opset {}, which upgrade_opset{{target={}}} before gives",
                                          first_opset(DType::int2), first_opset(DType::int2)));
    result_.notes.push_back(fmt::format("bits=auto: loses {:.2f} points of {} on {} calibration samples, {:.2f} allowed",
                                        100 * std::max(best.quality.drop(judge.original()).value_or(0), 0.0),
                                        judge.original().accuracy ? "accuracy" : "agreement", judge.samples(), 100 * allowed));
    take(best);
  }

  Picked picked(const State& state, const OutputJudge& judge) {
    std::vector<BitsRule> chosen = rules(state);
    const int bits = chosen[0].bits;
    const bool is_uniform = std::ranges::all_of(chosen, [&](const BitsRule& rule) { return rule.bits == bits; });
    const OutputQuality quality = judge.judge(*trials_.run(chosen).model);
    return {std::move(chosen), bytes(state), quality,
            !is_uniform ? "mixed" : bits == 0 ? "all in float" : fmt::format("{} bits everywhere", bits)};
  }

  void take(const Picked& picked) {
    result_.rules = picked.rules;
    result_.notes.push_back(fmt::format("bits=auto: {}, {:.2f} bits per weight with scales, outputs at {:.1f} dB",
                                        picked.what, picked.bytes * 8 / elements(), picked.quality.snr_db()));
  }

  void tell() {
    std::map<int, std::size_t> counts;
    for (const BitsRule& rule : result_.rules) ++counts[rule.bits];
    std::string text;
    for (const auto& [bits, count] : counts)
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, bits == 0 ? std::string("in float") : fmt::format("at {} bits", bits));
    result_.notes.push_back(fmt::format("bits=auto: {}; sensitivity measured on {} samples", text, samples_));
  }

  const Model& model_;
  PassContext& context_;
  const QuantizeRequest& request_;
  QuantizationTrials trials_;
  std::vector<int> widths_;
  std::vector<std::vector<Choice>> all_, hulls_;  // by unit
  std::int64_t samples_ = 0;
  BitsAssignment result_;
};

}  // namespace

int narrowest_automatic_bits(const QuantizeRequest& request) {
  if (request.scheme != Scheme::weights) return 8;
  // 2-bit types ask for opset 25: only where the budget cannot do without them.
  return request.budget_bits && *request.budget_bits < 5 ? 2 : 4;
}

void check_automatic_bits(const QuantizeRequest& request) {
  require(request.budget_bits || request.max_drop, "bits=auto: expected budget=4.5bpw, max_drop=0.5% or --max-drop 0.5%, found none");
}

BitsAssignment assign_bits(const Model& model, PassContext& context, const QuantizeRequest& request) {
  check_automatic_bits(request);
  return Assigner(model, context, request).assign();
}

}  // namespace onnxpress
