#include <doctest/doctest.h>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>

#include <cmath>
#include <numeric>
#include <utility>

#include "graph/base/random.h"
#include "graph/kernels/onednn_threads.h"
#include "passes/quantize/layer_problem.h"

namespace onnxpress {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix normal_matrix(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  Random random(seed);
  Matrix matrix(rows, columns);
  for (float& value : matrix.reshaped<Eigen::RowMajor>()) value = static_cast<float>(random.normal());
  return matrix;
}

// Samples [count, depth] whose features follow few directions, as activations do.
Matrix correlated(std::int64_t count, std::int64_t depth, std::int64_t directions, std::uint64_t seed) {
  return normal_matrix(count, directions, seed) * normal_matrix(directions, depth, seed + 1) +
         0.1F * normal_matrix(count, depth, seed + 2);
}

std::vector<float> to_vector(const Matrix& matrix) { return {matrix.data(), matrix.data() + matrix.size()}; }

ScaleRules rules_of(int bits, bool symmetric = true, bool power_of_two = false) {
  return {{bits, symmetric, symmetric ? DType::int8 : DType::uint8}, DType::float32, power_of_two};
}

// A weight [rows, depth] of one group; `rounded` are the columns as the rounded model has them.
LayerProblem problem_of(ThreadPool& pool, const Matrix& weight, const Matrix& exact, const Matrix& rounded,
                        const Granularity& granularity, const ScaleRules& rules, double damping) {
  set_onednn_threads(1);
  LayerProblem problem(WeightMatrix::contiguous(1, weight.rows(), weight.cols()), {weight.rows(), weight.cols()},
                       to_vector(weight), granularity, rules, &exact != &rounded);
  const std::vector<float> before = to_vector(exact), after = to_vector(rounded);
  // Two batches.
  const std::int64_t half = exact.rows() / 2;
  const auto size = static_cast<std::size_t>(half * exact.cols());
  problem.add(pool, {half, std::span(before).first(size), std::span(after).first(size)});
  problem.add(pool, {exact.rows() - half, std::span(before).subspan(size), std::span(after).subspan(size)});
  problem.prepare(pool, damping);
  return problem;
}

Matrix levels_of(const LayerProblem& problem) {
  const LayerPart& part = problem.parts()[0];
  Matrix levels(problem.matrix().rows, part.depth);
  for (std::int64_t i = 0; i < levels.size(); ++i) {
    const auto element = static_cast<std::size_t>(i);
    levels.data()[i] = dequantize(part.codes[element],
                                  problem.grid().parameters[static_cast<std::size_t>(part.scales[element])]);
  }
  return levels;
}

double output_error(const Matrix& weight, const Matrix& exact, const LayerProblem& problem, const Matrix& rounded) {
  return static_cast<double>((weight * exact.transpose() - levels_of(problem) * rounded.transpose()).squaredNorm());
}

TEST_CASE("Cholesky factors in panels") {
  for (const std::int64_t size : {1, 7, 128, 300}) {
    const Matrix samples = normal_matrix(size + 20, size, 3);
    const Matrix expected = samples.transpose() * samples;
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      Matrix factor = expected;
      set_onednn_threads(1);
      REQUIRE(factorize(pool, size, factor.data()));
      CHECK((factor * factor.transpose() - expected).norm() <= 1e-5F * expected.norm());
      CHECK(factor.isLowerTriangular(0));
    }
  }
  ThreadPool pool(1);
  Matrix indefinite = -Matrix::Identity(140, 140);
  CHECK_FALSE(factorize(pool, 140, indefinite.data()));
}

// Optimal brain quantization in the given order (Frantar and Alistarh 2022, arXiv 2208.11580, equation
// 4), with the inverse of H over what is left computed anew for every column.
std::vector<std::int64_t> brain_quantization(Eigen::VectorXd weight, const Eigen::MatrixXd& hessian,
                                             const std::vector<std::int64_t>& order,
                                             const std::vector<QuantizationParameters>& parameters,
                                             const QuantizedType& type) {
  std::vector<std::int64_t> codes(order.size());
  for (std::size_t k = 0; k < order.size(); ++k) {
    const auto left = static_cast<Eigen::Index>(order.size() - k);
    Eigen::MatrixXd rest(left, left);
    for (Eigen::Index i = 0; i < left; ++i)
      for (Eigen::Index j = 0; j < left; ++j)
        rest(i, j) = hessian(order[k + static_cast<std::size_t>(i)], order[k + static_cast<std::size_t>(j)]);
    const Eigen::MatrixXd inverse = rest.inverse();
    const auto column = static_cast<std::size_t>(order[k]);
    const auto value = static_cast<float>(weight(order[k]));
    codes[column] = quantize(value, parameters[column], type);
    const double error = static_cast<double>(value - dequantize(codes[column], parameters[column])) / inverse(0, 0);
    for (Eigen::Index i = 0; i < left; ++i) weight(order[k + static_cast<std::size_t>(i)]) -= error * inverse(0, i);
  }
  return codes;
}

TEST_CASE("GPTQ is optimal brain quantization in a fixed order") {
  ThreadPool pool(2);
  for (const bool by_importance : {false, true})
    for (const std::int64_t depth : {5, 90}) {  // also over several blocks of columns
      CAPTURE(by_importance);
      CAPTURE(depth);
      const Matrix weight = normal_matrix(6, depth, 1), samples = correlated(400, depth, 4, 5);
      LayerProblem problem = problem_of(pool, weight, samples, samples, Granularity::per_channel(0), rules_of(3), 0.05);
      problem.round_columns(pool, by_importance);
      const LayerPart& part = problem.parts()[0];
      Eigen::MatrixXd hessian(depth, depth);
      for (std::int64_t i = 0; i < depth; ++i)
        for (std::int64_t j = 0; j < depth; ++j)
          hessian(i, j) = static_cast<double>(part.hessian[static_cast<std::size_t>(i * depth + j)]);
      std::vector<std::int64_t> order(static_cast<std::size_t>(depth));
      std::iota(order.begin(), order.end(), std::int64_t{0});
      if (by_importance)
        std::ranges::sort(order, [&](std::int64_t a, std::int64_t b) { return hessian(a, a) > hessian(b, b); });
      int differences = 0;
      for (std::int64_t row = 0; row < 6; ++row) {
        Eigen::VectorXd values(depth);
        for (std::int64_t d = 0; d < depth; ++d) values(d) = static_cast<double>(weight(row, d));
        const std::vector<QuantizationParameters> parameters(static_cast<std::size_t>(depth),
                                                             problem.grid().parameters[static_cast<std::size_t>(row)]);
        const auto codes = brain_quantization(values, hessian, order, parameters, problem.rules().type);
        for (std::int64_t d = 0; d < depth; ++d)
          differences += codes[static_cast<std::size_t>(d)] != part.codes[static_cast<std::size_t>(row * depth + d)];
      }
      // Sums of floats may fall on the other side of the middle of two levels now and then.
      CHECK(differences <= (depth == 5 ? 0 : 5));
    }
}

TEST_CASE("at 4 bits in blocks of 32 the output error is at most half of that of rounding to nearest") {
  ThreadPool pool(2);
  const Matrix weight = normal_matrix(40, 256, 1), samples = correlated(2000, 256, 24, 5), fresh = correlated(2000, 256, 24, 5);
  for (const bool symmetric : {true, false}) {
    CAPTURE(symmetric);
    const Granularity blocks = Granularity::per_block(1, 32);
    LayerProblem problem = problem_of(pool, weight, samples, samples, blocks, rules_of(4, symmetric), 0.01);
    const auto grid = min_max_grid(Tensor::of<float>({40, 256}, to_vector(weight)), problem.rules().type, blocks);
    const QuantizedTensor nearest = round_to_nearest(Tensor::of<float>({40, 256}, to_vector(weight)), *grid);
    Matrix plain(40, 256);
    const Tensor codes = nearest.codes.cast(DType::int32);
    for_each_scale_run({40, 256}, blocks, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
      for (std::int64_t i = begin; i < begin + count; ++i)
        plain.data()[i] = dequantize(codes.data<std::int32_t>()[static_cast<std::size_t>(i)],
                                     grid->parameters[static_cast<std::size_t>(group)]);
    });
    const auto before = static_cast<double>(((weight - plain) * fresh.transpose()).squaredNorm());
    problem.round_columns(pool, true);
    const double gptq = output_error(weight, fresh, problem, fresh);
    CHECK(gptq <= 0.5 * before);
    const double error = problem.error(pool);
    problem.refine(pool, 10);
    CHECK(problem.error(pool) < error);
    CHECK(output_error(weight, fresh, problem, fresh) < gptq);
  }
}

TEST_CASE("refinement ends where no single code can do better") {
  ThreadPool pool(2);
  for (const bool symmetric : {true, false}) {
    // Scales that are powers of two stay.
    const Matrix weight = normal_matrix(9, 70, 2), samples = correlated(300, 70, 6, 8);
    LayerProblem problem =
        problem_of(pool, weight, samples, samples, Granularity::per_channel(0), rules_of(2, symmetric, true), 0.01);
    problem.round_to_nearest(pool);
    double before = problem.error(pool);
    for (int turn = 0; turn < 50; ++turn) {
      problem.refine(pool, 1);
      const double after = problem.error(pool);
      CHECK(after <= before * (1 + 1e-6));
      before = after;
    }
    LayerPart& part = problem.parts()[0];
    for (std::size_t i = 0; i < part.codes.size(); i += 7)
      for (const int step : {-1, 1}) {
        const std::int32_t code = part.codes[i];
        if (code + step < problem.rules().type.min() || code + step > problem.rules().type.max()) continue;
        part.codes[i] = code + step;
        CHECK(problem.error(pool) >= before * (1 - 1e-5));
        part.codes[i] = code;
      }
  }
}

TEST_CASE("scales and zero points that rows or groups share are refined together") {
  ThreadPool pool(2);
  const Matrix weight = normal_matrix(8, 36, 2), samples = correlated(300, 36, 6, 8);
  for (const Granularity& granularity :
       {Granularity::per_tensor(), Granularity::per_channel(0), Granularity::per_channel(1), Granularity::per_block(1, 5),
        Granularity::per_block(0, 3)})
    for (const bool symmetric : {true, false}) {
      LayerProblem problem = problem_of(pool, weight, samples, samples, granularity, rules_of(3, symmetric), 0.01);
      problem.round_columns(pool, true);
      const std::vector<QuantizationParameters> start = problem.grid().parameters;
      const double before = problem.error(pool);
      problem.refine(pool, 1);
      CHECK(problem.error(pool) < before);
      bool moved = false;
      for (std::size_t i = 0; i < start.size(); ++i) {
        const QuantizationParameters& now = problem.grid().parameters[i];
        moved |= now.scale != start[i].scale;
        CHECK(now.scale > 0);
        CHECK(now.zero_point >= problem.rules().type.min());
        CHECK(now.zero_point <= problem.rules().type.max());
      }
      CHECK(moved);
    }
}

TEST_CASE("weights make up for what was rounded before") {
  ThreadPool pool(2);
  const Matrix weight = normal_matrix(12, 40, 1), exact = correlated(1500, 40, 10, 5);
  // Inputs that lost some of their size and gained some of others'.
  const Matrix mixing = 0.7F * Matrix::Identity(40, 40) + 0.05F * normal_matrix(40, 40, 9);
  const Matrix rounded = exact * mixing;
  LayerProblem blind = problem_of(pool, weight, rounded, rounded, Granularity::per_channel(0), rules_of(4), 0.01);
  LayerProblem seeing = problem_of(pool, weight, exact, rounded, Granularity::per_channel(0), rules_of(4), 0.01);
  for (LayerProblem* problem : {&blind, &seeing}) problem->round_columns(pool, true);
  CHECK(output_error(weight, exact, seeing, rounded) < 0.2 * output_error(weight, exact, blind, rounded));
}

TEST_CASE("inputs that are zero or all alike") {
  ThreadPool pool(1);
  const Matrix weight = normal_matrix(4, 10, 1);
  Matrix zero = Matrix::Zero(50, 10), alike = Matrix::Ones(50, 10), dead = normal_matrix(50, 10, 4);
  dead.col(3).setZero();
  for (const Matrix& samples : {zero, alike, dead}) {
    LayerProblem problem = problem_of(pool, weight, samples, samples, Granularity::per_channel(0), rules_of(4), 0.01);
    problem.round_columns(pool, true);
    problem.refine(pool, 5);
    CHECK(levels_of(problem).allFinite());
    CHECK((levels_of(problem) - weight).norm() < weight.norm());
  }
}

TEST_CASE("the signal-to-noise ratio is that of the outputs") {
  ThreadPool pool(3);
  const Matrix weight = normal_matrix(130, 20, 1), samples = correlated(500, 20, 5, 5);
  LayerProblem problem = problem_of(pool, weight, samples, samples, Granularity::per_channel(0), rules_of(3), 0.01);
  problem.round_columns(pool, true);
  const double signal = static_cast<double>((weight * samples.transpose()).squaredNorm());
  CHECK(problem.output_snr_db(pool) ==
        doctest::Approx(10 * std::log10(signal / output_error(weight, samples, problem, samples))).epsilon(1e-3));
}

TEST_CASE("short rows are searched, also where they share scales") {
  ThreadPool pool(2);
  const Matrix weight = normal_matrix(24, 9, 2), samples = correlated(400, 9, 3, 8);
  for (const bool symmetric : {true, false})
    for (const Granularity& granularity :
         {Granularity::per_channel(0), Granularity::per_tensor(), Granularity::per_block(1, 4), Granularity::per_channel(1)}) {
      CAPTURE(symmetric);
      LayerProblem simple = problem_of(pool, weight, samples, samples, granularity, rules_of(4, symmetric), 0.01);
      LayerProblem searched = problem_of(pool, weight, samples, samples, granularity, rules_of(4, symmetric), 0.01);
      simple.round_columns(pool, false);
      simple.refine(pool, 12);
      searched.round(pool, false, 12);
      CHECK(searched.error(pool) < simple.error(pool) * 0.95);
      // What is stored is what was found: no single code can do better.
      const double least = searched.error(pool);
      LayerPart& part = searched.parts()[0];
      const QuantizedType type = rules_of(4, symmetric).type;
      for (std::int32_t& code : part.codes)
        for (const std::int32_t other : {code - 1, code + 1}) {
          if (other < type.min() || other > type.max()) continue;
          const std::int32_t kept = std::exchange(code, other);
          CHECK(searched.error(pool) >= least * (1 - 1e-5));
          code = kept;
        }
    }
}

}  // namespace
}  // namespace onnxpress
