// Unstructured magnitude pruning: the smallest weights become zero (Han et al. 2015, "Learning both
// Weights and Connections for Efficient Neural Networks").
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "graph/base/convert.h"
#include "graph/rewrite/patch.h"
#include "graph/ops/channel_affine.h"
#include "passes/common/weights.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "sparsity",
     .kind = OptionSpec::Kind::number,
     .help = "share of the weights that is zero afterwards, 0 to 1",
     .min = 0,
     .max = 1},
    {.name = "threshold",
     .kind = OptionSpec::Kind::number,
     .help = "weights of smaller magnitude become zero (instead of sparsity)",
     .min = 0,
     .max = std::numeric_limits<float>::max()},
    {.name = "scope",
     .kind = OptionSpec::Kind::choice,
     .default_value = "global",
     .help = "what reaches the sparsity: all weights together, each layer, each output channel; not with threshold",
     .choices = "global|layer|channel"},
    {.name = "select",
     .kind = OptionSpec::Kind::selector,
     .help = "nodes or tensors to prune; default: every Conv, ConvTranspose, Gemm and MatMul weight"},
};

// Orders magnitudes as the bits of a float64; NaN is above everything.
using Key = std::uint64_t;

class Magnitudes {
 public:
  explicit Magnitudes(const Tensor& tensor) : type_(tensor.dtype()), bytes_(tensor.bytes().data()) {}

  Key key(std::int64_t index) const { return std::bit_cast<Key>(std::fabs(value(index))); }

 private:
  template <class T>
  T load(std::int64_t index) const {
    T loaded;
    std::memcpy(&loaded, bytes_ + index * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    return loaded;
  }
  double value(std::int64_t index) const {
    switch (type_) {
      case DType::float16: return static_cast<double>(half_to_float(load<std::uint16_t>(index)));
      case DType::bfloat16: return static_cast<double>(bfloat16_to_float(load<std::uint16_t>(index)));
      case DType::float64: return load<double>(index);
      default: return static_cast<double>(load<float>(index));
    }
  }

  DType type_;
  const std::byte* bytes_;
};

// Consecutive elements of one weight.
struct Run {
  std::size_t weight;
  std::int64_t begin, count;
};

// Elements to zero: all with a key below `key`, and of those equal to it the first `ties`.
struct Cut {
  Key key = 0;
  std::int64_t ties = 0;
};

std::int64_t elements(const std::vector<Run>& runs) {
  std::int64_t total = 0;
  for (const Run& run : runs) total += run.count;
  return total;
}

// The cut that takes the `count` smallest elements of `runs`: a partial sort of few (the channels of
// a layer are many and small), histograms of 2^16 bins, one per 16 bits of the keys, of many.
Cut smallest(const std::vector<Magnitudes>& weights, const std::vector<Run>& runs, std::int64_t count) {
  constexpr std::int64_t few = 65536;
  const auto each_key = [&](auto&& fn) {
    for (const Run& run : runs)
      for (std::int64_t i = run.begin; i < run.begin + run.count; ++i) fn(weights[run.weight].key(i));
  };
  const std::int64_t total = elements(runs);
  if (count >= total) return {.key = std::numeric_limits<Key>::max()};
  if (total <= few) {
    std::vector<Key> keys;
    keys.reserve(static_cast<std::size_t>(total));
    each_key([&](Key key) { keys.push_back(key); });
    std::nth_element(keys.begin(), keys.begin() + count, keys.end());
    const Key cut = keys[static_cast<std::size_t>(count)];
    const auto below = std::count_if(keys.begin(), keys.end(), [cut](Key key) { return key < cut; });
    return {.key = cut, .ties = count - below};
  }
  Key prefix = 0;
  for (int shift = 48; shift >= 0; shift -= 16) {
    std::vector<std::int64_t> bins(65536, 0);
    each_key([&](Key key) {
      const Key rest = key >> shift;
      if ((rest >> 16) == prefix) ++bins[rest & 0xFFFF];
    });
    Key bin = 0;
    while (bins[bin] <= count) count -= bins[bin++];
    prefix = (prefix << 16) | bin;
  }
  return {.key = prefix, .ties = count};
}

// Elements of one weight that a cut has zeroed.
struct Pruned {
  Tensor tensor;
  std::int64_t changed = 0;
  double threshold = 0;  // the largest cut that reached into the tensor
};

void zero_below(const std::vector<Magnitudes>& keys, const std::vector<Run>& runs, Cut cut,
                std::vector<Pruned>& pruned) {
  for (const Run& run : runs) {
    Pruned& target = pruned[run.weight];
    target.threshold = std::max(target.threshold, std::bit_cast<double>(cut.key));
    const std::size_t width = static_cast<std::size_t>(bits(target.tensor.dtype())) / 8;
    std::byte* bytes = target.tensor.mutable_bytes().data();
    for (std::int64_t i = run.begin; i < run.begin + run.count; ++i) {
      const Key key = keys[run.weight].key(i);
      if (key > cut.key || (key == cut.key && cut.ties-- <= 0)) continue;
      std::byte* element = bytes + static_cast<std::size_t>(i) * width;
      target.changed += std::any_of(element, element + width, [](std::byte b) { return b != std::byte{0}; });
      std::memset(element, 0, width);
    }
  }
}

// Runs that reach the sparsity together, one list per group.
std::vector<std::vector<Run>> groups_of(const std::vector<Weight>& weights, const std::string& scope) {
  std::vector<std::vector<Run>> groups;
  if (scope == "global") groups.emplace_back();
  for (std::size_t w = 0; w < weights.size(); ++w) {
    const Tensor& tensor = *weights[w].value->constant();
    const Run whole{w, 0, tensor.size()};
    if (scope == "global") {
      groups[0].push_back(whole);
    } else if (scope == "layer" || !weights[w].channel_axis) {
      groups.push_back({whole});
    } else {
      const std::int64_t axis = *weights[w].channel_axis;
      const std::size_t first = groups.size();
      groups.resize(first + static_cast<std::size_t>(tensor.dim(static_cast<std::size_t>(axis))));
      for_each_channel_run(tensor.dims(), axis, [&](std::int64_t channel, std::int64_t begin, std::int64_t count) {
        groups[first + static_cast<std::size_t>(channel)].push_back({w, begin, count});
      });
    }
  }
  return groups;
}

class PruneMagnitude : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "prune_magnitude",
      .summary = "zeroes the weights of smallest magnitude",
      .options = option_specs,
      .effect = Effect::lossy};

  const PassInfo& info() const override { return pass_info; }

  void check(const Options& given) const override {
    require(given.given("sparsity") != given.given("threshold"),
            "pass 'prune_magnitude': expected one of the options 'sparsity' and 'threshold', found {}",
            given.given("sparsity") ? "both" : "neither");
    require(!given.given("scope") || !given.given("threshold"),
            "pass 'prune_magnitude': 'scope' says what reaches a sparsity; it means nothing with 'threshold'");
  }

  Outcome run(Model& model, PassContext& context) const override {
    const Selector selector(context.options.text("select"));
    const std::vector<Weight> weights =
        collect_weights(model, WeightKinds::linear, selector, pass_info.name, context.near_misses);
    std::vector<Magnitudes> keys;
    std::vector<Pruned> pruned;
    for (const Weight& weight : weights) {
      keys.emplace_back(*weight.value->constant());
      pruned.push_back({.tensor = *weight.value->constant()});
    }
    const std::string scope = context.options.given("threshold") ? "global" : context.options.text("scope");
    for (const std::vector<Run>& runs : groups_of(weights, scope)) {
      const std::int64_t total = elements(runs);
      if (total == 0) continue;
      Cut cut;
      if (context.options.given("threshold")) {
        // As a float32, so that a weight written like the threshold is not below it.
        const auto threshold = static_cast<float>(context.options.number("threshold"));
        cut.key = std::bit_cast<Key>(static_cast<double>(threshold));
      } else {
        const double wanted = context.options.number("sparsity") * static_cast<double>(total);
        const auto count = static_cast<std::int64_t>(std::llround(wanted));
        if (count == 0) continue;
        cut = smallest(keys, runs, count);
      }
      zero_below(keys, runs, cut, pruned);
    }
    return finish(weights, pruned);
  }

 private:
  static Outcome finish(const std::vector<Weight>& weights, std::vector<Pruned>& pruned) {
    Outcome outcome;
    std::int64_t zeros = 0, all = 0, changed = 0;
    for (std::size_t w = 0; w < weights.size(); ++w) {
      const std::int64_t size = pruned[w].tensor.size();
      const std::int64_t in_tensor = count_zeros(pruned[w].tensor);
      outcome.layers.push_back({{"tensor", weights[w].value->name()},
                                {"node", weights[w].node->name},
                                {"op", weights[w].node->op_type()},
                                {"elements", size},
                                {"zeros", in_tensor},
                                {"sparsity", size ? double(in_tensor) / double(size) : 0.0},
                                {"threshold", pruned[w].threshold}});
      zeros += in_tensor;
      all += size;
      changed += pruned[w].changed;
      if (pruned[w].changed == 0) continue;
      Patch patch(weights[w].value->graph());
      patch.set_constant(weights[w].value, std::move(pruned[w].tensor));
      patch.apply();
    }
    outcome.changed = changed > 0;
    outcome.counts = {{"weights", std::ssize(weights)}, {"elements", all}, {"zeros", zeros}, {"zeroed", changed}};
    const double percent = 100.0 * double(zeros) / double(std::max<std::int64_t>(all, 1));
    outcome.notes.push_back(
        weights.empty() ? fmt::format("no weight to prune")
                        : fmt::format("{} of {} weights are zero ({:.1f} %); the file stays as large until zeros "
                                      "are stored compactly or compressed", zeros, all, percent));
    return outcome;
  }

  static std::int64_t count_zeros(const Tensor& tensor) {
    const Magnitudes keys(tensor);
    std::int64_t zeros = 0;
    for (std::int64_t i = 0; i < tensor.size(); ++i) zeros += keys.key(i) == 0;
    return zeros;
  }
};

}  // namespace

PASS(prune_magnitude) { registry.add(std::make_unique<PruneMagnitude>()); }

}  // namespace onnxpress
