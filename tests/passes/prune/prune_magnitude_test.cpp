#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/base/random.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::vector<double> values_of(const Model& model, std::string_view name) {
  const Tensor wide = model.graph.find(name)->constant()->cast(DType::float64);
  return {wide.data<double>().begin(), wide.data<double>().end()};
}

std::int64_t zeros_of(const Model& model, std::string_view name) {
  const std::vector<double> values = values_of(model, name);
  return std::count(values.begin(), values.end(), 0.0);
}

// Two layers; the weights of the second are ten times larger.
constexpr std::string_view two_layers = R"(model ir=8 opset=17
input x: float32[2,4]
initializer small: float32[4,5] = random(1,0.1,1)
initializer bias: float32[5] = {0.001,0.001,0.001,0.001,0.001}
initializer large: float32[5,6] = random(2,10,100)
a = Gemm(x, small, bias) "first"
y = MatMul(a, large) "second"
output y: float32[2,6]
)";

TEST_CASE("what is zeroed is the smallest, exactly as many as asked") {
  SUBCASE("of all weights together") {
    const PassRun run = run_pass("prune_magnitude{sparsity=0.5}", two_layers);
    CHECK(zeros_of(*run.after, "small") == 20);
    CHECK(zeros_of(*run.after, "large") == 5);
    CHECK(run.outcome.counts["zeroed"] == 25);
    CHECK(run.outcome.layers.size() == 2);
    std::vector<double> before = values_of(*run.before, "large"), after = values_of(*run.after, "large");
    std::vector<double> sorted = before;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i < before.size(); ++i) CHECK((after[i] == 0) == (before[i] < sorted[5]));
    CHECK(values_of(*run.after, "bias")[0] > 0);
  }
  SUBCASE("of each layer") {
    const PassRun run = run_pass("prune_magnitude{sparsity=0.5,scope=layer}", two_layers);
    CHECK(zeros_of(*run.after, "small") == 10);
    CHECK(zeros_of(*run.after, "large") == 15);
  }
  SUBCASE("of each output channel") {
    const PassRun run = run_pass("prune_magnitude{sparsity=0.4,scope=channel}", two_layers);
    const std::vector<double> large = values_of(*run.after, "large");
    for (std::size_t column = 0; column < 6; ++column) {
      int zeros = 0;
      for (std::size_t row = 0; row < 5; ++row) zeros += large[row * 6 + column] == 0;
      CHECK(zeros == 2);
    }
  }
  SUBCASE("in per cent") {
    CHECK(zeros_of(*run_pass("prune_magnitude{sparsity=40%}", two_layers).after, "small") == 20);
  }
}

TEST_CASE("ties are broken by position, also of many elements") {
  const auto count = [](const std::string& n, const std::string& sparsity) {
    const PassRun run = run_pass("prune_magnitude{sparsity=" + sparsity + "}",
                                 "model ir=8 opset=17\ninput x: float32[1," + n + "]\ninitializer w: float32[" + n +
                                     ",3] = ones\ny = MatMul(x, w)\noutput y: float32[1,3]\n");
    const std::vector<double> values = values_of(*run.after, "w");
    const auto zeros = std::count(values.begin(), values.end(), 0.0);
    for (std::int64_t i = 0; i < zeros; ++i) CHECK(values[static_cast<std::size_t>(i)] == 0.0);
    return zeros;
  };
  CHECK(count("7", "0.5") == 11);  // 10.5, rounded
  CHECK(count("7", "0.1") == 2);
  CHECK(count("40000", "0.3") == 36000);
}

TEST_CASE("few and many elements give the same cut as sorting") {
  for (const std::int64_t rows : {50, 30000}) {
    Random random(static_cast<std::uint64_t>(rows));
    std::vector<float> values(static_cast<std::size_t>(rows * 3));
    for (float& value : values) value = static_cast<float>(std::round(random.normal() * 50)) / 7;  // ties
    auto model = parse_model("model ir=8 opset=17\ninput x: float32[1," + std::to_string(rows) +
                             "]\ninitializer w: float32[" + std::to_string(rows) +
                             ",3] = ones\ny = MatMul(x, w)\noutput y: float32[1,3]\n");
    model->graph.set_initializer(model->graph.find("w"), Tensor::of<float>({rows, 3}, values));
    const PassRun run = run_pass("prune_magnitude{sparsity=0.37}", std::move(model));
    std::vector<std::size_t> order(values.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return std::fabs(values[a]) < std::fabs(values[b]); });
    const auto wanted = static_cast<std::size_t>(std::llround(0.37 * static_cast<double>(values.size())));
    for (std::size_t i = 0; i < wanted; ++i) values[order[i]] = 0;
    CHECK(run.after->graph.find("w")->constant()->to_floats() == values);
  }
}

TEST_CASE("a threshold takes what is strictly below it") {
  const PassRun run = run_pass("prune_magnitude{threshold=0.7}", R"(model ir=8 opset=17
input x: float32[1,6]
initializer w: float32[6,1] = {0.7,-0.69,0.1,-0.7,nan,-5}
y = MatMul(x, w)
output y: float32[1,1]
)");
  const std::vector<double> values = values_of(*run.after, "w");
  CHECK(values[0] != 0);
  CHECK(values[1] == 0);
  CHECK(values[2] == 0);
  CHECK(values[3] != 0);
  CHECK(std::isnan(values[4]));
  CHECK(values[5] == -5);
  CHECK_FALSE(run_pass("prune_magnitude{threshold=0}", two_layers).outcome.changed);
}

TEST_CASE("sparsity 0 and 1, and zeros that are there already") {
  CHECK_FALSE(run_pass("prune_magnitude{sparsity=0}", two_layers).outcome.changed);
  const PassRun all = run_pass("prune_magnitude{sparsity=1}", two_layers);
  CHECK(zeros_of(*all.after, "small") == 20);
  CHECK(zeros_of(*all.after, "large") == 30);
  CHECK_FALSE(run_pass("prune_magnitude{sparsity=1}", all.after->clone()).outcome.changed);

  constexpr std::string_view text = R"(model ir=8 opset=17
input x: float32[1,6]
initializer w: float32[6,1] = {0,3,0,1,2,0}
y = MatMul(x, w)
output y: float32[1,1]
)";
  CHECK_FALSE(run_pass("prune_magnitude{sparsity=0.5}", text).outcome.changed);
  CHECK(run_pass("prune_magnitude{sparsity=0.67}", text).outcome.counts["zeroed"] == 1);
}

TEST_CASE("every floating-point type") {
  for (const std::string type : {"float16", "bfloat16", "float32", "float64"}) {
    CAPTURE(type);
    auto model = parse_model("model ir=8 opset=17\ninput x: " + type + "[1,6]\ninitializer w: " + type +
                             "[6,1] = {3,-1,0.5,-0.25,2,inf}\ny = MatMul(x, w)\noutput y: " + type + "[1,1]\n");
    const Pipeline pipeline = Pipeline::parse("prune_magnitude{sparsity=0.5}");
    ThreadPool pool(1);
    PassContext context{.options = pipeline.steps[0].options, .pool = pool};
    CHECK(pipeline.steps[0].pass->run(*model, context).changed);
    CHECK(values_of(*model, "w") == std::vector<double>{3, 0, 0, 0, 2, std::numeric_limits<double>::infinity()});
  }
  // Magnitudes that float32 cannot tell apart.
  const PassRun run = run_pass("prune_magnitude{sparsity=0.5}", R"(model ir=8 opset=17
input x: float64[1,4]
initializer w: float64[4,1] = {1.00000000001,1,3e-60,2e-60}
y = MatMul(x, w)
output y: float64[1,1]
)");
  CHECK(values_of(*run.after, "w")[1] == 1);
  CHECK(zeros_of(*run.after, "w") == 2);
  const PassRun one = run_pass("prune_magnitude{sparsity=0.75}", run.before->clone());
  CHECK(values_of(*one.after, "w")[0] > 1);
  CHECK(one.outcome.counts["zeros"] == 3);
  const PassRun least = run_pass("prune_magnitude{sparsity=0.25}", run.before->clone());
  CHECK(values_of(*least.after, "w")[2] == 3e-60);
  CHECK(least.outcome.counts["zeros"] == 1);
}

TEST_CASE("a weight that two nodes read counts once") {
  const PassRun run = run_pass("prune_magnitude{sparsity=0.5}", R"(model ir=8 opset=17
input x: float32[2,4]
initializer w: float32[4,4] = random(1)
a = MatMul(x, w)
y = MatMul(a, w)
output y: float32[2,4]
)");
  CHECK(run.outcome.layers.size() == 1);
  CHECK(zeros_of(*run.after, "w") == 8);
}

TEST_CASE("selected nodes and tensors only") {
  CHECK(run_pass("prune_magnitude{sparsity=0.5,select=second}", two_layers).outcome.counts["elements"] == 30);
  CHECK(run_pass("prune_magnitude{sparsity=0.5,select=small}", two_layers).outcome.counts["elements"] == 20);
  CHECK(run_pass("prune_magnitude{sparsity=0.5,select=MatMul}", two_layers).outcome.counts["elements"] == 30);
  const auto model = parse_model(two_layers);
  const Pipeline pipeline = Pipeline::parse("prune_magnitude{sparsity=0.5,select=nothing*}");
  ThreadPool pool(1);
  PassContext context{.options = pipeline.steps[0].options, .pool = pool};
  CHECK_THROWS_AS(pipeline.steps[0].pass->run(*model, context), Error);
}

TEST_CASE("weights in nested graphs, their own and those of the graph around") {
  const PassRun run = run_pass("prune_magnitude{sparsity=0.5,scope=layer}", R"(model ir=8 opset=17
input x: float32[2,4]
input c: bool[]
initializer w: float32[4,4] = random(1)
y = If(c) {then_branch=graph {
  a = MatMul(x, w)
  output a
}, else_branch=graph {
  initializer v: float32[4,4] = random(2)
  b = MatMul(x, v)
  output b
}}
output y: float32[2,4]
)");
  CHECK(run.outcome.layers.size() == 2);
  CHECK(run.outcome.counts["zeroed"] == 16);
  CHECK(zeros_of(*run.after, "w") == 8);
}

TEST_CASE("the same on any number of threads") {
  std::string first;
  for (const int threads : {1, 2, 7}) {
    const auto model = parse_model(two_layers);
    const Pipeline pipeline = Pipeline::parse("prune_magnitude{sparsity=0.3}");
    ThreadPool pool(threads);
    PassContext context{.options = pipeline.steps[0].options, .pool = pool};
    pipeline.steps[0].pass->run(*model, context);
    if (first.empty()) first = to_text(*model);
    CHECK(to_text(*model) == first);
  }
}

TEST_CASE("one of sparsity and threshold, in range") {
  for (const char* step : {"prune_magnitude", "prune_magnitude{sparsity=0.5,threshold=1}"}) {
    const Pipeline pipeline = Pipeline::parse(step);
    CHECK_THROWS_AS(pipeline.steps[0].pass->check(pipeline.steps[0].options), Error);
  }
  CHECK_THROWS_AS(Pipeline::parse("prune_magnitude{sparsity=1.5}"), Error);
  CHECK_THROWS_AS(Pipeline::parse("prune_magnitude{threshold=-1}"), Error);
  CHECK_THROWS_AS(Pipeline::parse("prune_magnitude{sparsity=0.5,scope=row}"), Error);
}

TEST_CASE("depthwise and transposed convolutions have weights too, whatever types the file declares") {
  const PassRun run = run_pass("prune_magnitude{sparsity=0.5,scope=layer}", R"(model ir=8 opset=17
input x: float32[1,4,6,6]
initializer d: float32[4,1,3,3] = random(1)
initializer t: float32[4,2,3,3] = random(2)
initializer u: float32[4,1,3,3] = random(3)
a = Conv(x, d) {group=4}
b = ConvTranspose(a, t) {group=2}
y = ConvTranspose(b, u) {group=4}
output y: float32[1,4,8,8]
)");
  CHECK(run.outcome.layers.size() == 3);
  CHECK(zeros_of(*run.after, "d") == 18);
  CHECK(zeros_of(*run.after, "t") == 36);
  CHECK(zeros_of(*run.after, "u") == 18);
}

TEST_CASE("why a weight is not pruned") {
  CHECK(check_unchanged("prune_magnitude{sparsity=0.5}", R"(model ir=8 opset=17
input x: float32[2,4]
w = Constant() {value=float32[4,1]{1,2,3,4}}
y = MatMul(x, w)
output y: float32[2,1]
)").reason("prune_magnitude").find("run simplify first") != std::string::npos);
}

}  // namespace
}  // namespace onnxpress
