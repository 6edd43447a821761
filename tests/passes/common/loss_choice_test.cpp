#include "passes/common/loss_choice.h"

#include <doctest/doctest.h>

#include <limits>

#include "graph/ir/parse.h"
#include "tests/passes/common/labelled_data.h"
#include "tests/passes/common/listed_data.h"

namespace onnxpress {
namespace {

// x [n,4] to an output of `classes` numbers behind an activation.
std::unique_ptr<Model> net(const std::string& activation, int classes) {
  const std::string dims = "float32[n," + std::to_string(classes) + "]";
  return parse_model("model ir=8 opset=17\ninput x: float32[n,4]\ninitializer w: float32[4," + std::to_string(classes) +
                     "] = random(1)\nh: " + dims + " = MatMul(x, w)\ny: " + dims + " = " + activation +
                     "(h)\noutput y: " + dims + "\n");
}

Tensor integers(Dims dims, std::vector<std::int64_t> cycle) {
  Tensor tensor(DType::int64, std::move(dims));
  std::size_t next = 0;
  for (auto& value : tensor.mutable_data<std::int64_t>()) value = cycle[next++ % cycle.size()];
  return tensor;
}

ChosenLosses chosen(const Model& model, Dataset& data, const std::string& text = "auto") {
  return choose_losses(model, parse_losses(text), look_at_first_batch(model, data, 1));
}

std::string refusal(const Model& model, Dataset& data, const std::string& text = "auto") {
  try {
    const FirstBatch first = look_at_first_batch(model, data, 1);
    const ChosenLosses losses = choose_losses(model, parse_losses(text), first);
    const SampleCheck check(model, losses, first);
    data.rewind();
    Batch batch;
    for (std::int64_t seen = 0; data.next(batch); seen += batch.samples) {
      std::vector<std::int64_t> numbers;
      for (std::int64_t i = 0; i < batch.samples; ++i) numbers.push_back(seen + i);
      check(batch, {.samples = numbers});
    }
  } catch (const Unsuitable& error) {
    return error.what();
  }
  return "accepted";
}

const Tensor x = normal_tensor({20, 4}, 5);

TEST_CASE("losses are recognized from outputs and labels") {
  LabelledData classes({x}, integers({20}, {0, 1, 2}));
  LabelledData column({x}, integers({20, 1}, {0, 1, 2}));
  LabelledData binary({x}, integers({20}, {0, 1}));
  LabelledData many({x}, integers({20, 3}, {0, 1, 1}));
  LabelledData numbers({x}, normal_tensor({20, 3}, 6));
  LabelledData shares({x}, Tensor::of<float>({20, 3}, std::vector<float>(60, 1.0F / 3)));
  LabelledData nothing({x}, Tensor());
  const auto text = [](const std::string& activation, int width, Dataset& data) {
    return chosen(*net(activation, width), data).text;
  };
  CHECK(text("Softmax", 3, classes) == "cross_entropy(y)");
  CHECK(text("Identity", 3, classes) == "cross_entropy(y)");
  CHECK(text("LogSoftmax", 3, shares) == "cross_entropy(y)");
  CHECK(text("Sigmoid", 3, many) == "binary_cross_entropy(y)");
  CHECK(text("Sigmoid", 1, binary) == "binary_cross_entropy(y)");
  CHECK(text("Identity", 1, binary) == "binary_cross_entropy(y)");
  CHECK(text("Identity", 3, numbers) == "mse(y)");
  CHECK(text("Identity", 4, nothing) == "mse(y)");
  CHECK(text("Sigmoid", 4, nothing) == "binary_cross_entropy(y)");
  CHECK(chosen(*net("Identity", 4), nothing).targets.at(0).kind == TargetSource::Kind::input);
  // Labels [N] of scores [N,1], and [N,1] of [N,C], take the shape that the loss wants.
  CHECK(chosen(*net("Sigmoid", 1), binary).targets.at(0).row == Dims{1});
  CHECK(chosen(*net("Softmax", 3), column).targets.at(0).row == Dims{});
  CHECK(chosen(*net("Softmax", 3), classes).notes.at(0) ==
        "loss: cross_entropy of output 'y', for class numbers and a Softmax's output [16,3]");
}

TEST_CASE("sequences with lengths are ctc, means and log variances a bound") {
  const auto frames = parse_model(R"(model ir=8 opset=17
input x: float32[n,t,4]
initializer w: float32[4,5] = random(1)
h: float32[n,t,5] = MatMul(x, w)
y: float32[n,t,5] = LogSoftmax(h)
output y: float32[n,t,5]
)");
  const Tensor sequences = normal_tensor({20, 9, 4}, 5);
  LabelledData spoken({sequences}, integers({20, 3}, {1, 2, 3}),
                      {{"y_len", integers({20}, {3, 2})}, {"x_len", integers({20}, {9, 8})}});
  const ChosenLosses ctc = chosen(*frames, spoken);
  CHECK(ctc.text == "ctc(y)");
  CHECK(ctc.terms.at(0).batch_first);
  REQUIRE(ctc.targets.size() == 3);
  CHECK(ctc.targets[1].name == "x_len");
  CHECK(ctc.targets[2].name == "y_len");
  LabelledData unlimited({sequences}, integers({20, 3}, {1, 2, 3}));
  const ChosenLosses all = chosen(*frames, unlimited, "ctc");
  CHECK(all.targets.size() == 1);
  CHECK_FALSE(all.terms.at(0).has_lengths);

  // Two that are the same need a blank between them.
  LabelledData repeated({sequences}, integers({20, 3}, {2, 2, 2}),
                        {{"y_len", integers({20}, {2, 3})}, {"x_len", integers({20}, {3, 5})}});
  CHECK(refusal(*frames, repeated) == "accepted");
  LabelledData longer({sequences}, integers({20, 3}, {2, 2, 2}),
                      {{"y_len", integers({20}, {2, 3})}, {"x_len", integers({20}, {3, 4})}});
  CHECK(refusal(*frames, longer) ==
        "sample 1: a target of 3 classes, 2 of them the same as the one before, needs 5 steps of output 'y', found 4: no "
        "path of ctc gives it; leave the sample out");
  LabelledData short_frames({normal_tensor({20, 2, 4}, 5)}, integers({20, 3}, {1, 2, 3}));
  CHECK(refusal(*frames, short_frames, "ctc").starts_with("sample 0: a target of 3 classes, 0 of them"));

  const auto autoencoder = parse_model(R"(model ir=8 opset=17
input x: float32[n,4]
initializer w: float32[4,2] = random(1)
initializer v: float32[2,4] = random(2)
mu: float32[n,2] = MatMul(x, w)
log_var: float32[n,2] = Tanh(mu)
d = MatMul(mu, v)
recon: float32[n,4] = Sigmoid(d)
output recon: float32[n,4]
output mu: float32[n,2]
output log_var: float32[n,2]
)");
  LabelledData unlabelled({x}, Tensor());
  const ChosenLosses bound = chosen(*autoencoder, unlabelled);
  CHECK(bound.text == "elbo(recon,mu,log_var)");
  REQUIRE(bound.terms.size() == 2);
  CHECK(bound.terms[0].kind == LossTerm::Kind::binary_cross_entropy);
  CHECK(bound.terms[0].by_sample);
  CHECK(bound.terms[1].kind == LossTerm::Kind::gaussian_kl);
  CHECK(bound.samples == std::map<std::string, std::string>{{"mu", "log_var"}});
  const ChosenLosses said = chosen(*autoencoder, unlabelled, "0.5*elbo(recon,mu,log_var,beta=4,likelihood=gaussian)");
  CHECK(said.terms[0].kind == LossTerm::Kind::mse);
  CHECK(said.terms[1].weight == 2);

  // Class numbers are no reason to take the reconstruction or the means for scores.
  LabelledData classes({x}, integers({20}, {0, 1}));
  const ChosenLosses labelled = chosen(*autoencoder, classes);
  CHECK(labelled.text == "elbo(recon,mu,log_var)");
  CHECK(labelled.notes ==
        std::vector<std::string>{"loss: elbo of output 'recon', for an output of the input's size, means 'mu' and log "
                                 "variances 'log_var'; the labels are not used"});
  LabelledData clean({x}, Tensor::of<float>({20, 4}, std::vector<float>(80, 0.5F)));
  CHECK(chosen(*autoencoder, clean).text == "binary_cross_entropy(recon)");
  // Scores beside them are what the labels are for.
  const auto scores = parse_model(R"(model ir=8 opset=17
input x: float32[n,4]
initializer w: float32[4,2] = random(1)
initializer v: float32[2,4] = random(2)
initializer c: float32[2,3] = random(3)
mu: float32[n,2] = MatMul(x, w)
log_var: float32[n,2] = Tanh(mu)
recon: float32[n,4] = MatMul(mu, v)
logits: float32[n,3] = MatMul(mu, c)
output logits: float32[n,3]
output recon: float32[n,4]
output mu: float32[n,2]
output log_var: float32[n,2]
)");
  CHECK(chosen(*scores, classes).text == "cross_entropy(logits)");
  CHECK(refusal(*net("Sigmoid", 4), unlabelled, "elbo") ==
        "loss elbo: no outputs are called mean and log variance: expected elbo(reconstruction, mean, log_variance); "
        "outputs are 'y' [16,4]");
  CHECK(refusal(*net("Sigmoid", 3), unlabelled, "elbo") ==
        "loss elbo: no output has the size of an input: expected elbo(reconstruction, mean, log_variance); outputs are "
        "'y' [16,3]");
}

TEST_CASE("floats that are 0 or 1 are classes, and targets that are no probabilities are refused") {
  const auto floats = [](std::vector<float> cycle) {
    std::vector<float> all;
    for (std::size_t i = 0; i < 60; ++i) all.push_back(cycle[i % cycle.size()]);
    return Tensor::of<float>({20, 3}, all);
  };
  LabelledData one_hot({x}, floats({0, 1, 0, 1, 0, 0, 0, 0, 1})), many({x}, floats({0, 1, 1, 1}));
  CHECK(chosen(*net("Identity", 3), one_hot).text == "cross_entropy(y)");
  CHECK(chosen(*net("Identity", 3), many).text == "binary_cross_entropy(y)");
  LabelledData negative({x}, floats({0.5F, -0.5F, 1})), large({x}, floats({0, 255, 0}));
  CHECK(refusal(*net("Identity", 3), negative, "cross_entropy") ==
        "label -0.5 of sample 0: expected probabilities of classes: the loss of output 'y' is cross_entropy");
  CHECK(refusal(*net("Identity", 3), large, "cross_entropy") ==
        "labels of sample 0: expected probabilities that sum up to 1, found a sum of 255: the loss of output 'y' is cross_entropy");
  CHECK(refusal(*net("LogSoftmax", 3), large, "kl").starts_with("labels of sample 0: expected probabilities"));
  CHECK(refusal(*net("Softmax", 3), one_hot, "kl").starts_with("loss kl: output 'y' is a Softmax's"));
  CHECK(refusal(*net("LogSoftmax", 3), one_hot, "kl") == "accepted");
}

TEST_CASE("labels and outputs that fit no loss are named with both shapes") {
  LabelledData outside({x}, integers({20}, {0, 1, 7}));
  CHECK(refusal(*net("Softmax", 3), outside) == "label 7 of sample 2: expected 0 to 2: output 'y' has 3 classes");
  LabelledData negative({x}, integers({20}, {-100, 1, 2}));
  CHECK(refusal(*net("Softmax", 3), negative).find("label -100 of sample 0") == 0);
  CHECK(refusal(*net("Softmax", 3), negative, "cross_entropy(ignore=-100)") == "accepted");
  LabelledData shape({x}, integers({20, 2}, {0, 1}));
  CHECK(refusal(*net("Softmax", 3), shape, "cross_entropy") ==
        "labels int64[16,2] do not fit output 'y' [16,3]: expected a class number for each of its positions, or "
        "probabilities [16,3]");
  CHECK(refusal(*net("Identity", 3), shape, "mse") == "loss mse: output 'y' is [16,3], its targets are [16,2]");
  CHECK(refusal(*net("Identity", 3), shape).find("fit no loss for the outputs 'y' [16,3]") != std::string::npos);
  LabelledData large({x}, Tensor::of<float>({20, 1}, std::vector<float>(20, 1.5F)));
  CHECK(refusal(*net("Sigmoid", 1), large).find("label 1.5 of sample 0: expected 0 to 1") == 0);
  LabelledData nothing({x}, Tensor());
  LabelledData binary({x}, integers({20}, {0, 1}));
  CHECK_THROWS_WITH_AS(
      choose_losses(*net("Sigmoid", 1), parse_losses("auto"), look_at_first_batch(*net("Sigmoid", 1), binary, 1), 0.1),
      "option 'label_smoothing' belongs to cross_entropy and would do nothing here: the loss is "
      "binary_cross_entropy(y)",
      Unsuitable);
  LabelledData one_hot({x}, integers({20, 3}, {0, 0, 1}));
  CHECK(refusal(*net("Softmax", 3), one_hot, "cross_entropy") ==
        "labels int64[16,3] of output 'y' [16,3]: expected a class number for each of its positions, or probabilities "
        "of a floating type");
  LabelledData floats({x}, normal_tensor({20}, 6));
  CHECK(refusal(*net("Softmax", 3), floats, "cross_entropy") ==
        "labels float32[16] of output 'y' [16,3]: expected class numbers of an integer type, or probabilities [16,3]; "
        "for numbers say loss=mse");
  CHECK(refusal(*net("Softmax", 3), nothing, "cross_entropy").find("has no labels") != std::string::npos);
  LabelledData classes({x}, integers({20}, {0, 1, 2}));
  CHECK(refusal(*net("Softmax", 3), classes, "cross_entropy(z)").find("no output or value 'z'") != std::string::npos);
  CHECK(refusal(*net("Softmax", 3), classes, "cross_entropy(target=z)").find("target 'z'") != std::string::npos);
}

TEST_CASE("a sample with a NaN is named") {
  const auto spoiled = [](Tensor tensor, std::size_t at, float value) {
    tensor.mutable_data<float>()[at] = value;
    return tensor;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  LabelledData input({spoiled(x, 4 * 17 + 2, nan)}, integers({20}, {0, 1, 2}));
  CHECK(refusal(*net("Softmax", 3), input) == "sample 17: input 'x' has a value that is not a number (nan)");
  CHECK(refusal(*parse_model("model ir=8 opset=17\ninput x: float32[n,4]\ninitializer w: float32[4,3] = random(1)\n"
                             "initializer zero: float32[] = {0}\nm: bool[n,4] = IsNaN(x)\nf: float32[n,4] = Where(m, zero, x)\n"
                             "y: float32[n,3] = MatMul(f, w)\noutput y: float32[n,3]\n"), input) == "accepted");
  LabelledData infinite({spoiled(x, 0, -std::numeric_limits<float>::infinity())}, integers({20}, {0, 1, 2}));
  CHECK(refusal(*net("Softmax", 3), infinite) == "accepted");
  LabelledData label({x}, spoiled(normal_tensor({20, 3}, 6), 3 * 5, nan));
  CHECK(refusal(*net("Identity", 3), label) == "sample 5: its label has a value that is not a number (nan)");
  LabelledData half({x}, spoiled(normal_tensor({20, 3}, 6), 3 * 5, nan).cast(DType::float16));
  CHECK(refusal(*net("Identity", 3), half) == "sample 5: its label has a value that is not a number (nan)");
  // What no loss compares with is not looked at.
  const Tensor lengths = spoiled(normal_tensor({20}, 7), 3, nan);
  LabelledData idle({x}, integers({20}, {0, 1, 2}), {{"z", lengths}});
  CHECK(refusal(*net("Softmax", 3), idle, "cross_entropy") == "accepted");
  LabelledData further({x}, integers({20}, {0, 1, 2}), {{"z", lengths}});
  CHECK(refusal(*net("Identity", 1), further, "mse(target=z)") == "sample 3: array 'z' has a value that is not a number (nan)");
}

}  // namespace
}  // namespace onnxpress
