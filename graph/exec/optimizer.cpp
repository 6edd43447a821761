#include "graph/exec/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "graph/kernels/optimizer_loops.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

using Kind = OptimizerOptions::Kind;

constexpr std::array names = {
    std::pair{Kind::sgd, std::string_view("sgd")},
    std::pair{Kind::momentum, std::string_view("momentum")},
    std::pair{Kind::nesterov, std::string_view("nesterov")},
    std::pair{Kind::adam, std::string_view("adam")},
    std::pair{Kind::adamw, std::string_view("adamw")},
    std::pair{Kind::rmsprop, std::string_view("rmsprop")},
};

constexpr std::int64_t piece = 16384;  // elements a task handles

template <class T>
GradientTerms<T> terms_of(const GradientStep& step, const Regularization& of) {
  GradientTerms<T> terms{.factor = static_cast<T>(step.factor),
                         .l1 = static_cast<T>(of.l1),
                         .l2 = static_cast<T>(of.l2)};
  if (step.limit > 0) terms.limit = static_cast<T>(step.limit);
  return terms;
}

// Scales every row of outputs whose norm is larger down to it.
template <class T>
void limit_norms(ThreadPool& pool, std::span<T> values, const Dims& dims, std::size_t axis, double limit) {
  if (axis >= dims.size() || dims.size() < 2) return;
  const std::int64_t inner = element_count(std::span(dims).subspan(axis + 1));
  const std::int64_t rows = dims[axis];
  const std::int64_t outer = std::ssize(values) / std::max<std::int64_t>(1, rows * inner);
  pool.parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
    // body(row, value) in the order of memory.
    const auto each = [&](auto&& body) {
      for (std::int64_t o = 0; o < outer; ++o)
        for (std::int64_t row = begin; row < end; ++row)
          for (std::int64_t i = 0; i < inner; ++i)
            body(static_cast<std::size_t>(row - begin), values[static_cast<std::size_t>((o * rows + row) * inner + i)]);
    };
    std::vector<double> squares(static_cast<std::size_t>(end - begin), 0);
    each([&](std::size_t row, T value) { squares[row] += static_cast<double>(value) * static_cast<double>(value); });
    std::vector<T> factors;
    for (const double square : squares)
      factors.push_back(square > limit * limit ? static_cast<T>(limit / std::sqrt(square)) : T(1));
    each([&](std::size_t row, T& value) { value *= factors[row]; });
  });
}

template <class T>
T* data_of(Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data<T>().data() : nullptr;
}

template <class T>
void move_parameter(ThreadPool& pool, const OptimizerOptions& options, std::int64_t steps,
                    const Regularization& regularization, const GradientStep& step, Tensor& parameter,
                    const Tensor& gradient, Tensor& first, Tensor& second) {
  const GradientTerms<T> terms = terms_of<T>(step, regularization);
  const double rate = step.rate * regularization.rate;
  const T keep = static_cast<T>(1 - rate * regularization.decay);
  T* const w = parameter.mutable_data<T>().data();
  const T* const g = gradient.data<T>().data();
  T* const m = data_of<T>(first);
  T* const v = data_of<T>(second);
  const auto run = [&](auto&& loop) {
    pool.parallel_for(parameter.size(), piece, [&](std::int64_t begin, std::int64_t end) {
      loop(begin, end - begin);
    });
  };
  switch (options.kind) {
    case Kind::sgd:
    case Kind::momentum:
    case Kind::nesterov: {
      const MomentumStep<T> how{.rate = static_cast<T>(rate),
                                .keep = keep,
                                .momentum = static_cast<T>(options.momentum),
                                .nesterov = options.kind == Kind::nesterov};
      run([&](std::int64_t at, std::int64_t count) {
        momentum_loop<T>(how, terms, w + at, g + at, m != nullptr ? m + at : nullptr, count);
      });
      break;
    }
    case Kind::adam:
    case Kind::adamw: {
      const auto count_of_steps = static_cast<double>(steps);
      const AdamStep<T> how{
          .size = static_cast<T>(rate / (1 - std::pow(options.beta1, count_of_steps))),
          .scale = static_cast<T>(1 / std::sqrt(1 - std::pow(options.beta2, count_of_steps))),
          .keep = keep,
          .beta1 = static_cast<T>(options.beta1),
          .rest1 = static_cast<T>(1 - options.beta1),
          .beta2 = static_cast<T>(options.beta2),
          .rest2 = static_cast<T>(1 - options.beta2),
          .epsilon = static_cast<T>(options.epsilon)};
      run([&](std::int64_t at, std::int64_t count) {
        adam_loop<T>(how, terms, w + at, g + at, m + at, v + at, count);
      });
      break;
    }
    case Kind::rmsprop: {
      const RmspropStep<T> how{.rate = static_cast<T>(rate),
                               .keep = keep,
                               .smoothing = static_cast<T>(options.smoothing),
                               .rest = static_cast<T>(1 - options.smoothing),
                               .epsilon = static_cast<T>(options.epsilon)};
      run([&](std::int64_t at, std::int64_t count) {
        rmsprop_loop<T>(how, terms, w + at, g + at, v + at, count);
      });
      break;
    }
  }
  if (regularization.max_norm > 0)
    limit_norms(pool, parameter.mutable_data<T>(), parameter.dims(), regularization.norm_axis,
                regularization.max_norm);
}

bool has_first(const OptimizerOptions& options) {
  return options.kind != Kind::sgd && options.kind != Kind::rmsprop;
}

bool has_second(const OptimizerOptions& options) {
  return options.kind == Kind::adam || options.kind == Kind::adamw || options.kind == Kind::rmsprop;
}

}  // namespace

std::string_view name(Kind kind) {
  return std::ranges::find(names, kind, [](const auto& entry) { return entry.first; })->second;
}

std::optional<Kind> optimizer_from_name(std::string_view text) {
  const auto found =
      std::ranges::find(names, text, [](const auto& entry) { return entry.second; });
  return found != names.end() ? std::optional(found->first) : std::nullopt;
}

Optimizer::Optimizer(OptimizerOptions options, std::vector<Regularization> regularization)
    : options_(options),
      regularization_(std::move(regularization)),
      first_(regularization_.size()),
      second_(regularization_.size()) {}

void Optimizer::step(ThreadPool& pool, std::vector<Tensor>& parameters,
                     const std::vector<Tensor>& gradients, const GradientStep& step) {
  require(parameters.size() == regularization_.size() && gradients.size() == parameters.size(),
          "expected {} parameters and gradients, found {} and {}", regularization_.size(),
          parameters.size(), gradients.size());
  ++steps_;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!gradients[i].defined()) continue;
    Tensor& parameter = parameters[i];
    require(parameter.dims() == gradients[i].dims() && parameter.dtype() == gradients[i].dtype(),
            "expected a gradient {}, found {}", to_string(parameter.dims()),
            to_string(gradients[i].dims()));
    if (has_first(options_) && !first_[i].defined())
      first_[i] = Tensor(parameter.dtype(), parameter.dims());
    if (has_second(options_) && !second_[i].defined())
      second_[i] = Tensor(parameter.dtype(), parameter.dims());
    dispatch_floats(parameter.dtype(), [&]<class T>(std::type_identity<T>) {
      move_parameter<T>(pool, options_, steps_, regularization_[i], step, parameter, gradients[i],
                        first_[i], second_[i]);
    });
  }
}

std::map<std::string, Tensor> Optimizer::state() const {
  std::map<std::string, Tensor> state;
  for (std::size_t i = 0; i < first_.size(); ++i) {
    if (first_[i].defined()) state[fmt::format("first.{}", i)] = first_[i];
    if (second_[i].defined()) state[fmt::format("second.{}", i)] = second_[i];
  }
  return state;
}

void Optimizer::restore(const std::map<std::string, Tensor>& state, std::int64_t steps) {
  steps_ = steps;
  for (std::size_t i = 0; i < first_.size(); ++i) {
    const auto first = state.find(fmt::format("first.{}", i));
    const auto second = state.find(fmt::format("second.{}", i));
    first_[i] = first != state.end() ? first->second : Tensor();
    second_[i] = second != state.end() ? second->second : Tensor();
  }
}

double global_norm(ThreadPool& pool, const std::vector<Tensor>& gradients) {
  double total = 0;
  for (const Tensor& gradient : gradients) {
    if (!gradient.defined()) continue;
    std::vector<double> sums(static_cast<std::size_t>((gradient.size() + piece - 1) / piece), 0);
    dispatch_floats(gradient.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const g = gradient.data<T>().data();
      pool.parallel_for(gradient.size(), piece, [&](std::int64_t begin, std::int64_t end) {
        sums[static_cast<std::size_t>(begin / piece)] = squares_loop<T>(g + begin, end - begin);
      });
    });
    for (const double sum : sums) total += sum;
  }
  return std::sqrt(total);
}

}  // namespace onnxpress
