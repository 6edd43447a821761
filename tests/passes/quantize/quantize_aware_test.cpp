// Quantization-aware training: fake quantization is what is converted, training helps, blocks are found.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "passes/common/training_options.h"
#include "passes/quantize/aware_blocks.h"
#include "passes/quantize/fake_graph.h"
#include "passes/quantize/options.h"
#include "tests/passes/common/labelled_data.h"
#include "tests/passes/common/listed_data.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr const char* residual = R"(model ir=8 opset=17
input x: float32[n,3,8,8]
initializer w1: float32[8,3,3,3] = random(1)
initializer b1: float32[8] = random(2)
initializer w2: float32[8,8,3,3] = random(3)
initializer b2: float32[8] = random(4)
initializer w3: float32[8,8,3,3] = random(5)
initializer w4: float32[8,5] = random(6)
initializer b4: float32[5] = random(7)
a = Conv(x, w1, b1) {pads=[1,1,1,1]}
r = Relu(a)
b = Conv(r, w2, b2) {pads=[1,1,1,1]}
s = Relu(b)
c = Conv(s, w3) {pads=[1,1,1,1]}
d = Add(c, r)
e = Relu(d)
p = MaxPool(e) {kernel_shape=[2,2], strides=[2,2]}
g = GlobalAveragePool(p)
f = Flatten(g)
y: float32[n,5] = Gemm(f, w4, b4)
output y: float32[n,5]
)";

constexpr const char* net = R"(model ir=13 opset=25
input x: float32[n,2]
initializer w1: float32[2,24] = random(1)
initializer b1: float32[24] = random(5)
initializer w2: float32[24,24] = random(2)
initializer b2: float32[24] = random(6)
initializer w3: float32[24,4] = random(3)
initializer b3: float32[4] = random(7)
h = Gemm(x, w1, b1) "first"
r = Relu(h)
k = Gemm(r, w2, b2) "second"
s = Relu(k)
y: float32[n,4] = Gemm(s, w3, b3) "third"
output y: float32[n,4]
)";

Options options_of(const std::map<std::string, std::string>& given) {
  return Options("quantize", quantize_options, given);
}

// The largest difference over the largest expected number.
double apart(const Tensor& expected, const Tensor& found) {
  double most = 0, scale = 0;
  const auto a = expected.data<float>(), b = found.data<float>();
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::fabs(double{a[i]} - double{b[i]}));
    scale = std::max(scale, std::fabs(double{a[i]}));
  }
  return most / scale;
}

TEST_CASE("what is trained with is what is converted") {
  struct Case {
    std::map<std::string, std::string> options;
    bool has_biases;  // as int32: rounded where fake quantization leaves them
  };
  const Case cases[] = {
      {{{"bits", "8"}}, true},
      {{{"bits", "4"}, {"act_bits", "4"}, {"method", "mse"}, {"target", "openvino"}}, false},
      {{{"bits", "2"}, {"act_bits", "3"}, {"symmetric", "false"}, {"granularity", "tensor"}, {"target", "openvino"}},
       false},
      {{{"bits", "3"}, {"act_bits", "2"}, {"act_type", "int8"}, {"target", "tensorrt"}}, false},
      {{{"scheme", "weights"}, {"bits", "4"}, {"granularity", "block"}, {"block", "4"}, {"symmetric", "false"}}, false},
      {{{"scheme", "weights"}, {"bits", "2"}}, false},
  };
  for (const Case& of : cases) {
    const Options options = options_of(of.options);
    CAPTURE(options.to_text());
    QuantizeRequest request = QuantizeRequest::from(options);
    FakeQuantized fake;
    request.tune = [&](Model& model, TunedGrids& grids) { fake = fake_quantize(model, grids); };
    request.may_grow = true;
    auto model = parse_model(residual);
    ListedData data({{normal_tensor({16, 3, 8, 8}, 1)}, {normal_tensor({16, 3, 8, 8}, 2)}});
    ThreadPool pool(2);
    PassContext context{.options = options, .pool = pool, .calibration = &data};
    model->opsets[""] = 21;  // what any of the types needs
    if (request.scheme == Scheme::static_ranges)
      quantize_static(*model, context, request);
    else
      quantize_weights_only(*model, context, request);
    REQUIRE(fake.model != nullptr);
    const std::vector<Tensor> input{normal_tensor({4, 3, 8, 8}, 3)};
    const Tensor expected = Engine(*model, {.threads = 1, .reference = true}).run(input).at(0);
    const Tensor found = Engine(*fake.model, {.threads = 1, .reference = true}).run(input).at(0);
    // Where a code is on the edge between two, sums in another order may choose the other one.
    CHECK(apart(expected, found) < (of.has_biases ? 0.02 : 1e-4));
  }
}

TEST_CASE("a residual is one block, a layer of a chain another") {
  const auto model = parse_model(residual);
  const auto any = [](const Value&) { return true; };
  const std::vector<Block> blocks = find_blocks(*model, {"w1", "w2", "w3", "w4"}, any);
  REQUIRE(blocks.size() == 3);
  CHECK(blocks[0].begin.empty());
  CHECK(blocks[0].ends == std::vector<std::string>{"r"});
  CHECK(blocks[1].begin == "r");
  CHECK(blocks[1].ends == std::vector<std::string>{"f"});
  CHECK(blocks[2].begin == "f");
  CHECK(blocks[2].ends == std::vector<std::string>{"y"});
  // Values that may not be ends join blocks.
  const std::vector<Block> joined =
      find_blocks(*model, {"w1", "w2", "w3", "w4"}, [](const Value& value) { return value.name() != "r"; });
  REQUIRE(joined.size() == 2);
  CHECK(joined[0].ends == std::vector<std::string>{"f"});
  const auto part = cut_block(*model, "r", {"f"});
  REQUIRE_NOTHROW(verify(*part));
  CHECK(part->graph.find("w1") == nullptr);
  CHECK(part->graph.find("w2") != nullptr);
  REQUIRE(part->graph.inputs().size() == 1);
  CHECK(to_string(part->graph.inputs()[0]->type) == "float32[n,8,8,8]");
}

// Of the model's outputs, on the quadrants.
double accuracy(const Model& model) {
  LabelledData data = quadrants(400);
  data.rewind();
  Engine engine(model, {.threads = 1});
  std::int64_t right = 0, count = 0;
  for (Batch batch; data.next(batch);) {
    const Tensor scores = engine.run(batch.inputs).at(0);
    for (std::int64_t i = 0; i < batch.samples; ++i) {
      const auto row = scores.data<float>().subspan(static_cast<std::size_t>(4 * i), 4);
      right += std::ranges::max_element(row) - row.begin() == batch.labels.to_ints()[static_cast<std::size_t>(i)];
      ++count;
    }
  }
  return static_cast<double>(right) / static_cast<double>(count);
}

std::unique_ptr<Model> trained_net() {
  LabelledData data = quadrants(400);
  return run_pass("finetune{epochs=15,learning_rate=0.02,batch_size=20}", net, {.training = &data}).after;
}

PassRun aware(const std::string& options, const Model& model) {
  LabelledData data = quadrants(400);
  return run_pass("quantize_aware{" + options + "}", model.clone(), {.training = &data});
}

TEST_CASE("training with 2-bit weights wins back what rounding alone loses") {
  const auto model = trained_net();
  REQUIRE(accuracy(*model) > 0.97);
  LabelledData data = quadrants(400);
  const double alone =
      accuracy(*run_pass("quantize{bits=2,act_bits=8,method=mse}", model->clone(), {.calibration = &data}).after);
  const PassRun run = aware("bits=2,act_bits=8,epochs=20,learning_rate=0.01,batch_size=20", *model);
  const double trained = accuracy(*run.after);
  CHECK(trained > alone);
  CHECK(trained > 0.9);
  for (const Json& layer : run.outcome.layers) CHECK((layer["kind"] != "weight" || layer["bits"] == 2));
  CHECK(run.outcome.training["objective"] == "labels");
  CHECK(run.outcome.training["learned_scales"].get<int>() >= 5);
}

TEST_CASE("the float model teaches without labels, as a whole and block by block") {
  const auto model = trained_net();
  const double alone = accuracy(*aware("scheme=weights,bits=2,epochs=1,learning_rate=0", *model).after);
  for (const std::string objective : {"teacher", "both", "blocks"}) {
    CAPTURE(objective);
    const PassRun run =
        aware("scheme=weights,bits=2,objective=" + objective + ",epochs=10,learning_rate=0.01,batch_size=20", *model);
    CHECK(accuracy(*run.after) > std::max(0.9, alone));
    CHECK(run.outcome.training["objective"] == objective);
    if (objective != "blocks") continue;
    // The first layer is too small to shrink; its bias is trained with the block before the second cut.
    REQUIRE(run.outcome.training["blocks"].size() == 2);
    for (const Json& block : run.outcome.training["blocks"])
      CHECK(block["last_held_out_loss"].get<double>() < block["first_held_out_loss"].get<double>());
  }
}

TEST_CASE("scales and zero points stay where they are not to be learned") {
  const auto model = trained_net();
  const auto scale = [](const PassRun& run) { return run.after->graph.find("w2_scale")->constant()->to_floats(); };
  const std::string common =
      "scheme=weights,bits=4,granularity=tensor,method=rtn,epochs=2,learning_rate=0.01,keep_best=false";
  const std::vector<float> chosen = scale(aware(common + ",learn_scales=false", *model));
  CHECK(scale(aware(common, *model)) != chosen);
  const std::vector<float> power = scale(aware(common + ",power_of_two=true", *model));
  CHECK(std::log2(power[0]) == std::floor(std::log2(power[0])));
}

TEST_CASE("options that contradict each other or do nothing are refused") {
  const auto refusal = [](const std::string& options) {
    try {
      const Pipeline pipeline = Pipeline::parse("quantize_aware{" + options + "}");
      pipeline.steps[0].pass->check(pipeline.steps[0].options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK(refusal("bits=4") == "accepted");
  CHECK(refusal("teacher_share=0.3").find("belongs to objective=both") != std::string::npos);
  CHECK(refusal("objective=labels,temperature=2").find("belongs to objective=teacher or both") != std::string::npos);
  CHECK(refusal("objective=blocks,loss=mse").find("belongs to objective=labels or both") != std::string::npos);
  CHECK(refusal("bias_correction=empirical").find("here biases are trained") != std::string::npos);
  CHECK(refusal("scheme=weights,form=codebook").find("codebook") != std::string::npos);
  CHECK(refusal("act_type=float8e4m3fn").find("expected integer types") != std::string::npos);
  CHECK(refusal("act_bits=9").find("act_bits") != std::string::npos);
  CHECK(refusal("act_type=int16,act_bits=6").find("levels of 8-bit codes can be restricted") != std::string::npos);
}

}  // namespace
}  // namespace onnxpress
