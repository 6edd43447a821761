#include "passes/core/runner.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <deque>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "fake_pass.h"
#include "graph/ir/parse.h"
#include "graph/onnx/reader.h"
#include "passes/core/group.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view text = R"(model ir=8 opset=17
input x: float32[batch,3]
initializer w: float32[3,4] = random(1)
initializer b: float32[4] = {0.5,-0.5,1,2}
a: float32[batch,4] = MatMul(x, w) "product"
s: float32[batch,4] = Add(a, b) "sum"
y: float32[batch,4] = Relu(s) "relu"
output y: float32[batch,4]
)";

Outcome changed() { return Outcome{.changed = true}; }

struct Scene {
  explicit Scene(std::string_view model_text = text) : model(parse_model(model_text)) {
    before = to_text(*model);
    options.threads = 1;
  }

  void add(PassInfo info, RunFunction run) {
    fakes.push_back(std::make_unique<FakePass>(info, std::move(run)));
    pipeline.steps.push_back({fakes.back().get(), Options(info.name, info.options, {})});
  }
  void add(Effect effect, RunFunction run) {
    add(PassInfo{.name = "broken", .summary = "", .effect = effect}, std::move(run));
  }
  RunResult run() { return run_pipeline(std::move(model), pipeline, options); }

  std::unique_ptr<Model> model;
  std::string before;
  Pipeline pipeline;
  RunOptions options;
  std::vector<std::unique_ptr<FakePass>> fakes;
};

// Runs the scene's only step, which must be rolled back with `words` in its failure.
PassRecord check_rolled_back(Scene& scene, std::string_view words) {
  const RunResult result = scene.run();
  CHECK(result.rolled_back);
  REQUIRE(result.passes.size() == 1);
  const PassRecord& record = result.passes[0];
  CAPTURE(record.failure);
  CHECK(record.rolled_back);
  CHECK_FALSE(record.changed);
  CHECK(record.failure.find(words) != std::string::npos);
  CHECK(to_text(*result.model) == scene.before);
  CHECK(record.bytes_before == record.bytes_after);
  return record;
}

void scale_weight(Model& model, float factor) {
  Value* w = model.graph.find("w");
  Tensor tensor = *w->constant();
  for (float& element : tensor.mutable_data<float>()) element *= factor;
  model.graph.set_initializer(w, tensor);
}

TEST_CASE("a model whose outputs are all NaN is not verified") {
  Scene scene(R"(model ir=8 opset=17
input x: float32[batch,3]
initializer w: float32[3,4] = random(1)
initializer z: float32[] = {-1}
a = MatMul(x, w)
r = Relu(a)
n = Sub(z, r)
y: float32[batch,4] = Sqrt(n)
output y: float32[batch,4]
)");
  scene.add(Effect::rounding, [](Model& model, PassContext&) {
    scale_weight(model, 2);
    return changed();
  });
  const RunResult result = scene.run();
  CHECK_FALSE(result.rolled_back);
  CHECK_FALSE(result.verified);
  CHECK_FALSE(result.judgeable);
  CHECK(result.unverified_reason.find("no output has a finite number") != std::string::npos);
  CHECK(result.passes.at(0).errors.at(0).before.all());
}

TEST_CASE("a declared output shape that is wrong already is kept, a new one is a broken pass") {
  std::string wrong(text);
  wrong.replace(wrong.find("y: float32[batch,4] = Relu"), 26, "y = Relu");
  wrong.replace(wrong.find("output y: float32[batch,4]"), 26, "output y: float32[batch,9]");
  Scene kept(wrong);
  kept.add(Effect::lossy, [](Model& model, PassContext&) {
    scale_weight(model, 2);
    return changed();
  });
  CHECK_FALSE(kept.run().rolled_back);

  Scene broken;
  broken.add(Effect::lossy, [](Model& model, PassContext&) {
    model.graph.set_initializer(model.graph.find("w"), Tensor(DType::float32, {3, 1}));
    model.graph.set_initializer(model.graph.find("b"), Tensor(DType::float32, {1}));
    return changed();
  });
  check_rolled_back(broken, "output 'y' is declared");
}

TEST_CASE("broken passes are rolled back and named") {
  Scene scene;
  SUBCASE("it throws") {
    scene.add(Effect::exact, [](Model& model, PassContext&) -> Outcome {
      scale_weight(model, 2);
      fail("no such layer");
    });
    check_rolled_back(scene, "no such layer");
  }
  SUBCASE("it throws something else") {
    scene.add(Effect::exact, [](Model&, PassContext&) -> Outcome { throw 7; });
    check_rolled_back(scene, "an exception that is no std::exception");
  }
  SUBCASE("it says nothing of a change") {
    scene.add(Effect::lossy, [](Model& model, PassContext&) {
      scale_weight(model, 2);
      return Outcome{};
    });
    check_rolled_back(scene, "it claims no change but changed the model");
  }
  SUBCASE("it renames and says nothing") {
    scene.add(Effect::exact, [](Model& model, PassContext&) {
      model.graph.nodes()[0]->name = "other";
      return Outcome{};
    });
    check_rolled_back(scene, "it claims no change but changed the model");
  }
  SUBCASE("it claims a change") {
    scene.add(Effect::exact, [](Model&, PassContext&) { return changed(); });
    check_rolled_back(scene, "it claims a change but left the model as it was");
  }
  SUBCASE("exact is not exact") {
    scene.add(Effect::exact, [](Model& model, PassContext&) {
      scale_weight(model, 1.0F + 0x1p-20F);
      return changed();
    });
    const PassRecord record =
        check_rolled_back(scene, "declared effect 'exact', but output 'y' is not bit-equal");
    CHECK(record.probed);
    REQUIRE(record.errors.size() == 1);
    CHECK(record.errors[0].max_abs > 0);
  }
  SUBCASE("rounding is more than that") {
    scene.add(Effect::rounding, [](Model& model, PassContext&) {
      scale_weight(model, 1.01F);
      return changed();
    });
    check_rolled_back(scene, "declared effect 'rounding', but output 'y' differs by up to");
  }
  SUBCASE("the SNR is lower than stated") {
    scene.add(Effect::approximate, [](Model& model, PassContext&) {
      scale_weight(model, 1.1F);
      return Outcome{.changed = true, .min_snr_db = 60};
    });
    check_rolled_back(scene, "declared an SNR of at least 60 dB, but output 'y' has");
  }
  SUBCASE("an output is renamed") {
    scene.add(Effect::lossy, [](Model& model, PassContext&) {
      model.graph.rename(model.graph.find("y"), "z");
      return changed();
    });
    check_rolled_back(scene, "it changed the model's interface: output 0 is now 'z', expected 'y'");
  }
  SUBCASE("an input is added") {
    scene.add(Effect::lossy, [](Model& model, PassContext&) {
      model.graph.add_input("extra", Type::tensor(DType::float32, {}));
      return changed();
    });
    check_rolled_back(scene, "the model has 2 required inputs, expected 1");
  }
  SUBCASE("an output changes its type") {
    scene.add(Effect::lossy, [](Model& model, PassContext&) {
      model.graph.find("y")->type = Type::tensor(DType::float32, {Dim("n"), Dim(4)});
      return changed();
    });
    check_rolled_back(scene, "output 'y' is now float32[n,4], expected float32[batch,4]");
  }
  SUBCASE("a cycle") {
    scene.add(Effect::lossy, [](Model& model, PassContext&) {
      Node* sum = model.graph.find("s")->producer();
      model.graph.set_node_input(sum, 0, model.graph.find("y"));
      return changed();
    });
    check_rolled_back(scene,
                      "it left a model that does not verify: graph 'graph' / node 'sum' (Add): "
                      "input 0 is read before");
  }
  SUBCASE("shapes that contradict each other") {
    scene.add(Effect::lossy, [](Model& model, PassContext&) {
      model.graph.set_initializer(model.graph.find("w"), Tensor(DType::float32, {7, 4}));
      return changed();
    });
    check_rolled_back(scene, "it left a model that does not verify");
  }
}

TEST_CASE("steps that stay are measured") {
  Scene scene;
  scene.add({.name = "halve", .summary = "", .effect = Effect::lossy},
            [](Model& model, PassContext& context) {
              CHECK(context.seed == 5);
              CHECK(context.calibration == nullptr);
              scale_weight(model, 0.5F);
              return Outcome{.changed = true, .notes = {"halved"}};
            });
  scene.add({.name = "idle", .summary = ""}, [](Model&, PassContext&) { return Outcome{}; });
  scene.add({.name = "name", .summary = ""}, [](Model& model, PassContext& context) {
    model.graph.nodes()[0]->name = "other";
    context.near_misses->push_back({"rule", "node", "reason"});
    return changed();
  });
  scene.options.seed = 5;
  scene.options.explain = true;
  int evaluations = 0;
  scene.options.evaluate = [&](const Model&) { return Evaluation{.samples = ++evaluations}; };
  std::vector<std::string> progress;
  scene.options.progress = [&](const std::string& line, std::size_t done, std::size_t total) {
    progress.push_back(fmt::format("{} {}/{}", line, done, total));
  };
  const RunResult result = scene.run();
  CHECK_FALSE(result.rolled_back);
  CHECK(result.verified);
  CHECK(result.generated_probes);
  CHECK(progress ==
        std::vector<std::string>{"running halve 0/3", "running idle 1/3", "running name 2/3"});
  REQUIRE(result.passes.size() == 3);
  const PassRecord& halve = result.passes[0];
  CHECK(halve.changed);
  CHECK(halve.probed);
  CHECK(halve.outcome.notes == std::vector<std::string>{"halved"});
  CHECK(halve.parameters_before == 16);
  CHECK(halve.nodes_after == 3);
  CHECK(halve.macs_after == 12);
  CHECK(halve.bytes_after > 0);
  CHECK(halve.seconds > 0);
  CHECK(halve.verification_seconds > 0);
  REQUIRE(halve.total_errors.size() == 1);
  CHECK(halve.total_errors[0].output == "y");
  CHECK(halve.total_errors[0].max_abs > 0);
  CHECK(halve.total_errors[0].top1_agreement.has_value());
  CHECK(std::isfinite(halve.total_errors[0].snr_db));
  CHECK_FALSE(result.passes[1].changed);
  CHECK(result.passes[1].errors.empty());
  CHECK(result.passes[1].total_errors.size() == 1);
  const PassRecord& name = result.passes[2];
  CHECK(name.changed);
  REQUIRE(name.errors.size() == 1);
  CHECK(name.errors[0].max_abs == 0);
  CHECK(std::isinf(name.errors[0].snr_db));
  CHECK(name.total_errors[0].max_abs == halve.total_errors[0].max_abs);
  CHECK(name.near_misses.size() == 1);
  CHECK(evaluations == 2);  // not again where nothing changed
  CHECK(result.passes[1].evaluation->samples == 1);
  CHECK(result.model->graph.nodes()[0]->name == "other");
}

// Two groups, each with a member that renames the first node from one name to the next.
const GroupPass* group_of_renames(std::string_view group,
                                  std::map<std::string, std::string> names) {
  static std::deque<std::string> member_names;
  static std::deque<GroupPass> groups;
  member_names.push_back(fmt::format("{}_member", group));
  passes().add(std::make_unique<FakePass>(
      PassInfo{.name = member_names.back(), .summary = "", .group = group},
      [names = std::move(names)](Model& model, PassContext&) {
        std::string& name = model.graph.nodes()[0]->name;
        const auto next = names.find(name);
        if (next == names.end()) return Outcome{};
        name = next->second;
        return changed();
      }));
  return &groups.emplace_back(PassInfo{.name = group, .summary = ""}, GroupPass::options());
}

TEST_CASE("groups in a row take turns until none changes the model") {
  const GroupPass* first = group_of_renames("turns_first", {{"second", "third"}});
  const GroupPass* second =
      group_of_renames("turns_second", {{"product", "second"}, {"third", "fourth"}});
  const auto step = [](const Pass* pass) {
    return PipelineStep{pass, Options(pass->info().name, pass->info().options, {})};
  };
  Scene scene;
  scene.pipeline.steps = {step(first), step(second)};
  const RunResult result = scene.run();
  CHECK(result.model->graph.nodes()[0]->name == "fourth");
  REQUIRE(result.passes.size() == 4);  // the last, quiet turn has no record
  CHECK_FALSE(result.passes[0].changed);
  for (std::size_t i = 1; i < 4; ++i) CHECK(result.passes[i].changed);
  CHECK(result.passes[1].reason.empty());
  CHECK(result.passes[2].pass == "turns_first");
  CHECK(result.passes[2].reason == "a pass after it changed the model");
  CHECK(result.passes[3].pass == "turns_second");

  Scene alone;  // one group, or groups apart, run once
  alone.pipeline.steps = {step(first)};
  alone.add({.name = "between", .summary = ""}, [](Model&, PassContext&) { return Outcome{}; });
  alone.pipeline.steps.push_back(step(second));
  CHECK(alone.run().model->graph.nodes()[0]->name == "second");
}

TEST_CASE("a rollback ends the run unless it may go on") {
  for (const bool keep_going : {false, true}) {
    Scene scene;
    scene.add(Effect::exact, [](Model&, PassContext&) { return changed(); });
    scene.add({.name = "name", .summary = ""}, [](Model& model, PassContext&) {
      model.graph.nodes()[0]->name = "other";
      return changed();
    });
    scene.options.keep_going = keep_going;
    const RunResult result = scene.run();
    CHECK(result.rolled_back);
    CHECK(result.passes.size() == (keep_going ? 2 : 1));
    CHECK((result.model->graph.nodes()[0]->name == "other") == keep_going);
  }
}

std::string read(const fs::path& path) {
  std::ostringstream text_of;
  text_of << std::ifstream(path).rdbuf();
  return text_of.str();
}

TEST_CASE("a rollback leaves a reproducer") {
  const fs::path folder =
      fs::temp_directory_path() / fmt::format("onnxpress-reproducer-{}", ::getpid());
  fs::remove_all(folder);
  for (int round = 1; round <= 2; ++round) {
    Scene scene;
    scene.options.seed = 42;
    scene.options.reproducer_folder = folder;
    scene.add(Effect::exact, [](Model&, PassContext&) -> Outcome { fail("it broke"); });
    const RunResult result = scene.run();
    const fs::path made = result.passes.at(0).reproducer;
    CHECK(made == folder / (round == 1 ? "1-broken" : "1-broken-2"));
    CHECK(read(made / "step.txt") == "broken\n");
    CHECK(read(made / "seed.txt") == "42\n");
    CHECK(read(made / "error.txt") == "it broke\n");
    CHECK(read(made / "README")
              .find("onnxpress compress model.onnx -o out.onnx --passes \"$(cat step.txt)\" --seed "
                    "42") != std::string::npos);
    CHECK(structural_hash(*read_model(made / "model.onnx").model) ==
          structural_hash(*parse_model(text)));
    const NamedTensor input = read_tensor(made / "test_data_set_0" / "input_0.pb");
    CHECK(input.name == "x");
    CHECK(input.tensor.dim(1) == 3);
    CHECK(fs::exists(made / "test_data_set_1"));
  }
  fs::remove_all(folder);
}

TEST_CASE("needs are checked before any work") {
  const auto refused = [](Needs needs) {
    Scene scene;
    scene.add(Effect::exact, [](Model&, PassContext&) -> Outcome {
      FAIL("run");
      return {};
    });
    scene.add({.name = "needy", .summary = "", .needs = needs},
              [](Model&, PassContext&) { return Outcome{}; });
    return error_of([&] { scene.run(); });
  };
  CHECK(refused(Needs::calibration) == "step 2: pass 'needy' needs calibration data (--calib)");
  CHECK(refused(Needs::training) == "step 2: pass 'needy' needs training data (--train)");
  CHECK(refused(Needs::teacher) == "step 2: pass 'needy' needs training data (--train)");
}

TEST_CASE("models the engine cannot run are verified in structure only") {
  Scene scene(R"(model ir=8 opset=17 my.domain=1
input x: float32[2]
y: float32[2] = my.domain.Mystery(x) "m"
output y: float32[2]
)");
  scene.add({.name = "name", .summary = ""}, [](Model& model, PassContext&) {
    model.graph.nodes()[0]->name = "other";
    return changed();
  });
  const RunResult result = scene.run();
  CHECK_FALSE(result.verified);
  CHECK(result.unverified_reason == "no kernel for Mystery (my.domain 1)");
  CHECK_FALSE(result.passes.at(0).probed);
  CHECK(result.passes.at(0).changed);
}

TEST_CASE("a pass that needs to run such a model ends the run, unless it is to go on") {
  const auto scene_with_engine = [] {
    Scene scene(R"(model ir=8 opset=17 my.domain=1
input x: float32[2]
y: float32[2] = my.domain.Mystery(x) "m"
output y: float32[2]
)");
    scene.add({.name = "runs", .summary = ""}, [](Model& model, PassContext&) {
      Engine engine(model);
      return Outcome{};
    });
    return scene;
  };
  Scene scene = scene_with_engine();
  CHECK(error_of([&] { scene.run(); }) ==
        "pass runs: the engine has no kernel for Mystery of my.domain 1 (node 'm' (my.domain.Mystery))");
  Scene patient = scene_with_engine();
  patient.options.keep_going = true;
  CHECK(patient.run().passes.at(0).rolled_back);
}

TEST_CASE("NaN and infinite outputs are compared, not tripped over") {
  Scene scene(R"(model ir=8 opset=17
input x: float32[2]
initializer zero: float32[2] = zeros
initializer minus: float32[2] = {-1,-1}
nan: float32[2] = Sqrt(minus)
one: float32[2] = Div(x, zero)
y: float32[2] = Add(nan, x)
output y: float32[2]
output one: float32[2]
)");
  for (const Effect effect : {Effect::exact, Effect::rounding, Effect::approximate, Effect::lossy})
    scene.add({.name = "name", .summary = "", .effect = effect}, [](Model& model, PassContext&) {
      model.graph.nodes()[0]->name += "x";
      return Outcome{.changed = true, .min_snr_db = 40};
    });
  const RunResult result = scene.run();
  CHECK_FALSE(result.rolled_back);
  REQUIRE(result.passes.size() == 4);
  CHECK(result.passes[3].errors.at(0).max_abs == 0);

  Scene worse;
  worse.add(Effect::approximate, [](Model& model, PassContext&) {
    model.graph.set_initializer(
        model.graph.find("b"),
        Tensor::of<float>({4}, {std::numeric_limits<float>::quiet_NaN(), 0, 0, 0}));
    return changed();
  });
  check_rolled_back(worse, "output 'y' has -inf dB");
}

TEST_CASE("given probes, and probes that the model does not take") {
  Scene scene;
  scene.add(Effect::exact, [](Model& model, PassContext&) {
    model.graph.nodes()[0]->name = "other";
    return changed();
  });
  SUBCASE("taken") {
    scene.options.probes = {{Tensor::of<float>({1, 3}, {1, 2, 3})}};
    const RunResult result = scene.run();
    CHECK_FALSE(result.generated_probes);
    CHECK(result.passes.at(0).errors.at(0).samples == 1);
  }
  SUBCASE("not taken") {
    scene.options.probes = {{Tensor::of<float>({1, 2}, {1, 2})}};
    const RunResult result = scene.run();
    CHECK_FALSE(result.verified);
    CHECK(result.unverified_reason.find("does not run on the probe inputs") != std::string::npos);
    CHECK_FALSE(result.rolled_back);
  }
}

constexpr std::string_view old_opset = R"(model ir=8 opset=11
input x: float32[2,3]
y: float32[2,3] = Relu(x) "relu"
output y: float32[2,3]
)";

TEST_CASE("a step that needs a higher opset gets one, unless it comes to nothing") {
  const PassInfo needy{.name = "needy", .summary = "", .min_opset = 13};
  SUBCASE("it changes the model") {
    Scene scene(old_opset);
    scene.add(needy, [](Model& model, PassContext&) {
      CHECK(model.graph.opset() == 13);
      model.graph.nodes()[0]->name = "other";
      return changed();
    });
    const RunResult result = scene.run();
    REQUIRE(result.passes.size() == 2);
    CHECK(result.passes[0].text == "upgrade_opset{target=13}");
    CHECK(result.passes[0].reason == "needy needs opset 13, the model has 11");
    CHECK(result.passes[0].changed);
    CHECK(result.passes[1].changed);
    CHECK(result.model->graph.opset() == 13);
    CHECK(result.notes ==
          std::vector<std::string>{"needy needs opset 13, the model has 11: upgraded to 13"});
  }
  SUBCASE("it changes nothing") {
    Scene scene(old_opset);
    scene.add(needy, [](Model&, PassContext&) { return Outcome{}; });
    const RunResult result = scene.run();
    REQUIRE(result.passes.size() == 1);
    CHECK(result.passes[0].pass == "needy");
    CHECK(to_text(*result.model) == scene.before);
  }
  SUBCASE("it is rolled back") {
    Scene scene(old_opset);
    scene.add(needy, [](Model&, PassContext&) -> Outcome { fail("it broke"); });
    const RunResult result = scene.run();
    CHECK(result.rolled_back);
    CHECK(to_text(*result.model) == scene.before);
  }
}

TEST_CASE("a model that does not verify is refused") {
  Scene scene;
  scene.model->graph.set_initializer(scene.model->graph.find("w"), Tensor(DType::float32, {7, 4}));
  CHECK(error_of([&] { scene.run(); }).find("the model given / node 'product' (MatMul)") !=
        std::string::npos);
  CHECK(error_of([] { run_pipeline(nullptr, {}, {}); }) ==
        "there is no model to run the pipeline on");
}

}  // namespace
}  // namespace onnxpress
