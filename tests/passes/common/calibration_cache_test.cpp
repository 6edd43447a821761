#include "passes/common/calibration_cache.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <iterator>

#include "graph/ir/parse.h"
#include "tests/passes/common/listed_data.h"

namespace onnxpress {
namespace {

constexpr std::string_view model_text = R"(
model ir=8 opset=17
input x: float32[batch,3]
initializer w: float32[3,2] = {1,2,3,4,5,6}
h = MatMul(x, w)
y = Relu(h)
output y: float32[batch,2]
)";
constexpr std::string_view other_text = R"(
model ir=8 opset=17
input x: float32[batch,3]
initializer w: float32[3,2] = {1,2,3,4,5,7}
h = MatMul(x, w)
y = Relu(h)
output y: float32[batch,2]
)";

class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "calibration.XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::filesystem::path file() const { return path_ / "cache.json"; }

 private:
  std::filesystem::path path_;
};

ListedData data(double scale = 1, std::string hash = "ab12") {
  return ListedData({{normal_tensor({4, 3}, 1, scale)}, {normal_tensor({40, 3}, 2, scale)}}, std::move(hash));
}

Calibration run(const std::filesystem::path& file, std::string_view text, Dataset& samples,
                const CalibrationRequest& request = {}, std::vector<std::string>* calibrated = nullptr) {
  const Options options;
  ThreadPool pool(1);
  PassContext context{.options = options,
                      .pool = pool,
                      .calibration = &samples,
                      .calibration_cache = file,
                      .calibrated = calibrated};
  return calibrate(*parse_model(text), context, request);
}

std::string failure(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_CASE("a kept calibration is the one gathered, and the model does not run again") {
  const Scratch scratch;
  ListedData samples = data();
  const CalibrationRequest request{.channels = {{"x", 1}}};
  const Calibration first = run(scratch.file(), model_text, samples, request);
  CHECK(samples.batches_read == 3);  // the first one also to tell the data from other
  CHECK(first.model_hash.size() == 32);
  CHECK(first.data_hash.size() == 32);
  samples.batches_read = 0;
  const Calibration second = run(scratch.file(), model_text, samples, request);
  CHECK(samples.batches_read == 1);
  CHECK(second.values == first.values);
  CHECK(second.samples == 44);
  CHECK(second.data == "listed data");
  CHECK(second.model_hash == first.model_hash);
  CHECK(second.data_hash == first.data_hash);
  CHECK(second.unseen == first.unseen);
}

TEST_CASE("another model's file is refused, and stays as it is") {
  const Scratch scratch;
  ListedData samples = data();
  const Calibration kept = run(scratch.file(), model_text, samples);
  const std::string before = contents(scratch.file());
  const std::string told = failure([&] { run(scratch.file(), other_text, samples); });
  CHECK(told.find("it belongs to another model: expected ") != std::string::npos);
  CHECK(told.find("found " + kept.model_hash) != std::string::npos);
  CHECK(contents(scratch.file()) == before);
}

TEST_CASE("passes of one run share a file") {
  const Scratch scratch;
  ListedData samples = data();
  for (int i = 0; i < 2; ++i) {
    samples.batches_read = 0;
    std::vector<std::string> calibrated;
    run(scratch.file(), model_text, samples, {}, &calibrated);
    run(scratch.file(), other_text, samples, {}, &calibrated);
    CHECK(calibrated.size() == 2);
    CHECK(samples.batches_read == (i == 0 ? 6 : 2));
  }
}

TEST_CASE("other data and other preprocessing are refused") {
  const Scratch scratch;
  ListedData samples = data(), scaled = data(2), other = data(1, "cd34"), nameless = data(1, "");
  const Calibration kept = run(scratch.file(), model_text, samples);
  for (ListedData* wrong : {&scaled, &other}) {
    const std::string told = failure([&] { run(scratch.file(), model_text, *wrong); });
    CHECK(told.find("it belongs to other data: expected ") != std::string::npos);
    CHECK(told.find("found " + kept.data_hash) != std::string::npos);
  }
  CHECK(failure([&] { run(scratch.file(), model_text, nameless); }).find("cannot be told from other data") !=
        std::string::npos);
}

TEST_CASE("more than was kept is gathered, and kept beside it") {
  const Scratch scratch;
  ListedData samples = data();
  const CalibrationRequest ranges{.values = {"h"}, .histograms = false}, channels{.values = {"x"}, .channels = {{"x", 1}}};
  run(scratch.file(), model_text, samples, ranges);
  const Calibration both = run(scratch.file(), model_text, samples, channels);
  CHECK(both.values.size() == 2);
  CHECK(both.values.at("h").histogram.total() > 0);
  samples.batches_read = 0;
  run(scratch.file(), model_text, samples, ranges);
  run(scratch.file(), model_text, samples, channels);
  CHECK(samples.batches_read == 2);
  run(scratch.file(), model_text, samples);
  CHECK(samples.batches_read == 5);
}

TEST_CASE("a damaged file is refused") {
  const Scratch scratch;
  ListedData samples = data();
  run(scratch.file(), model_text, samples);
  const std::string good = contents(scratch.file());
  const auto refused = [&](const std::string& text) {
    std::ofstream(scratch.file(), std::ios::binary) << text;
    return failure([&] { run(scratch.file(), model_text, samples); });
  };
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    return refused(text.replace(at, from.size(), to));
  };
  CHECK(refused("").find("expected a file of schema 'onnxpress.calibration/1'") != std::string::npos);
  CHECK(refused("[1, 2]").find("expected a file of schema") != std::string::npos);
  CHECK(refused(good.substr(0, good.size() / 2)).find("expected a file of schema") != std::string::npos);
  CHECK(changed("\"count\":", "\"count\":1").find("counts do not sum up to") != std::string::npos);
  CHECK(changed("\"zeros\":", "\"zeros\":-").find("expected") != std::string::npos);
  CHECK(changed("\"first\":", "\"first\":9,\"was\":").find("expected bins around zero") != std::string::npos);
  CHECK(changed("\"exponent\":", "\"exponent\":-999,\"was\":").find("expected an exponent") != std::string::npos);
  CHECK(changed("\"max\":", "\"max\":1e39,\"was\":").find("expected a float32 number") != std::string::npos);
  CHECK(changed("\"counts\":[", "\"counts\":[-5,").find("expected a count, found -5") != std::string::npos);
  CHECK(changed("\"max\":", "\"max\":-1000,\"was\":").find("is above max") != std::string::npos);
  CHECK(changed("\"values\":{", "\"values\":{\"q\":7,").find("expected a file of schema") != std::string::npos);
}

}  // namespace
}  // namespace onnxpress
