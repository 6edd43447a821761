#include <doctest/doctest.h>

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

void check_gone(const std::string& body, const std::string& x) {
  const std::string text = "model ir=8 opset=17\ninput x: float32" + x + "\nh = Mul(x, x)\n" +
                           body + "z = Neg(y)\noutput z\n";
  CAPTURE(text);
  const PassRun run = run_pass("eliminate_zero_sums", text);
  CHECK(run.outcome.changed);
  CHECK(run.after->graph.node_count() == 2);
}

void check_kept(const std::string& body, const std::string& x) {
  check_unchanged("eliminate_zero_sums", "model ir=8 opset=17\ninput x: float32" + x +
                                             "\nh = Mul(x, x)\n" + body + "z = Neg(y)\noutput z\n");
}

TEST_CASE("additions of zero and averages of one element") {
  const std::string zero = "initializer o: float32[] = {0}\n";
  check_gone(zero + "y = Add(h, o)\n", "[n,3]");
  check_gone(zero + "y = Add(o, h)\n", "[n,3]");
  check_gone(zero + "y = Sub(h, o)\n", "[?,3]");
  check_gone("initializer o: float32[3] = {0,-0.0,0}\ny = Add(o, h)\n", "[n,3]");
  check_gone("y = GlobalAveragePool(h)\n", "[n,3,1,1]");
  check_gone("y = AveragePool(h) {kernel_shape=[1,1]}\n", "[n,3,4,5]");
  check_gone("y = ReduceMean(h) {axes=[2,3]}\n", "[n,3,1,1]");
}

TEST_CASE("what adds, broadcasts or averages stays") {
  check_kept("initializer o: float32[] = {0.5}\ny = Add(h, o)\n", "[n,3]");
  check_kept("initializer o: float32[] = {0}\ny = Sub(o, h)\n", "[n,3]");
  check_kept("initializer o: float32[2,3] = zeros\ny = Add(o, h)\n", "[3]");
  check_kept("y = GlobalAveragePool(h)\n", "[n,3,1,2]");
  check_kept("y = AveragePool(h) {kernel_shape=[1,1], strides=[2,2]}\n", "[n,3,4,5]");
  check_kept("y = ReduceMean(h) {axes=[2]}\n", "[n,3,m]");
}

}  // namespace
}  // namespace onnxpress
