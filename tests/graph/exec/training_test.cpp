// Gradients through whole graphs, and training steps.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/base/random.h"
#include "graph/exec/gradients.h"
#include "graph/exec/trainer.h"
#include "graph/ir/parse.h"
#include "graph/onnx/reader.h"

namespace onnxpress {
namespace {

Tensor uniform(DType type, const Dims& dims, std::uint64_t seed) {
  Random random(seed);
  Tensor tensor(DType::float64, dims);
  for (double& value : tensor.mutable_data<double>()) value = random.uniform(-1, 1);
  return tensor.cast(type);
}

Tensor labels(std::int64_t count, std::int64_t classes) {
  Tensor tensor(DType::int64, {count});
  std::int64_t next = 0;
  for (std::int64_t& label : tensor.mutable_data<std::int64_t>()) label = next++ * 7 % classes;
  return tensor;
}

// Convolutions with batch statistics, a residual, a value that is read three times, a view.
constexpr const char* residual_net = R"(model ir=8 opset=17
input x: float64[n,2,4,4]
initializer w1: float64[3,2,3,3] = random(1)
initializer s: float64[3] = random(2,0.5,1.5)
initializer b: float64[3] = random(3)
initializer m: float64[3] = zeros
initializer v: float64[3] = ones
initializer w2: float64[3,3,3,3] = random(4)
initializer w3: float64[3,5] = random(5)
initializer b3: float64[5] = random(6)
initializer shape: int64[2] = {0,3}
c = Conv(x, w1) {pads=[1,1,1,1]}
n = BatchNormalization(c, s, b, m, v)
r = Tanh(n)
d = Conv(r, w2) {pads=[1,1,1,1]}
e = Add(d, r)
f = Mul(e, r)
g = GlobalAveragePool(f)
h = Reshape(g, shape)
logits: float64[n,5] = Gemm(h, w3, b3)
output logits: float64[n,5]
)";

double loss_of(Differentiator& differentiator, std::span<const Tensor> inputs,
               std::span<const Tensor> parameters) {
  const std::vector<Tensor> outputs = differentiator.forward(inputs, parameters);
  return outputs[1].data<double>()[0];
}

TEST_CASE("gradients through a graph match finite differences") {
  const auto model = parse_model(residual_net);
  append_loss(*model, std::vector<LossTerm>{{.kind = LossTerm::Kind::cross_entropy}});
  set_training_mode(*model, {});
  std::vector<GivenValue> given;
  std::vector<Tensor> values;
  for (const std::string name : {"w1", "s", "b", "w2", "w3", "b3", "x"}) {
    given.push_back({.name = name});
    const Value* value = model->graph.find(name);
    values.push_back(value->constant() ? *value->constant() : uniform(DType::float64, {3, 2, 4, 4}, 9));
  }
  const std::string loss = model->graph.outputs()[1]->name();
  for (const int threads : {1, 3}) {
    Differentiator differentiator(*model, given, loss, {.threads = threads});
    REQUIRE(differentiator.input_names().size() == 1);
    const std::vector<Tensor> inputs = {labels(3, 5)};
    const Differentiator::Result result = differentiator.run(inputs, values);
    for (std::size_t p = 0; p < values.size(); ++p) {
      CAPTURE(given[p].name);
      REQUIRE(result.gradients[p].defined());
      for (std::size_t i = 0; i < static_cast<std::size_t>(values[p].size()); i += 5) {
        std::vector<Tensor> moved = values;
        const double step = 1e-5;
        moved[p].mutable_data<double>()[i] += step;
        const double above = loss_of(differentiator, inputs, moved);
        moved[p].mutable_data<double>()[i] -= 2 * step;
        const double expected = (above - loss_of(differentiator, inputs, moved)) / (2 * step);
        CHECK(result.gradients[p].data<double>()[i] == doctest::Approx(expected).epsilon(1e-5));
      }
    }
    // A second run gives the same: nothing of the first one is left in the buffers.
    const Differentiator::Result again = differentiator.run(inputs, values);
    for (std::size_t p = 0; p < values.size(); ++p)
      CHECK(again.gradients[p].equals(result.gradients[p]));
  }
}

TEST_CASE("what the loss does not follow has no gradient, and what has none is named") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2,3]
input c: bool[]
initializer w: float32[3,3] = random(1)
initializer u: float32[3,3] = random(2)
initializer late: float32[3] = random(3)
a = MatMul(x, w)
z = If(c) {else_branch=graph {
  e = Neg(a)
  output e
}, then_branch=graph {
  t = Relu(a)
  output t
}} "choice"
y: float32[2,3] = Add(z, late)
side: float32[2,3] = MatMul(x, u)
output y: float32[2,3]
output side: float32[2,3]
)");
  append_loss(*model, std::vector<LossTerm>{{.kind = LossTerm::Kind::mse, .output = "y"}});
  const std::string loss = model->graph.outputs()[2]->name();
  const std::vector<Tensor> inputs = {uniform(DType::float32, {2, 3}, 1),
                                      Tensor::of<bool>({}, std::span<const bool>(std::array{true})),
                                      uniform(DType::float32, {2, 3}, 2)};
  const auto parameter = [&](const char* name) { return *model->graph.find(name)->constant(); };
  {
    Differentiator differentiator(*model, {{.name = "u"}, {.name = "late"}}, loss);
    const auto result =
        differentiator.run(inputs, std::vector<Tensor>{parameter("u"), parameter("late")});
    CHECK(!result.gradients[0].defined());
    REQUIRE(result.gradients[1].defined());
  }
  Differentiator differentiator(*model, {{.name = "w"}}, loss);
  try {
    differentiator.run(inputs, std::vector<Tensor>{parameter("w")});
    FAIL("expected an error");
  } catch (const Error& error) {
    const std::string text = error.what();
    CHECK(text.find("'choice' (If)") != std::string::npos);
    CHECK(text.find("freeze what is trained before it: 'w'") != std::string::npos);
  }
}

constexpr const char* small_net = R"(model ir=8 opset=17
input x: float32[n,4]
initializer w1: float32[4,8] = random(1)
initializer b1: float32[8] = zeros
initializer w2: float32[8,3] = random(2)
initializer b2: float32[3] = zeros
h = Gemm(x, w1, b1)
r = Relu(h)
o = Gemm(r, w2, b2)
y: float32[n,3] = Softmax(o)
output y: float32[n,3]
)";

TrainerOptions options_of(OptimizerOptions::Kind kind, double rate) {
  TrainerOptions options;
  options.optimizer.kind = kind;
  options.schedule.rate = rate;
  options.threads = 1;
  return options;
}

const std::vector<LossTerm> cross_entropy = {{.kind = LossTerm::Kind::cross_entropy}};

TEST_CASE("every optimizer lowers the loss, and a softmax is left out of it") {
  const auto model = parse_model(small_net);
  const std::vector<Tensor> inputs = {uniform(DType::float32, {12, 4}, 3)};
  const std::vector<Tensor> targets = {labels(12, 3)};
  using Kind = OptimizerOptions::Kind;
  for (const Kind kind : {Kind::sgd, Kind::momentum, Kind::nesterov, Kind::adam, Kind::adamw, Kind::rmsprop}) {
    CAPTURE(name(kind));
    const bool is_adaptive = kind == Kind::adam || kind == Kind::adamw || kind == Kind::rmsprop;
    Trainer trainer(*model, trainable_parameters(*model), cross_entropy,
                    options_of(kind, is_adaptive ? 0.02 : 0.1));
    REQUIRE(trainer.parameters() == std::vector<std::string>{"w1", "b1", "w2", "b2"});
    REQUIRE(trainer.notes().size() == 1);
    CHECK(trainer.notes()[0] == "cross_entropy on the input of the Softmax that gives 'y'");
    const Trainer::Step first = trainer.step(inputs, targets);
    REQUIRE(first.outputs.size() == 1);
    double last = 0;
    for (int i = 0; i < 60; ++i) last = trainer.step(inputs, targets).loss;
    CHECK(last < 0.5 * first.loss);
    CHECK(trainer.steps() == 61);
  }
}

TEST_CASE("a trainer that is restored goes on with the same bytes") {
  const auto model = parse_model(small_net);
  const std::vector<Tensor> inputs = {uniform(DType::float32, {12, 4}, 3)};
  const std::vector<Tensor> targets = {labels(12, 3)};
  TrainerOptions options = options_of(OptimizerOptions::Kind::adam, 0.01);
  options.mode.dropout = {{"r", 0.3}};
  options.seed = 5;
  options.schedule = {.kind = Schedule::Kind::cosine, .rate = 0.01, .total = 20};
  Trainer whole(*model, trainable_parameters(*model), cross_entropy, options);
  Trainer killed(*model, trainable_parameters(*model), cross_entropy, options);
  for (int i = 0; i < 6; ++i) whole.step(inputs, targets);
  for (int i = 0; i < 3; ++i) killed.step(inputs, targets);
  Trainer resumed(*model, trainable_parameters(*model), cross_entropy, options);
  resumed.restore(killed.state());
  for (int i = 0; i < 3; ++i) resumed.step(inputs, targets);
  for (std::size_t i = 0; i < whole.parameters().size(); ++i)
    CHECK(whole.value(i).equals(resumed.value(i)));
  const auto stored = model->clone();
  resumed.store(*stored);
  CHECK(stored->graph.find("w1")->constant()->equals(resumed.value(0)));
  CHECK(!stored->graph.find("w1")->constant()->equals(*model->graph.find("w1")->constant()));
}

TEST_CASE("gradients of parts of a batch add up to those of the batch") {
  const auto model = parse_model(small_net);
  const Tensor x = uniform(DType::float32, {12, 4}, 3), t = labels(12, 3);
  const auto part = [](const Tensor& tensor, std::int64_t begin) {
    Dims dims = tensor.dims();
    dims[0] = 6;
    const auto bytes = tensor.bytes();
    return Tensor::view(tensor.dtype(), dims, bytes.subspan(bytes.size() / 2 * static_cast<std::size_t>(begin), bytes.size() / 2), nullptr);
  };
  const TrainerOptions options = options_of(OptimizerOptions::Kind::momentum, 0.1);
  Trainer whole(*model, trainable_parameters(*model), cross_entropy, options);
  Trainer parts(*model, trainable_parameters(*model), cross_entropy, options);
  whole.step(std::vector{x}, std::vector{t});
  parts.accumulate(std::vector{part(x, 0)}, std::vector{part(t, 0)}, 0.5);
  Trainer::Step step = parts.accumulate(std::vector{part(x, 1)}, std::vector{part(t, 1)}, 0.5);
  parts.update(step);
  CHECK(parts.steps() == 1);
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t k = 0; k < static_cast<std::size_t>(whole.value(i).size()); ++k)
      CHECK(parts.value(i).data<float>()[k] ==
            doctest::Approx(whole.value(i).data<float>()[k]).epsilon(1e-5));
}

TEST_CASE("masked weights stay zero, frozen ones stay, norms are bounded") {
  const auto model = parse_model(small_net);
  Tensor mask(DType::float32, {4, 8});
  for (std::size_t i = 0; i < 32; i += 2) mask.mutable_data<float>()[i] = 1;
  TrainerOptions options = options_of(OptimizerOptions::Kind::sgd, 0.5);
  options.masks = {{"w1", mask}};
  options.regularize = [](const std::string& name, const Tensor&) {
    return Regularization{.max_norm = name == "w2" ? 0.7 : 0, .norm_axis = 1};
  };
  options.clip_norm = 0.01;
  Trainer trainer(*model, {"w1", "w2", "b1"}, cross_entropy, options);
  const Trainer::Step step =
      trainer.step(std::vector{uniform(DType::float32, {12, 4}, 3)}, std::vector{labels(12, 3)});
  CHECK(step.norm > 0.01);
  for (std::size_t i = 1; i < 32; i += 2) CHECK(trainer.value(0).data<float>()[i] == 0);
  for (std::size_t column = 0; column < 3; ++column) {
    double squares = 0;
    for (std::size_t row = 0; row < 8; ++row) {
      const double value = trainer.value(1).data<float>()[row * 3 + column];
      squares += value * value;
    }
    CHECK(std::sqrt(squares) <= 0.7 + 1e-6);
  }
  // Biases were zero: their step is the gradient, which is no longer than the bound.
  double squares = 0;
  for (const float value : trainer.value(2).data<float>()) squares += static_cast<double>(value) * static_cast<double>(value);
  CHECK(std::sqrt(squares) <= 0.5 * 0.01 + 1e-7);
  const auto stored = model->clone();
  trainer.store(*stored);
  CHECK(stored->graph.find("b2")->constant()->equals(*model->graph.find("b2")->constant()));
}

TEST_CASE("running statistics follow the batches, unless they are frozen") {
  const auto model = parse_model(residual_net);
  const std::vector<Tensor> inputs = {uniform(DType::float64, {6, 2, 4, 4}, 3)};
  const std::vector<Tensor> targets = {labels(6, 5)};
  Trainer trainer(*model, trainable_parameters(*model), cross_entropy,
                  options_of(OptimizerOptions::Kind::sgd, 0.1));
  CHECK(std::ranges::count(trainer.parameters(), "m") == 0);
  const Trainer::Step step = trainer.step(inputs, targets);
  CHECK(step.outputs.size() == 1);
  const auto stored = model->clone();
  trainer.store(*stored);
  for (const double mean : stored->graph.find("m")->constant()->data<double>()) CHECK(mean != 0);

  TrainerOptions fixed = options_of(OptimizerOptions::Kind::sgd, 0.1);
  fixed.mode.batch_statistics = false;
  Trainer other(*model, trainable_parameters(*model), cross_entropy, fixed);
  other.step(inputs, targets);
  const auto same = model->clone();
  other.store(*same);
  CHECK(same->graph.find("m")->constant()->equals(*model->graph.find("m")->constant()));
}

TEST_CASE("a batch of one value per channel leaves running statistics as they are") {
  for (const char* type : {"float32", "float64"}) {
    const auto model = parse_model(fmt::format(R"(model ir=8 opset=17
input x: {0}[n,4]
initializer s: {0}[4] = ones
initializer b: {0}[4] = zeros
initializer m: {0}[4] = random(2)
initializer v: {0}[4] = {{0.9,1,1.1,1.2}}
initializer w: {0}[4,3] = random(1)
h = BatchNormalization(x, s, b, m, v)
y: {0}[n,3] = MatMul(h, w)
output y: {0}[n,3]
)", type));
    const auto after = [&](std::int64_t samples, const char* name) {
      Trainer trainer(*model, trainable_parameters(*model), cross_entropy, options_of(OptimizerOptions::Kind::sgd, 0.1));
      trainer.step(std::vector{uniform(model->graph.find("x")->type.elem, {samples, 4}, 3)}, std::vector{labels(samples, 3)});
      const auto stored = model->clone();
      trainer.store(*stored);
      return *stored->graph.find(name)->constant();
    };
    for (const char* name : {"m", "v"}) {
      CHECK(after(1, name).equals(*model->graph.find(name)->constant()));
      CHECK_FALSE(after(2, name).equals(*model->graph.find(name)->constant()));
    }
  }
}

TEST_CASE("float16 parameters are trained in float32 and stored as they were") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float16[n,4]
initializer w: float16[4,3] = random(1)
y: float16[n,3] = MatMul(x, w)
output y: float16[n,3]
)");
  Trainer trainer(*model, {"w"}, cross_entropy, options_of(OptimizerOptions::Kind::adam, 1e-5));
  const std::vector<Tensor> inputs = {uniform(DType::float16, {6, 4}, 3)};
  for (int i = 0; i < 3; ++i) trainer.step(inputs, std::vector{labels(6, 3)});
  CHECK(trainer.value(0).dtype() == DType::float32);
  const auto stored = model->clone();
  trainer.store(*stored);
  CHECK(stored->graph.find("w")->constant()->dtype() == DType::float16);
}

TEST_CASE("errors of training name what is wrong") {
  const auto model = parse_model(small_net);
  const auto error_of = [](auto&& body) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const TrainerOptions options = options_of(OptimizerOptions::Kind::sgd, 0.1);
  CHECK(error_of([&] { Trainer(*model, {"nothing"}, cross_entropy, options); }).find("'nothing'") != std::string::npos);
  CHECK(error_of([&] { Trainer(*model, {}, cross_entropy, options); }) == "there is nothing to train");
  CHECK(error_of([&] {
          Trainer(*model, {"w1"}, std::vector<LossTerm>{{.kind = LossTerm::Kind::binary_cross_entropy}}, options);
        }).find("cross_entropy is meant") != std::string::npos);
  Trainer trainer(*model, {"w1"}, cross_entropy, options);
  const std::string wrong = error_of([&] {
    trainer.step(std::vector{uniform(DType::float32, {12, 4}, 3)}, std::vector{labels(7, 3)});
  });
  CHECK_MESSAGE(wrong.find("expected labels [12] for logits [12,3], found [7]") != std::string::npos, wrong);
  const std::string outside = error_of([&] {
    trainer.step(std::vector{uniform(DType::float32, {4, 4}, 3)}, std::vector{Tensor::of<std::int64_t>({4}, {0, 1, 3, 2})});
  });
  CHECK_MESSAGE(outside.find("expected a label from 0 to 2, found 3") != std::string::npos, outside);
  Tensor bad = uniform(DType::float32, {4, 4}, 3);
  bad.mutable_data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  const Tensor before = trainer.value(0);
  const std::string nan = error_of([&] { trainer.step(std::vector{bad}, std::vector{labels(4, 3)}); });
  CHECK(nan == "step 1: the loss is nan: the first NaN is of 'x'");
  CHECK(trainer.value(0).equals(before));
}

TEST_CASE("schedules") {
  const Schedule step{.kind = Schedule::Kind::step, .rate = 1, .factor = 0.5, .period = 10, .warmup = 4};
  CHECK(step.at(0) == doctest::Approx(0.25));
  CHECK(step.at(3) == doctest::Approx(1));
  CHECK(step.at(13) == doctest::Approx(1));
  CHECK(step.at(14) == doctest::Approx(0.5));
  const Schedule exponential{.kind = Schedule::Kind::exponential, .rate = 1, .factor = 0.25, .period = 2};
  CHECK(exponential.at(1) == doctest::Approx(0.5));
  const Schedule cosine{.kind = Schedule::Kind::cosine, .rate = 1, .final_rate = 0.1, .total = 100};
  CHECK(cosine.at(0) == doctest::Approx(1));
  CHECK(cosine.at(50) == doctest::Approx(0.55));
  CHECK(cosine.at(100) == doctest::Approx(0.1));
  const Schedule cycle{.kind = Schedule::Kind::one_cycle, .rate = 1, .warmup = 30, .total = 100};
  CHECK(cycle.at(0) == doctest::Approx(0.04));
  CHECK(cycle.at(30) == doctest::Approx(1));
  CHECK(cycle.at(100) == doctest::Approx(0));
}

TEST_CASE("the testdata models' parameters are found") {
  const auto count = [](const char* name) {
    const ReadResult read = read_model(std::string(ONNXPRESS_TESTDATA) + "/" + name, {});
    return trainable_parameters(*read.model).size();
  };
  CHECK(count("digits_mlp.onnx") == 6);
  CHECK(count("digits_cnn.onnx") == 26 - 2 * 4);
}

}  // namespace
}  // namespace onnxpress
