#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "graph/onnx/writer.h"
#include "graph/ops/infer.h"
#include "graph/ops/upgrade.h"
#include "passes/common/weights.h"
#include "passes/core/runner.h"
#include "passes/quantize/storage.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

// Conv, grouped Conv, ConvTranspose, Gemm and MatMul, with zeros in the weights.
std::string all_linear(int opset, const std::string& type = "float32") {
  const std::string t = type;
  return "model ir=" + std::to_string(ir_version_of_opset(opset)) + " opset=" + std::to_string(opset) + "\n" +
         "input x: " + t + "[2,4,5,5]\n" +
         "initializer w1: " + t + "[8,4,3,3] = random(1)\n" +
         "initializer w2: " + t + "[8,4,3,3] = random(2)\n" +
         "initializer w3: " + t + "[8,9,3,3] = random(3,-1,0.1)\n" +
         "initializer w4: " + t + "[32,1800] = random(4,0.1,1)\n" +
         "initializer w5: " + t + "[32,20] = random(5)\n" +
         "a = Conv(x, w1) {pads=[1,1,1,1]}\nb = Conv(a, w2) {group=2, pads=[1,1,1,1]}\n" +
         "c = ConvTranspose(b, w3) {group=2, pads=[1,1,1,1]}\nf = Flatten(c) {axis=1}\n" +
         "g = Transpose(f) {perm=[1,0]}\nh = Transpose(g) {perm=[1,0]}\n" +
         "d = Concat(h, h, h, h) {axis=1}\ne = Gemm(d, w4) {transB=1}\ny = MatMul(e, w5)\noutput y: " + t + "[2,20]\n";
}

// Zeroes every third element of every weight.
void punch(Model& model) {
  for (Value* value : model.graph.initializers()) {
    Tensor wide = value->constant()->cast(DType::float32);
    std::size_t i = 0;
    for (float& element : wide.mutable_data<float>())
      if (i++ % 3 == 0) element = 0;
    model.graph.set_initializer(value, wide.cast(value->constant()->dtype()));
  }
}

const Node* quantizer(const Model& model, std::string_view weight) {
  const Value* codes = model.graph.find(std::string(weight) + "_quantized");
  REQUIRE(codes);
  return codes->uses()[0].node;
}

TEST_CASE("weights that are moved on their way to the operator are near misses") {
  auto model = parse_model(R"(model ir=8 opset=17
input x: float32[2,40]
initializer big: float32[80,40] = random(1)
initializer starts: int64[1] = {0}
initializer ends: int64[1] = {40}
initializer read: float32[40,40] = random(2)
initializer bias: float32[40] = random(3)
half = Slice(big, starts, ends)
turned = Transpose(half) {perm=[1,0]}
a = MatMul(x, turned)
b = Add(a, bias)
y = MatMul(b, read)
output y: float32[2,40]
)");
  const PassRun run = run_pass("quantize_weights", std::move(model));
  CHECK(run.outcome.counts["quantized"] == 1);
  CHECK(run.outcome.counts["left"] == 1);
  REQUIRE_FALSE(run.outcome.notes.empty());
  CHECK(run.outcome.notes.back().find("'big' (12800 bytes of float32) reaches it through Slice, Transpose") !=
        std::string::npos);
}

TEST_CASE("all widths, signs, granularities and storages") {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const bool symmetric : {true, false}) {
      for (const std::string granularity : {"channel", "tensor"}) {
        for (const std::string storage : {"loadable", "smallest"}) {
          const std::string step = "quantize_weights{bits=" + std::to_string(bits) +
                                   ",symmetric=" + (symmetric ? "true" : "false") + ",granularity=" + granularity +
                                   ",storage=" + storage + "}";
          CAPTURE(step);
          auto model = parse_model(all_linear(25));
          punch(*model);
          const PassRun run = run_pass(step, std::move(model));
          CHECK(run.outcome.changed);
          CHECK(run.after->graph.opset() == 25);
          CHECK(run.after->ir_version == run.before->ir_version);
          CHECK(run.outcome.layers.size() == 5);
          CHECK(serialized_size(*run.after) < serialized_size(*run.before));
          const DType small = symmetric ? DType::int2 : DType::uint2, middle = symmetric ? DType::int4 : DType::uint4;
          const DType wanted = bits == 2 ? small : bits <= 4 ? middle : symmetric ? DType::int8 : DType::uint8;
          for (const Node* node : run.after->graph.nodes()) {
            if (!node->is("DequantizeLinear")) continue;
            std::string name = node->input(0)->name();
            name.resize(name.size() - std::string_view("_quantized").size());
            CAPTURE(name);
            const Tensor& codes = *node->input(0)->constant();
            const Tensor& scale = *node->input(1)->constant();
            CHECK(codes.dtype() == wanted);
            CHECK(scale.dtype() == DType::float32);
            CHECK(scale.rank() == (granularity == "channel" ? 1U : 0U));
            CHECK((node->input(2) != nullptr) != symmetric);
            if (node->input(2)) CHECK(node->input(2)->constant()->dtype() == wanted);
            const std::int64_t low = symmetric ? -((1 << (bits - 1)) - 1) : 0;
            const std::int64_t high = symmetric ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
            const Tensor wide = codes.cast(DType::int32);
            for (const std::int32_t code : wide.data<std::int32_t>()) {
              CHECK_MESSAGE(code >= low, name);
              CHECK_MESSAGE(code <= high, name);
            }
            if (symmetric) {
              const std::vector<float> original = run.before->graph.find(name)->constant()->to_floats();
              for (std::size_t i = 0; i < original.size(); i += 3)
                if (wide.data<std::int32_t>()[i] != 0) FAIL("a zero of '" << name << "' is no longer one");
            } else if (granularity == "tensor") {
              const std::int32_t zero = node->input(2)->constant()->cast(DType::int32).data<std::int32_t>()[0];
              for (std::int64_t i = 0; i < wide.size(); i += 3)
                if (wide.data<std::int32_t>()[static_cast<std::size_t>(i)] != zero) FAIL("a zero is no longer one");
            }
          }
          CHECK_FALSE(run_pass(step, run.after->clone()).outcome.changed);
        }
      }
    }
  }
}

TEST_CASE("channels are on the axis of the operator") {
  const PassRun run = run_pass("quantize_weights", all_linear(17));
  const auto axis_of = [&](const char* tensor) {
    for (const Json& layer : run.outcome.layers)
      if (layer["tensor"] == tensor) return layer["axis"].get<int>();
    return -1;
  };
  CHECK(axis_of("w1") == 0);
  CHECK(axis_of("w2") == 0);
  CHECK(axis_of("w3") == 1);
  CHECK(axis_of("w4") == 0);
  CHECK(axis_of("w5") == 1);
  CHECK(quantizer(*run.after, "w1")->is("DequantizeLinear"));
  CHECK(run.after->graph.opset() == 17);
}

std::int64_t opset_for(const std::string& step_text, const std::string& model_text) {
  const Pipeline pipeline = Pipeline::parse(step_text);
  return pipeline.steps[0].pass->required_opset(*parse_model(model_text), pipeline.steps[0].options);
}

TEST_CASE("the opset is raised no further than the form needs") {
  CHECK(opset_for("quantize_weights", all_linear(11)) == 13);
  CHECK(opset_for("quantize_weights{granularity=tensor}", all_linear(11)) == 10);
  CHECK(opset_for("quantize_weights{bits=5}", all_linear(13)) == 13);
  CHECK(opset_for("quantize_weights{bits=4}", all_linear(13)) == 21);
  CHECK(opset_for("quantize_weights{bits=3}", all_linear(13)) == 21);
  CHECK(opset_for("quantize_weights{bits=2}", all_linear(13)) == 25);
  CHECK(opset_for("quantize_weights", all_linear(13, "float16")) == 19);
  const auto product = [](const std::string& columns) {
    return "model ir=8 opset=17\ninput x: float32[2,64]\ninitializer w: float32[64," + columns +
           "] = random(1)\ny = MatMul(x, w)\noutput y: float32[2," + columns + "]\n";
  };
  CHECK(opset_for("quantize_weights{bits=2}", product("32")) == 25);
  CHECK(opset_for("quantize_weights{bits=2}", product("31")) == 21);  // all of it is stored as int4
  CHECK(opset_for("quantize_weights{bits=2,storage=smallest}", product("31")) == 25);
  // A float16 weight too small to gain does not ask for opset 19.
  CHECK(opset_for("quantize_weights", "model ir=8 opset=17\ninput x: float32[2,64]\ninput z: float16[2,2]\n"
                                      "initializer w: float32[64,32] = random(1)\ninitializer v: float16[2,2] = ones\n"
                                      "y = MatMul(x, w)\nu = MatMul(z, v)\noutput y\noutput u\n") == 13);
}

TEST_CASE("2-bit products that the runtime gets wrong are stored in 4 bits") {
  const auto text = [](const std::string& columns, const std::string& more = "") {
    return "model ir=13 opset=25\ninput x: float32[2,64]\ninput i: int64[3]\ninitializer w: float32[64," + columns +
           "] = random(1)\n" + more + "y = MatMul(x, w)\noutput y: float32[2," + columns + "]\n";
  };
  const auto storage = [&](const std::string& step, const std::string& model) {
    const PassRun run = run_pass(step, model);
    REQUIRE(run.outcome.layers.size() == 1);
    return run.outcome.layers[0]["storage"].get<std::string>();
  };
  CHECK(storage("quantize_weights{bits=2}", text("32")) == "int2");
  CHECK(storage("quantize_weights{bits=2}", text("30")) == "int4");
  CHECK(storage("quantize_weights{bits=2,symmetric=false}", text("30")) == "uint4");
  CHECK(storage("quantize_weights{bits=2,storage=smallest}", text("30")) == "int2");
  // Also when the product is not the first to read it.
  CHECK(storage("quantize_weights{bits=2}", text("30", "g = Gather(w, i)\nm = ReduceMean(g)\noutput m: float32[1,1]\n")) ==
        "int4");
  const PassRun run = run_pass("quantize_weights{bits=2}", text("30"));
  bool noted = false;
  for (const std::string& note : run.outcome.notes) noted |= note.find("stored as int4") != std::string::npos;
  CHECK(noted);
}

// An operator that ends the way up at opset 20 and one that ends it at once.
TEST_CASE("out of reach: a larger type with a note, or an error") {
  const auto plan = [](const std::string& text, int bits, bool loadable = true) {
    const auto model = parse_model(text);
    const std::vector<Weight> weights = collect_weights(*model, WeightKinds::all, Selector(""), "test", nullptr);
    REQUIRE(!weights.empty());
    return plan_storage(*model, {.scheme = Scheme::weights, .weight_bits = bits, .only_loadable = loadable}, weights,
                        "test");
  };
  const auto type = [](const StoragePlan& of) { return of.weights.at(0).type.storage; };
  const std::string rest = "initializer w: float32[64,32] = random(1)\na = MatMul(x, w)\ny = Strange(a)\noutput y\n";
  const std::string at13 = "model ir=8 opset=13\ninput x: float32[2,64]\n" + rest;
  const StoragePlan four = plan(at13, 4);
  CHECK(type(four) == DType::int8);
  CHECK(four.opset == 13);
  REQUIRE(!four.notes.empty());
  CHECK(four.notes[0].find("int4 per channel needs opset 21, which the model cannot reach") != std::string::npos);
  CHECK(four.notes.back().find("4-bit levels are stored as int8") != std::string::npos);
  const StoragePlan per_tensor = plan("model ir=5 opset=10\ninput x: float32[2,64]\n" + rest, 8);
  CHECK(per_tensor.weights.at(0).granularity == Granularity::per_tensor());
  CHECK(per_tensor.opset == 10);
  CHECK_THROWS_AS(plan("model ir=3 opset=8\ninput x: float32[2,64]\n" + rest, 8), Error);
  const StoragePlan newest = plan("model ir=13 opset=27\ninput x: float32[2,64]\n" + rest, 8);
  CHECK(newest.notes.back().find("newer than what the reference runtime loads") != std::string::npos);
  CHECK(type(plan(all_linear(13), 2)) == DType::int2);
  CHECK(type(plan(all_linear(13), 2, false)) == DType::int2);
  CHECK(type(plan(all_linear(13), 3)) == DType::int4);
  CHECK(plan(all_linear(13), 7).notes.back() == "7-bit levels are stored as int8: ONNX has no 7-bit type");
}

TEST_CASE("float16 and bfloat16 weights keep their type") {
  for (const std::string type : {"float16", "bfloat16"}) {
    CAPTURE(type);
    const auto model = parse_model("model ir=9 opset=19\ninput x: " + type + "[2,64]\ninitializer w: " + type +
                                   "[64,32] = random(1)\ny = MatMul(x, w)\noutput y: " + type + "[2,32]\n");
    const Pipeline pipeline = Pipeline::parse("quantize_weights");
    ThreadPool pool(1);
    PassContext context{.options = pipeline.steps[0].options, .pool = pool};
    CHECK(pipeline.steps[0].pass->run(*model, context).changed);
    CHECK_NOTHROW(verify(*model));
    CHECK(quantizer(*model, "w")->input(1)->constant()->dtype() == parse_type(type).elem);
  }
}

TEST_CASE("what is left, and why") {
  const auto reason = [](const std::string& initializer, const std::string& node) {
    return check_unchanged("quantize_weights", "model ir=8 opset=17\ninput x: float32[2,64]\ninput d: float64[2,64]\n"
                                                   "initializer zero: int64[1] = {0}\ninitializer one: int64[1] = {1}\n"
                                                   "initializer twenty: int64[1] = {20}\n" +
                                                   initializer + "\n" + node + "\noutput y\n")
        .reason("quantize_weights");
  };
  CHECK(reason("initializer w: float32[20,1] = ones", "s = Slice(x, zero, twenty, one)\ny = MatMul(s, w)").find("would not shrink") != std::string::npos);
  CHECK(reason("initializer w: float64[64,64] = ones", "y = MatMul(d, w)").find("float64") != std::string::npos);
  CHECK(reason("initializer w: float32[64,64] = ones", "y = MatMul(x, w)\noutput w").find("graph output") !=
        std::string::npos);

  auto model = parse_model("model ir=8 opset=17\ninput x: float32[2,64]\ninitializer w: float32[64,64] = ones\n"
                           "y = MatMul(x, w)\noutput y: float32[2,64]\n");
  Tensor bad = *model->graph.find("w")->constant();
  bad.mutable_data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  model->graph.set_initializer(model->graph.find("w"), bad);
  const PassRun run = run_pass("quantize_weights", std::move(model));
  CHECK_FALSE(run.outcome.changed);
  CHECK(run.reason("quantize_weights") == "'w' holds NaN or infinity");
}

TEST_CASE("a tied weight is quantized once, a captured one where it is") {
  const PassRun tied = run_pass("quantize_weights", R"(model ir=8 opset=17
input x: float32[64,64]
initializer w: float32[64,64] = random(1)
a = MatMul(x, w)
b = MatMul(a, w)
y = Add(b, w)
output y: float32[64,64]
)");
  CHECK(tied.outcome.layers.size() == 1);
  const PassRun captured = run_pass("quantize_weights", R"(model ir=8 opset=17
input x: float32[2,64]
input c: bool[]
initializer w: float32[64,64] = random(1)
y = If(c) {then_branch=graph {
  a = MatMul(x, w)
  output a
}, else_branch=graph {
  initializer v: float32[64,64] = random(2)
  b = MatMul(x, v)
  output b
}}
output y: float32[2,64]
)");
  CHECK(captured.outcome.layers.size() == 2);
  CHECK(quantizer(*captured.after, "w")->is("DequantizeLinear"));
  CHECK(captured.after->graph.node_count() == 2);
}

TEST_CASE("embedding tables and recurrent weights") {
  const PassRun table = run_pass("quantize_weights", R"(model ir=8 opset=17
input i: int64[3]
initializer w: float32[50,64] = random(1)
y = Gather(w, i)
output y: float32[3,64]
)");
  REQUIRE(table.outcome.layers.size() == 1);
  CHECK(table.outcome.layers[0]["axis"] == 0);

  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[5,1,32]
initializer w: float32[1,64,32] = random(1)
initializer r: float32[1,64,16] = random(2)
y = LSTM(x, w, r) {hidden_size=16}
output y: float32[5,1,1,16]
)");
  const Pipeline pipeline = Pipeline::parse("quantize_weights");
  ThreadPool pool(1);
  PassContext context{.options = pipeline.steps[0].options, .pool = pool};
  const Outcome outcome = pipeline.steps[0].pass->run(*model, context);
  CHECK_NOTHROW(verify(*model));
  REQUIRE(outcome.layers.size() == 2);
  CHECK(outcome.layers[0]["axis"] == 1);
  CHECK(quantizer(*model, "r")->input(1)->constant()->dims() == Dims{64});
}

TEST_CASE("the runner raises opset and IR version first") {
  RunOptions options;
  options.threads = 1;
  const RunResult four = run_pipeline(parse_model(all_linear(13)), Pipeline::parse("quantize_weights{bits=4}"), options);
  REQUIRE(four.passes.size() == 2);
  CHECK(four.passes[0].text == "upgrade_opset{target=21}");
  CHECK_FALSE(four.rolled_back);
  CHECK(four.model->graph.opset() == 21);
  CHECK(four.model->ir_version == 10);
  const RunResult eight = run_pipeline(parse_model(all_linear(13)), Pipeline::parse("quantize_weights"), options);
  CHECK(eight.passes.size() == 1);
  CHECK(eight.model->graph.opset() == 13);
  CHECK(eight.model->ir_version == ir_version_of_opset(13));
}

TEST_CASE("a change is always a smaller file") {
  for (const char* name : {"w", "a_rather_long_name_of_a_weight_in_some_layer/of/a/network"}) {
    for (int rows = 4; rows <= 40; ++rows) {
      for (const char* step : {"quantize_weights{bits=4}", "quantize_weights{symmetric=false}",
                               "quantize_weights{granularity=tensor,symmetric=no}"}) {
        const std::string w = name;
        const PassRun run = run_pass(step, "model ir=10 opset=21\ninput x: float32[2," + std::to_string(rows) +
                                               "]\ninitializer " + w + ": float32[" + std::to_string(rows) +
                                               ",8] = random(1)\ny = MatMul(x, " + w + ")\noutput y: float32[2,8]\n");
        CAPTURE(rows);
        if (run.outcome.changed) CHECK(serialized_size(*run.after) < serialized_size(*run.before));
        else CHECK(serialized_size(*run.after) == serialized_size(*run.before));
      }
    }
  }
}

TEST_CASE("methods that choose scales by error use the most negative code of few bits") {
  const std::string model =
      "model ir=13 opset=25\ninput x: float32[2,64]\ninitializer w: float32[64,64] = random(1,-1,1)\ny = MatMul(x, w)\noutput y\n";
  const auto least = [&](const std::string& options) {
    const PassRun run = run_pass("quantize_weights{" + options + "}", model);
    const Tensor codes = *run.after->graph.find("w_quantized")->constant();
    return std::pair(std::ranges::min(codes.to_ints()), run.outcome.layers[0]["snr_db"].get<double>());
  };
  for (const int bits : {2, 3, 4}) {
    CAPTURE(bits);
    const std::string width = fmt::format("bits={}", bits);
    const auto nearest = least(width + ",method=rtn"), chosen = least(width + ",method=mse");
    CHECK(nearest.first == -(1 << (bits - 1)) + 1);
    CHECK(chosen.first == -(1 << (bits - 1)));
    CHECK(chosen.second > nearest.second);
    // Blocks of com.microsoft's operators hold them too.
    const PassRun packed = run_pass("quantize_weights{form=contrib,method=mse," + width + "}", model);
    CHECK(packed.outcome.layers[0]["snr_db"].get<double>() > nearest.second);
  }
  CHECK(least("bits=8,method=mse").first >= -127);
}

}  // namespace
}  // namespace onnxpress
