// Models large enough that the runner does several things at a time.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "fake_pass.h"
#include "graph/ir/parse.h"
#include "passes/core/runner.h"

namespace onnxpress {
namespace {

// 68 MB of weights.
std::unique_ptr<Model> large_model(const std::string& more = "y: float32[batch,4] = Identity(s)") {
  return parse_model(R"(model ir=8 opset=17
input x: float32[batch,16]
initializer v: float32[16,1048576] = random(1)
initializer w: float32[16,4] = random(2)
initializer i: int64[1] = {3}
l = Gather(v, i) {axis=1}
t = Transpose(l) {perm=[1,0]}
a = Mul(x, t)
s = MatMul(a, w)
)" + more + "\noutput y: float32[batch,4]\n");
}

RunResult run(std::unique_ptr<Model> model, float factor, int threads, std::vector<std::string>* offered = nullptr) {
  FakePass pass(PassInfo{.name = "scale", .summary = "", .effect = Effect::approximate},
                [factor](Model& changed, PassContext&) {
                  if (factor == 1) return Outcome{};
                  Value* w = changed.graph.find("w");
                  Tensor tensor = *w->constant();
                  for (float& element : tensor.mutable_data<float>()) element *= factor;
                  changed.graph.set_initializer(w, tensor);
                  return Outcome{.changed = true, .min_snr_db = 20};
                });
  Pipeline pipeline;
  pipeline.steps.push_back({&pass, Options("scale", {}, {})});
  RunOptions options;
  options.threads = threads;
  if (offered != nullptr)
    options.offer = [offered](std::shared_ptr<const Model> given) {
      offered->push_back(structural_hash(*given, true).hex());
    };
  return run_pipeline(std::move(model), pipeline, options);
}

TEST_CASE("what runs beside other work says the same as what runs by itself") {
  for (const float factor : {1.01F, 2.0F}) {
    const RunResult one = run(large_model(), factor, 1), more = run(large_model(), factor, 3);
    CHECK(one.verified);
    CHECK(more.verified);
    REQUIRE(one.passes.size() == 1);
    REQUIRE(more.passes.size() == 1);
    const PassRecord &a = one.passes[0], &b = more.passes[0];
    CHECK(a.rolled_back == (factor == 2));
    CHECK(a.rolled_back == b.rolled_back);
    CHECK(a.failure == b.failure);
    REQUIRE(a.errors.size() == 1);
    REQUIRE(b.errors.size() == 1);
    CHECK(a.errors[0].snr_db == b.errors[0].snr_db);
    CHECK(a.errors[0].max_abs == b.errors[0].max_abs);
    CHECK(a.zeros_after == b.zeros_after);
    CHECK(a.bytes_after == b.bytes_after);
    CHECK(one.after.tensors.size() == more.after.tensors.size());
  }
}

TEST_CASE("what the last step left is offered before it is judged") {
  std::vector<std::string> offered;
  const RunResult kept = run(large_model(), 1.01F, 3, &offered);
  CHECK(kept.is_offered);
  CHECK(offered == std::vector{structural_hash(*kept.model, true).hex()});
  const RunResult broken = run(large_model(), 2, 3, &offered);
  CHECK(broken.rolled_back);
  CHECK_FALSE(broken.is_offered);
  CHECK(offered.size() == 2);
  CHECK_FALSE(run(large_model(), 1, 3, &offered).is_offered);
  CHECK_FALSE(run(large_model(), 1.01F, 1, &offered).is_offered);
  CHECK(offered.size() == 2);
}

TEST_CASE("a large model that does not run is said to be unverified, changed or not") {
  for (const float factor : {1.0F, 1.01F})
    for (const int threads : {1, 3}) {
      const RunResult result =
          run(large_model("initializer k: int64[1,4] = {900,900,900,900}\n"
                          "y: float32[batch,4] = GatherElements(s, k) {axis=0}"),
              factor, threads);
      CHECK_FALSE(result.verified);
      CHECK(result.unverified_reason.find("the model given does not run") != std::string::npos);
    }
}

}  // namespace
}  // namespace onnxpress
