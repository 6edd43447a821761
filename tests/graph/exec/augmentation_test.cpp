// Augmentation against plain references, and what it promises of seeds.
#include "graph/exec/augmentation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <set>
#include <vector>

#include "graph/base/random.h"
#include "graph/exec/normal_table.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

std::unique_ptr<Model> model_of(const std::string& dims, const std::string& type = "float32") {
  return parse_model("model ir=8 opset=17\ninput x: " + type + "[N" + dims + "]\ny: " + type + "[N" + dims +
                     "] = Relu(x)\noutput y: " + type + "[N" + dims + "]\n");
}

Augmentation augmentation(const std::string& text, const Model& model, std::uint64_t seed = 5) {
  return Augmentation(AugmentationOptions::parse(text), model, 10, seed);
}

// Every element another number.
Batch counted(const Dims& dims) {
  Tensor x(DType::float32, dims);
  std::iota(x.mutable_data<float>().begin(), x.mutable_data<float>().end(), 1.0F);
  Tensor y(DType::int64, {dims[0]});
  for (std::int64_t i = 0; i < dims[0]; ++i) y.mutable_data<std::int64_t>()[static_cast<std::size_t>(i)] = i % 10;
  return {.inputs = {x}, .labels = y, .samples = dims[0]};
}

std::vector<std::int64_t> numbers(std::int64_t count, std::int64_t first = 0) {
  std::vector<std::int64_t> result(static_cast<std::size_t>(count));
  std::iota(result.begin(), result.end(), first);
  return result;
}

Batch applied(const Augmentation& by, Batch batch, std::int64_t epoch = 1, int threads = 1) {
  ThreadPool pool(threads);
  by.apply(batch, numbers(batch.samples), epoch, pool);
  return batch;
}

// One sample of [channels, size, size] numbers, mirrored, turned by `angle` degrees counter-clockwise and moved,
// pixel by pixel, as the definition reads; outside is `fill`.
std::vector<float> plain(const std::vector<float>& image, std::int64_t channels, std::int64_t size, bool mirrored,
                         double angle, std::int64_t down, std::int64_t right, float fill) {
  const auto at = [&](std::int64_t channel, std::int64_t row, std::int64_t column) {
    if (row < 0 || row >= size || column < 0 || column >= size) return fill;
    if (mirrored) column = size - 1 - column;
    return image[static_cast<std::size_t>((channel * size + row) * size + column)];
  };
  std::vector<float> result;
  const double middle = static_cast<double>(size - 1) / 2, a = angle * std::numbers::pi / 180;
  for (std::int64_t channel = 0; channel < channels; ++channel)
    for (std::int64_t row = 0; row < size; ++row)
      for (std::int64_t column = 0; column < size; ++column) {
        const double y = static_cast<double>(row - down) - middle, x = static_cast<double>(column - right) - middle;
        const double from_y = x * std::sin(a) + y * std::cos(a) + middle,
                     from_x = x * std::cos(a) - y * std::sin(a) + middle;
        const auto top = static_cast<std::int64_t>(std::floor(from_y)),
                   left = static_cast<std::int64_t>(std::floor(from_x));
        const double v = from_y - std::floor(from_y), h = from_x - std::floor(from_x);
        result.push_back(static_cast<float>((1 - v) * (1 - h) * static_cast<double>(at(channel, top, left)) +
                                            (1 - v) * h * static_cast<double>(at(channel, top, left + 1)) +
                                            v * (1 - h) * static_cast<double>(at(channel, top + 1, left)) +
                                            v * h * static_cast<double>(at(channel, top + 1, left + 1))));
      }
  return result;
}

std::vector<float> sample(const Tensor& tensor, std::int64_t row) {
  const std::int64_t width = tensor.size() / tensor.dim(0);
  const auto all = tensor.data<float>().subspan(static_cast<std::size_t>(row * width), static_cast<std::size_t>(width));
  return {all.begin(), all.end()};
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(double{a[i]} - double{b[i]}));
  return most;
}

TEST_CASE("shift and flip give moved and mirrored images, each of them about as often") {
  const auto model = model_of(",2,5,5");
  const Batch batch = counted({400, 2, 5, 5});
  const Batch changed = applied(augmentation("shift=2,flip=horizontal,fill=-1", *model), batch);
  std::set<std::tuple<bool, std::int64_t, std::int64_t>> seen;
  std::int64_t mirrored_ones = 0;
  for (std::int64_t i = 0; i < 400; ++i) {
    const std::vector<float> before = sample(batch.inputs[0], i), after = sample(changed.inputs[0], i);
    int explanations = 0;
    for (const bool mirrored : {false, true})
      for (std::int64_t down = -2; down <= 2; ++down)
        for (std::int64_t right = -2; right <= 2; ++right)
          if (plain(before, 2, 5, mirrored, 0, down, right, -1) == after) {
            ++explanations;
            seen.emplace(mirrored, down, right);
            mirrored_ones += mirrored;
          }
    REQUIRE(explanations == 1);
  }
  CHECK(seen.size() == 50);
  CHECK(mirrored_ones > 160);
  CHECK(mirrored_ones < 240);
}

TEST_CASE("images are turned about their middle by angles within the bound") {
  const auto model = model_of(",1,9,9");
  const Batch batch = counted({60, 1, 9, 9});
  const Batch changed = applied(augmentation("rotate=30", *model), batch);
  // The angle of the first sample, found by search on the plain reference.
  double least = 1e9, most = -1e9;
  for (std::int64_t i = 0; i < 60; ++i) {
    const std::vector<float> before = sample(batch.inputs[0], i), after = sample(changed.inputs[0], i);
    double best = 1e30, angle = 0;
    for (double tried = -35; tried <= 35; tried += 0.25) {
      const double error = difference(plain(before, 1, 9, false, tried, 0, 0, 0), after);
      if (error < best) best = error, angle = tried;
    }
    for (double step = 0.125; step > 1e-7; step /= 2)
      for (const double tried : {angle - step, angle + step}) {
        const double error = difference(plain(before, 1, 9, false, tried, 0, 0, 0), after);
        if (error < best) best = error, angle = tried;
      }
    REQUIRE(best < 0.05);  // of numbers up to 4,860
    least = std::min(least, angle);
    most = std::max(most, angle);
  }
  CHECK(least >= -30.001);
  CHECK(least < -20);
  CHECK(most <= 30.001);
  CHECK(most > 20);
}

TEST_CASE("channels last and flat images are the same images") {
  const auto first = model_of(",3,6,6"), last = model_of(",6,6,3"), flat = model_of(",108");
  const Batch batch = counted({8, 3, 6, 6});
  Batch transposed = batch, flattened = batch;
  transposed.inputs[0] = Tensor(DType::float32, {8, 6, 6, 3});
  const auto from = batch.inputs[0].data<float>();
  const auto to = transposed.inputs[0].mutable_data<float>();
  const auto place = [](std::size_t n, std::size_t c, std::size_t p) { return (n * 36 + p) * 3 + c; };
  for (std::size_t n = 0; n < 8; ++n)
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t p = 0; p < 36; ++p) to[place(n, c, p)] = from[(n * 3 + c) * 36 + p];
  flattened.inputs[0] = batch.inputs[0].reshaped({8, 108});
  const std::string text = "crop=2,flip=both,rotate=20,fill=reflect";
  const Tensor a = applied(augmentation(text, *first), batch).inputs[0];
  const Tensor b = applied(augmentation(text, *last), transposed).inputs[0];
  const Tensor c = applied(augmentation(text + ",image=3x6x6", *flat), flattened).inputs[0];
  CHECK(b.dims() == Dims{8, 6, 6, 3});
  for (std::size_t n = 0; n < 8; ++n)
    for (std::size_t k = 0; k < 3; ++k)
      for (std::size_t p = 0; p < 36; ++p)
        REQUIRE(b.data<float>()[place(n, k, p)] == a.data<float>()[(n * 3 + k) * 36 + p]);
  CHECK(c.equals(a.reshaped({8, 108})));
}

TEST_CASE("borders repeat the edge or mirror the image") {
  const auto model = model_of(",1,1,4");
  const Batch batch = counted({200, 1, 1, 4});
  for (const auto& [border, wanted] : {std::pair{"edge", std::vector<float>{1, 1, 1, 2}}, {"reflect", {3, 2, 1, 2}}}) {
    const Batch changed = applied(augmentation(std::string("shift=2,fill=") + border, *model), batch);
    bool found = false;  // moved right by two
    for (std::int64_t i = 0; i < 200; ++i) {
      std::vector<float> row = sample(changed.inputs[0], i);
      for (float& value : row) value -= static_cast<float>(4 * i);
      found |= row == wanted;
      for (const float value : row) REQUIRE((value >= 1 && value <= 4));
    }
    CHECK(found);
  }
}

TEST_CASE("noise is normal with the deviation asked for") {
  const auto model = model_of(",1,20,20");
  Batch batch = counted({100, 1, 20, 20});
  const Batch changed = applied(augmentation("noise=0.5", *model), batch);
  double sum = 0, squares = 0, beyond = 0;
  const auto before = batch.inputs[0].data<float>(), after = changed.inputs[0].data<float>();
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double noise = double{after[i]} - double{before[i]};
    sum += noise;
    squares += noise * noise;
    beyond += std::fabs(noise) > 0.98;  // 1.96 deviations: 5 %
  }
  const auto count = static_cast<double>(before.size());
  CHECK(std::fabs(sum / count) < 0.01);
  CHECK(std::sqrt(squares / count) == doctest::Approx(0.5).epsilon(0.02));
  CHECK(beyond / count == doctest::Approx(0.05).epsilon(0.1));
}

TEST_CASE("quantiles are those of the normal distribution") {
  const std::span<const float> table = normal_table();
  REQUIRE(table.size() == 65536);
  CHECK(table[static_cast<std::size_t>(0.158655 * 65536)] == doctest::Approx(-1).epsilon(1e-3));
  CHECK(table[static_cast<std::size_t>(0.977250 * 65536)] == doctest::Approx(2).epsilon(1e-3));
  CHECK(table[0] == doctest::Approx(-4.327).epsilon(1e-2));
  CHECK(std::ranges::is_sorted(table));
}

TEST_CASE("mixup mixes samples and labels alike") {
  const auto model = model_of(",4");
  Batch batch = counted({64, 4});
  // The first element says which sample it is.
  for (std::size_t i = 0; i < 64; ++i)
    for (std::size_t k = 0; k < 4; ++k) batch.inputs[0].mutable_data<float>()[4 * i + k] = i % 10 == k ? 1.0F : 0.0F;
  const Batch changed = applied(augmentation("mixup=0.4", *model), batch);
  REQUIRE(changed.labels.dtype() == DType::float32);
  REQUIRE(changed.labels.dims() == Dims{64, 10});
  double extreme = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    const auto shares = changed.labels.data<float>().subspan(10 * i, 10);
    CHECK(std::accumulate(shares.begin(), shares.end(), 0.0F) == doctest::Approx(1));
    CHECK(std::ranges::count_if(shares, [](float share) { return share > 0; }) <= 2);
    for (std::size_t k = 0; k < 4; ++k) CHECK(changed.inputs[0].data<float>()[4 * i + k] == doctest::Approx(shares[k]));
    extreme += std::ranges::max(shares) > 0.9F;
  }
  CHECK(extreme > 16);  // Beta(0.4, 0.4) is at its ends more than in the middle
  CHECK(extreme < 60);
}

TEST_CASE("samples follow from seed, epoch and their number alone") {
  const auto model = model_of(",1,8,8");
  const Augmentation by = augmentation("shift=2,rotate=15,noise=0.1,flip=horizontal", *model);
  const Batch batch = counted({16, 1, 8, 8});
  const Tensor once = applied(by, batch, 3, 1).inputs[0];
  CHECK(applied(by, batch, 3, 2).inputs[0].equals(once));
  CHECK_FALSE(applied(by, batch, 4, 1).inputs[0].equals(once));
  CHECK_FALSE(
      applied(augmentation("shift=2,rotate=15,noise=0.1,flip=horizontal", *model, 6), batch, 3).inputs[0].equals(once));
  // One sample by itself, in another place of another batch.
  Batch alone{.inputs = {Tensor::of<float>({1, 1, 8, 8}, sample(batch.inputs[0], 9))}, .labels = {}, .samples = 1};
  ThreadPool pool(1);
  by.apply(alone, std::vector<std::int64_t>{9}, 3, pool);
  CHECK(sample(alone.inputs[0], 0) == sample(once, 9));
}

TEST_CASE("half-precision samples keep their type") {
  const auto model = model_of(",1,4,4", "float16");
  Batch batch = counted({4, 1, 4, 4});
  batch.inputs[0] = batch.inputs[0].cast(DType::float16);
  const Batch changed = applied(augmentation("shift=1", *model), batch);
  CHECK(changed.inputs[0].dtype() == DType::float16);
}

TEST_CASE("augmentation says what it does not know") {
  const auto message = [](auto&& body) {
    try {
      body();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto parsing = [&](const std::string& text) { return message([&] { AugmentationOptions::parse(text); }); };
  CHECK(parsing("shfit=2") == "augmentation 'shfit' is not known; did you mean 'shift'?");
  CHECK(parsing("shift") == "augmentation: expected KEY=VALUE, such as shift=2, found 'shift'");
  CHECK(parsing("shift=1.5") == "augmentation 'shift': expected a whole number of pixels, found '1.5'");
  CHECK(parsing("rotate=200") == "augmentation 'rotate': expected a number from 0 to 180, found '200'");
  CHECK(parsing("flip=up") == "augmentation 'flip': expected horizontal, vertical or both, found 'up'");
  CHECK(parsing("shift=1,shift=2") == "augmentation 'shift' is given twice");
  CHECK(parsing("noise=1,image=1x2x2") ==
        "augmentation 'image' belongs to shift, crop, flip and rotate and would do nothing here");
  CHECK(parsing("layout=nhwc").find("'layout' belongs to shift") != std::string::npos);
  CHECK(parsing("flip=both,fill=edge") ==
        "augmentation 'fill' belongs to shift, crop and rotate and would do nothing here");
  CHECK(parsing("mixup=0.2,input=x").find("'input' belongs to shift, crop, flip, rotate and noise") !=
        std::string::npos);
  const auto flat = model_of(",784"), integers = model_of(",1,4,4", "int32");
  CHECK(message([&] { augmentation("shift=1", *flat); }).find("image=1x28x28") != std::string::npos);
  CHECK(message([&] { augmentation("shift=1,image=1x27x28", *flat); }) ==
        "augmentation: expected samples of 'x' to hold 756 elements (image=1x27x28), found [784]");
  CHECK(message([&] { augmentation("noise=1", *integers); }) ==
        "augmentation: noise needs a floating-point input, found none");
  CHECK(message([&] { augmentation("mixup=1", *integers); }) ==
        "augmentation: mixup needs floating-point inputs, found 'x' of type int32");
  CHECK(message([&] { augmentation("shift=1", *integers); }).find("no floating-point input is an image") !=
        std::string::npos);
  CHECK(message([&] { augmentation("shift=28,image=1x28x28", *flat); }) ==
        "augmentation 'shift': expected fewer pixels than the images of 'x' have (28x28), found 28");
  CHECK(message([&] { augmentation("crop=20,image=1x16x49", *flat); }) ==
        "augmentation 'crop': expected fewer pixels than the images of 'x' have (16x49), found 20");
  CHECK(message([&] { augmentation("shift=1,input=z", *flat); }) ==
        "augmentation: expected a required input 'z', found none");
}

}  // namespace
}  // namespace onnxpress
