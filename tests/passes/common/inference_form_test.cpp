#include "passes/common/inference_form.h"

#include <doctest/doctest.h>

#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

std::string changed(const std::string& model) {
  const auto parsed = parse_model(model);
  const std::string note = set_inference_form(*parsed);
  return note.empty() ? "" : note + "\n" + to_text(*parsed);
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

const std::string norm_inputs = "input x: float32[n,2]\ninitializer s: float32[2] = {1,1}\ninitializer m: float32[2] = {0,0}\n";

TEST_CASE("BatchNormalization in training mode reads its running statistics") {
  const std::string mode = changed("model ir=8 opset=17\n" + norm_inputs +
                                   "y: float32[n,2], rm, rv = BatchNormalization(x, s, m, m, s) {momentum=0.7, training_mode=1}\n"
                                   "output y: float32[n,2]\n");
  CHECK_MESSAGE(holds(mode, "1 BatchNormalization put into"), mode);
  CHECK_MESSAGE(!holds(mode, "training_mode"), mode);
  CHECK_MESSAGE(!holds(mode, "rm,"), mode);
  CHECK_MESSAGE(holds(mode, "momentum=0.7"), mode);
  const std::string outputs = changed("model ir=7 opset=13\n" + norm_inputs +
                                      "y: float32[n,2], rm, rv, sm, sv = BatchNormalization(x, s, m, m, s)\noutput y: float32[n,2]\n");
  CHECK_MESSAGE(holds(outputs, "1 BatchNormalization"), outputs);
  CHECK_MESSAGE(!holds(outputs, "sv ="), outputs);
}

TEST_CASE("values keep their names, and what cannot be put into inference form is named") {
  const std::string text = changed("model ir=8 opset=17\n" + norm_inputs + "inner, rm, rv = BatchNormalization(x, s, m, m, s) {training_mode=1} \"norm\"\n"
                                   "y: float32[n,2] = Relu(inner)\noutput y: float32[n,2]\n");
  CHECK_MESSAGE(holds(text, "inner = BatchNormalization"), text);
  const auto model = parse_model("model ir=8 opset=17\n" + norm_inputs +
                                 "y: float32[n,2], rm: float32[2], rv = BatchNormalization(x, s, m, m, s) {training_mode=1} \"norm\"\n"
                                 "output y: float32[n,2]\noutput rm: float32[2]\n");
  CHECK(set_inference_form(*model).empty());
  CHECK_THROWS_WITH(require_inference_form(*model), doctest::Contains("'norm' (BatchNormalization) is in training mode (its running statistics"));
}

TEST_CASE("attributes that a function leaves to its calls are those of the calls") {
  const auto called = [](const std::string& mode) {
    return parse_model("model ir=8 opset=17 local=1\n" + norm_inputs + "y: float32[n,2] = local.Norm(x, s, m) {mode=" + mode +
                       "}\noutput y: float32[n,2]\nfunction local.Norm(mode) opset=17 {\n  input x\n  input s\n  input m\n"
                       "  r = BatchNormalization(x, s, m, m, s) {training_mode=@mode(int)}\n  output r\n}\n");
  };
  const auto model = called("1");
  CHECK(set_inference_form(*model).empty());
  CHECK_THROWS_WITH(require_inference_form(*model), doctest::Contains("(BatchNormalization) is in training mode"));
  CHECK_NOTHROW(require_inference_form(*called("0")));
}

TEST_CASE("Dropout in training mode hands its input on") {
  const std::string start = "model ir=8 opset=17\ninput x: float32[n,2]\ninitializer r: float32[] = {0.5}\n";
  const std::string constant = changed(start + "initializer t: bool[] = {1}\ny: float32[n,2] = Dropout(x, r, t)\noutput y: float32[n,2]\n");
  CHECK_MESSAGE(holds(constant, ": 1 Dropout put into"), constant);
  CHECK_MESSAGE(holds(constant, "Dropout(x, r)"), constant);
  CHECK_MESSAGE(!holds(constant, "initializer t"), constant);
}

TEST_CASE("what is in inference form, asks the caller, or has its statistics read stays") {
  const std::string start = "model ir=8 opset=17\n" + norm_inputs;
  CHECK(changed(start + "y: float32[n,2] = BatchNormalization(x, s, m, m, s)\noutput y: float32[n,2]\n").empty());
  CHECK(changed(start + "initializer r: float32[] = {0.5}\ninput t: bool[]\ny: float32[n,2] = Dropout(x, r, t)\noutput y: float32[n,2]\n").empty());
  CHECK(changed(start + "y: float32[n,2], rm: float32[2], rv = BatchNormalization(x, s, m, m, s) {training_mode=1}\n"
                        "output y: float32[n,2]\noutput rm: float32[2]\n").empty());
}

}  // namespace
}  // namespace onnxpress
