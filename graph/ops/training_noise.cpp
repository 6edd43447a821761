// Dropout and sampling as operators of the training domain. The noise of a step follows from its
// key, an int64 input, and the node's `salt`: it is drawn again for the gradient, not kept.
//
//   Dropout(x, key) {ratio, salt}: zero with probability `ratio`, else x / (1 - ratio): Srivastava
//     et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
//   GaussianSample(mean, log variance, key) {salt}: mean + exp(log variance / 2) times standard
//     normal noise: Kingma and Welling 2014, the reparameterization trick.
#include <cmath>
#include <string>

#include "graph/base/random.h"
#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

constexpr std::int64_t piece = 4096;  // elements with a random stream of their own

std::uint64_t seed_of(const Tensor& key, std::int64_t salt) {
  const std::vector<std::int64_t> values = key.to_ints();
  require(values.size() == 1, "expected one key, found {}", to_string(key.dims()));
  return Random(static_cast<std::uint64_t>(values[0])).split(static_cast<std::uint64_t>(salt)).next();
}

// body(i, random) for all elements, in pieces of one stream each.
template <class Body>
void for_noise(ThreadPool& pool, std::uint64_t seed, std::int64_t count, const Body& body) {
  const Random base(seed);
  pool.parallel_for(count, piece, [&](std::int64_t begin, std::int64_t end) {
    Random random = base.split(static_cast<std::uint64_t>(begin / piece));
    for (std::int64_t i = begin; i < end; ++i) body(i, random);
  });
}

struct DropoutAttrs {
  double ratio;
  std::int64_t salt;

  static DropoutAttrs from(const Node& node) {
    const DropoutAttrs attrs{double{get_float(node, "ratio", 0.5f)}, get_int(node, "salt", 0)};
    require(attrs.ratio >= 0 && attrs.ratio < 1,
            "attribute 'ratio': expected a number from 0 to below 1, found {}", attrs.ratio);
    return attrs;
  }

  // y from x, or dx from dy. Four elements at a time share 64 random bits.
  template <class T>
  void apply(ThreadPool& pool, const Tensor& key, const T* from, T* to, std::int64_t count) const {
    const auto threshold = static_cast<std::uint32_t>(std::lround(ratio * 65536));
    const T scale = static_cast<T>(1 / (1 - ratio));
    std::uint64_t seed = seed_of(key, salt);
    const Random base(seed);
    pool.parallel_for(count, piece, [&](std::int64_t begin, std::int64_t end) {
      Random random = base.split(static_cast<std::uint64_t>(begin / piece));
      std::uint64_t bits = 0;
      for (std::int64_t i = begin; i < end; ++i, bits >>= 16) {
        if ((i - begin) % 4 == 0) bits = random.next();
        to[i] = (bits & 0xffff) < threshold ? T(0) : from[i] * scale;
      }
    });
  }
};

Kernel prepare_dropout(const PrepareContext& plan) {
  return [attrs = DropoutAttrs::from(plan.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      dispatch_floats(x.dtype(), [&]<class T>(std::type_identity<T>) {
        attrs.apply<T>(inner.pool(), inner.required_input(1), x.data<T>().data(),
                       y.mutable_data<T>().data(), x.size());
      });
    });
  };
}

BackwardKernel prepare_dropout_gradient(const PrepareContext& plan) {
  return [attrs = DropoutAttrs::from(plan.node())](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    Tensor& dx = context.gradient(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      attrs.apply<T>(context.pool(), context.required_input(1), dy.data<T>().data(),
                     dx.mutable_data<T>().data(), dy.size());
    });
  };
}

Kernel prepare_sample(const PrepareContext& plan) {
  return [salt = get_int(plan.node(), "salt", 0)](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& mean = inner.required_input(0);
      const Tensor& log_variance = inner.required_input(1);
      require(mean.dims() == log_variance.dims(),
              "expected means and log variances of equal dims, found {} and {}",
              to_string(mean.dims()), to_string(log_variance.dims()));
      Tensor& y = inner.output(0, mean.dtype(), mean.dims());
      dispatch_floats(mean.dtype(), [&]<class T>(std::type_identity<T>) {
        const T* const m = mean.data<T>().data();
        const T* const v = log_variance.data<T>().data();
        T* const out = y.mutable_data<T>().data();
        for_noise(inner.pool(), seed_of(inner.required_input(2), salt), mean.size(),
                  [=](std::int64_t i, Random& random) {
                    out[i] = m[i] + std::exp(v[i] / 2) * static_cast<T>(random.normal());
                  });
      });
    });
  };
}

BackwardKernel prepare_sample_gradient(const PrepareContext& plan) {
  return [salt = get_int(plan.node(), "salt", 0)](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    if (context.wants_gradient(0)) context.forward_gradient(0, dy);
    if (!context.wants_gradient(1)) return;
    Tensor& dv = context.gradient(1);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const g = dy.data<T>().data();
      const T* const v = context.required_input(1).data<T>().data();
      T* const out = dv.mutable_data<T>().data();
      for_noise(context.pool(), seed_of(context.required_input(2), salt), dy.size(),
                [=](std::int64_t i, Random& random) {
                  out[i] = g[i] * std::exp(v[i] / 2) * static_cast<T>(random.normal()) / 2;
                });
    });
  };
}

}  // namespace

OPERATORS(training_noise) {
  const std::string domain(training_domain);
  registry.add(OpDef{.name = "Dropout",
                     .domain = domain,
                     .infer = infer_same_as_first,
                     .prepare = prepare_dropout});
  registry.add(GradientDef{.name = "Dropout",
                           .domain = domain,
                           .prepare = prepare_dropout_gradient,
                           .reads_inputs = bits_of(1),
                           .reads_outputs = 0});
  registry.add(OpDef{.name = "GaussianSample",
                     .domain = domain,
                     .infer = infer_same_as_first,
                     .prepare = prepare_sample});
  registry.add(GradientDef{.name = "GaussianSample",
                           .domain = domain,
                           .prepare = prepare_sample_gradient,
                           .reads_inputs = bits_of(1, 2),
                           .reads_outputs = 0});
}

}  // namespace onnxpress
