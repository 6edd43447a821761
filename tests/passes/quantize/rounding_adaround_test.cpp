#include <doctest/doctest.h>

#include <cmath>

#include "graph/base/random.h"
#include "graph/ir/parse.h"
#include "graph/kernels/onednn_threads.h"
#include "passes/quantize/adaround.h"

namespace onnxpress {
namespace {

std::vector<float> normal_values(std::uint64_t seed, std::int64_t count) {
  Random random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

// Two groups of 5 rows over 12 inputs that follow four directions.
struct Case {
  static constexpr std::int64_t groups = 2, rows = 5, depth = 12, count = 600;
  WeightMatrix matrix = WeightMatrix::contiguous(groups, rows, depth);
  std::vector<float> weight = normal_values(1, matrix.size());
  std::vector<float> inputs;
  LayerProblem problem;
  SampledColumns columns{matrix, count, count};

  explicit Case(bool symmetric = true)
      : problem(matrix, {groups * rows, depth}, weight, Granularity::per_channel(0),
                {{2, symmetric, symmetric ? DType::int8 : DType::uint8}, DType::float32, false}, false) {
    set_onednn_threads(1);
    ThreadPool pool(1);
    const std::vector<float> hidden = normal_values(2, groups * count * 4), noise = normal_values(3, groups * count * depth);
    const std::vector<float> mixing = normal_values(4, 4 * depth);
    for (std::int64_t i = 0; i < groups * count; ++i)
      for (std::int64_t d = 0; d < depth; ++d) {
        float sum = 0.2F * noise[static_cast<std::size_t>(i * depth + d)];
        for (std::int64_t k = 0; k < 4; ++k)
          sum += hidden[static_cast<std::size_t>(i * 4 + k)] * mixing[static_cast<std::size_t>(k * depth + d)];
        inputs.push_back(sum);
      }
    const ColumnBlock block{count, inputs, inputs};
    problem.add(pool, block);
    columns.add(block, weight);
    problem.prepare(pool, 0.01);
    problem.round_to_nearest(pool);
  }

  double output_error(const FollowingActivation& activation) const {
    double total = 0;
    for (const LayerPart& part : problem.parts())
      for (std::int64_t c = 0; c < count; ++c)
        for (std::int64_t r = 0; r < rows; ++r) {
          float exact = 0, rounded = 0;
          for (std::int64_t d = 0; d < depth; ++d) {
            const float x = inputs[static_cast<std::size_t>((part.group * count + c) * depth + d)];
            const auto element = static_cast<std::size_t>(r * depth + d);
            exact += x * weight[static_cast<std::size_t>((part.group * rows + r) * depth + d)];
            rounded += x * dequantize(part.codes[element],
                                      problem.grid().parameters[static_cast<std::size_t>(part.scales[element])]);
          }
          const float bias = activation.bias.empty() ? 0 : activation.bias[static_cast<std::size_t>(part.group * rows + r)];
          const float rest = activation.value(activation.gain * exact + bias) - activation.value(activation.gain * rounded + bias);
          total += static_cast<double>(rest) * static_cast<double>(rest);
        }
    return total;
  }
};

std::vector<FollowingActivation> activations() {
  using Kind = FollowingActivation::Kind;
  const std::vector<float> bias = normal_values(7, 10);
  return {{},
          {.kind = Kind::clip, .low = 0, .high = std::numeric_limits<float>::infinity(), .bias = bias},
          {.kind = Kind::clip, .low = 0, .high = 2, .gain = 0.5F, .bias = {}},
          {.kind = Kind::leaky_relu, .low = 0.1F, .bias = bias},
          {.kind = Kind::sigmoid, .bias = bias},
          {.kind = Kind::tanh, .bias = bias}};
}

TEST_CASE("the gradient of the rounding loss is that of finite differences") {
  for (const FollowingActivation& activation : activations())
    for (const float regularization : {0.0F, 0.7F}) {
      Case one;
      CAPTURE(static_cast<int>(activation.kind));
      CAPTURE(regularization);
      RoundingDescent descent(one.problem, one.columns, activation, 1, 1, 4);
      const RoundingStep step{.regularization = regularization, .exponent = 3.5F};
      const std::span<const float> found = descent.gradient(step, 100, 200);
      const std::vector<float> gradient(found.begin(), found.begin() + 3 * Case::depth);
      double largest = 0;
      for (const float slope : gradient) largest = std::max(largest, static_cast<double>(std::abs(slope)));
      REQUIRE(largest > 0);
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        float& choice = descent.choices()[i];
        const float kept = choice;
        constexpr float difference = 4e-3F;
        choice = kept + difference;
        const double above = descent.loss(step, 100, 200);
        choice = kept - difference;
        const double below = descent.loss(step, 100, 200);
        choice = kept;
        const double expected = (above - below) / (2 * static_cast<double>(difference));
        // At the ends of the range of h there is a kink.
        const float h = 1.2F / (1 + std::exp(-kept)) - 0.1F;
        if (h < 0.01F || h > 0.99F) continue;
        CHECK(static_cast<double>(gradient[i]) == doctest::Approx(expected).epsilon(0.02).scale(largest));
      }
    }
}

TEST_CASE("gradient steps find better levels than rounding to nearest, behind the activation") {
  for (const FollowingActivation& activation : activations())
    for (const bool symmetric : {true, false}) {
      CAPTURE(static_cast<int>(activation.kind));
      Case one(symmetric);
      const double nearest = one.output_error(activation);
      ThreadPool pool(2);
      adaround(pool, one.problem, one.columns, activation, 600);
      const double found = one.output_error(activation);
      CHECK(found < 0.8 * nearest);
      const std::vector<std::int32_t> codes = one.problem.codes();
      for (const std::int32_t code : codes) {
        CHECK(code >= one.problem.rules().type.min());
        CHECK(code <= one.problem.rules().type.max());
      }
      Case again(symmetric);
      ThreadPool single(1);
      adaround(single, again.problem, again.columns, activation, 600);
      CHECK(again.problem.codes() == codes);
    }
}

TEST_CASE("loops over choices: softened weights and steps of Adam") {
  constexpr std::int64_t count = 2 * rounding_lanes;
  std::vector<float> base = normal_values(1, count), step = normal_values(2, count), choice = normal_values(3, count);
  std::vector<float> slope = normal_values(4, count), weight(count), gradient(count), first(count, 0.1F), second(count, 0.2F);
  for (float& v : choice) v *= 3;
  soften_rounding(base.data(), step.data(), choice.data(), weight.data(), count);
  const RoundingStep options{.regularization = 0.5F, .exponent = 4, .rate = 0.01F, .first_correction = 2, .second_correction = 3};
  rounding_gradient(options, slope.data(), step.data(), choice.data(), gradient.data(), count);
  std::vector<float> moved = choice;
  descend_rounding(options, gradient.data(), moved.data(), first.data(), second.data(), count);
  int still = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double sigmoid = 1 / (1 + std::exp(-static_cast<double>(choice[i])));
    const double h = 1.2 * sigmoid - 0.1;
    CHECK(weight[i] == doctest::Approx(step[i] * (base[i] + static_cast<float>(std::clamp(h, 0.0, 1.0)))).epsilon(1e-5));
    if (h <= 0 || h >= 1) {
      CHECK(gradient[i] == 0);
      CHECK(moved[i] == choice[i]);
      ++still;
      continue;
    }
    const double away = 2 * h - 1;
    const double expected = (static_cast<double>(slope[i]) * static_cast<double>(step[i]) -
                             0.5 * 2 * 4 * std::pow(std::abs(away), 3) * (away < 0 ? -1 : 1)) *
                            1.2 * sigmoid * (1 - sigmoid);
    CHECK(gradient[i] == doctest::Approx(expected).epsilon(1e-4).scale(0.1));
    const double mean = 0.9 * 0.1 + 0.1 * static_cast<double>(gradient[i]);
    const double square = 0.999 * 0.2 + 0.001 * static_cast<double>(gradient[i]) * static_cast<double>(gradient[i]);
    CHECK(moved[i] == doctest::Approx(static_cast<double>(choice[i]) - 0.01 * mean * 2 / std::sqrt(square * 3)).epsilon(1e-4));
  }
  CHECK(still > 0);
}

TEST_CASE("what follows a layer") {
  using Kind = FollowingActivation::Kind;
  const auto found = [](const std::string& nodes, std::size_t operand = 1) {
    const auto model = parse_model("model ir=8 opset=17\ninput x: float32[2,4]\ninput i: float32[1,3,5,5]\ninput t: float32[3]\n"
                                   "initializer w: float32[4,3] = random(1)\ninitializer k: float32[3,3,1,1] = random(1)\n"
                                   "initializer v: float32[4,2] = random(1)\n"
                                   "initializer b: float32[3] = {1,2,3}\ninitializer s: float32[] = {2}\n"
                                   "initializer six: float32[] = {6}\ninitializer zero: float32[] = {0}\n" + nodes);
    return FollowingActivation::of(*model->graph.nodes()[0], operand, 3);
  };
  const FollowingActivation conv = found("a = Conv(i, k, b)\ny = Clip(a, zero, six)\noutput y\n");
  CHECK(conv.kind == Kind::clip);
  CHECK(conv.low == 0);
  CHECK(conv.high == 6);
  CHECK(conv.bias == std::vector<float>{1, 2, 3});
  const FollowingActivation product = found("a = MatMul(x, w)\nc = Add(b, a)\ny = LeakyRelu(c) {alpha=0.2}\noutput y\n");
  CHECK(product.kind == Kind::leaky_relu);
  CHECK(product.low == 0.2F);
  CHECK(product.bias == std::vector<float>{1, 2, 3});
  const FollowingActivation gemm = found("a = Gemm(x, w, s) {alpha=0.5, beta=3.0}\ny = Tanh(a)\noutput y\n");
  CHECK(gemm.kind == Kind::tanh);
  CHECK(gemm.gain == 0.5F);
  CHECK(gemm.bias == std::vector<float>{6, 6, 6});
  // Another reader, a graph output, a bias that is not constant, a weight on the left.
  CHECK(found("a = MatMul(x, w)\ny = Relu(a)\nz = Neg(a)\noutput y\noutput z\n").kind == Kind::none);
  CHECK(found("a = MatMul(x, w)\ny = Relu(a)\noutput a\noutput y\n").kind == Kind::none);
  CHECK(found("a = Gemm(x, w, t)\ny = Relu(a)\noutput y\n").kind == Kind::none);
  CHECK(found("a = MatMul(v, x)\ny = Relu(a)\noutput y\n", 0).kind == Kind::none);
}

}  // namespace
}  // namespace onnxpress
