#include <doctest/doctest.h>

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::string statistics(int channels, const std::string& type = "float32") {
  const std::string dims = type + "[" + std::to_string(channels) + "]";
  return "initializer gamma: " + dims + " = random(11,0.5,2)\n" +  //
         "initializer beta: " + dims + " = random(12)\n" +        //
         "initializer mean: " + dims + " = random(13)\n" +        //
         "initializer var: " + dims + " = random(14,0.5,2)\n";
}

constexpr const char* norm = "y = BatchNormalization(t, gamma, beta, mean, var) {epsilon=0.001} \"norm\"\n";

// Fused to `nodes` nodes, outputs equal, and nothing left to do.
PassRun check_fused(const std::string& text, std::size_t nodes) {
  CAPTURE(text);
  PassRun run = run_pass("fuse_conv_bn", parse_model(text));
  CHECK(run.outcome.changed);
  CHECK(run.outcome.counts["fuse_conv_bn"] == 1);
  CHECK(run.after->graph.node_count() == nodes);
  const std::string after = to_text(*run.after);
  CHECK(after.find("BatchNormalization") == std::string::npos);
  CHECK_FALSE(run_pass("fuse_conv_bn", run.after->clone()).outcome.changed);
  return run;
}

void check_refused(const std::string& text, const std::string& reason) {
  CAPTURE(text);
  const PassRun run = run_pass("fuse_conv_bn", parse_model(text));
  CHECK_FALSE(run.outcome.changed);
  CHECK_MESSAGE(run.reason("fuse_conv_bn").find(reason) != std::string::npos, run.reason("fuse_conv_bn"));
}

std::string convolution(const std::string& op, const std::string& x, const std::string& w, int channels, bool bias,
                        const std::string& attributes) {
  std::string text = "model ir=8 opset=17\ninput x: float32" + x + "\ninitializer w: float32" + w +
                     " = random(1)\n" + statistics(channels);
  if (bias) text += "initializer b: float32[" + std::to_string(channels) + "] = random(2)\n";
  return text + "t = " + op + (bias ? "(x, w, b) {" : "(x, w) {") + attributes + "}\n" + norm + "output y\n";
}

TEST_CASE("convolutions of one to three dimensions, with bias and without, in groups") {
  for (const bool bias : {false, true}) {
    check_fused(convolution("Conv", "[2,3,8]", "[4,3,3]", 4, bias, "pads=[1,1]"), 1);
    check_fused(convolution("Conv", "[2,3,6,6]", "[4,3,3,3]", 4, bias, "strides=[2,2]"), 1);
    check_fused(convolution("Conv", "[2,2,4,4,4]", "[3,2,2,2,2]", 3, bias, ""), 1);
    check_fused(convolution("Conv", "[2,4,6,6]", "[8,1,3,3]", 8, bias, "group=4"), 1);
    check_fused(convolution("ConvTranspose", "[2,3,5,5]", "[3,4,3,3]", 4, bias, ""), 1);
    check_fused(convolution("ConvTranspose", "[2,4,5,5]", "[4,3,3,3]", 6, bias, "group=2, strides=[2,2]"), 1);
    check_fused(convolution("ConvTranspose", "[2,4,7]", "[4,1,3]", 4, bias, "group=4"), 1);
  }
}

TEST_CASE("text in, text out") {
  check_pass("fuse_conv_bn", R"(model ir=8 opset=17
input x: float32[1,1,2]
initializer w: float32[2,1,1] = {1,2}
initializer b: float32[2] = {1,1}
initializer gamma: float32[2] = {2,4}
initializer beta: float32[2] = {1,2}
initializer mean: float32[2] = {1,3}
initializer var: float32[2] = {1,4}
t = Conv(x, w, b) "conv"
y = BatchNormalization(t, gamma, beta, mean, var) {epsilon=0.0} "norm"
output y: float32[1,2,2]
)",
             R"(model ir=8 opset=17
input x: float32[1,1,2]
initializer w: float32[2,1,1] = {2,4}
initializer b: float32[2] = {1,-2}
y = Conv(x, w, b) "conv"
output y: float32[1,2,2]
)");
}

TEST_CASE("Gemm with either layout, alpha and beta") {
  for (const std::string attributes : {"", "transB=1", "alpha=0.5", "transB=1, alpha=2.0, beta=0.5", "beta=3.0"}) {
    const std::string w = attributes.starts_with("transB") ? "[4,3]" : "[3,4]";
    const std::string start = "model ir=8 opset=17\ninput x: float32[5,3]\ninitializer w: float32" + w +
                              " = random(1)\n" + statistics(4);
    check_fused(start + "t = Gemm(x, w) {" + attributes + "}\n" + norm + "output y\n", 1);
    for (const std::string b : {"[4]", "[1,4]", "[1]", "[]", "[5,4]"})
      check_fused(start + "initializer b: float32" + b + " = random(5)\nt = Gemm(x, w, b) {" + attributes + "}\n" +
                      norm + "output y\n", 1);
  }
  const std::string start = "model ir=8 opset=17\ninput x: float32[4,3]\ninitializer w: float32[3,4] = random(1)\n"
                            "initializer b: float32[4,1] = random(2)\n" + statistics(4);
  check_refused(start + "t = Gemm(x, w, b)\n" + norm + "output y\n", "has shape [4,1]");
  check_refused(start + "t = Gemm(x, w) {beta=0.0}\n" + norm + "output y\n", "beta=0");
}

TEST_CASE("MatMul of rank 2") {
  const auto text = [](const std::string& x) {
    return "model ir=8 opset=17\ninput x: float32" + x + "\ninitializer w: float32[3,4] = random(1)\n" +
           statistics(4) + "t = MatMul(x, w) \"fc\"\n" + norm + "output y\n";
  };
  const PassRun run = check_fused(text("[5,3]"), 2);
  CHECK(run.after->graph.nodes()[1]->is("Add"));
  check_refused(text("[2,4,3]"), "rank 3");
}

TEST_CASE("why pairs are left alone") {
  const std::string conv = "model ir=8 opset=17\ninput x: float32[1,3,4,4]\ninitializer w: float32[2,3,1,1] = random(1)\n" +
                           statistics(2);
  check_refused(conv + "t = Conv(x, w)\n" + norm + "z = Relu(t)\noutput y\noutput z\n", "reader");
  check_refused(conv + "t = Conv(x, w)\n" + norm + "output y\noutput t\n", "output");
  check_refused(conv + "t = Conv(x, w)\nz = Conv(x, w)\n" + norm + "output y\noutput z\n",
                "weight 'w' has another reader");
  check_refused(conv + "t = Conv(x, w)\n" + norm + "z = Neg(x)\noutput z\n", "nothing reads its result");
  check_refused(conv + "t = Conv(x, w)\n" + norm + "output y\noutput w\n", "weight 'w' has another reader");
  check_refused(conv + "t = Conv(x, w)\ny, rm, rv = BatchNormalization(t, gamma, beta, mean, var) {training_mode=1}\n"
                       "output y\n", "training mode");
  const std::string input = "model ir=8 opset=17\ninput x: float32[1,3,4,4]\ninput v: float32[2,3,1,1]\n"
                            "input bias: float32[2]\ninitializer w: float32[2,3,1,1] = random(1)\n" + statistics(2);
  check_refused(input + "t = Conv(x, v)\n" + norm + "output y\n", "constant");
  check_refused(input + "t = Conv(x, w, bias)\n" + norm + "output y\n", "its bias 'bias' is not a constant");
  check_refused("model ir=8 opset=17\ninput x: float16[1,3,4,4]\ninitializer w: float16[2,3,1,1] = random(1)\n" +
                    statistics(2, "float16") + "t = Conv(x, w)\n" + norm + "output y\n", "weight 'w' is float16");
}

TEST_CASE("statistics per activation stay") {
  const auto model = parse_model("model ir=3 opset=8\ninput x: float32[1,3,1]\ninitializer w: float32[2,3,1] = random(1)\n" +
                                 statistics(2) +
                                 "t = Conv(x, w)\ny = BatchNormalization(t, gamma, beta, mean, var) {spatial=0}\noutput y\n");
  const Pipeline pipeline = Pipeline::parse("fuse_conv_bn");
  ThreadPool pool(1);
  std::vector<NearMiss> misses;
  PassContext context{.options = pipeline.steps[0].options, .pool = pool, .near_misses = &misses};
  CHECK_FALSE(pipeline.steps[0].pass->run(*model, context).changed);
  REQUIRE(misses.size() == 1);
  CHECK(misses[0].reason.find("spatial=0") != std::string::npos);
}

TEST_CASE("a bias that others read keeps its values for them") {
  const PassRun run = check_fused("model ir=8 opset=17\ninput x: float32[1,3,2]\ninitializer w: float32[2,3,1] = random(1)\n"
                                  "initializer b: float32[2] = {1,2}\n" + statistics(2) +
                                  "t = Conv(x, w, b)\n" + norm + "z = Neg(b)\noutput y\noutput z: float32[2]\n", 2);
  CHECK(run.after->graph.find("b")->constant()->to_floats() == std::vector<float>{1, 2});
}

TEST_CASE("inside the body of an If, with weights of the graph around it") {
  const PassRun run = run_pass("fuse_conv_bn", "model ir=8 opset=17\ninput x: float32[1,3,4,4]\ninput c: bool[]\n"
                               "initializer w: float32[2,3,1,1] = random(1)\n" + statistics(2) +
                               "z = If(c) {then_branch=graph {\n  t = Conv(x, w)\n"
                               "  y = BatchNormalization(t, gamma, beta, mean, var)\n  output y\n}, else_branch=graph {\n"
                               "  initializer v: float32[2,3,1,1] = random(8)\n  t = Conv(x, v)\n"
                               "  y = BatchNormalization(t, gamma, beta, mean, var)\n  output y\n}}\n"
                               "output z: float32[1,2,4,4]\n");
  CHECK(run.outcome.counts["fuse_conv_bn"] == 2);
  CHECK(to_text(*run.after).find("BatchNormalization") == std::string::npos);
}

TEST_CASE("a chain of norms folds one after the other, and double stays double") {
  const PassRun run = run_pass("fuse_conv_bn", "model ir=8 opset=17\ninput x: float64[1,3,2]\n"
                               "initializer w: float64[2,3,1] = random(1)\n" + statistics(2, "float64") +
                               "t = Conv(x, w)\nu = BatchNormalization(t, gamma, beta, mean, var)\n"
                               "y = BatchNormalization(u, gamma, beta, mean, var)\noutput y: float64[1,2,2]\n");
  CHECK(run.outcome.counts["fuse_conv_bn"] == 2);
  CHECK(run.after->graph.node_count() == 1);
}

TEST_CASE("an output declared without a shape keeps its declared type") {
  const PassRun run = run_pass("fuse_conv_bn", parse_model("model ir=8 opset=17\ninput x: float32[n,3,8,8]\n"
                                                           "initializer w: float32[4,3,3,3] = random(1)\n" +
                                                           statistics(4) + "t = Conv(x, w)\n" + norm +
                                                           "output y: float32\n"));
  CHECK(run.outcome.changed);
  CHECK(to_string(run.after->graph.outputs()[0]->type) == "float32");
}

TEST_CASE("types that the file leaves open stay open when nothing is fused") {
  const PassRun run = run_pass("fuse_conv_bn", parse_model(R"(model ir=8 opset=17
input x: float32[n,3,8,8]
initializer w: float32[4,3,3,3] = random(1)
t: float32[?,?,?,?] = Conv(x, w)
y = Relu(t)
output y: float32[n,4,6,6]
)"));
  CHECK_FALSE(run.outcome.changed);
  CHECK(to_string(run.after->graph.find("t")->type) == "float32[?,?,?,?]");
}

TEST_CASE("a head that is used on maps of several sizes, with one weight and one norm") {
  const std::string head = "model ir=8 opset=17\ninput x: float32[2,3,8,8]\ninput z: float32[2,3,4,4]\n" +
                           statistics(4) + "initializer w: float32[4,3,3,3] = random(1)\n" +
                           "t = Conv(x, w)\n" + norm + "u = Conv(z, w)\n";
  const std::string second = "v = BatchNormalization(u, gamma, beta, mean, var) {epsilon=";
  const PassRun run = check_fused(head + second + "0.001}\noutput y\noutput v\n", 2);
  CHECK(run.after->graph.nodes()[0]->input(1) == run.after->graph.nodes()[1]->input(1));
  CHECK(run.after->graph.nodes()[0]->input(2) == run.after->graph.nodes()[1]->input(2));
  check_refused(head + second + "0.01}\noutput y\noutput v\n", "weight 'w' has another reader");
}

}  // namespace
}  // namespace onnxpress
