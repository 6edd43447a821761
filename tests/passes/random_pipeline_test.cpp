// The group passes, and random models through random pipelines.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "graph/base/random.h"
#include "graph/onnx/writer.h"
#include "graph/ops/infer.h"
#include "passes/core/runner.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::unique_ptr<Model> typed(const std::string& text) {
  auto model = parse_model(text);
  infer_types(*model);
  return model;
}

constexpr std::string_view layered = R"(model ir=8 opset=17
input x: float32[2,3,4,4]
initializer w: float32[4,3,1,1] = random(1)
initializer gamma: float32[4] = random(2,0.5,2)
initializer beta: float32[4] = random(3)
initializer mean: float32[4] = random(4)
initializer var: float32[4] = random(5,0.5,2)
dead = Neg(x)
k = Constant() {value=float32[1]{2}}
k2 = Mul(k, k)
t = Conv(x, w)
u = BatchNormalization(t, gamma, beta, mean, var)
v = BatchNormalization(u, gamma, beta, mean, var)
y = Mul(v, k2)
output y: float32[2,4,4,4]
)";

TEST_CASE("groups run their members until nothing changes") {
  const PassRun simplified = run_pass("simplify", layered);
  CHECK(simplified.outcome.changed);
  CHECK(simplified.after->graph.node_count() == 4);
  CHECK_FALSE(run_pass("simplify", simplified.after->clone()).outcome.changed);
  const PassRun fused = run_pass("fuse", simplified.after->clone());
  CHECK(fused.after->graph.node_count() == 1);
  CHECK_FALSE(run_pass("fuse", fused.after->clone()).outcome.changed);
}

TEST_CASE("members are left out, rounds are bounded") {
  const PassRun folded = run_pass("simplify{skip=eliminate_dead_code}", layered);
  CHECK(folded.after->graph.find("dead") != nullptr);
  CHECK(folded.after->graph.find("k") == nullptr);
  const PassRun swept = run_pass("simplify{skip=fold_constants,rounds=1}", layered);
  CHECK(swept.after->graph.find("dead") == nullptr);
  CHECK(swept.after->graph.find("k") != nullptr);
  CHECK_FALSE(run_pass("simplify{skip=fold_constants;eliminate_dead_code}", layered).outcome.changed);
  const Pipeline wrong = Pipeline::parse("simplify{skip=fold_constant}");
  CHECK_THROWS_WITH_AS(wrong.steps[0].pass->check(wrong.steps[0].options), doctest::Contains("fold_constants"), Error);
}

// Small convolutional nets: layers, norms, branches, constants and shape computations at random.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::string model() {
    const std::vector<std::int64_t> dims{1, 2 + below(2), 4, 4};
    std::string text = fmt::format("model ir=8 opset={}\ninput x: float32[{}]\n", 13 + below(5),
                                   fmt::join(dims, ","));
    values_ = {{"x", dims}};
    const std::int64_t layers = 3 + below(7);
    for (std::int64_t i = 0; i < layers; ++i) add_layer();
    text += initializers_ + nodes_;
    text += fmt::format("output {}\n", values_.back().name);
    if (below(3) == 0) text += fmt::format("output {}\n", values_[1].name);
    return text;
  }

  std::string pipeline() {
    const std::vector<std::string> steps{
        "simplify", "fuse", "fold_constants", "eliminate_dead_code", "fuse_conv_bn", "prune_magnitude{sparsity=0.3}",
        "prune_magnitude{threshold=0.1}", "prune_magnitude{sparsity=0.6,scope=channel}", "quantize_weights",
        "quantize_weights{bits=4,symmetric=false}", "quantize_weights{bits=3,granularity=tensor}",
        "quantize_weights{bits=2}", "upgrade_opset{target=21}"};
    std::string text;
    const std::int64_t count = 1 + below(4);
    for (std::int64_t i = 0; i < count; ++i)
      text += (i ? "," : "") + steps[static_cast<std::size_t>(below(std::ssize(steps)))];
    return text;
  }

 private:
  struct Made {
    std::string name;
    std::vector<std::int64_t> dims;
  };

  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(bound)));
  }
  std::string fresh(const char* stem) { return fmt::format("{}{}", stem, ++count_); }

  std::string tensor(const std::vector<std::int64_t>& dims, const char* range = "-1,1") {
    std::string name = fresh("c");
    const std::string type = fmt::format("float32[{}]", fmt::join(dims, ","));
    initializers_ += fmt::format("initializer {}: {} = random({},{})\n", name, type, below(1000), range);
    if (below(4) == 0) {  // through a node that folds
      const std::string folded = fresh("f");
      nodes_ += fmt::format("{} = {}({})\n", folded, below(2) ? "Identity" : "Abs", name);
      return folded;
    }
    return name;
  }

  void add(const std::string& name, const std::vector<std::int64_t>& dims, const std::string& call) {
    nodes_ += fmt::format("{} = {}\n", name, call);
    values_.push_back({name, dims});
  }

  void add_norm(const Made& in, const std::string& out) {
    const std::vector<std::int64_t> channels{in.dims[1]};
    const std::string gamma = tensor(channels, "0.5,2"), beta = tensor(channels), mean = tensor(channels);
    const std::string variance = tensor(channels, "0.5,2");
    add(out, in.dims, fmt::format("BatchNormalization({}, {}, {}, {}, {})", in.name, gamma, beta, mean, variance));
  }

  void add_layer() {
    const Made in = below(4) ? values_.back() : values_[static_cast<std::size_t>(below(std::ssize(values_)))];
    const std::string out = fresh("v");
    const bool image = in.dims.size() == 4;
    switch (below(8)) {
      case 0:
      case 1:
        if (image) {
          const std::int64_t made = 2 + below(7);
          const bool transposed = below(3) == 0;
          const std::string w = tensor(transposed ? std::vector<std::int64_t>{in.dims[1], made, 3, 3}
                                                  : std::vector<std::int64_t>{made, in.dims[1], 3, 3});
          const std::string bias = below(2) ? ", " + tensor({made}) : "";
          add(out, {1, made, in.dims[2], in.dims[3]},
              fmt::format("{}({}, {}{}) {{pads=[1,1,1,1]}}", transposed ? "ConvTranspose" : "Conv", in.name, w, bias));
        } else {
          const std::int64_t made = 3 + below(8);
          if (below(2)) add(out, {1, made}, fmt::format("Gemm({}, {}) {{transB=1, alpha=0.5, beta=2.0}}", in.name, tensor({made, in.dims[1]})));
          else add(out, {1, made}, fmt::format("MatMul({}, {})", in.name, tensor({in.dims[1], made})));
        }
        if (below(3)) add_norm(Made(values_.back()), fresh("v"));
        break;
      case 2: add_norm(in, out); break;
      case 3: add(out, in.dims, fmt::format("Relu({})", in.name)); break;
      case 4: add(out, in.dims, fmt::format("Add({}, {})", in.name, tensor({1}))); break;
      case 5: {
        const std::string shape = fresh("s"), filled = fresh("s");
        nodes_ += fmt::format("{} = Shape({})\n{} = ConstantOfShape({}) {{value=float32[1]{{0.5}}}}\n", shape, in.name,
                              filled, shape);
        add(out, in.dims, fmt::format("Mul({}, {})", in.name, filled));
        break;
      }
      case 6:
        if (image) {
          const std::string shape = fresh("s"), batch = fresh("s"), target = fresh("s");
          const std::string zero = fresh("i"), rest = fresh("i");
          initializers_ += fmt::format("initializer {}: int64[1] = {{0}}\ninitializer {}: int64[1] = {{-1}}\n", zero, rest);
          nodes_ += fmt::format("{} = Shape({})\n{} = Gather({}, {})\n{} = Concat({}, {}) {{axis=0}}\n", shape, in.name,
                                batch, shape, zero, target, batch, rest);
          add(out, {1, in.dims[1] * in.dims[2] * in.dims[3]}, fmt::format("Reshape({}, {})", in.name, target));
        } else {
          add(out, in.dims, fmt::format("Neg({})", in.name));
        }
        break;
      default: {
        nodes_ += fmt::format("{} = Constant() {{value=float32[1]{{{}.5}}}}\n", fresh("k"), below(9));
        add(out, in.dims, fmt::format("Sub({}, k{})", in.name, count_));
      }
    }
  }

  Random random_;
  int count_ = 0;
  std::string initializers_, nodes_;
  std::vector<Made> values_;
};

TEST_CASE("random models through random pipelines") {
  RunOptions options;
  options.threads = 1;
  options.keep_going = true;
  for (std::uint64_t seed = 0; seed < 250; ++seed) {
    Generator generator(seed);
    const std::string text = generator.model(), steps = generator.pipeline();
    CAPTURE(seed);
    CAPTURE(text);
    CAPTURE(steps);
    options.seed = seed;
    const RunResult result = run_pipeline(typed(text), Pipeline::parse(steps), options);
    CHECK_FALSE(result.rolled_back);
    CHECK(result.verified);
    CHECK_NOTHROW(verify(*result.model));
    for (const PassRecord& record : result.passes) {
      CAPTURE(record.text);
      CHECK(record.failure == "");
      if (record.text.starts_with("quantize_weights") && record.changed) CHECK(record.bytes_after < record.bytes_before);
      if (record.pass != "upgrade_opset") CHECK(record.bytes_after <= record.bytes_before);
    }
  }
}

TEST_CASE("simplify and fuse reach a fixed point on random models, and never grow them") {
  RunOptions options;
  options.threads = 1;
  for (std::uint64_t seed = 1000; seed < 1150; ++seed) {
    Generator generator(seed);
    const std::string text = generator.model();
    CAPTURE(seed);
    CAPTURE(text);
    options.seed = seed;
    const Pipeline pipeline = Pipeline::parse("simplify,fuse,simplify");
    RunResult once = run_pipeline(typed(text), pipeline, options);
    CHECK_FALSE(once.rolled_back);
    CHECK(serialized_size(*once.model) <= serialized_size(*typed(text)));
    const RunResult twice = run_pipeline(once.model->clone(), pipeline, options);
    for (const PassRecord& record : twice.passes) CHECK_FALSE(record.changed);
    CHECK(to_text(*twice.model) == to_text(*once.model));
  }
}

}  // namespace
}  // namespace onnxpress
