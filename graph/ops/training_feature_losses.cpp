// Losses that compare what two models make of the same samples inside: attention transfer and
// relations between samples.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "graph/ops/compute_type.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

// Below it a norm or distance counts as this.
constexpr double least_norm = 1e-12;

// A batch of rows in double.
struct Rows {
  std::int64_t count = 0, size = 0;
  std::vector<double> values;

  static Rows of(const Tensor& tensor) {
    require(tensor.rank() >= 1, "expected one value of at least one axis a sample, found a scalar");
    const Tensor wide = tensor.cast(DType::float64);
    const auto data = wide.data<double>();
    const std::int64_t count = tensor.dim(0);
    return {count, count == 0 ? 0 : wide.size() / count, {data.begin(), data.end()}};
  }
  const double* row(std::int64_t i) const { return values.data() + i * size; }
};

// A loss and, where wanted, what its gradient by the student's rows is.
using FeatureLoss = double (*)(ThreadPool&, const Tensor& student, const Tensor& teacher,
                               std::vector<double>* gradient);

double huber(double x) { return std::fabs(x) <= 1 ? x * x / 2 : std::fabs(x) - 0.5; }
double huber_slope(double x) { return std::clamp(x, -1.0, 1.0); }

// --- attention transfer ---------------------------------------------------------------------------

// Where a sample's channels have energy: the mean of their squares by position, and its length.
struct AttentionMap {
  std::int64_t channels = 0, positions = 0;
  std::vector<double> map;  // of unit length
  double norm = 0;

  AttentionMap(const Rows& rows, std::int64_t sample, std::int64_t channel_count)
      : channels(channel_count),
        positions(channel_count == 0 ? 0 : rows.size / channel_count),
        map(static_cast<std::size_t>(positions), 0) {
    const double* const x = rows.row(sample);
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t p = 0; p < positions; ++p) {
        const double value = x[c * positions + p];
        map[static_cast<std::size_t>(p)] += value * value / static_cast<double>(channels);
      }
    for (const double value : map) norm += value * value;
    norm = std::max(std::sqrt(norm), least_norm);
    for (double& value : map) value /= norm;
  }
};

double attention_transfer(ThreadPool& pool, const Tensor& student, const Tensor& teacher,
                          std::vector<double>* gradient) {
  const Dims &s = student.dims(), &t = teacher.dims();
  const bool fits =
      s.size() >= 3 && t.size() == s.size() && s[0] == t[0] && std::equal(s.begin() + 2, s.end(), t.begin() + 2);
  require(fits,
          "expected maps [samples, channels, positions...] of equal samples and positions, found {} "
          "and {} of the teacher",
          to_string(s), to_string(t));
  const Rows x = Rows::of(student), y = Rows::of(teacher);
  std::vector<double> sums(static_cast<std::size_t>(x.count), 0);
  pool.parallel_for(x.count, 1, [&](std::int64_t i, std::int64_t) {
    const AttentionMap a(x, i, s[1]), b(y, i, t[1]);
    const double share = 1 / static_cast<double>(x.count * std::max<std::int64_t>(a.positions, 1));
    double sum = 0, along = 0;
    for (std::size_t p = 0; p < a.map.size(); ++p) {
      const double difference = a.map[p] - b.map[p];
      sum += difference * difference * share;
      along += 2 * share * difference * a.map[p];
    }
    sums[static_cast<std::size_t>(i)] = sum;
    if (gradient == nullptr) return;
    if (a.norm == least_norm) along = 0;
    for (std::int64_t c = 0; c < a.channels; ++c)
      for (std::int64_t p = 0; p < a.positions; ++p) {
        const auto at = static_cast<std::size_t>(p);
        const double by_map = (2 * share * (a.map[at] - b.map[at]) - along * a.map[at]) / a.norm;
        const std::int64_t element = c * a.positions + p;
        (*gradient)[static_cast<std::size_t>(i * x.size + element)] =
            by_map * 2 * x.row(i)[element] / static_cast<double>(a.channels);
      }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// --- relations ------------------------------------------------------------------------------------

void check_batches(const Tensor& student, const Tensor& teacher) {
  require(student.rank() >= 1 && teacher.rank() >= 1 && student.dim(0) == teacher.dim(0),
          "expected as many samples as the teacher has, found {} and {} of the teacher", to_string(student.dims()),
          to_string(teacher.dims()));
}

// Distances between all samples over their mean.
struct Distances {
  std::int64_t count = 0, pairs = 0;  // pairs: ordered ones apart from each other
  double mean = 0;
  std::vector<double> values;  // over the mean

  Distances(ThreadPool& pool, const Rows& rows)
      : count(rows.count), values(static_cast<std::size_t>(rows.count * rows.count), 0) {
    pool.parallel_for(count, 1, [&](std::int64_t i, std::int64_t) {
      for (std::int64_t j = 0; j < count; ++j) {
        double sum = 0;
        for (std::int64_t k = 0; k < rows.size; ++k) {
          const double difference = rows.row(i)[k] - rows.row(j)[k];
          sum += difference * difference;
        }
        values[static_cast<std::size_t>(i * count + j)] = std::sqrt(sum);
      }
    });
    for (const double value : values) {
      mean += value;
      pairs += value > 0;
    }
    if (pairs == 0) return;
    mean /= static_cast<double>(pairs);
    for (double& value : values) value /= mean;
  }
};

double relational_distance(ThreadPool& pool, const Tensor& student, const Tensor& teacher,
                           std::vector<double>* gradient) {
  check_batches(student, teacher);
  const Rows rows = Rows::of(student);
  const Distances x(pool, rows), y(pool, Rows::of(teacher));
  const double share = 1 / static_cast<double>(std::max<std::int64_t>(x.count * x.count, 1));
  double total = 0, along = 0;
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    const double difference = x.values[i] - y.values[i];
    total += share * huber(difference);
    along += share * huber_slope(difference) * x.values[i];
  }
  if (gradient == nullptr || x.pairs == 0) return total;
  along /= static_cast<double>(x.pairs);
  pool.parallel_for(x.count, 1, [&](std::int64_t i, std::int64_t) {
    double* const to = gradient->data() + i * rows.size;
    for (std::int64_t j = 0; j < x.count; ++j) {
      const auto at = static_cast<std::size_t>(i * x.count + j);
      if (x.values[at] == 0) continue;
      const double by_distance = (share * huber_slope(x.values[at] - y.values[at]) - along) / x.mean;
      // Every pair counts in both orders.
      const double factor = 2 * by_distance / (x.values[at] * x.mean);
      for (std::int64_t k = 0; k < rows.size; ++k) to[k] += factor * (rows.row(i)[k] - rows.row(j)[k]);
    }
  });
  return total;
}

// Unit vectors from one sample to all, and the cosines between them.
struct Directions {
  std::int64_t count, size;
  std::vector<double> vectors, lengths, cosines;

  Directions(const Rows& rows, std::int64_t from)
      : count(rows.count),
        size(rows.size),
        vectors(static_cast<std::size_t>(count * size)),
        lengths(static_cast<std::size_t>(count)),
        cosines(static_cast<std::size_t>(count * count), 0) {
    for (std::int64_t i = 0; i < count; ++i) {
      double sum = 0;
      double* const to = vectors.data() + i * size;
      for (std::int64_t k = 0; k < size; ++k) {
        to[k] = rows.row(i)[k] - rows.row(from)[k];
        sum += to[k] * to[k];
      }
      const double length = std::max(std::sqrt(sum), least_norm);
      lengths[static_cast<std::size_t>(i)] = length;
      for (std::int64_t k = 0; k < size; ++k) to[k] /= length;
    }
    add_product<double>(count, count, size, {vectors.data(), size}, {vectors.data(), size, true},
                        {cosines.data(), count});
  }
};

double relational_angle(ThreadPool& pool, const Tensor& student, const Tensor& teacher,
                        std::vector<double>* gradient) {
  check_batches(student, teacher);
  const Rows x = Rows::of(student), y = Rows::of(teacher);
  const std::int64_t n = x.count, size = x.size;
  const double share = 1 / static_cast<double>(std::max<std::int64_t>(n * n * n, 1));
  // Samples in fixed blocks, each summed apart.
  const std::int64_t blocks = std::clamp<std::int64_t>(n, 1, 8);
  std::vector<double> sums(static_cast<std::size_t>(blocks), 0);
  std::vector<std::vector<double>> parts(static_cast<std::size_t>(blocks));
  pool.parallel_for(blocks, 1, [&](std::int64_t block, std::int64_t) {
    std::vector<double>& part = parts[static_cast<std::size_t>(block)];
    if (gradient != nullptr) part.assign(static_cast<std::size_t>(n * size), 0);
    for (std::int64_t from = block; from < n; from += blocks) {
      Directions a(x, from);
      const Directions b(y, from);
      for (std::size_t i = 0; i < a.cosines.size(); ++i) {
        const double difference = a.cosines[i] - b.cosines[i];
        sums[static_cast<std::size_t>(block)] += share * huber(difference);
        a.cosines[i] = share * huber_slope(difference);
      }
      if (gradient == nullptr) continue;
      // Each cosine is of two vectors, and every pair of them counts in both orders.
      std::vector<double> by_vector(static_cast<std::size_t>(n * size), 0);
      add_product<double>(n, size, n, {a.cosines.data(), n}, {a.vectors.data(), size}, {by_vector.data(), size});
      for (std::int64_t i = 0; i < n; ++i) {
        const double length = a.lengths[static_cast<std::size_t>(i)];
        if (length == least_norm) continue;  // no direction to turn
        const double* const unit = a.vectors.data() + i * size;
        double* const slope = by_vector.data() + i * size;
        double along = 0;
        for (std::int64_t k = 0; k < size; ++k) along += slope[k] * unit[k];
        for (std::int64_t k = 0; k < size; ++k) {
          const double step = 2 * (slope[k] - along * unit[k]) / length;
          part[static_cast<std::size_t>(i * size + k)] += step;
          part[static_cast<std::size_t>(from * size + k)] -= step;
        }
      }
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  if (gradient != nullptr)
    for (const std::vector<double>& part : parts)
      std::ranges::transform(*gradient, part, gradient->begin(), std::plus<>());
  return total;
}

// --- rows -----------------------------------------------------------------------------------------

template <FeatureLoss loss>
Kernel prepare_loss(const PrepareContext&) {
  return [](KernelContext& context) {
    const Tensor& student = context.required_input(0);
    const double value = loss(context.pool(), student, context.required_input(1), nullptr);
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      Tensor& y = inner.output(0, inner.required_input(0).dtype(), {});
      dispatch_floats(y.dtype(),
                      [&]<class T>(std::type_identity<T>) { y.mutable_data<T>()[0] = static_cast<T>(value); });
    });
  };
}

template <FeatureLoss loss>
BackwardKernel prepare_gradient(const PrepareContext&) {
  return [](BackwardContext& context) {
    require(!context.wants_gradient(1), "no gradient goes through the teacher's values");
    const Tensor& student = context.required_input(0);
    std::vector<double> gradient(static_cast<std::size_t>(student.size()), 0);
    loss(context.pool(), student, context.required_input(1), &gradient);
    Tensor& dx = context.gradient(0);
    dispatch_floats(student.dtype(), [&]<class T>(std::type_identity<T>) {
      const auto factor = static_cast<double>(context.required_gradient(0).data<T>()[0]);
      std::ranges::transform(gradient, dx.mutable_data<T>().begin(),
                             [=](double slope) { return static_cast<T>(factor * slope); });
    });
  };
}

void infer_scalar(InferContext& context) { context.set_output(0, context.input_dtype(0), Shape{}); }

template <FeatureLoss loss>
void add(OpRegistry& registry, const char* op) {
  registry.add(OpDef{
      .name = op, .domain = std::string(training_domain), .infer = infer_scalar, .prepare = prepare_loss<loss>});
  registry.add(GradientDef{.name = op,
                           .domain = std::string(training_domain),
                           .prepare = prepare_gradient<loss>,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0});
}

}  // namespace

OPERATORS(training_feature_losses) {
  add<attention_transfer>(registry, "AttentionTransfer");
  add<relational_distance>(registry, "RelationalDistance");
  add<relational_angle>(registry, "RelationalAngle");
}

}  // namespace onnxpress
