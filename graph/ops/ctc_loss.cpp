// CtcLoss by the forward-backward algorithm, in logarithms: Graves, Fernandez, Gomez and
// Schmidhuber 2006, "Connectionist Temporal Classification", sections 4.1 and 4.2.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

constexpr double impossible = -std::numeric_limits<double>::infinity();

double add_logarithms(double a, double b) {
  const double larger = std::max(a, b);
  if (larger == impossible) return impossible;
  return larger + std::log1p(std::exp(std::min(a, b) - larger));
}

struct CtcCall {
  std::int64_t steps, batch, classes, blank;
  std::int64_t step_stride, batch_stride;  // of the logits, in elements
  std::vector<std::vector<std::int64_t>> labels;  // by sequence: the target between blanks
  std::vector<std::int64_t> lengths;              // of each sequence of logits
  std::vector<double> weights;                    // by sequence: 1 / (batch * target length)

  CtcCall(const Node& node, const Dims& logits, const Tensor& targets, const Tensor* input_lengths,
          const Tensor* target_lengths) {
    require(logits.size() == 3, "expected logits of 3 axes, found {}", to_string(logits));
    const bool batch_first = get_bool(node, "batch_first", false);
    steps = logits[batch_first ? 1 : 0];
    batch = logits[batch_first ? 0 : 1];
    classes = logits[2];
    step_stride = batch_first ? classes : batch * classes;
    batch_stride = batch_first ? steps * classes : classes;
    blank = get_int(node, "blank", 0);
    require(blank >= 0 && blank < classes, "attribute 'blank': expected a class from 0 to {}, found {}",
            classes - 1, blank);
    require(targets.rank() == 2 && targets.dim(0) == batch, "expected targets [{},L], found {}",
            batch, to_string(targets.dims()));
    const std::vector<std::int64_t> symbols = targets.to_ints();
    const std::int64_t width = targets.dim(1);
    lengths = lengths_of(input_lengths, steps, "logits");
    const std::vector<std::int64_t> sizes = lengths_of(target_lengths, width, "targets");
    for (std::int64_t n = 0; n < batch; ++n) {
      const std::int64_t size = sizes[static_cast<std::size_t>(n)];
      std::vector<std::int64_t>& line = labels.emplace_back();
      for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t symbol = symbols[static_cast<std::size_t>(n * width + i)];
        require(symbol >= 0 && symbol < classes && symbol != blank,
                "expected a target from 0 to {} other than the blank {}, found {}", classes - 1,
                blank, symbol);
        line.push_back(blank);
        line.push_back(symbol);
      }
      line.push_back(blank);
      weights.push_back(1 / (static_cast<double>(batch) *
                             static_cast<double>(std::max<std::int64_t>(size, 1))));
    }
  }

 private:
  std::vector<std::int64_t> lengths_of(const Tensor* given, std::int64_t most,
                                       const char* what) const {
    if (given == nullptr) return std::vector<std::int64_t>(static_cast<std::size_t>(batch), most);
    std::vector<std::int64_t> values = given->to_ints();
    require(std::ssize(values) == batch, "expected {} lengths of {}, found {}", batch, what,
            values.size());
    for (const std::int64_t value : values)
      require(value >= 0 && value <= most, "expected lengths of {} from 0 to {}, found {}", what,
              most, value);
    return values;
  }
};

// One sequence: log-probabilities, and the lattice of paths forward and back.
class CtcLattice {
 public:
  template <class T>
  CtcLattice(const CtcCall& call, std::int64_t n, const T* logits)
      : call_(call),
        labels_(call.labels[static_cast<std::size_t>(n)]),
        steps_(call.lengths[static_cast<std::size_t>(n)]),
        states_(std::ssize(labels_)),
        log_p_(static_cast<std::size_t>(steps_ * call.classes)) {
    for (std::int64_t t = 0; t < steps_; ++t) {
      const T* const x = logits + t * call.step_stride + n * call.batch_stride;
      const auto largest = static_cast<double>(*std::max_element(x, x + call.classes));
      double sum = 0;
      for (std::int64_t k = 0; k < call.classes; ++k)
        sum += std::exp(static_cast<double>(x[k]) - largest);
      for (std::int64_t k = 0; k < call.classes; ++k)
        log_p_[index(t, k, call.classes)] = static_cast<double>(x[k]) - largest - std::log(sum);
    }
    run_forward();
  }

  double log_likelihood() const { return log_likelihood_; }
  double log_p(std::int64_t t, std::int64_t k) const { return log_p_[index(t, k, call_.classes)]; }

  // Of every class at every step: the probability, given the target, that the path is there.
  std::vector<double> occupation() const {
    std::vector<double> result(log_p_.size(), impossible);
    std::vector<double> beta(static_cast<std::size_t>(states_), impossible);
    for (std::int64_t t = steps_; t-- > 0;) {
      std::vector<double> next(beta.size(), impossible);
      for (std::int64_t s = 0; s < states_; ++s) {
        double sum = impossible;
        if (t + 1 == steps_) {
          if (s + 2 >= states_) sum = 0;
        } else {
          const auto behind = [&](std::int64_t to) {
            return beta[static_cast<std::size_t>(to)] + emission(t + 1, to);
          };
          sum = behind(s);
          if (s + 1 < states_) sum = add_logarithms(sum, behind(s + 1));
          if (s + 2 < states_ && may_skip_to(s + 2)) sum = add_logarithms(sum, behind(s + 2));
        }
        next[static_cast<std::size_t>(s)] = sum;
        double& total = result[index(t, labels_[static_cast<std::size_t>(s)], call_.classes)];
        total = add_logarithms(total, alpha_[index(t, s, states_)] + sum - log_likelihood_);
      }
      beta = std::move(next);
    }
    for (double& value : result) value = std::exp(value);
    return result;
  }

 private:
  static std::size_t index(std::int64_t row, std::int64_t column, std::int64_t width) {
    return static_cast<std::size_t>(row * width + column);
  }
  double emission(std::int64_t t, std::int64_t s) const {
    return log_p(t, labels_[static_cast<std::size_t>(s)]);
  }
  // From the symbol before, over the blank between two that differ.
  bool may_skip_to(std::int64_t s) const {
    const auto at = static_cast<std::size_t>(s);
    return labels_[at] != call_.blank && labels_[at] != labels_[at - 2];
  }

  void run_forward() {
    alpha_.assign(static_cast<std::size_t>(steps_ * states_), impossible);
    for (std::int64_t t = 0; t < steps_; ++t)
      for (std::int64_t s = 0; s < states_; ++s) {
        double sum = impossible;
        if (t == 0) {
          if (s < 2) sum = 0;
        } else {
          sum = alpha_[index(t - 1, s, states_)];
          if (s > 0) sum = add_logarithms(sum, alpha_[index(t - 1, s - 1, states_)]);
          if (s > 1 && may_skip_to(s)) sum = add_logarithms(sum, alpha_[index(t - 1, s - 2, states_)]);
        }
        alpha_[index(t, s, states_)] = sum + emission(t, s);
      }
    log_likelihood_ = states_ == 1 && steps_ == 0 ? 0 : impossible;
    if (steps_ == 0) return;
    log_likelihood_ = alpha_[index(steps_ - 1, states_ - 1, states_)];
    if (states_ > 1)
      log_likelihood_ = add_logarithms(log_likelihood_, alpha_[index(steps_ - 1, states_ - 2, states_)]);
  }

  const CtcCall& call_;
  const std::vector<std::int64_t>& labels_;
  std::int64_t steps_, states_;
  std::vector<double> log_p_, alpha_;
  double log_likelihood_ = impossible;
};

Kernel prepare_ctc(const PrepareContext& plan) {
  return [&node = plan.node()](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const CtcCall call(node, x.dims(), inner.required_input(1), inner.input(2), inner.input(3));
      Tensor& y = inner.output(0, x.dtype(), {});
      dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
        const T* const logits = x.data<T>().data();
        std::vector<double> losses(static_cast<std::size_t>(call.batch), 0);
        inner.pool().parallel_for(call.batch, 1, [&](std::int64_t n, std::int64_t) {
          const double found = CtcLattice(call, n, logits).log_likelihood();
          if (found != impossible)
            losses[static_cast<std::size_t>(n)] = -found * call.weights[static_cast<std::size_t>(n)];
        });
        double total = 0;
        for (const double loss : losses) total += loss;
        y.mutable_data<T>()[0] = static_cast<T>(total);
      });
    });
  };
}

BackwardKernel prepare_ctc_gradient(const PrepareContext& plan) {
  return [&node = plan.node()](BackwardContext& context) {
    const Tensor& x = context.required_input(0);
    const CtcCall call(node, x.dims(), context.required_input(1), context.input(2),
                       context.input(3));
    Tensor& dx = context.gradient(0);
    dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const logits = x.data<T>().data();
      const auto out = dx.mutable_data<T>();
      std::ranges::fill(out, T(0));
      const auto g = static_cast<double>(context.required_gradient(0).data<T>()[0]);
      context.pool().parallel_for(call.batch, 1, [&](std::int64_t n, std::int64_t) {
        const CtcLattice lattice(call, n, logits);
        if (lattice.log_likelihood() == impossible) return;
        const std::vector<double> occupation = lattice.occupation();
        const double factor = g * call.weights[static_cast<std::size_t>(n)];
        for (std::int64_t t = 0; t < call.lengths[static_cast<std::size_t>(n)]; ++t)
          for (std::int64_t k = 0; k < call.classes; ++k)
            out[static_cast<std::size_t>(t * call.step_stride + n * call.batch_stride + k)] =
                static_cast<T>(factor * (std::exp(lattice.log_p(t, k)) -
                                         occupation[static_cast<std::size_t>(t * call.classes + k)]));
      });
    });
  };
}

void infer_ctc(InferContext& context) { context.set_output(0, context.input_dtype(0), Shape{}); }

}  // namespace

OPERATORS(ctc_loss) {
  registry.add(OpDef{.name = "CtcLoss",
                     .domain = std::string(training_domain),
                     .infer = infer_ctc,
                     .prepare = prepare_ctc});
  registry.add(GradientDef{.name = "CtcLoss",
                           .domain = std::string(training_domain),
                           .prepare = prepare_ctc_gradient,
                           .reads_outputs = 0});
}

}  // namespace onnxpress
