// Losses over classes.
#include "graph/ops/training_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/gradient_tools.h"

namespace onnxpress {
namespace {

const std::string domain(training_domain);

struct ClassLossAttrs {
  std::optional<std::int64_t> axis, ignored;
  double smoothing = 0, temperature = 1;

  static ClassLossAttrs from(const Node& node) {
    ClassLossAttrs attrs{.axis = find_int(node, "axis"),
                         .ignored = find_int(node, "ignore_index"),
                         .smoothing = double{get_float(node, "label_smoothing", 0)},
                         .temperature = double{get_float(node, "temperature", 1)}};
    require(attrs.smoothing >= 0 && attrs.smoothing < 1,
            "attribute 'label_smoothing': expected a number from 0 to below 1, found {}",
            attrs.smoothing);
    require(attrs.temperature > 0, "attribute 'temperature': expected a number above 0, found {}",
            attrs.temperature);
    return attrs;
  }
};

// log(sum exp(x / t)) of a line.
template <class T>
double log_sum(const T* x, const ClassLines& lines, double temperature) {
  double largest = -std::numeric_limits<double>::infinity();
  for (std::int64_t k = 0; k < lines.classes; ++k)
    largest = std::max(largest, static_cast<double>(x[k * lines.step]));
  double sum = 0;
  for (std::int64_t k = 0; k < lines.classes; ++k)
    sum += std::exp((static_cast<double>(x[k * lines.step]) - largest) / temperature);
  return largest / temperature + std::log(sum);
}

// What each class of a line should have; false where the line does not count. t and x as floats.
template <class T>
class Targets {
 public:
  Targets(const Tensor& targets, const ClassLines& lines, const ClassLossAttrs& attrs,
          bool are_logits)
      : lines_(lines), attrs_(attrs), are_logits_(are_logits) {
    if (lines.has_labels)
      labels_ = targets.to_ints();
    else
      values_ = targets.data<T>().data();
  }

  bool counts(std::int64_t line) const {
    return !lines_.has_labels || !attrs_.ignored ||
           labels_[static_cast<std::size_t>(line)] != *attrs_.ignored;
  }
  std::int64_t counted() const {
    std::int64_t count = 0;
    for (std::int64_t line = 0; line < lines_.lines; ++line) count += counts(line);
    return count;
  }

  void read(std::int64_t line, std::vector<double>& wanted) const {
    wanted.assign(static_cast<std::size_t>(lines_.classes), 0);
    const auto classes = static_cast<double>(lines_.classes);
    if (lines_.has_labels) {
      const std::int64_t label = labels_[static_cast<std::size_t>(line)];
      require(label >= 0 && label < lines_.classes, "expected a label from 0 to {}, found {}",
              lines_.classes - 1, label);
      wanted[static_cast<std::size_t>(label)] = 1;
    } else {
      const T* const from = values_ + lines_.start(line);
      const double shift = are_logits_ ? log_sum(from, lines_, attrs_.temperature) : 0;
      for (std::size_t k = 0; k < wanted.size(); ++k) {
        const auto value = static_cast<double>(from[static_cast<std::int64_t>(k) * lines_.step]);
        wanted[k] = are_logits_ ? std::exp(value / attrs_.temperature - shift) : value;
      }
    }
    if (attrs_.smoothing == 0) return;
    for (double& share : wanted)
      share = share * (1 - attrs_.smoothing) + attrs_.smoothing / classes;
  }

 private:
  const ClassLines& lines_;
  const ClassLossAttrs& attrs_;
  bool are_logits_;
  std::vector<std::int64_t> labels_;
  const T* values_ = nullptr;
};

constexpr std::int64_t lines_at_a_time = 32;

// Labels as they are, probabilities of the logits' type.
Tensor as_targets(const Tensor& given, DType type) {
  return is_float(given.dtype()) ? given.cast(type) : given;
}

// -sum t log p of a line; less the targets' entropy for Distillation, which is a divergence.
template <class T, bool is_distillation>
double line_loss(const T* x, const std::vector<double>& wanted, const ClassLines& lines,
                 double temperature) {
  const double shift = log_sum(x, lines, temperature);
  double loss = 0;
  for (std::size_t k = 0; k < wanted.size(); ++k) {
    if (wanted[k] == 0) continue;
    const double p = static_cast<double>(x[static_cast<std::int64_t>(k) * lines.step]) / temperature - shift;
    loss -= wanted[k] * (is_distillation ? p - std::log(wanted[k]) : p);
  }
  return loss * temperature * temperature;
}

template <bool is_distillation>
Kernel prepare_class_loss(const PrepareContext& plan) {
  return [attrs = ClassLossAttrs::from(plan.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor t = as_targets(inner.required_input(1), x.dtype());
      const ClassLines lines = ClassLines::of(x.dims(), t.dims(), !is_float(t.dtype()), attrs.axis);
      Tensor& y = inner.output(0, x.dtype(), {});
      dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
        const Targets<T> targets(t, lines, attrs, is_distillation);
        const T* const in = x.data<T>().data();
        const std::int64_t blocks = (lines.lines + lines_at_a_time - 1) / lines_at_a_time;
        std::vector<double> sums(static_cast<std::size_t>(blocks), 0);
        inner.pool().parallel_for(
            lines.lines, lines_at_a_time, [&](std::int64_t begin, std::int64_t end) {
              std::vector<double> wanted;
              double sum = 0;
              for (std::int64_t line = begin; line < end; ++line) {
                if (!targets.counts(line)) continue;
                targets.read(line, wanted);
                sum += line_loss<T, is_distillation>(in + lines.start(line), wanted, lines,
                                                     attrs.temperature);
              }
              sums[static_cast<std::size_t>(begin / lines_at_a_time)] = sum;
            });
        double total = 0;
        for (const double sum : sums) total += sum;
        y.mutable_data<T>()[0] = static_cast<T>(total / static_cast<double>(targets.counted()));
      });
    });
  };
}

// dx = (softmax(x / T) sum t - t) T, by line: for T = 1 and probabilities p - t.
template <bool is_distillation>
BackwardKernel prepare_class_gradient(const PrepareContext& plan) {
  return [attrs = ClassLossAttrs::from(plan.node())](BackwardContext& context) {
    require(!context.wants_gradient(1), "no gradient goes through the targets");
    const Tensor& x = context.required_input(0);
    const Tensor t = as_targets(context.required_input(1), x.dtype());
    const ClassLines lines = ClassLines::of(x.dims(), t.dims(), !is_float(t.dtype()), attrs.axis);
    Tensor& dx = context.gradient(0);
    dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
      const Targets<T> targets(t, lines, attrs, is_distillation);
      const T* const in = x.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      const double factor = static_cast<double>(context.required_gradient(0).data<T>()[0]) *
                            attrs.temperature / static_cast<double>(targets.counted());
      context.pool().parallel_for(
          lines.lines, lines_at_a_time, [&](std::int64_t begin, std::int64_t end) {
            std::vector<double> wanted;
            for (std::int64_t line = begin; line < end; ++line) {
              const T* const from = in + lines.start(line);
              T* const to = out + lines.start(line);
              if (!targets.counts(line)) {
                for (std::int64_t k = 0; k < lines.classes; ++k) to[k * lines.step] = T(0);
                continue;
              }
              targets.read(line, wanted);
              double total = 0;
              for (const double share : wanted) total += share;
              const double shift = log_sum(from, lines, attrs.temperature);
              for (std::int64_t k = 0; k < lines.classes; ++k) {
                const double p =
                    std::exp(static_cast<double>(from[k * lines.step]) / attrs.temperature - shift);
                to[k * lines.step] =
                    static_cast<T>(factor * (p * total - wanted[static_cast<std::size_t>(k)]));
              }
            }
          });
    });
  };
}

void infer_scalar(InferContext& context) { context.set_output(0, context.input_dtype(0), Shape{}); }

}  // namespace

ClassLines ClassLines::of(const Dims& logits, const Dims& targets, bool has_labels,
                          std::optional<std::int64_t> axis) {
  require(!logits.empty(), "expected logits of at least one axis, found a scalar");
  const auto without = [&](std::size_t at) {
    Dims dims = logits;
    dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(at));
    return dims;
  };
  std::size_t at = logits.size() - 1;
  if (axis)
    at = static_cast<std::size_t>(normalize_axis(*axis, logits.size()));
  else if (logits.size() > 2 && (has_labels ? targets == without(1) : true))
    at = 1;
  const Dims expected = has_labels ? without(at) : logits;
  require(targets == expected, "expected {} {} for logits {}, found {}",
          has_labels ? "labels" : "probabilities", to_string(expected), to_string(logits),
          to_string(targets));
  const std::int64_t size = element_count(logits);
  return {.classes = logits[at],
          .lines = logits[at] == 0 ? 0 : size / logits[at],
          .step = element_count(std::span(logits).subspan(at + 1)),
          .has_labels = has_labels};
}

OPERATORS(training_class_losses) {
  registry.add(OpDef{.name = "CrossEntropy",
                     .domain = domain,
                     .infer = infer_scalar,
                     .prepare = prepare_class_loss<false>});
  registry.add(OpDef{.name = "Distillation",
                     .domain = domain,
                     .infer = infer_scalar,
                     .prepare = prepare_class_loss<true>});
  registry.add(GradientDef{.name = "CrossEntropy",
                           .domain = domain,
                           .prepare = prepare_class_gradient<false>,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0});
  registry.add(GradientDef{.name = "Distillation",
                           .domain = domain,
                           .prepare = prepare_class_gradient<true>,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0});
}

}  // namespace onnxpress
