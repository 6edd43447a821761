// Distillation losses against what the authors' PyTorch code gives (constants computed with it in
// float64), and what they refuse.
#include <doctest/doctest.h>

#include <string>

#include "graph/ir/parse.h"
#include "graph/ops/evaluate.h"

namespace onnxpress {
namespace {

double loss(const std::string& body) {
  const auto model = parse_model("model ir=10 opset=17 onnxpress.training=1\n" + body);
  const Node& node = *model->graph.nodes().back();
  std::vector<const Tensor*> inputs;
  for (const Value* input : node.inputs()) inputs.push_back(input->constant());
  ThreadPool pool(2);
  return evaluate(*operators().find(node), node, inputs, pool).at(0).cast(DType::float64).data<double>()[0];
}

const std::string twelve = "{-1.5,0.25,-1.25,0.5,-1,0.75,-0.75,1,-0.5,1.25,-0.25,1.5}\n";
const std::string teacher_twelve = "{-1.5,-0.25,1,-0.5,0.75,-0.75,0.5,-1,0.25,-1.25,0,-1.5}\n";
const std::string teacher_eight = "{-1.5,-0.25,1,-0.5,0.75,-0.75,0.5,-1}\n";

TEST_CASE("distillation losses are those of their papers") {
  for (const std::string type : {"float64", "float32"}) {
    CAPTURE(type);
    const auto tensor = [&](const std::string& name, const std::string& dims, const std::string& values) {
      return "initializer " + name + ": " + type + "[" + dims + "] = " + values;
    };
    const std::string logits =
        tensor("x", "3,4", twelve) + tensor("z", "3,4", teacher_twelve) + "initializer t: int64[3] = {1,3,0}\n";
    const std::string domain = "y = onnxpress.training.";
    const auto check = [&](const std::string& body, double expected) {
      CHECK(loss(body) == doctest::Approx(expected).epsilon(type == "float64" ? 1e-12 : 1e-6));
    };
    check(logits + domain + "Distillation(x, z) {temperature=4.0}\n", 1.1765525657641904);
    check(logits + domain + "DecoupledDistillation(x, z, t) {temperature=4.0}\n", 8.55375801874399);
    check(logits + domain + "DecoupledDistillation(x, z, t) {target_weight=2.0, other_weight=3.0}\n",
          3.6096354750966793);
    check(tensor("x", "2,3,2", twelve) + tensor("z", "2,2,2", teacher_eight) + domain + "AttentionTransfer(x, z)\n",
          0.02404512564698246);
    const std::string samples = tensor("x", "4,3", twelve) + tensor("z", "4,2", teacher_eight);
    check(samples + domain + "RelationalDistance(x, z)\n", 0.19846365624156018);
    check(samples + domain + "RelationalAngle(x, z)\n", 0.1603670455601804);
  }
}

TEST_CASE("distillation losses refuse what does not fit") {
  const auto message = [](const std::string& body) {
    try {
      loss(body);
    } catch (const Error& error) {
      return std::string(error.message());
    }
    return std::string();
  };
  const std::string x = "initializer x: float32[3,4] = random(1)\n", z = "initializer z: float32[3,5] = random(1)\n";
  const std::string labels = "initializer t: int64[3] = {1,3,4}\n";
  CHECK(message(x + z + labels + "y = onnxpress.training.DecoupledDistillation(x, z, t)\n") ==
        "expected logits [3,4] of the teacher, found [3,5]");
  CHECK(message(x + labels + "y = onnxpress.training.DecoupledDistillation(x, x, t)\n") ==
        "expected a label from 0 to 3, found 4");
  CHECK(message("initializer x: float32[2,3,4,4] = random(1)\ninitializer z: float32[2,3,2,2] = random(1)\n"
                "y = onnxpress.training.AttentionTransfer(x, z)\n") ==
        "expected maps [samples, channels, positions...] of equal samples and positions, "
        "found [2,3,4,4] and [2,3,2,2] of the teacher");
  CHECK(message(x + "initializer z: float32[2,4] = random(1)\ny = onnxpress.training.RelationalAngle(x, z)\n") ==
        "expected as many samples as the teacher has, found [3,4] and [2,4] of the teacher");
}

TEST_CASE("samples that are equal have no gradient of their angles and distances") {
  const auto model = parse_model(
      "model ir=10 opset=17 onnxpress.training=1\ninitializer x: float64[3,2] = {1,2,1,2,0.5,-1}\n"
      "initializer z: float64[3,2] = {0,1,2,0,1,1}\ny = onnxpress.training.RelationalAngle(x, z)\n");
  const Node& node = *model->graph.nodes().back();
  const Tensor* const inputs[] = {node.input(0)->constant(), node.input(1)->constant()};
  const Tensor one = Tensor::scalar(1.0);
  const Tensor* const ones[] = {&one};
  ThreadPool pool(1);
  const std::vector<Tensor> gradients =
      differentiate(*operators().gradients(node).back(), node, inputs, ones, ones, {true, false}, pool);
  for (const double value : gradients[0].data<double>()) CHECK(std::fabs(value) < 10);
}

}  // namespace
}  // namespace onnxpress
