// Students trained after teachers.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "graph/base/random.h"
#include "passes/core/runner.h"
#include "tests/graph/base/temporary_folder.h"
#include "tests/passes/pass_fixture.h"
#include "tests/passes/train/equal_parameters.h"

namespace onnxpress {
namespace {

// Points of a square in batches of 8; labels by quadrant, or none. Counts what is read.
class Points final : public Dataset {
 public:
  explicit Points(std::int64_t count, bool is_labelled = true, double scale = 1)
      : count_(count), is_labelled_(is_labelled), scale_(scale) {}

  std::int64_t samples() const override { return count_; }
  bool labelled() const override { return is_labelled_; }
  void rewind() override { next_ = 0; }
  bool next(Batch& batch) override {
    const std::int64_t size = std::min<std::int64_t>(8, count_ - next_);
    if (size <= 0) return false;
    Tensor x(DType::float32, {size, 2}), y(DType::int64, {size});
    for (std::int64_t i = 0; i < size; ++i) {
      Random random = Random(3).split(static_cast<std::uint64_t>(next_ + i));
      const double a = random.uniform(-1, 1), b = random.uniform(-1, 1);
      const auto at = static_cast<std::size_t>(i);
      x.mutable_data<float>()[2 * at] = static_cast<float>(a * scale_);
      x.mutable_data<float>()[2 * at + 1] = static_cast<float>(b * scale_);
      y.mutable_data<std::int64_t>()[at] = (a > 0) * 2 + (b > 0);
    }
    batch = {.inputs = {x}, .samples = size};
    if (is_labelled_) batch.labels = y;
    next_ += size;
    samples_read += size;
    return true;
  }
  std::string description() const override { return "points"; }
  std::string hash() const override { return "5eed"; }

  std::int64_t samples_read = 0;

 private:
  std::int64_t count_, next_ = 0;
  bool is_labelled_;
  double scale_;
};

std::unique_ptr<Model> net(int hidden, int seed, const std::string& tail = "y: float32[n,4] = Gemm(h, w2, b2)\n",
                           const std::string& input = "x") {
  return parse_model(fmt::format(R"(model ir=8 opset=17
input {2}: float32[n,2]
initializer w1: float32[2,{0}] = random({1})
initializer b1: float32[{0}] = zeros
initializer w2: float32[{0},4] = random(1{1})
initializer b2: float32[4] = zeros
g = Gemm({2}, w1, b1)
h = Tanh(g)
{3}output y: float32[n,4]
)",
                                 hidden, seed, input, tail));
}

// A sample's outputs without their mean, which a Softmax does not see.
std::vector<double> centered(const Tensor& outputs) {
  const std::vector<float> values = outputs.to_floats();
  const auto classes = static_cast<std::size_t>(outputs.dim(1));
  std::vector<double> result(values.begin(), values.end());
  for (std::size_t row = 0; row < result.size(); row += classes) {
    double mean = 0;
    for (std::size_t k = 0; k < classes; ++k) mean += result[row + k] / static_cast<double>(classes);
    for (std::size_t k = 0; k < classes; ++k) result[row + k] -= mean;
  }
  return result;
}

// Mean squared distance of the models' outputs on the points.
double distance(const Model& a, const Model& b) {
  Engine first(a), second(b);
  Points points(64);
  Batch batch;
  double sum = 0;
  while (points.next(batch)) {
    const std::vector<double> x = centered(first.run(batch.inputs)[0]), y = centered(second.run(batch.inputs)[0]);
    for (std::size_t i = 0; i < x.size(); ++i) sum += (x[i] - y[i]) * (x[i] - y[i]) / static_cast<double>(x.size());
  }
  return sum;
}

PassRun distil(const std::string& options, const std::vector<TeacherSource>& teachers, Dataset& data,
               std::unique_ptr<Model> student = net(6, 1)) {
  return run_pass("distill{epochs=12, batch_size=16, learning_rate=0.02, " + options + "}", std::move(student),
                  {.training = &data, .teachers = teachers});
}

std::string refusal(const std::string& options, const std::vector<TeacherSource>& teachers, Dataset& data,
                    std::unique_ptr<Model> student = net(6, 1)) {
  try {
    distil(options, teachers, data, std::move(student));
  } catch (const Unsuitable& error) {
    return error.message();
  }
  return "";
}

TEST_CASE("a student comes near its teacher, with labels or without, by every loss") {
  const auto teacher = net(12, 2);
  for (const char* options : {"soft=distillation", "soft=decoupled_distillation", "soft=logits_mse", "soft=mse",
                              "soft=l1", "soft=huber", "soft=auto, alpha=1, temperature=2"}) {
    CAPTURE(options);
    Points points(160);
    const PassRun run = distil(options, {{.name = "T", .model = teacher.get()}}, points);
    const double before = distance(*run.before, *teacher), after = distance(*run.after, *teacher);
    CHECK(after < 0.7 * before);
  }
  Points unlabelled(160, false);
  const PassRun run = distil("soft=mse, alpha=0.5", {{.name = "T", .model = teacher.get()}}, unlabelled);
  CHECK(distance(*run.after, *teacher) < 0.3 * distance(*run.before, *teacher));
  CHECK(run.outcome.notes.at(0) == "'points' has no labels: the student learns from the teacher alone");
  CHECK(run.outcome.training["loss"] == "0.5*mse(y)");
}

TEST_CASE("parameters of an untrained student that are equal are trained apart") {
  const auto teacher = net(12, 2);
  Points points(160);
  const PassRun run = distil("hold_out=0", {{.name = "T", .model = teacher.get()}}, points, parse_model(equal_parameters));
  std::vector<const Value*> scales;
  for (const Node* node : run.after->graph.nodes())
    if (node->is("BatchNormalization")) scales.push_back(node->input(1));
  REQUIRE(scales.size() == 2);
  CHECK_FALSE(scales[0]->constant()->equals(*scales[1]->constant()));
  const std::vector<std::string>& notes = run.outcome.notes;
  CHECK(std::ranges::find(notes, "6 parameters that were stored once because they were equal are trained apart") != notes.end());
}

TEST_CASE("final activations are taken off on both sides") {
  const auto teacher = net(12, 2, "l = Gemm(h, w2, b2)\ny: float32[n,4] = Softmax(l)\n");
  Points points(160);
  const PassRun run = distil("alpha=1", {{.name = "T", .model = teacher.get()}}, points,
                             net(6, 1, "l = Gemm(h, w2, b2)\ny: float32[n,4] = LogSoftmax(l)\n"));
  CHECK(run.outcome.training["loss"] == "1*distillation(y) at temperature 4");
  const auto sigmoid = net(12, 2, "l = Gemm(h, w2, b2)\ny: float32[n,4] = Sigmoid(l)\n");
  Points unlabelled(160, false);
  const PassRun binary = distil("alpha=1", {{.name = "T", .model = sigmoid.get()}}, unlabelled,
                                net(6, 1, "l = Gemm(h, w2, b2)\ny: float32[n,4] = Sigmoid(l)\n"));
  CHECK(binary.outcome.training["loss"] == "1*binary_cross_entropy(y)");
  CHECK(distance(*binary.after, *sigmoid) < 0.5 * distance(*binary.before, *sigmoid));
}

TEST_CASE("outputs of both sides tell what is compared") {
  const std::string scores = "y: float32[n,4] = Gemm(h, w2, b2)\n", sigmoid = "l = Gemm(h, w2, b2)\ny: float32[n,4] = Sigmoid(l)\n";
  const auto loss = [](const std::string& teacher_tail, const std::string& student_tail, bool is_labelled, const std::string& options = "") {
    const auto teacher = net(12, 2, teacher_tail);
    Points points(160, is_labelled);
    return distil("alpha=1" + options, {{.name = "T", .model = teacher.get()}}, points, net(6, 1, student_tail))
        .outcome.training["loss"]
        .get<std::string>();
  };
  CHECK(loss(scores, scores, true) == "1*distillation(y) at temperature 4");
  CHECK(loss(scores, scores, false) == "1*mse(y)");  // they may be any numbers
  CHECK(loss(sigmoid, scores, false) == "1*binary_cross_entropy(y)");
  CHECK(loss(scores, sigmoid, false) == "1*binary_cross_entropy(y)");
  // The other's outputs are logits: a perfect student's loss is that of the right probabilities.
  const auto teacher = net(6, 2, scores), same = net(6, 2, sigmoid);
  Points points(160, false);
  const PassRun run = distil("alpha=1, hold_out=0.2", {{.name = "T", .model = teacher.get()}}, points, same->clone());
  const double held = run.outcome.training["epochs"][0]["held_out_loss"].get<double>();
  CHECK(held > 0);
  CHECK(held < std::log(2.0));
  Points more(160, false);
  const auto binary = net(12, 2, sigmoid);
  CHECK(refusal("soft=distillation", {{.name = "T", .model = binary.get()}}, more).starts_with("soft=distillation: output 'y' of the teacher ends in a Sigmoid"));
}

TEST_CASE("the teacher runs once, and not at all when the cache has what it gives") {
  const TemporaryFolder folder;
  const auto teacher = net(12, 2, "y: float32[n,4] = Gemm(h, w2, b2)\n", "t");
  const auto run = [&](Dataset& own, const std::filesystem::path& cache) {
    Points points(40);
    const Pipeline pipeline = Pipeline::parse("distill{epochs=5, soft=mse}");
    ThreadPool pool(1);
    auto student = net(6, 1);
    PassContext context{.options = pipeline.steps[0].options, .pool = pool, .seed = 1, .training = &points};
    context.teachers = {
        {.name = "T", .model = teacher.get(), .data = &own, .preprocessing = "scale 2", .reads_otherwise = true}};
    context.support.teacher_cache = cache;
    const Outcome outcome = pipeline.steps[0].pass->run(*student, context);
    const auto note =
        std::ranges::find_if(outcome.notes, [](const std::string& text) { return text.starts_with("teacher 'T'"); });
    REQUIRE(note != outcome.notes.end());
    return std::pair(structural_hash(*student), *note);
  };
  Points without(40, false, 2), first(40, false, 2), second(40, false, 2);
  const auto plain = run(without, "");
  CHECK(without.samples_read == 48);  // the first batch tells the dims, then all once
  const auto cached = run(first, folder.path());
  CHECK(first.samples_read == 48);
  CHECK(cached.second.starts_with("teacher 'T' ran once on 40 samples: 640 bytes kept in '"));
  const auto again = run(second, folder.path());
  CHECK(second.samples_read == 0);
  CHECK(again.second.starts_with("teacher 'T': what it makes of 40 samples was read from '"));
  CHECK(plain.first == cached.first);
  CHECK(plain.first == again.first);
  const std::filesystem::path file = std::filesystem::directory_iterator(folder.path())->path();
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 100);
  Points third(40, false, 2), fourth(40, false, 2);
  const auto renewed = run(third, folder.path());
  CHECK(third.samples_read == 48);
  CHECK(renewed.second.ends_with("was not used: it is damaged or was cut short"));
  CHECK(renewed.first == plain.first);
  CHECK(run(fourth, folder.path()).second == again.second);
}

TEST_CASE("augmented samples are given to the teacher batch by batch, and to no cache") {
  const TemporaryFolder folder;
  const auto teacher = net(12, 2);
  const auto run = [&](const std::string& augment, Dataset* own, const std::filesystem::path& cache) {
    Points points(40, false);
    const Pipeline pipeline = Pipeline::parse("distill{epochs=2, soft=mse, augment='" + augment + "'}");
    ThreadPool pool(1);
    auto student = net(6, 1);
    PassContext context{.options = pipeline.steps[0].options, .pool = pool, .seed = 1, .training = &points};
    context.teachers = {{.name = "T", .model = teacher.get(), .data = own, .reads_otherwise = own != nullptr}};
    context.support.teacher_cache = cache;
    return pipeline.steps[0].pass->run(*student, context).notes;
  };
  const std::vector<std::string> notes = run("noise=0.1", nullptr, "");
  CHECK(std::ranges::count(notes, "teacher 'T' runs on every batch") == 1);
  Points own(40, false, 2);
  CHECK_THROWS_AS(run("noise=0.1", nullptr, folder.path()), Unsuitable);
  CHECK_THROWS_AS(run("noise=0.1", &own, ""), Unsuitable);
  CHECK_NOTHROW(run("", &own, folder.path()));
}

TEST_CASE("hints of another width go through a regressor, which the model does not keep") {
  const auto teacher = net(12, 2);
  Points points(160, false);
  const PassRun run =
      distil("soft=none, hints='h=h', hint_weight=3", {{.name = "T", .model = teacher.get()}}, points);
  CHECK(run.after->graph.initializers().size() == run.before->graph.initializers().size());
  CHECK(run.outcome.training["loss"] == "3*mse(h)");
  const Json& epochs = run.outcome.training["epochs"];
  CHECK(epochs.back()["held_out_loss"].get<double>() < 0.3 * epochs.front()["held_out_loss"].get<double>());
  // Only what the hint depends on was trained.
  CHECK(run.after->graph.find("w2")->constant()->equals(*run.before->graph.find("w2")->constant()));
  CHECK_FALSE(run.after->graph.find("w1")->constant()->equals(*run.before->graph.find("w1")->constant()));
}

const char* const conv_student = R"(model ir=8 opset=17
input x: float32[n,2]
initializer w: float32[2,32] = random(4)
initializer shape: int64[4] = {-1,2,4,4}
initializer k: float32[3,2,3,3] = random(5)
initializer v: float32[48,4] = random(6)
e = MatMul(x, w)
m = Reshape(e, shape)
c = Conv(m, k) {pads=[1,1,1,1]}
r = Relu(c)
f = Flatten(r)
y: float32[n,4] = MatMul(f, v)
output y: float32[n,4]
)";
const char* const conv_teacher = R"(model ir=8 opset=17
input x: float32[n,2]
initializer w: float32[2,128] = random(14)
initializer shape: int64[4] = {-1,2,8,8}
initializer k: float32[5,2,3,3] = random(15)
initializer v: float32[320,4] = random(16)
e = MatMul(x, w)
m = Reshape(e, shape)
c = Conv(m, k) {pads=[1,1,1,1]}
r = Relu(c)
f = Flatten(r)
y: float32[n,4] = MatMul(f, v)
output y: float32[n,4]
)";

TEST_CASE("maps of other sizes, attention and relations train") {
  const auto teacher = parse_model(conv_teacher);
  for (const char* options :
       {"hints='r=r'", "attention='r=r'", "relations='f=f'", "relations='r=f', angle_weight=0"}) {
    CAPTURE(options);
    Points points(80, false);
    const PassRun run = distil(std::string("soft=none, ") + options, {{.name = "T", .model = teacher.get()}}, points,
                               parse_model(conv_student));
    const Json& epochs = run.outcome.training["epochs"];
    CHECK(epochs.back()["held_out_loss"].get<double>() < 0.8 * epochs.front()["held_out_loss"].get<double>());
  }
}

TEST_CASE("several teachers count by their weights") {
  const auto one = net(12, 2), two = net(12, 3);
  const auto nearness = [&](double first, double second) {
    Points points(160, false);
    const PassRun run = distil(
        "soft=mse, alpha=1",
        {{.name = "A", .model = one.get(), .weight = first}, {.name = "B", .model = two.get(), .weight = second}},
        points, net(12, 1));
    return distance(*run.after, *one) / distance(*run.after, *two);
  };
  CHECK(nearness(9, 1) < 0.5);
  CHECK(nearness(1, 9) > 2);
}

TEST_CASE("what does not match is refused with both shapes") {
  Points points(40), unlabelled(40, false);
  const auto teacher = net(12, 2);
  const std::vector<TeacherSource> teachers = {{.name = "T", .model = teacher.get()}};
  const auto wide = parse_model(
      "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer w: float32[2,5] = random(1)\n"
      "y: float32[n,5] = MatMul(x, w)\noutput y: float32[n,5]\n");
  CHECK(refusal("soft=mse", {{.name = "T", .model = wide.get()}}, points) ==
        "option 'outputs': 'y' of the student gives [4] a sample, 'y' of teacher 'T' [5]: expected the same");
  const auto two = parse_model(
      "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer w: float32[2,4] = random(1)\n"
      "a = MatMul(x, w)\nb = Relu(a)\noutput a: float32[n,4]\noutput b: float32[n,4]\n");
  CHECK(refusal("soft=mse", {{.name = "T", .model = two.get()}}, points) ==
        "expected outputs that match, found 'y' float32[n,4] of the student and 'a' float32[n,4], 'b' float32[n,4] "
        "of teacher "
        "'T': say which with outputs=STUDENT=TEACHER");
  CHECK(refusal("soft=mse, outputs='y=b'", {{.name = "T", .model = two.get()}}, points).empty());
  CHECK(refusal("soft=mse, outputs='y=q'", teachers, points) == "option 'outputs': expected a value 'q' of teacher 'T', found none");
  CHECK(refusal("soft=mse, outputs='h=y'", teachers, points) ==
        "option 'outputs': expected an output of floats of the student, found 'h'; there are 'y' float32[n,4]");
  CHECK(refusal("soft=none, hints='q=h'", teachers, points) ==
        "option 'hints': expected a value 'q' of the student, found none");
  CHECK(refusal("soft=none, attention='h=h'", teachers, points) ==
        "option 'attention': 'h' of the student gives [6] a sample, 'h' of teacher 'T' [12]: expected maps "
        "[channels, positions...] of as many axes");
  CHECK(refusal("soft=none, relations='w1=h'", teachers, points) ==
        "option 'relations': expected floats of one row a sample, found 'w1' of the student, a constant float32[2,6]");
  CHECK(refusal("soft=none, relations='x=x'", teachers, points) ==
        "option 'relations': no weight of the student comes before 'x': it cannot be trained to follow anything");
  CHECK(refusal("soft=none, relations='h=w1'", teachers, points) ==
        "running the teacher 'T': 'w1': expected one row a sample (8), found [2,12]");
  CHECK(refusal("soft=decoupled_distillation", teachers, unlabelled) ==
        "decoupled_distillation: expected data with class labels, found none");
  const auto same = net(6, 1);
  CHECK(refusal("soft=mse", {{.name = "T", .model = same.get()}}, points)
            .starts_with("teacher 'T' is the model that would be trained"));
  Points fewer(32);
  CHECK(refusal("soft=mse", {{.name = "T", .model = teacher.get(), .data = &fewer}}, points) ==
        "teacher 'T': expected 40 samples, found 32");
  CHECK_THROWS_AS(distil("soft=none", teachers, points), Error);
}

TEST_CASE("options of distill that do nothing are refused, with what they belong to") {
  Points points(40), unlabelled(40, false);
  const auto teacher = net(12, 2), second = net(12, 3);
  const std::vector<TeacherSource> teachers = {{.name = "T", .model = teacher.get()}};
  const auto told = [&](const std::string& options, Dataset& data) -> std::string {
    try {
      distil(options, teachers, data);
    } catch (const Error& error) {
      return error.message();
    }
    return "accepted";
  };
  const std::pair<const char*, const char*> idle[] = {
      {"hint_weight=2", "option 'hint_weight' belongs to hints and would do nothing here"},
      {"attention_weight=2", "option 'attention_weight' belongs to attention and would do nothing here"},
      {"angle_weight=2", "option 'angle_weight' belongs to relations and would do nothing here"},
      {"distance_weight=2", "option 'distance_weight' belongs to relations and would do nothing here"},
      {"target_weight=2", "option 'target_weight' belongs to soft=decoupled_distillation and would do nothing here"},
      {"other_weight=2", "option 'other_weight' belongs to soft=decoupled_distillation and would do nothing here"},
      {"soft=mse, temperature=2",
       "option 'temperature' belongs to soft=distillation or decoupled_distillation and would do nothing here"},
      {"soft=none, hints='h=h', outputs='y=y'",
       "option 'outputs' belongs to soft targets (soft other than none, alpha above 0) and would do nothing here"},
      {"soft=mse, alpha=0, hints='h=h'", "option 'soft' belongs to alpha above 0 and would do nothing here"},
      {"alpha=1, loss=cross_entropy", "option 'loss' belongs to alpha below 1 and would do nothing here"},
      {"soft=mse, outputs='y=y=y'", "option 'outputs': expected STUDENT=TEACHER;..., found 'y=y=y'"},
      {"optimizer=sgd, momentum=0.5",
       "option 'momentum' belongs to optimizer=momentum or nesterov and would do nothing here"}};
  for (const auto& [options, message] : idle) CHECK(told(options, points) == message);
  CHECK(told("loss=cross_entropy", unlabelled) ==
        "the training data has no labels (an array 'y' or 'labels'), which the loss asks for");
  CHECK(told("label_smoothing=0.1", unlabelled) ==
        "option 'label_smoothing' belongs to labels and would do nothing here: 'points' has none");
  const auto one = parse_model(
      "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer w: float32[2,1] = random(1)\n"
      "y: float32[n,1] = MatMul(x, w)\noutput y: float32[n,1]\n");
  CHECK(refusal("temperature=2", {{.name = "T", .model = one.get()}}, unlabelled,
                parse_model("model ir=8 opset=17\ninput x: float32[n,2]\ninitializer w: float32[2,1] = random(2)\n"
                            "y: float32[n,1] = MatMul(x, w)\noutput y: float32[n,1]\n")) ==
        "option 'temperature' belongs to soft=distillation and would do nothing here: the loss is mse");
  CHECK(refusal("soft=none, hints='h=h'",
                {{.name = "A", .model = teacher.get()}, {.name = "B", .model = second.get()}}, unlabelled) ==
        "teacher 'B' would do nothing here: without soft targets all follow the first");
}

TEST_CASE("a pipeline without another teacher distils from the model it was given") {
  Points points(160);
  RunOptions options;
  options.training = &points;
  options.threads = 1;
  const RunResult result = run_pipeline(
      net(12, 2), Pipeline::parse("derive_student{width=0.5},distill{epochs=12,soft=mse,alpha=1,learning_rate=0.02}"),
      options);
  CHECK_FALSE(result.rolled_back);
  REQUIRE(result.passes.back().pass == "distill");
  CHECK(to_string(result.model->graph.find("w1")->constant()->dims()) == "[2,6]");
  const auto narrow = run_pipeline(net(12, 2), Pipeline::parse("derive_student{width=0.5}"), options);
  CHECK(distance(*result.model, *net(12, 2)) < 0.5 * distance(*narrow.model, *net(12, 2)));
}

}  // namespace
}  // namespace onnxpress
