// Every form and type of a weight-only quantization, run by the engine: the weights that come out are
// those that the grids say, bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <set>

#include "graph/base/random.h"
#include "graph/onnx/writer.h"
#include "passes/common/quantization.h"
#include "passes/quantize/codebook.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::int64_t inputs = 70, outputs = 24;  // inputs are no whole number of blocks

std::string product(int opset, const std::string& type = "float32") {
  return "model ir=" + std::string(opset >= 23 ? "13" : "10") + " opset=" + std::to_string(opset) + "\ninput x: " + type +
         "[n,70]\ninitializer w: " + type + "[70,24] = random(1)\ny = MatMul(x, w)\noutput y: " + type + "[n,24]\n";
}

Tensor identity(std::int64_t size, DType type) {
  std::vector<float> values(static_cast<std::size_t>(size * size), 0.0F);
  for (std::int64_t i = 0; i < size; ++i) values[static_cast<std::size_t>(i * (size + 1))] = 1;
  return Tensor::of<float>({size, size}, values).cast(type);
}

// The rows that the model multiplies with.
std::vector<float> weights_of(const Model& model, DType type = DType::float32) {
  return run_probes(model, {{identity(inputs, type)}}, true, 1)[0][0].to_floats();
}

std::vector<float> expected_weights(const Tensor& weight, const QuantizedType& type, const Granularity& granularity,
                                    const GridOptions& options) {
  const auto grid = min_max_grid(weight, type, granularity, options);
  REQUIRE(grid);
  const std::vector<float> values = weight.to_floats();
  std::vector<float> levels(values.size());
  for_each_scale_run(weight.dims(), granularity, [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
    const QuantizationParameters& p = grid->parameters[static_cast<std::size_t>(group)];
    for (std::int64_t i = begin; i < begin + count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      levels[at] = dequantize(quantize(values[at], p, type), p, type);
    }
  });
  return Tensor::of<float>(weight.dims(), levels).cast(weight.dtype()).to_floats();
}

struct Case {
  std::string options;
  QuantizedType type;
  Granularity granularity;
  GridOptions grid;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  const std::pair<std::string, Granularity> granularities[] = {{"tensor", Granularity::per_tensor()},
                                                               {"channel", Granularity::per_channel(1)},
                                                               {"block,block=16", Granularity::per_block(0, 16)}};
  const std::tuple<std::string, DType, int, bool> types[] = {
      {"int2", DType::int2, 2, true},     {"uint2", DType::uint2, 2, false},   {"int4", DType::int4, 4, true},
      {"uint4", DType::uint4, 4, false},  {"int8", DType::int8, 8, true},      {"uint8", DType::uint8, 8, false},
      {"int16", DType::int16, 16, true},  {"uint16", DType::uint16, 16, false}, {"float8e4m3fn", DType::float8e4m3fn, 8, true},
      {"float8e5m2", DType::float8e5m2, 8, true}, {"float4e2m1", DType::float4e2m1, 4, true}};
  for (const auto& [granularity_text, granularity] : granularities)
    for (const auto& [name, storage, bits, symmetric] : types)
      for (const std::string scales : {"", ",scales=fp16", ",power_of_two=true"}) {
        const GridOptions grid{.scale_type = scales == ",scales=fp16" ? DType::float16 : DType::undefined,
                               .power_of_two = scales == ",power_of_two=true"};
        cases.push_back({"type=" + name + ",granularity=" + granularity_text + scales, {bits, symmetric, storage},
                         granularity, grid});
      }
  cases.push_back({"type=int8,symmetric=false", {8, false, DType::int8}, Granularity::per_channel(1), {}});
  cases.push_back({"type=int8,bits=5", {5, true, DType::int8}, Granularity::per_channel(1), {}});
  cases.push_back({"type=mxfp4", {4, true, DType::float4e2m1}, Granularity::per_block(0, 32), {.scale_type = DType::float8e8m0}});
  cases.push_back({"type=mxfp8", {8, true, DType::float8e4m3fn}, Granularity::per_block(0, 32), {.scale_type = DType::float8e8m0}});
  cases.push_back({"type=nvfp4", {4, true, DType::float4e2m1}, Granularity::per_block(0, 16), {.scale_type = DType::float8e4m3fn}});
  return cases;
}

TEST_CASE("DequantizeLinear of every type, granularity and kind of scales") {
  for (const std::string element : {"float32", "float16"})
    for (const Case& each : all_cases()) {
      if (element == "float16" && each.type.bits == 16) continue;  // no smaller
      const std::string step = "quantize_weights{storage=smallest," + each.options + "}";
      CAPTURE(step);
      CAPTURE(element);
      const PassRun run = run_pass(step, product(25, element));
      REQUIRE(run.outcome.layers.size() == 1);
      CHECK(run.outcome.layers[0]["storage"] == name(each.type.storage));
      CHECK(run.outcome.layers[0]["form"] == "DequantizeLinear");
      CHECK(serialized_size(*run.after) < serialized_size(*run.before));
      const Tensor& weight = *run.before->graph.find("w")->constant();
      CHECK(weights_of(*run.after, weight.dtype()) == expected_weights(weight, each.type, each.granularity, each.grid));
      CHECK_FALSE(run_pass(step, run.after->clone()).outcome.changed);
    }
}

TEST_CASE("the reference runtime's limits") {
  const auto opset = [](const std::string& options) {
    const Pipeline pipeline = Pipeline::parse("quantize_weights{" + options + "}");
    return pipeline.steps[0].pass->required_opset(*parse_model(product(13)), pipeline.steps[0].options);
  };
  CHECK(opset("type=float8e4m3fn") == 19);
  CHECK(opset("type=float8e4m3fn,granularity=block") == 21);
  CHECK(opset("granularity=block") == 21);
  CHECK(opset("bits=16") == 21);
  CHECK(opset("bits=4,scales=fp16") == 21);
  CHECK(opset("bits=8,scales=fp16") == 13);
  CHECK(opset("type=mxfp8,storage=smallest") == 24);
  CHECK(opset("type=nvfp4,storage=smallest") == 23);
  CHECK(opset("form=codebook,bits=8") <= 13);
  CHECK(opset("form=codebook,bits=4") == 21);
  CHECK(opset("form=contrib,bits=4") <= 13);
  for (const std::string type : {"mxfp4", "mxfp8", "nvfp4", "float4e2m1"}) {
    CAPTURE(type);
    const Pipeline pipeline = Pipeline::parse("quantize_weights{type=" + type + "}");
    CHECK_THROWS_WITH_AS(pipeline.steps[0].pass->check(pipeline.steps[0].options), doctest::Contains("storage=smallest"), Error);
  }
}

TEST_CASE("what contradicts itself is an error before any work") {
  const auto check = [](const std::string& step) {
    const Pipeline pipeline = Pipeline::parse(step);
    pipeline.steps[0].pass->check(pipeline.steps[0].options);
  };
  CHECK_THROWS_AS(check("quantize{scheme=weights,form=qoperator}"), Error);
  CHECK_THROWS_AS(check("quantize{scheme=dynamic,form=codebook}"), Error);
  CHECK_THROWS_AS(check("quantize_weights{form=codebook,type=int4}"), Error);
  CHECK_THROWS_AS(check("quantize_weights{form=codebook,method=mse}"), Error);
  CHECK_THROWS_AS(check("quantize_weights{type=float8e5m2,method=gptq}"), Error);
  CHECK_THROWS_AS(check("quantize_weights{type=int32}"), Error);
  CHECK_THROWS_AS(check("quantize_weights{form=contrib,scales=fp16}"), Error);
  CHECK_THROWS_AS(check("quantize_weights{form=codebook,power_of_two=true}"), Error);
  CHECK_THROWS_AS(check("quantize_weights{type=mxfp8,storage=smallest,scales=fp16}"), Error);
  CHECK_THROWS_AS(check("quantize_weights{accuracy_level=4}"), Error);
  CHECK_NOTHROW(check("quantize_weights{type=float8e5m2,method=mse}"));
}

TEST_CASE("MatMulNBits holds the same numbers as DequantizeLinear") {
  for (const int bits : {2, 3, 4, 8})
    for (const bool symmetric : {true, false})
      for (const std::string block : {"16", "32", "128"}) {
        const std::string options = "bits=" + std::to_string(bits) + ",symmetric=" + (symmetric ? "true" : "false") +
                                    ",granularity=block,storage=smallest,block=" + block;
        CAPTURE(options);
        const PassRun contrib = run_pass("quantize_weights{form=contrib," + options + "}", product(25));
        REQUIRE(contrib.outcome.layers.size() == 1);
        CHECK(contrib.outcome.layers[0]["form"] == "MatMulNBits");
        CHECK(contrib.after->graph.node_count() == 1);
        CHECK(contrib.after->graph.find("w") == nullptr);
        const std::int64_t width = bits == 3 ? 4 : bits;
        const QuantizedType type{bits, symmetric, width == 2 ? (symmetric ? DType::int2 : DType::uint2)
                                                  : width == 4 ? (symmetric ? DType::int4 : DType::uint4)
                                                               : (symmetric ? DType::int8 : DType::uint8)};
        CHECK(weights_of(*contrib.after) == expected_weights(*contrib.before->graph.find("w")->constant(), type,
                                                             Granularity::per_block(0, std::stoi(block)), {}));
      }
}

TEST_CASE("Gemm, lookups and what com.microsoft has no operator for") {
  const PassRun run = run_pass("quantize_weights{form=contrib,bits=4,accuracy_level=4}", R"(model ir=10 opset=21
input x: float32[3,64]
input i: int64[5]
input image: float32[1,32,4,4]
initializer table: float32[40,64] = random(1)
initializer head: float32[40,64] = random(2)
initializer bias: float32[40] = random(3)
initializer kernel: float32[16,32,3,3] = random(4)
initializer left: float32[48,3] = random(5)
rows = Gather(table, i)
scores = Gemm(x, table, bias) {transB=1}
plain = Gemm(x, head, bias) {transB=1, alpha=0.5}
maps = Conv(image, kernel)
side = MatMul(left, x)
output rows: float32[5,64]
output scores: float32[3,40]
output plain: float32[3,40]
output maps: float32[1,16,2,2]
output side: float32[48,64]
)");
  int products = 0, lookups = 0, dequantized = 0;
  for (const Node* node : run.after->graph.nodes()) {
    products += node->is("MatMulNBits", "com.microsoft");
    lookups += node->is("GatherBlockQuantized", "com.microsoft");
    dequantized += node->is("DequantizeLinear");
    if (node->is("MatMulNBits", "com.microsoft")) CHECK(std::get<std::int64_t>(node->attribute("accuracy_level")->value) == 4);
  }
  CHECK(products == 1);
  CHECK(lookups == 1);
  CHECK(dequantized >= 2);
  CHECK(run.after->graph.find("table") == nullptr);
  CHECK(run.after->opsets.at("com.microsoft") == 1);
  bool told = false;
  for (const std::string& note : run.outcome.notes) told |= note.find("has no such operator") != std::string::npos;
  CHECK(told);
}

TEST_CASE("palettes: one, by channel, by groups of channels") {
  for (const int bits : {2, 3, 4, 5, 8})
    for (const std::string granularity : {"tensor", "channel", "block,block=3", "block,block=7"})
      for (const std::string element : {"float32", "float16"}) {
        const std::string step = "quantize_weights{form=codebook,bits=" + std::to_string(bits) +
                                 ",granularity=" + granularity + "}";
        CAPTURE(step);
        CAPTURE(element);
        auto model = parse_model("model ir=13 opset=25\ninput x: " + element + "[n,70]\ninitializer w: " + element +
                                 "[70,240] = random(1)\ny = MatMul(x, w)\noutput y: " + element + "[n,240]\n");
        const PassRun run = run_pass(step, std::move(model));
        if (!run.outcome.changed) {
          CHECK(run.reason("quantize_weights").find("would not shrink") != std::string::npos);
          CHECK(bits == 8);
          continue;
        }
        CHECK(serialized_size(*run.after) < serialized_size(*run.before));
        const Json& layer = run.outcome.layers.at(0);
        const Tensor& weight = *run.before->graph.find("w")->constant();
        const std::vector<float> values = weight.to_floats(), found = weights_of(*run.after, weight.dtype());
        // Every element is the nearest of the numbers that its palette has.
        const std::int64_t block = layer["granularity"] == "tensor" ? 240 : layer["block"].get<std::int64_t>();
        std::map<std::int64_t, std::set<float>> palettes;
        for (std::size_t i = 0; i < found.size(); ++i) palettes[static_cast<std::int64_t>(i) % 240 / block].insert(found[i]);
        int farther = 0;
        double signal = 0, noise = 0;
        for (std::size_t i = 0; i < found.size(); ++i) {
          const std::set<float>& palette = palettes[static_cast<std::int64_t>(i) % 240 / block];
          CHECK_MESSAGE(palette.size() <= std::size_t{1} << bits, palette.size());
          for (const float entry : palette) farther += std::fabs(values[i] - entry) < std::fabs(values[i] - found[i]);
          signal += static_cast<double>(values[i]) * static_cast<double>(values[i]);
          noise += std::pow(static_cast<double>(values[i]) - static_cast<double>(found[i]), 2);
        }
        CHECK(farther == 0);
        if (noise > 0) CHECK(layer["snr_db"].get<double>() == doctest::Approx(10 * std::log10(signal / noise)));
        CHECK_FALSE(run_pass(step, run.after->clone()).outcome.changed);
      }
}

TEST_CASE("a palette does better than evenly spaced levels on weights that are not evenly spread") {
  Random random(9);
  std::vector<float> values(128 * 64);
  for (float& value : values) value = static_cast<float>(std::pow(random.uniform(-1, 1), 5));
  const auto snr = [&](const std::string& step) {
    auto model = parse_model("model ir=13 opset=25\ninput x: float32[2,128]\ninitializer w: float32[128,64] = ones\n"
                             "y = MatMul(x, w)\noutput y: float32[2,64]\n");
    model->graph.set_initializer(model->graph.find("w"), Tensor::of<float>({128, 64}, values));
    return run_pass(step, std::move(model)).outcome.layers.at(0)["snr_db"].get<double>();
  };
  CHECK(snr("quantize_weights{form=codebook,bits=4,granularity=tensor}") >
        snr("quantize_weights{bits=4,granularity=tensor}") + 1.5);
  CHECK(snr("quantize_weights{form=codebook,bits=6,granularity=tensor}") >
        snr("quantize_weights{bits=6,granularity=tensor}") + 1.5);
}

TEST_CASE("zeros stay zeros in a palette when they are many") {
  auto model = parse_model(product(25));
  Tensor weight = *model->graph.find("w")->constant();
  std::size_t i = 0;
  for (float& value : weight.mutable_data<float>())
    if (i++ % 3 != 0) value = 0;
  model->graph.set_initializer(model->graph.find("w"), weight);
  const PassRun run = run_pass("quantize_weights{form=codebook,bits=4,granularity=tensor}", std::move(model));
  CHECK(run.outcome.layers.at(0)["zeros"].get<int>() >= 2 * inputs * outputs / 3);
}

TEST_CASE("4 bits in blocks of 32: shares of the float bytes") {
  const auto share = [](const std::string& options) {
    const PassRun run = run_pass("quantize_weights{bits=4,granularity=block," + options + "}",
                                 "model ir=10 opset=21\ninput x: float32[1,512]\ninitializer w: float32[512,512] = random(1)\n"
                                 "y = MatMul(x, w)\noutput y: float32[1,512]\n");
    return static_cast<double>(serialized_size(*run.after)) / (512 * 512 * 4);
  };
  CHECK(share("symmetric=true") <= 0.158);
  CHECK(share("symmetric=false") <= 0.162);
  CHECK(share("scales=fp16") <= 0.15);
  CHECK(share("form=contrib") <= 0.158);
}

TEST_CASE("bits by selector, and nothing at all") {
  const PassRun run = run_pass("quantize_weights{bits=8,overrides='tensor:a=4;tensor:b=float'}", R"(model ir=10 opset=21
input x: float32[2,64]
initializer a: float32[64,64] = random(1)
initializer b: float32[64,64] = random(2)
initializer c: float32[64,64] = random(3)
p = MatMul(x, a)
q = MatMul(p, b)
y = MatMul(q, c)
output y: float32[2,64]
)");
  REQUIRE(run.outcome.layers.size() == 2);
  CHECK(run.outcome.layers[0]["storage"] == "int4");
  CHECK(run.outcome.layers[1]["storage"] == "int8");
  CHECK(run.reason("quantize_weights").find("an override says so") != std::string::npos);
}

TEST_CASE("2-bit weights that the runtime moves or multiplies wrong are stored in 4 bits") {
  const auto storage = [](const std::string& options, const std::string& dims, const std::string& nodes) {
    const PassRun run = run_pass("quantize_weights{" + options + "}",
                                 "model ir=13 opset=25\ninput x: float32[2,128]\ninitializer w: float32" + dims +
                                     " = random(1)\n" + nodes + "\noutput y\n");
    REQUIRE(run.outcome.layers.size() == 1);
    return run.outcome.layers[0]["storage"].get<std::string>();
  };
  const std::string product = "y = MatMul(x, w)", turned = "v = Transpose(w) {perm=[1,0]}\ny = MatMul(x, v)";
  const std::string same = "v = Identity(w)\ny = Gemm(x, v)", gemm = "v = Identity(w)\ny = Gemm(x, v) {transB=1}";
  CHECK(storage("bits=2", "[128,64]", product) == "int2");
  CHECK(storage("bits=2", "[128,66]", product) == "int4");
  CHECK(storage("type=int2", "[128,66]", product) == "int4");
  CHECK(storage("type=uint2,symmetric=false", "[128,66]", product) == "uint4");
  CHECK(storage("bits=2,storage=smallest", "[128,66]", product) == "int2");
  CHECK(storage("bits=2", "[64,128]", turned) == "int2");
  CHECK(storage("bits=2", "[66,128]", turned) == "int4");
  CHECK(storage("bits=2,symmetric=false", "[64,128]", turned) == "uint4");
  CHECK(storage("bits=2", "[128,66]", same) == "int4");
  CHECK(storage("bits=2", "[66,128]", gemm) == "int4");
  CHECK(storage("bits=2,symmetric=false", "[128,64]", product) == "uint2");
}

}  // namespace
}  // namespace onnxpress
