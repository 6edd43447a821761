// Training over epochs.
#include "graph/exec/fit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/base/random.h"
#include "graph/exec/samples.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

// Points in a square, labelled by quadrant.
class Quadrants final : public Dataset {
 public:
  explicit Quadrants(std::int64_t count, std::int64_t batch = 7) : count_(count), batch_(batch) {}

  std::int64_t samples() const override { return count_; }
  bool labelled() const override { return true; }
  void rewind() override { next_ = 0; }
  bool next(Batch& batch) override {
    const std::int64_t size = std::min(batch_, count_ - next_);
    if (size <= 0) return false;
    Tensor x(DType::float32, {size, 2}), y(DType::int64, {size});
    for (std::int64_t i = 0; i < size; ++i) {
      Random random = Random(3).split(static_cast<std::uint64_t>(next_ + i));
      const double a = random.uniform(-1, 1), b = random.uniform(-1, 1);
      const auto at = static_cast<std::size_t>(i);
      x.mutable_data<float>()[2 * at] = static_cast<float>(a);
      x.mutable_data<float>()[2 * at + 1] = static_cast<float>(b);
      y.mutable_data<std::int64_t>()[at] = (a > 0) * 2 + (b > 0);
    }
    batch = {.inputs = {x}, .labels = y, .samples = size};
    next_ += size;
    return true;
  }
  std::string description() const override { return "quadrants"; }
  std::string hash() const override { return ""; }

 private:
  std::int64_t count_, batch_, next_ = 0;
};

std::unique_ptr<Model> net(const std::string& batch) {
  return parse_model(R"(model ir=8 opset=17
input x: float32[)" + batch + R"(,2]
initializer w1: float32[2,16] = random(1)
initializer b1: float32[16] = zeros
initializer w2: float32[16,4] = random(2)
h = Gemm(x, w1, b1)
r = Tanh(h)
y: float32[)" + batch + R"(,4] = MatMul(r, w2)
output y: float32[)" + batch + R"(,4]
)");
}

const std::vector<LossTerm> losses = {{.kind = LossTerm::Kind::cross_entropy}};

TrainerOptions adam(double rate) {
  TrainerOptions options;
  options.optimizer.kind = OptimizerOptions::Kind::adam;
  options.schedule.rate = rate;
  options.threads = 1;
  return options;
}

TEST_CASE("samples are held out, shuffled and gathered without loss") {
  Quadrants data(50);
  data.rewind();
  Samples all = Samples::read(data, std::size_t{1} << 20);
  REQUIRE(all.count() == 50);
  Random random(1);
  const Samples held = all.hold_out(0.2, random);
  CHECK(held.count() == 10);
  CHECK(all.count() == 40);
  std::vector<float> seen;
  const Samples* const parts[] = {&all, &held};
  for (const Samples* part : parts) {
    const std::vector<std::int64_t> order = shuffled(part->count(), random);
    const Batch batch = part->gather(order);
    for (const float value : batch.inputs[0].data<float>()) seen.push_back(value);
  }
  Quadrants again(50, 50);
  Batch whole;
  again.next(whole);
  std::vector<float> expected(whole.inputs[0].data<float>().begin(), whole.inputs[0].data<float>().end());
  std::ranges::sort(seen);
  std::ranges::sort(expected);
  CHECK(seen == expected);
}

TEST_CASE("fitting learns, keeps the best epoch, and is the same for a seed") {
  const auto model = net("n");
  Quadrants data(300);
  const auto run = [&](FitOptions options, std::vector<Tensor>& values) {
    Trainer trainer(*model, trainable_parameters(*model), losses, adam(0.02));
    const FitResult result = fit(trainer, *model, losses, data, options);
    for (std::size_t i = 0; i < trainer.parameters().size(); ++i) values.push_back(trainer.value(i));
    return result;
  };
  std::vector<Tensor> first, second, parts;
  const FitResult result = run({.epochs = 12, .batch = 20}, first);
  REQUIRE(result.epochs.size() == 12);
  CHECK(result.epochs.back().loss < 0.3 * result.epochs.front().loss);
  REQUIRE(result.epochs.back().held_accuracy.has_value());
  CHECK(*result.epochs.back().held_accuracy > 0.9);
  CHECK(result.best_epoch > 0);
  CHECK(result.epochs.back().samples == 270);
  run({.epochs = 12, .batch = 20}, second);
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(first[i].equals(second[i]));
  // Fewer bytes than the data has: shuffled in parts, all of it still seen.
  const FitResult chunked = run({.epochs = 12, .batch = 20, .most_bytes = 1000}, parts);
  CHECK(chunked.notes.size() == 1);
  CHECK(chunked.epochs.back().loss < 0.5 * chunked.epochs.front().loss);
  CHECK(chunked.epochs.back().samples > 270);
}

TEST_CASE("fitting stops when nothing gets better, and averages on request") {
  const auto model = net("n");
  Quadrants data(120);
  Trainer still(*model, trainable_parameters(*model), losses, adam(0));
  const FitResult stopped = fit(still, *model, losses, data, {.epochs = 50, .batch = 20, .patience = 3});
  CHECK(stopped.stopped_early);
  CHECK(stopped.epochs.size() == 4);
  CHECK(stopped.best_epoch == 1);

  Trainer plain(*model, trainable_parameters(*model), losses, adam(0.02));
  Trainer averaged(*model, trainable_parameters(*model), losses, adam(0.02));
  const FitOptions last = {.epochs = 3, .batch = 20, .keep_best = false};
  FitOptions mean = last;
  mean.average = 0.9;
  fit(plain, *model, losses, data, last);
  fit(averaged, *model, losses, data, mean);
  CHECK(!plain.value(0).equals(averaged.value(0)));
}

TEST_CASE("a held-out loss or a state that is not finite ends fitting, and is not kept") {
  const auto model = net("n");
  Quadrants data(120);
  Trainer broken(*model, trainable_parameters(*model), losses, adam(0.02));
  broken.set_value(0, Tensor::of<float>({2, 16}, std::vector<float>(32, std::nanf(""))));
  CHECK_THROWS_WITH_AS(fit(broken, *model, losses, data, {.epochs = 1, .keep_start = true}),
                       "before training: the loss of the held-out samples is not finite (nan)", Error);
  Trainer diverging(*model, trainable_parameters(*model), losses, adam(std::numeric_limits<double>::infinity()));
  int kept = 0;
  FitOptions options{.epochs = 1, .hold_out = 0, .checkpoint = [&](const FitState&) { ++kept; }};
  options.checkpoint_updates = 1;
  CHECK_THROWS_WITH_AS(fit(diverging, *model, losses, data, options), doctest::Contains("is no longer finite"), Error);
  CHECK(kept == 0);
}

TEST_CASE("what a checkpoint holds has been told before") {
  const auto model = net("n");
  Quadrants data(60);
  Trainer trainer(*model, trainable_parameters(*model), losses, adam(0.01));
  std::vector<std::string> order;
  FitOptions options{.epochs = 1, .batch = 20, .hold_out = 0};
  options.checkpoint = [&](const FitState&) { order.emplace_back("kept"); };
  options.checkpoint_updates = 2;
  fit(trainer, *model, losses, data, options,
      {.begin = {},
       .step = [&](const StepRecord& step) { order.push_back(fmt::format("step {}", step.step)); },
       .epoch = [&](const EpochRecord&) { order.emplace_back("epoch"); }});
  CHECK(order == std::vector<std::string>{"step 1", "step 2", "kept", "step 3", "epoch", "kept"});
}

TEST_CASE("batches are transformed with the numbers of their samples, held-out ones are not") {
  const auto model = net("n");
  Quadrants data(60);
  Trainer trainer(*model, trainable_parameters(*model), losses, adam(0.01));
  std::map<std::int64_t, std::vector<std::int64_t>> seen;  // by epoch
  FitOptions options{.epochs = 2, .batch = 8, .hold_out = 0.2};
  Quadrants again(60, 60);
  Batch whole;
  again.next(whole);
  const auto is_sample = [&](const Batch& batch, std::int64_t row, std::int64_t number) {
    return batch.inputs[0].data<float>()[static_cast<std::size_t>(2 * row)] ==
               whole.inputs[0].data<float>()[static_cast<std::size_t>(2 * number)] &&
           batch.labels.data<std::int64_t>()[static_cast<std::size_t>(row)] ==
               whole.labels.data<std::int64_t>()[static_cast<std::size_t>(number)];
  };
  options.transform = [&](Batch& batch, const BatchPlace& place) {
    REQUIRE(batch.samples == std::ssize(place.samples));
    for (std::int64_t row = 0; row < batch.samples; ++row) {
      const std::int64_t number = place.samples[static_cast<std::size_t>(row)];
      CHECK(is_sample(batch, row, number));
      seen[place.epoch].push_back(number);
    }
  };
  // Targets that follow from a batch: here its labels, which the loss asks for as number 0.
  options.targets = {{.kind = TargetSource::Kind::computed}};
  std::size_t held = 0;
  options.compute_targets = [&](const Batch& batch, const BatchPlace& place) {
    if (place.epoch == 0) held += place.samples.size();
    return std::vector<Tensor>{batch.labels};
  };
  std::size_t checked = 0;
  options.check = [&](const Batch& batch, const BatchPlace&) { checked += static_cast<std::size_t>(batch.samples); };
  fit(trainer, *model, losses, data, options);
  CHECK(checked == 60);
  CHECK(held == 2 * 12);
  REQUIRE(seen.size() == 2);
  for (auto& [epoch, numbers] : seen) {
    std::ranges::sort(numbers);
    CHECK(numbers.size() == 48);
    CHECK(std::ranges::adjacent_find(numbers) == numbers.end());
  }
  CHECK(seen.at(1) == seen.at(2));
}

TEST_CASE("a fixed batch is fed in whole batches") {
  const auto model = net("16");
  Quadrants data(100, 16);
  Trainer trainer(*model, trainable_parameters(*model), losses, adam(0.02));
  const FitResult result = fit(trainer, *model, losses, data, {.epochs = 2, .batch = 5});
  CHECK(result.epochs[0].samples == 80);  // 90 that are not held out, in batches of 16
  CHECK(result.epochs[0].held_loss.has_value());
}

}  // namespace
}  // namespace onnxpress
