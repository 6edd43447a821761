// Losses that are sums over elements, GaussianKl and WeightedSum.
#include <cmath>
#include <string>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

const std::string domain(training_domain);

// Each functor is made from the node; value(x, t) and slope(x, t) = d value / dx.
struct SquaredError {
  explicit SquaredError(const Node&) {}
  double value(double x, double t) const { return (x - t) * (x - t); }
  double slope(double x, double t) const { return 2 * (x - t); }
};
struct AbsoluteError {
  explicit AbsoluteError(const Node&) {}
  double value(double x, double t) const { return std::fabs(x - t); }
  double slope(double x, double t) const { return x > t ? 1 : x < t ? -1 : 0; }
};
// Quadratic within delta of the target, linear beyond (Huber 1964).
struct Huber {
  double delta;
  explicit Huber(const Node& node) : delta(double{get_float(node, "delta", 1)}) {
    require(delta > 0, "attribute 'delta': expected a number above 0, found {}", delta);
  }
  double value(double x, double t) const {
    const double distance = std::fabs(x - t);
    return distance <= delta ? distance * distance / 2 : delta * (distance - delta / 2);
  }
  double slope(double x, double t) const {
    const double distance = x - t;
    return std::fabs(distance) <= delta ? distance : distance > 0 ? delta : -delta;
  }
};
struct BinaryCrossEntropy {
  explicit BinaryCrossEntropy(const Node&) {}
  double value(double x, double t) const {
    return (x > 0 ? x : 0) - x * t + std::log1p(std::exp(-std::fabs(x)));
  }
  double slope(double x, double t) const {
    const double e = std::exp(-std::fabs(x));
    return (x >= 0 ? 1 / (1 + e) : e / (1 + e)) - t;
  }
};
struct KlDivergence {
  explicit KlDivergence(const Node&) {}
  double value(double x, double t) const { return t > 0 ? t * (std::log(t) - x) : 0; }
  double slope(double, double t) const { return -t; }
};

constexpr std::int64_t piece = 4096;

// sum of fn(i) over elements, in fixed pieces.
template <class Fn>
double sum_of(ThreadPool& pool, std::int64_t count, const Fn& fn) {
  std::vector<double> sums(static_cast<std::size_t>((count + piece - 1) / piece), 0);
  pool.parallel_for(count, piece, [&](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i) sum += fn(i);
    sums[static_cast<std::size_t>(begin / piece)] = sum;
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// What the sum is divided by.
struct Divisor {
  bool by_batch;

  Divisor(const Node& node, const char* otherwise) {
    const std::string text = get_string(node, "reduction", otherwise);
    require(text == "mean" || text == "batch",
            "attribute 'reduction': expected mean or batch, found '{}'", text);
    by_batch = text == "batch";
  }
  double of(const Dims& dims) const {
    return static_cast<double>(by_batch && !dims.empty() ? dims[0] : element_count(dims));
  }
};

const char* default_reduction(const Node& node) {
  return node.is("KlDivergence", training_domain) ? "batch" : "mean";
}

void check_targets(const Dims& x, const Dims& t) {
  require(x == t, "expected targets {}, found {}", to_string(x), to_string(t));
}

template <class Fn>
Kernel prepare_loss(const PrepareContext& plan) {
  return [fn = Fn(plan.node()),
          divisor = Divisor(plan.node(), default_reduction(plan.node()))](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor t = inner.required_input(1).cast(x.dtype());
      check_targets(x.dims(), t.dims());
      Tensor& y = inner.output(0, x.dtype(), {});
      dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
        const T* const a = x.data<T>().data();
        const T* const b = t.data<T>().data();
        const double sum = sum_of(inner.pool(), x.size(), [=](std::int64_t i) {
          return fn.value(static_cast<double>(a[i]), static_cast<double>(b[i]));
        });
        y.mutable_data<T>()[0] = static_cast<T>(sum / divisor.of(x.dims()));
      });
    });
  };
}

// Through the targets only of errors that are symmetric.
template <class Fn, bool is_symmetric>
BackwardKernel prepare_loss_gradient(const PrepareContext& plan) {
  return [fn = Fn(plan.node()),
          divisor = Divisor(plan.node(), default_reduction(plan.node()))](BackwardContext& context) {
    require(is_symmetric || !context.wants_gradient(1), "no gradient goes through the targets");
    const Tensor& x = context.required_input(0);
    const Tensor t = context.required_input(1).cast(x.dtype());
    dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const a = x.data<T>().data();
      const T* const b = t.data<T>().data();
      const double factor =
          static_cast<double>(context.required_gradient(0).data<T>()[0]) / divisor.of(x.dims());
      for (const std::size_t index : {std::size_t{0}, std::size_t{1}}) {
        if (!context.wants_gradient(index)) continue;
        T* const out = context.gradient(index).mutable_data<T>().data();
        for_elements(context.pool(), x.size(),
                     [=, by = index == 0 ? factor : -factor](std::int64_t i) {
                       out[i] = static_cast<T>(
                           by * fn.slope(static_cast<double>(a[i]), static_cast<double>(b[i])));
                     });
      }
    });
  };
}

Kernel prepare_gaussian(const PrepareContext&) {
  return [](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& mean = inner.required_input(0);
      const Tensor& log_variance = inner.required_input(1);
      require(mean.dims() == log_variance.dims() && mean.rank() > 0,
              "expected means and log variances of equal dims, found {} and {}",
              to_string(mean.dims()), to_string(log_variance.dims()));
      Tensor& y = inner.output(0, mean.dtype(), {});
      dispatch_floats(mean.dtype(), [&]<class T>(std::type_identity<T>) {
        const T* const m = mean.data<T>().data();
        const T* const v = log_variance.data<T>().data();
        const double sum = sum_of(inner.pool(), mean.size(), [=](std::int64_t i) {
          const auto mu = static_cast<double>(m[i]), lv = static_cast<double>(v[i]);
          return -0.5 * (1 + lv - mu * mu - std::exp(lv));
        });
        y.mutable_data<T>()[0] = static_cast<T>(sum / static_cast<double>(mean.dim(0)));
      });
    });
  };
}

BackwardKernel prepare_gaussian_gradient(const PrepareContext&) {
  return [](BackwardContext& context) {
    dispatch_floats(context.input_dtype(0), [&]<class T>(std::type_identity<T>) {
      const double factor = static_cast<double>(context.required_gradient(0).data<T>()[0]) /
                            static_cast<double>(context.input_dims(0)[0]);
      for (const std::size_t index : {std::size_t{0}, std::size_t{1}}) {
        if (!context.wants_gradient(index)) continue;
        const T* const in = context.required_input(index).data<T>().data();
        Tensor& result = context.gradient(index);
        T* const out = result.mutable_data<T>().data();
        for_elements(context.pool(), result.size(), [=](std::int64_t i) {
          const auto x = static_cast<double>(in[i]);
          out[i] = static_cast<T>(factor * (index == 0 ? x : 0.5 * (std::exp(x) - 1)));
        });
      }
    });
  };
}

Kernel prepare_weighted_sum(const PrepareContext& plan) {
  return [weights = get_floats(plan.node(), "weights")](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      require(weights.size() == inner.input_count(), "expected {} weights, found {}",
              inner.input_count(), weights.size());
      Tensor& y = inner.output(0, inner.required_input(0).dtype(), {});
      dispatch_floats(y.dtype(), [&]<class T>(std::type_identity<T>) {
        double sum = 0;
        for (std::size_t i = 0; i < weights.size(); ++i) {
          const Tensor& part = inner.required_input(i);
          require(part.size() == 1, "expected losses of one element, found {}",
                  to_string(part.dims()));
          sum += double{weights[i]} * static_cast<double>(part.cast(y.dtype()).data<T>()[0]);
        }
        y.mutable_data<T>()[0] = static_cast<T>(sum);
      });
    });
  };
}

BackwardKernel prepare_weighted_sum_gradient(const PrepareContext& plan) {
  return [weights = get_floats(plan.node(), "weights")](BackwardContext& context) {
    const double g = context.required_gradient(0).cast(DType::float64).data<double>()[0];
    for (std::size_t i = 0; i < weights.size(); ++i)
      if (context.wants_gradient(i))
        context.forward_gradient(i, Tensor::of<double>(context.input_dims(i), {g * double{weights[i]}})
                                        .cast(context.input_dtype(i)));
  };
}

void infer_scalar(InferContext& context) { context.set_output(0, context.input_dtype(0), Shape{}); }

}  // namespace

OPERATORS(training_element_losses) {
  const auto add = [&](const char* op, auto prepare, auto prepare_gradient, std::uint64_t inputs,
                       std::uint64_t (*reads_for)(std::uint64_t) = nullptr) {
    registry.add(
        OpDef{.name = op, .domain = domain, .infer = infer_scalar, .prepare = prepare});
    registry.add(GradientDef{.name = op,
                             .domain = domain,
                             .prepare = prepare_gradient,
                             .reads_inputs = inputs,
                             .reads_outputs = 0,
                             .reads_for = reads_for});
  };
  const std::uint64_t both = bits_of(0, 1);
  add("SquaredError", prepare_loss<SquaredError>, prepare_loss_gradient<SquaredError, true>, both);
  add("AbsoluteError", prepare_loss<AbsoluteError>, prepare_loss_gradient<AbsoluteError, true>, both);
  add("Huber", prepare_loss<Huber>, prepare_loss_gradient<Huber, true>, both);
  add("BinaryCrossEntropy", prepare_loss<BinaryCrossEntropy>,
      prepare_loss_gradient<BinaryCrossEntropy, false>, both);
  add("KlDivergence", prepare_loss<KlDivergence>, prepare_loss_gradient<KlDivergence, false>, both);
  add("GaussianKl", prepare_gaussian, prepare_gaussian_gradient, both,
      [](std::uint64_t wanted) { return wanted; });
  add("WeightedSum", prepare_weighted_sum, prepare_weighted_sum_gradient, 0);
}

}  // namespace onnxpress
