#include <doctest/doctest.h>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

constexpr std::string_view step = "eliminate_unused_interface";

TEST_CASE("outputs that nothing reads are left out where they are optional") {
  const PassRun run = check_pass(step, R"(model ir=8 opset=17
input x: float32[1,2,4]
initializer w: float32[1,12,4] = random(1)
initializer r: float32[1,12,3] = random(2)
p, indices = MaxPool(x) {kernel_shape=[1]}
a, b = Split(p) {axis=1}
m, k = Dropout(a)
n, yh, yc = LSTM(m, w, r) {hidden_size=3}
output yh: float32[1,1,3]
)",
                                 R"(model ir=8 opset=17
input x: float32[1,2,4]
initializer w: float32[1,12,4] = random(1)
initializer r: float32[1,12,3] = random(2)
p, _ = MaxPool(x) {kernel_shape=[1]}
a, b = Split(p) {axis=1}
m, _ = Dropout(a)
_, yh, _ = LSTM(m, w, r) {hidden_size=3}
output yh: float32[1,1,3]
)");
  CHECK(run.outcome.counts["outputs"] == 4);
}

TEST_CASE("inputs with defaults go when nothing reads them, required ones stay") {
  const PassRun run = check_pass(step, R"(model ir=8 opset=17
input x: float32[2]
input required: float32[2]
input unread: float32[2] = {1,2}
input read: float32[2] = {1,2}
y = Add(x, read)
output y: float32[2]
)",
                                 R"(model ir=8 opset=17
input x: float32[2]
input required: float32[2]
input read: float32[2] = {1,2}
y = Add(x, read)
output y: float32[2]
)");
  CHECK(run.outcome.counts["defaults"] == 1);
}

TEST_CASE("imports of domains without nodes go") {
  const PassRun run = check_pass(step, R"(model ir=8 opset=17 ai.onnx.ml=3 com.microsoft=1 local=1
input x: float32[2]
a = com.microsoft.Gelu(x)
y = local.Act(a)
output y: float32[2]
function local.Act() opset=17 com.microsoft=1 {
  input v
  r = Abs(v)
  output r
}
)",
                                 R"(model ir=8 opset=17 com.microsoft=1 local=1
input x: float32[2]
a = com.microsoft.Gelu(x)
y = local.Act(a)
output y: float32[2]
function local.Act() opset=17 {
  input v
  r = Abs(v)
  output r
}
)");
  CHECK(run.outcome.counts["imports"] == 2);
}

}  // namespace
}  // namespace onnxpress
