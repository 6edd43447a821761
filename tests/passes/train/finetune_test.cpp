// Fine-tuning as a pass.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/exec/trainer.h"
#include "passes/common/checkpoint.h"
#include "passes/common/dropout_places.h"
#include "passes/core/runner.h"
#include "tests/passes/common/labelled_data.h"
#include "tests/passes/pass_fixture.h"
#include "tests/passes/train/equal_parameters.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

constexpr const char* net = R"(model ir=8 opset=17
input x: float32[n,2]
initializer w1: float32[2,16] = random(1)
initializer b1: float32[16] = zeros
initializer w2: float32[16,4] = random(2)
h = Gemm(x, w1, b1) "first"
r = Tanh(h)
y: float32[n,4] = MatMul(r, w2) "second"
output y: float32[n,4]
)";

constexpr const char* usual = "finetune{epochs=15,learning_rate=0.02,batch_size=20";

PassRun finetuned(const std::string& options, std::string_view model = net, std::int64_t count = 300) {
  LabelledData data = quadrants(count);
  return run_pass(options + "}", model, {.training = &data});
}

Tensor initializer(const Model& model, const std::string& name) { return *model.graph.find(name)->constant(); }

std::int64_t zeros(const Tensor& tensor) {
  const auto values = tensor.data<float>();
  return std::ranges::count(values, 0.0F);
}

// How the step ends when the runner runs it.
RunResult ran(const std::string& text, std::string_view model, Dataset& data, TrainingSupport support = {}) {
  const Pipeline pipeline = Pipeline::parse(text);
  RunOptions options{.seed = 3, .threads = 2, .training = &data};
  options.support = std::move(support);
  return run_pipeline(parse_model(model), pipeline, options);
}

std::string refusal(const std::string& text, std::string_view model, Dataset& data, TrainingSupport support = {}) {
  try {
    ran(text, model, data, std::move(support));
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST_CASE("fine-tuning lowers the held-out loss, and says what it did") {
  const PassRun run = finetuned(usual);
  const Json& training = run.outcome.training;
  CHECK(run.outcome.changed);
  CHECK(training["loss"] == "cross_entropy(y)");
  CHECK(training["samples"] == 270);
  CHECK(training["held_out_samples"] == 30);
  CHECK(training["parameters"] == 2 * 16 + 16 + 16 * 4);
  const Json& epochs = training["epochs"];
  REQUIRE(epochs.size() == 16);  // and how it was at the start
  CHECK(epochs[0]["epoch"] == 0);
  CHECK(epochs[15]["loss"].get<double>() < 0.5 * epochs[1]["loss"].get<double>());
  CHECK(epochs[15]["held_out_accuracy"].get<double>() > 0.9);
  CHECK(epochs[15]["step"] == 15 * 14);
  const auto best = training["best_epoch"].get<std::size_t>();
  for (const Json& epoch : epochs)
    CHECK(epochs[best]["held_out_loss"].get<double>() <= epoch["held_out_loss"].get<double>());
  // The same seed gives the same bytes.
  CHECK(structural_hash(*finetuned(usual).after) == structural_hash(*run.after));
  // Also when what the gradients read is computed again.
  CHECK(structural_hash(*finetuned(std::string(usual) + ",recompute=true").after) == structural_hash(*run.after));
}

TEST_CASE("models of 16-bit floats are trained in float32, in their own names") {
  const auto half = [](const std::string& type) {
    std::string text = net;
    for (std::size_t at = 0; (at = text.find("float32", at)) != std::string::npos;) text.replace(at, 7, type);
    text.replace(text.find("input x: " + type), 9 + type.size(), "input x: float32");
    const std::size_t first = text.find("h = Gemm");
    text.insert(first, "c = Cast(x) {to=" + std::string(type == "float16" ? "10" : "16") + "}\n");
    text.replace(text.find("Gemm(x,"), 7, "Gemm(c,");
    return text;
  };
  for (const std::string type : {"float16", "bfloat16"}) {
    CAPTURE(type);
    const PassRun run = finetuned(usual, half(type));
    const Json& epochs = run.outcome.training["epochs"];
    CHECK(epochs[15]["held_out_accuracy"].get<double>() > 0.9);
    for (const std::string name : {"w1", "b1", "w2"}) {
      CHECK(onnxpress::name(initializer(*run.after, name).dtype()) == type);
      CHECK_FALSE(initializer(*run.after, name).equals(initializer(*run.before, name)));
    }
    // Values inside keep their names: dropout finds its places.
    CHECK(finetuned(std::string(usual) + ",dropout=0.2", half(type)).outcome.changed);
  }
}

TEST_CASE("masks, infinities and single numbers are no parameters, unless these are named") {
  const std::string model = R"(model ir=8 opset=17
input x: float32[n,2]
initializer w1: float32[2,16] = random(1)
initializer w2: float32[16,4] = random(2)
initializer mask: float32[16] = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-10000}
initializer endless: float32[4] = {0,0,0,-inf}
initializer factor: float32[] = {1.5}
h = MatMul(x, w1)
m = Add(h, mask)
r = Softmax(m)
s = Mul(r, factor)
l = MatMul(s, w2)
zero = Sub(l, l)
y: float32[n,4] = Add(l, zero)
z = Max(y, endless)
output y: float32[n,4]
)";
  const PassRun run = finetuned(usual, model);
  CHECK(run.outcome.training["tensors"] == 2);
  for (const char* name : {"mask", "endless", "factor"})
    CHECK(initializer(*run.after, name).equals(initializer(*run.before, name)));
  const PassRun named = finetuned(std::string(usual) + ",select='*;tensor:factor'", model);
  CHECK(named.outcome.training["tensors"] == 3);
  CHECK_FALSE(initializer(*named.after, "factor").equals(initializer(*named.before, "factor")));
}

TEST_CASE("a loss that depends on no parameter is refused, and parameters it does not reach are told") {
  LabelledData data = quadrants(100);
  CHECK(refusal("finetune{loss='mse(x,target=x)'}", net, data) ==
        "pass finetune: the loss mse(x,target=x) depends on no parameter");
  std::string two = net;
  two.insert(two.find("output y"), "initializer w3: float32[16,3] = random(3)\nz: float32[n,3] = MatMul(r, w3)\n");
  const PassRun run = finetuned(usual, two + "output z: float32[n,3]\n");
  CHECK(std::ranges::any_of(run.outcome.notes, [](const std::string& note) {
    return note == "the loss does not depend on 1 of 4 parameters, the first: 'w3'";
  }));
}

TEST_CASE("a loss that rose is told where nothing was held out") {
  const std::string risen = "the loss rose from ";
  const auto is_told = [&](const std::string& options) {
    const PassRun run = finetuned(options);
    return std::ranges::any_of(run.outcome.notes, [&](const std::string& note) { return note.starts_with(risen); });
  };
  const std::string few = "finetune{epochs=3,batch_size=20,optimizer=sgd,";
  CHECK(is_told(few + "learning_rate=300,warmup=2,hold_out=0"));
  CHECK_FALSE(is_told(few + "learning_rate=0.05,hold_out=0"));
}

TEST_CASE("the rate of one_cycle rises over three tenths of the epochs unless a warm-up is said") {
  const std::string cycle = "finetune{epochs=10,batch_size=20,learning_rate=0.02,schedule=one_cycle,keep_best=false";
  const auto rate = [](const PassRun& run, std::size_t epoch) {
    return run.outcome.training["epochs"][epoch - 1]["learning_rate"].get<double>();
  };
  const PassRun usual_rise = finetuned(cycle), early = finetuned(cycle + ",warmup=1");
  CHECK(rate(usual_rise, 1) < 0.01);
  CHECK(rate(usual_rise, 3) > 0.019);
  CHECK(rate(early, 1) > 0.019);
  CHECK(rate(early, 10) < 0.001);
}

TEST_CASE("a start that no epoch improves on is kept") {
  const PassRun run = finetuned("finetune{epochs=2,optimizer=sgd,learning_rate=0");
  CHECK_FALSE(run.outcome.changed);
  CHECK(run.outcome.training["best_epoch"] == 0);
}

TEST_CASE("selectors freeze parameters, and change rate and decay") {
  const PassRun frozen = finetuned(std::string(usual) + ",freeze=first");
  CHECK(initializer(*frozen.after, "w1").equals(initializer(*frozen.before, "w1")));
  CHECK(initializer(*frozen.after, "b1").equals(initializer(*frozen.before, "b1")));
  CHECK_FALSE(initializer(*frozen.after, "w2").equals(initializer(*frozen.before, "w2")));
  const PassRun selected = finetuned(std::string(usual) + ",select='tensor:w1'");
  CHECK(selected.outcome.training["tensors"] == 1);
  CHECK(initializer(*selected.after, "w2").equals(initializer(*selected.before, "w2")));
  const PassRun slow = finetuned(std::string(usual) + ",rate_factors='tensor:w2=0'");
  CHECK(initializer(*slow.after, "w2").equals(initializer(*slow.before, "w2")));
  CHECK_FALSE(initializer(*slow.after, "w1").equals(initializer(*slow.before, "w1")));

  const auto norm = [](const Tensor& tensor) {
    double sum = 0;
    for (const float value : tensor.data<float>()) sum += static_cast<double>(value) * static_cast<double>(value);
    return sum;
  };
  const std::string last = std::string(usual) + ",keep_best=false";
  const PassRun free = finetuned(last), decayed = finetuned(last + ",weight_decay='tensor:w2=2'");
  CHECK(norm(initializer(*decayed.after, "w2")) < 0.7 * norm(initializer(*free.after, "w2")));
  CHECK(norm(initializer(*decayed.after, "w1")) > 0.7 * norm(initializer(*free.after, "w1")));
  const PassRun bounded = finetuned(last + ",max_norm=0.5");
  const Tensor w1 = initializer(*bounded.after, "w1");
  for (std::size_t unit = 0; unit < 16; ++unit) {
    const double a = double{w1.data<float>()[unit]}, b = double{w1.data<float>()[16 + unit]};
    CHECK(a * a + b * b < 0.2501);
  }
}

TEST_CASE("zeros that pruning left stay zero, unless they need not") {
  LabelledData data = quadrants(300);
  const std::string train = "{epochs=5,learning_rate=0.02,batch_size=20";
  const RunResult kept = ran("prune_magnitude{sparsity=0.5},finetune" + train + "}", net, data);
  REQUIRE(kept.passes.size() == 2);
  REQUIRE(kept.passes[1].changed);
  CHECK(zeros(initializer(*kept.model, "w1")) + zeros(initializer(*kept.model, "w2")) == 48);
  CHECK(zeros(initializer(*kept.model, "b1")) == 0);  // a bias that begins at zero was not pruned
  const RunResult grown = ran("prune_magnitude{sparsity=0.5},finetune" + train + ",keep_zeros=false}", net, data);
  CHECK(zeros(initializer(*grown.model, "w1")) + zeros(initializer(*grown.model, "w2")) < 10);
}

TEST_CASE("dropout goes in front of products behind the first layer, or where selectors say") {
  const auto model = parse_model(net);
  const std::vector<std::string> trained = trainable_parameters(*model);
  const auto places = [&](const char* text) {
    return dropout_places(*model, SelectedNumber::parse("dropout", text, 0, 0, 0.999), trained);
  };
  CHECK(places("0.5") == std::map<std::string, double>{{"r", 0.5}});
  CHECK(places("0.5;tensor:x=0.2") == std::map<std::string, double>{{"r", 0.5}, {"x", 0.2}});
  CHECK(places("first=0.1") == std::map<std::string, double>{{"h", 0.1}});
  CHECK(places("0.5;tensor:r=0").empty());
  const PassRun with = finetuned(std::string(usual) + ",dropout=0.5"), without = finetuned(usual);
  CHECK(with.after->graph.node_count() == without.after->graph.node_count());
  CHECK(with.outcome.training["epochs"][1]["loss"].get<double>() >
        without.outcome.training["epochs"][1]["loss"].get<double>());
}

TEST_CASE("parameters of an untrained export that are equal are trained apart") {
  const PassRun run = finetuned("finetune{epochs=2,learning_rate=0.02,batch_size=20,keep_best=false", equal_parameters);
  std::vector<Tensor> parameters;
  for (const Node* node : run.after->graph.nodes())
    if (node->is("BatchNormalization"))
      for (std::size_t index = 1; index < 5; ++index) parameters.push_back(*node->input(index)->constant());
  REQUIRE(parameters.size() == 8);
  const Tensor ones = initializer(*run.before, "ones"), zeros = initializer(*run.before, "zeros");
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    CHECK_FALSE(parameters[i].equals(ones));
    CHECK_FALSE(parameters[i].equals(zeros));
    for (std::size_t k = 0; k < i; ++k) CHECK_FALSE(parameters[i].equals(parameters[k]));
  }
  CHECK(run.after->graph.find("scale2") != nullptr);
}

TEST_CASE("equal parameters stay one where training keeps the start") {
  const PassRun run = finetuned("finetune{epochs=1,learning_rate=1e6,hold_out=0.5", equal_parameters);
  CHECK_FALSE(run.outcome.changed);
  CHECK(structural_hash(*run.after, true) == structural_hash(*run.before, true));
}

TEST_CASE("a run that was stopped goes on from its checkpoint to the same bytes") {
  LabelledData data = quadrants(200);
  const std::string text =
      "finetune{epochs=6,learning_rate=0.02,batch_size=20,schedule=one_cycle,warmup=1,dropout=0.3,ema=0.9,accumulate="
      "2}";
  std::string pattern = (fs::temp_directory_path() / "finetune.XXXXXX").string();
  const fs::path folder = mkdtemp(pattern.data());
  const RunResult whole = ran(text, net, data);
  // Stopped in the middle of an epoch: what was kept before is of an update or of an epoch's end.
  for (const std::int64_t updates : {0, 3}) {
    TrainingSupport support{.checkpoint = folder / fmt::format("state{}", updates), .checkpoint_updates = updates};
    support.observer.step = [](const StepRecord& step) {
      if (step.epoch == 3 && step.done == 160) throw std::runtime_error("stopped");
    };
    const RunResult stopped = ran(text, net, data, support);
    REQUIRE(stopped.passes.at(0).rolled_back);
    CHECK(stopped.passes[0].failure == "stopped");
    support.observer = {};
    CHECK(refusal(text, net, data, support).find("is there already: say --resume") != std::string::npos);
    support.resume = true;
    const RunResult resumed = ran(text, net, data, support);
    REQUIRE_FALSE(resumed.passes.at(0).rolled_back);
    CHECK(structural_hash(*resumed.model) == structural_hash(*whole.model));
    CHECK(resumed.passes[0].outcome.training["epochs"].size() == 7);
    CHECK(resumed.passes[0].outcome.training["best_epoch"] == whole.passes[0].outcome.training["best_epoch"]);
    // And again: it was done.
    CHECK(structural_hash(*ran(text, net, data, support).model) == structural_hash(*whole.model));
    const std::string other = refusal("finetune{epochs=7}", net, data, support);
    CHECK(other.find("is of another training: option ") != std::string::npos);
    CHECK(other.find("option epochs was 6, now it is 7; ") != std::string::npos);
    CHECK(other.find("option learning_rate was 0.02, now it is 0.001; ") != std::string::npos);
    CHECK(other.find("keep_best") == std::string::npos);
  }
  fs::remove_all(folder);
}

TEST_CASE("what cannot be trained ends the run, and says why") {
  LabelledData data = quadrants(64);
  CHECK(refusal("finetune{freeze='*'}", net, data).find("all parameters are frozen") != std::string::npos);
  const std::string no_gradient = refusal("finetune", R"(model ir=8 opset=17
input x: float32[n,2]
initializer w: float32[2,4] = random(1)
initializer v: float32[4,4] = random(2)
initializer condition: bool[] = {1}
h = MatMul(x, w)
c = If(condition) {else_branch=graph {
  e = Neg(h)
  output e
}, then_branch=graph {
  t = Relu(h)
  output t
}} "choice"
y: float32[n,4] = MatMul(c, v)
output y: float32[n,4]
)",
                                          data);
  CHECK_MESSAGE(no_gradient.find("'choice' (If)") != std::string::npos, no_gradient);
  CHECK_MESSAGE(no_gradient.find("freeze what is trained before it: 'w'") != std::string::npos, no_gradient);
  CHECK(refusal("finetune{loss='mse(nowhere)'}", net, data)
            .find("pass finetune: loss: the model has no output or value 'nowhere'") != std::string::npos);
  CHECK_THROWS_AS(Pipeline::parse("finetune{batch_size=0}"), Error);
  CHECK_THROWS_AS(ran("finetune{loss=crossentropy}", net, data), Error);
  CHECK_THROWS_AS(ran("finetune{freeze=nowhere}", net, data), Error);
  CHECK_THROWS_AS(ran("finetune{weight_decay='nowhere=1'}", net, data), Error);
}

TEST_CASE("one score is judged as two classes, and labels that count nowhere are not judged") {
  const auto held_out_accuracy = [](std::string_view model, const std::string& options, Dims dims, std::vector<std::int64_t> cycle) {
    Tensor labels(DType::int64, std::move(dims));
    std::size_t next = 0;
    for (auto& label : labels.mutable_data<std::int64_t>()) label = cycle[next++ % cycle.size()];
    LabelledData data({Tensor(DType::float32, {40, 2})}, labels);
    return run_pass("finetune{epochs=1,hold_out=0.5," + options + "}", parse_model(model), {.training = &data})
        .outcome.training["epochs"][1]["held_out_accuracy"];
  };
  const std::string binary = "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer w: float32[2,1] = {0,0}\n"
                             "initializer b: float32[1] = {9}\nh = Gemm(x, w, b)\n";
  for (const char* end : {"y: float32[n,1] = Sigmoid(h)\noutput y: float32[n,1]\n", "y: float32[n,1] = Identity(h)\noutput y: float32[n,1]\n"})
    for (const Dims& dims : {Dims{40}, Dims{40, 1}})
      CHECK(held_out_accuracy(binary + end, "loss=binary_cross_entropy,learning_rate=1e-6", dims, {1}) == 1.0);
  CHECK(held_out_accuracy(net, "loss='cross_entropy(ignore=7)'", {40}, {1, 7}).is_number());
  CHECK(held_out_accuracy(net, "loss='cross_entropy(ignore=-100)'", {40}, {1, -100}).is_number());
}

TEST_CASE("models in training mode and quantized ones are refused with what to do") {
  LabelledData data = quadrants(64);
  const std::string start = "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer s: float32[2] = {1,1}\n"
                            "initializer m: float32[2] = {0,0}\ninitializer w: float32[2,4] = random(1)\n";
  const std::string message = refusal("finetune", start + "n, rm, rv = BatchNormalization(x, s, m, m, s) {training_mode=1}\n"
                                      "y: float32[n,4] = MatMul(n, w)\noutput y: float32[n,4]\n", data);
  CHECK_MESSAGE(message.find("is in training mode") != std::string::npos, message);
  const std::string coded = refusal("finetune", "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer c: int8[2,4] = {1,2,3,4,5,6,7,8}\n"
                                    "initializer s: float32[] = {0.5}\nw = DequantizeLinear(c, s)\n"
                                    "y: float32[n,4] = MatMul(x, w)\noutput y: float32[n,4]\n", data);
  CHECK_MESSAGE(coded.find("it is quantized") != std::string::npos, coded);
}

TEST_CASE("modes of nodes that the model does not have are told") {
  const std::vector<std::string> notes = finetuned("finetune{epochs=1,keep_dropout=false,batch_norm=keep").outcome.notes;
  for (const char* note : {"keep_dropout=false: the model has no Dropout", "batch_norm=keep: the model has no BatchNormalization"})
    CHECK_MESSAGE(std::ranges::find(notes, note) != notes.end(), note);
  const std::vector<std::string> others = finetuned("finetune{epochs=1,batch_norm=keep", equal_parameters).outcome.notes;
  CHECK(std::ranges::none_of(others, [](const std::string& note) { return note.find("batch_norm") != std::string::npos; }));
}

TEST_CASE("parameters that are read in several places are told") {
  const auto is_told = [](const std::string& model) {
    LabelledData data = quadrants(64);
    const auto notes = run_pass("finetune{epochs=1}", parse_model(model), {.training = &data}).outcome.notes;
    return std::ranges::any_of(notes, [](const std::string& note) { return note.find("read in several places") != std::string::npos; });
  };
  const std::string tied = "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer u: float32[2,2] = random(1)\n"
                           "initializer w: float32[2,4] = random(2)\nh = MatMul(x, u)\nt = Tanh(h)\ng = MatMul(t, u)\n"
                           "y: float32[n,4] = MatMul(g, w)\noutput y: float32[n,4]\n";
  CHECK(is_told(tied));
  CHECK_FALSE(is_told(net));
}

TEST_CASE("options that do nothing beside the others are refused, with what they belong to") {
  LabelledData data = quadrants(64);
  const auto told = [&](const std::string& options) -> std::string {
    try {
      ran("finetune{" + options + "}", net, data);
    } catch (const Error& error) {
      return error.message();
    }
    return "accepted";
  };
  const std::pair<const char*, const char*> idle[] = {
      {"momentum=0.9", "option 'momentum' belongs to optimizer=momentum or nesterov and would do nothing here"},
      {"optimizer=sgd,beta1=0.9", "option 'beta1' belongs to optimizer=adam or adamw and would do nothing here"},
      {"optimizer=rmsprop,beta2=0.9", "option 'beta2' belongs to optimizer=adam or adamw and would do nothing here"},
      {"optimizer=momentum,epsilon=1e-8",
       "option 'epsilon' belongs to optimizer=adam, adamw or rmsprop and would do nothing here"},
      {"smoothing=0.9", "option 'smoothing' belongs to optimizer=rmsprop and would do nothing here"},
      {"schedule=cosine,step_epochs=2",
       "option 'step_epochs' belongs to schedule=step or exponential and would do nothing here"},
      {"factor=0.5", "option 'factor' belongs to schedule=step or exponential and would do nothing here"},
      {"schedule=step,final_rate=0",
       "option 'final_rate' belongs to schedule=cosine or one_cycle and would do nothing here"},
      {"loss=mse,label_smoothing=0.1",
       "option 'label_smoothing' belongs to loss=cross_entropy and would do nothing here"},
      {"hold_out=0,patience=2", "option 'patience' belongs to hold_out above 0 and would do nothing here"},
      {"hold_out=0,keep_best=true", "option 'keep_best' belongs to hold_out above 0 and would do nothing here"}};
  for (const auto& [options, message] : idle) CHECK(told(options) == message);
  for (const char* read : {"optimizer=nesterov,momentum=0.5", "optimizer=rmsprop,smoothing=0.9,epsilon=1e-6",
                           "schedule=one_cycle,final_rate=1e-5", "schedule=exponential,factor=0.5,step_epochs=1",
                           "label_smoothing=0.1", "hold_out=0,keep_best=false"})
    CHECK_MESSAGE(told(std::string("epochs=1,") + read) == "accepted", read);
}

TEST_CASE("a loss that is not finite rolls the pass back, with step and node") {
  LabelledData data = quadrants(64);
  std::string pattern = (fs::temp_directory_path() / "finetune.XXXXXX").string();
  const fs::path folder = mkdtemp(pattern.data());
  const RunResult result = ran("finetune{optimizer=sgd,learning_rate=1e5,epochs=3,hold_out=0}", R"(model ir=8 opset=17
input x: float32[n,2]
initializer w: float32[2,4] = random(1)
initializer v: float32[4,4] = random(2)
h = MatMul(x, w)
e = Exp(h) "growth"
y: float32[n,4] = MatMul(e, v)
output y: float32[n,4]
)",
                               data, {.checkpoint = folder / "state", .checkpoint_updates = 1});
  REQUIRE(result.passes.at(0).rolled_back);
  CHECK_MESSAGE(result.passes[0].failure.find("step ") == 0, result.passes[0].failure);
  CHECK_MESSAGE(result.passes[0].failure.find("the loss is nan: the first NaN is of ") != std::string::npos,
                result.passes[0].failure);
  CHECK_MESSAGE(result.passes[0].failure.find("the first infinity of node 'growth' (Exp)") != std::string::npos,
                result.passes[0].failure);
  // What was kept is from before: no element of it is NaN.
  for (const auto& [name, tensor] : read_checkpoint(folder / "state").state) {
    if (!name.starts_with("trainer/")) continue;
    const std::vector<float> values = tensor.to_floats();
    CHECK_MESSAGE(std::ranges::none_of(values, [](float value) { return std::isnan(value); }), name);
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace onnxpress
