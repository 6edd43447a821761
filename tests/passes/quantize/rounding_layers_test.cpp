// Rounding the weights of whole models by what their layers do to data.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "graph/base/random.h"
#include "passes/quantize/rounding.h"
#include "tests/graph/exec/given_data.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

// Samples that follow a few directions.
Tensor correlated(const Dims& dims, std::uint64_t seed) {
  Random random(seed);
  const std::int64_t samples = dims[0], size = element_count(dims) / samples;
  std::vector<float> mixing(static_cast<std::size_t>(6 * size));
  for (float& value : mixing) value = static_cast<float>(random.normal());
  Tensor tensor(DType::float32, dims);
  for (std::int64_t s = 0; s < samples; ++s) {
    float hidden[6];
    for (float& value : hidden) value = static_cast<float>(random.normal());
    for (std::int64_t i = 0; i < size; ++i) {
      float sum = 0.1F * static_cast<float>(random.normal());
      for (std::int64_t k = 0; k < 6; ++k) sum += hidden[k] * mixing[static_cast<std::size_t>(k * size + i)];
      tensor.mutable_data<float>()[static_cast<std::size_t>(s * size + i)] = sum;
    }
  }
  return tensor;
}

QuantizeRequest request_of(const std::string& text) {
  return QuantizeRequest::from(Pipeline::parse("quantize{scheme=weights," + text + "}").steps[0].options);
}

std::vector<RoundingTask> tasks_of(const Model& model, const QuantizedType& type) {
  std::vector<RoundingTask> tasks;
  for (const Weight& weight : collect_weights(model, WeightKinds::all, Selector(""), "test", nullptr))
    tasks.push_back({weight, type,
                     weight.channel_axis ? Granularity::per_channel(*weight.channel_axis) : Granularity::per_tensor(),
                     {}});
  return tasks;
}

std::vector<RoundingResult> round(const Model& model, const std::vector<RoundingTask>& tasks, const std::string& options,
                                  Dataset* data, int threads = 2) {
  const QuantizeRequest request = request_of(options);
  const Pipeline pipeline = Pipeline::parse("quantize{scheme=weights," + options + "}");
  ThreadPool pool(threads);
  PassContext context{.options = pipeline.steps[0].options, .pool = pool, .seed = 3, .calibration = data};
  const Hash128 before = structural_hash(model, true);
  std::vector<RoundingResult> results = round_weights(model, tasks, context, request);
  CHECK(structural_hash(model, true) == before);
  REQUIRE(results.size() == tasks.size());
  return results;
}

Tensor dequantized(const RoundingTask& task, const QuantizedTensor& quantized) {
  const Tensor& weight = *task.weight.value->constant();
  Tensor values(DType::float32, weight.dims());
  const Tensor codes = quantized.codes.cast(DType::int32);
  const std::vector<float> scales = quantized.scale.to_floats();
  const std::vector<float> zeros =
      quantized.zero_point.defined() ? quantized.zero_point.to_floats() : std::vector<float>(scales.size(), 0.0F);
  for_each_scale_run(weight.dims(), quantized.granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(begin + count); ++i)
      values.mutable_data<float>()[i] = (static_cast<float>(codes.data<std::int32_t>()[i]) - zeros[static_cast<std::size_t>(group)]) *
                                        scales[static_cast<std::size_t>(group)];
  });
  return values.cast(weight.dtype());
}

// Squared error of the outputs, as a share of their square.
double output_error(const Model& model, const std::vector<RoundingTask>& tasks, const std::vector<RoundingResult>& results,
                    const Tensor& x) {
  const auto rounded = model.clone();
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    Value* value = rounded->graph.find(tasks[i].weight.value->name());
    REQUIRE(value);
    rounded->graph.set_initializer(value, dequantized(tasks[i], *results[i].quantized));
  }
  Engine exact(model, {.threads = 1}), after(*rounded, {.threads = 1});
  const std::vector<float> a = exact.run(std::vector<Tensor>{x})[0].to_floats();
  const std::vector<float> b = after.run(std::vector<Tensor>{x})[0].to_floats();
  double signal = 0, noise = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    signal += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    noise += static_cast<double>(a[i] - b[i]) * static_cast<double>(a[i] - b[i]);
  }
  return noise / signal;
}

// Dense, strided, depthwise and transposed convolutions, a residual, products.
const char* const network = R"(model ir=8 opset=17
input x: float32[N,3,8,8]
initializer w1: float32[8,3,3,3] = random(1,-0.3,0.3)
initializer b1: float32[8] = random(2,-0.5,0.5)
initializer w2: float32[8,1,3,3] = random(3,-0.4,0.4)
initializer w3: float32[8,4,1,1] = random(4,-0.5,0.5)
initializer w4: float32[8,3,2,2] = random(5,-0.3,0.3)
initializer w5: float32[54,24] = random(6,-0.2,0.2)
initializer b5: float32[24] = random(7)
initializer w6: float32[10,24] = random(8,-0.3,0.3)
initializer shape: int64[2] = {0,-1}
a = Conv(x, w1, b1) {pads=[1,1,1,1], strides=[2,2]}
a1 = Relu(a)
b = Conv(a1, w2) {group=8, pads=[1,1,1,1]}
b1x = LeakyRelu(b)
c = Conv(b1x, w3) {group=2}
d = Add(c, a1)
e = ConvTranspose(d, w4) {group=2, strides=[2,2], pads=[1,1,1,1]}
s1 = MaxPool(e) {kernel_shape=[2,2], strides=[2,2]}
s = Reshape(s1, shape)
h = MatMul(s, w5)
h1 = Add(h, b5)
h2 = Relu(h1)
y = Gemm(h2, w6) {transB=1}
output y
)";

TEST_CASE("methods that see inputs beat rounding to nearest on a whole network, the same on any number of threads") {
  const auto model = parse_model(network);
  GivenData data(correlated({96, 3, 8, 8}, 1), Tensor(), 5);
  Tensor fresh = correlated({96, 3, 8, 8}, 1);
  for (const bool symmetric : {true, false}) {
    const QuantizedType type{3, symmetric, symmetric ? DType::int4 : DType::uint4};
    const std::vector<RoundingTask> tasks = tasks_of(*model, type);
    REQUIRE(tasks.size() == 6);
    const auto nearest = round(*model, tasks, "bits=3,method=rtn", nullptr);
    const double before = output_error(*model, tasks, nearest, fresh);
    for (const std::string method : {"gptq", "adaround,steps=300", "gptq,act_order=false"}) {
      CAPTURE(method);
      const auto results = round(*model, tasks, "bits=3,method=" + method, &data);
      CHECK(output_error(*model, tasks, results, fresh) < 0.4 * before);
      for (const RoundingResult& result : results) {
        CHECK(result.note.empty());
        REQUIRE(result.output_snr_db);
        CHECK(*result.output_snr_db > 5);
      }
      const auto again = round(*model, tasks, "bits=3,method=" + method, &data, 3);
      for (std::size_t i = 0; i < results.size(); ++i) {
        CHECK(again[i].quantized->codes.equals(results[i].quantized->codes));
        CHECK(again[i].quantized->scale.equals(results[i].quantized->scale));
      }
    }
  }
}

TEST_CASE("the weight error of mse grids is never above that of rounding to nearest") {
  const auto model = parse_model(network);
  for (const int bits : {2, 3, 4, 8}) {
    const auto tasks = tasks_of(*model, {bits, false, DType::uint8});
    const auto nearest = round(*model, tasks, "bits=" + std::to_string(bits) + ",method=rtn", nullptr);
    const auto least = round(*model, tasks, "bits=" + std::to_string(bits) + ",method=mse", nullptr);
    const auto half = round(*model, tasks, "bits=" + std::to_string(bits) + ",method=hqq", nullptr);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      CHECK(least[i].quantized->snr_db >= nearest[i].quantized->snr_db);
      CHECK(least[i].quantized->snr_db >= half[i].quantized->snr_db - 0.01);
    }
  }
}

TEST_CASE("weights of recurrent operators, in bodies and of several readers; lookups and constants say why not") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[N,6,8]
input i: int64[3]
initializer w: float32[1,24,8] = random(1)
initializer r: float32[1,24,8] = random(2)
initializer tied: float32[8,8] = random(3,-0.4,0.4)
initializer table: float32[20,8] = random(4)
initializer left: float32[5,8] = random(6)
initializer right: float32[8,4] = random(7)
initializer steps: int64[] = {3}
initializer yes: bool[] = {1}
y = GRU(x, w, r) {hidden_size=8, layout=1}
b = MatMul(x, tied)
c = MatMul(b, tied)
d = Loop(steps, yes, c) {body=graph {
  input n: int64[]
  input go: bool[]
  input state: float32[?,6,8]
  initializer inner: float32[8,8] = random(5,-0.4,0.4)
  next = MatMul(state, inner)
  go2 = Identity(go)
  output go2
  output next
}}
e = Gather(table, i)
l = MatMul(left, right)
output y
output d
output e
output l
)");
  // Indices beside the samples.
  class WithIndices final : public Dataset {
   public:
    std::int64_t samples() const override { return data_.samples(); }
    bool labelled() const override { return false; }
    void rewind() override { data_.rewind(); }
    bool next(Batch& batch) override {
      if (!data_.next(batch)) return false;
      batch.inputs.push_back(Tensor::of<std::int64_t>({3}, std::vector<std::int64_t>{1, 5, 7}));
      return true;
    }
    std::string description() const override { return "given data"; }
    std::string hash() const override { return ""; }

   private:
    GivenData data_{correlated({60, 6, 8}, 1), Tensor(), 7};
  } data;
  const auto tasks = tasks_of(*model, {3, true, DType::int4});
  for (const std::string method : {"gptq", "adaround,steps=200"}) {
    CAPTURE(method);
    const auto results = round(*model, tasks, "bits=3,method=" + method, &data);
    const auto least = round(*model, tasks, "bits=3,method=mse", nullptr);
    std::string looked_at;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const std::string& name = tasks[t].weight.value->name();
      CAPTURE(name);
      REQUIRE(results[t].quantized);
      if (results[t].output_snr_db) {
        looked_at += name + " ";
        CHECK(results[t].note.empty());
        CHECK_FALSE(results[t].quantized->codes.equals(least[t].quantized->codes));
      } else {
        CHECK(results[t].note == (name == "table" ? "rounded to nearest: Gather is not read as a product of its input 0"
                                                  : "rounded to nearest: its input is a constant"));
        CHECK(results[t].quantized->codes.equals(least[t].quantized->codes));
      }
    }
    CHECK(looked_at == "w r tied inner ");
  }
}

TEST_CASE("what has no calibration data, no finite weights or no equal levels") {
  const auto model = parse_model("model ir=8 opset=17\ninput x: float32[N,8]\ninitializer w: float32[8,6] = random(1)\n"
                                 "initializer v: float32[6,5] = random(2)\na = MatMul(x, w)\ny = MatMul(a, v)\noutput y\n");
  GivenData data(correlated({40, 8}, 1), Tensor(), 8);
  auto tasks = tasks_of(*model, {4, true, DType::int4});
  CHECK_THROWS_AS(round(*model, tasks, "bits=4,method=gptq", nullptr), Error);
  GivenData none(Tensor(DType::float32, {0, 8}), Tensor(), 8);
  CHECK_THROWS_AS(round(*model, tasks, "bits=4,method=gptq", &none), Error);
  CHECK(round(*model, {}, "bits=4,method=gptq", &data).empty());

  tasks[1].type = {8, true, DType::float8e4m3fn};
  const auto mixed = round(*model, tasks, "bits=4,method=adaround,steps=50", &data);
  CHECK(mixed[0].note.empty());
  CHECK(mixed[1].note.find("equal distances") != std::string::npos);
  CHECK(mixed[1].quantized);

  Tensor bad = *model->graph.find("w")->constant();
  bad.mutable_data<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  model->graph.set_initializer(model->graph.find("w"), bad);
  for (const std::string method : {"rtn", "mse", "hqq", "gptq"}) {
    const auto results = round(*model, tasks_of(*model, {4, true, DType::int4}), "bits=4,method=" + method, &data);
    CHECK_FALSE(results[0].quantized);
    CHECK(results[1].quantized);
  }
}

TEST_CASE("scales are of the type that stores them, also of a float16 model") {
  const auto model = parse_model("model ir=9 opset=19\ninput x: float16[N,8]\ninitializer w: float16[8,6] = random(1)\n"
                                 "a = MatMul(x, w)\ny = Relu(a)\noutput y\n");
  GivenData data(correlated({40, 8}, 1).cast(DType::float16), Tensor(), 8);
  const auto tasks = tasks_of(*model, {4, true, DType::int4});
  for (const std::string method : {"mse", "hqq", "gptq", "adaround,steps=50"}) {
    const auto results = round(*model, tasks, "bits=4,method=" + method, &data);
    CHECK(results[0].quantized->scale.dtype() == DType::float16);
    CHECK(results[0].quantized->snr_db > 12);
  }
  auto powers = tasks;
  powers[0].grid.power_of_two = true;
  for (const std::string method : {"mse", "gptq", "adaround,steps=50"})
    for (const float scale : round(*model, powers, "bits=4,method=" + method, &data)[0].quantized->scale.to_floats())
      CHECK(std::exp2(std::round(std::log2(scale))) == scale);
}

}  // namespace
}  // namespace onnxpress
