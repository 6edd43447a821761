#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/graph/ops/gradient_cases.h"

namespace onnxpress {

std::vector<GradientCase> recurrent_gradient_cases() {
  std::vector<GradientCase> cases;
  struct Options {
    const char* op;
    std::int64_t gates;
    const char* attributes;
    std::int64_t directions = 1;
    bool has_lengths = false, has_states = true, has_peepholes = false, has_bias = true;
    const char* outputs = "y, h";
    bool batch_first = false;
  };
  const auto add = [&](const Options& of) {
    const std::int64_t hidden = 3, input = 2, batch = 3, steps = 4, d = of.directions;
    std::string body;
    const auto tensor = [&](const char* name, const std::string& dims) {
      body += fmt::format("initializer {}: float64[{}] = random(1)\n", name, dims);
      return std::string(name);
    };
    std::vector<std::string> inputs;
    const std::string states = of.batch_first ? fmt::format("{},{},{}", batch, d, hidden)
                                              : fmt::format("{},{},{}", d, batch, hidden);
    inputs.push_back(tensor("x", of.batch_first ? fmt::format("{},{},{}", batch, steps, input)
                                                : fmt::format("{},{},{}", steps, batch, input)));
    inputs.push_back(tensor("w", fmt::format("{},{},{}", d, of.gates * hidden, input)));
    inputs.push_back(tensor("r", fmt::format("{},{},{}", d, of.gates * hidden, hidden)));
    inputs.push_back(of.has_bias ? tensor("b", fmt::format("{},{}", d, 2 * of.gates * hidden)) : "_");
    if (of.has_lengths) body += "initializer l: int32[3] = {4,2,0}\n";
    inputs.push_back(of.has_lengths ? "l" : "_");
    if (of.has_states) inputs.push_back(tensor("h0", states));
    const bool is_lstm = std::string_view(of.op) == "LSTM";
    if (of.has_states && is_lstm) inputs.push_back(tensor("c0", states));
    if (of.has_peepholes) inputs.push_back(tensor("p", fmt::format("{},{}", d, 3 * hidden)));
    cases.push_back({.body = fmt::format("{}{} = {}({}) {{hidden_size={}{}}}\n", body, of.outputs, of.op,
                                         fmt::join(inputs, ", "), hidden, of.attributes)});
  };
  for (const char* outputs : {"y, h", "y", "_, h"}) {
    add({.op = "RNN", .gates = 1, .attributes = "", .outputs = outputs});
    add({.op = "GRU", .gates = 3, .attributes = "", .outputs = outputs});
    add({.op = "GRU", .gates = 3, .attributes = ", linear_before_reset=1", .outputs = outputs});
    add({.op = "LSTM", .gates = 4, .attributes = "", .outputs = outputs});
  }
  add({.op = "LSTM", .gates = 4, .attributes = "", .has_peepholes = true, .outputs = "y, h, c"});
  add({.op = "LSTM", .gates = 4, .attributes = ", input_forget=1", .outputs = "_, _, c"});
  add({.op = "LSTM", .gates = 4, .attributes = ", clip=0.4", .has_peepholes = true, .outputs = "y, h, c"});
  for (const char* op : {"RNN", "GRU", "LSTM"}) {
    const std::int64_t gates = std::string_view(op) == "RNN" ? 1 : std::string_view(op) == "GRU" ? 3 : 4;
    add({.op = op, .gates = gates, .attributes = ", direction=\"bidirectional\"", .directions = 2,
         .has_lengths = true});
    add({.op = op, .gates = gates, .attributes = ", direction=\"reverse\", layout=1", .has_lengths = true,
         .batch_first = true});
    add({.op = op, .gates = gates, .attributes = "", .has_states = false, .has_bias = false});
  }
  for (const char* activation : {"Relu", "Affine", "LeakyRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign", "Softplus"}) {
    const std::string text = fmt::format(", activations=[\"{}\"], activation_alpha=[0.4], activation_beta=[0.6]", activation);
    add({.op = "RNN", .gates = 1, .attributes = text.c_str()});
  }

  const auto einsum = [&](const char* equation, std::vector<const char*> operands) {
    std::string body;
    std::vector<std::string> names;
    for (const char* dims : operands) {
      names.push_back(fmt::format("x{}", names.size()));
      body += fmt::format("initializer {}: float64[{}] = random(1)\n", names.back(), dims);
    }
    cases.push_back({.body = fmt::format("{}y = Einsum({}) {{equation=\"{}\"}}\n", body,
                                         fmt::join(names, ", "), equation)});
  };
  einsum("ij,jk->ik", {"2,3", "3,4"});
  einsum("bij,bjk->bik", {"2,2,3", "2,3,2"});
  einsum("ij->ji", {"2,3"});
  einsum("ij->", {"2,3"});
  einsum("ii->i", {"3,3"});
  einsum("ii", {"3,3"});
  einsum("i,j,k->kij", {"2", "3", "2"});
  einsum("...ij,...jk->...ik", {"2,2,3", "1,3,2"});
  einsum("bhqd,bhkd->bhqk", {"2,2,3,2", "2,2,4,2"});
  einsum("ij,ij->i", {"2,3", "1,3"});
  einsum("ij,k->j", {"2,3", "4"});
  const auto attention = [&](const char* q, const char* k, const char* v, const char* mask, const char* attributes) {
    const std::string body = fmt::format(
        "initializer q: float64[{}] = random(1)\ninitializer k: float64[{}] = random(1)\n"
        "initializer v: float64[{}] = random(1)\n{}y = Attention(q, k, v{}) {{{}}}\n",
        q, k, v, *mask != '\0' ? fmt::format("initializer m: {}\n", mask) : "", *mask != '\0' ? ", m" : "", attributes);
    cases.push_back({.body = body, .opset = 23});
  };
  attention("2,2,3,4", "2,2,5,4", "2,2,5,3", "", "");
  attention("2,4,3,2", "2,2,3,2", "2,2,3,2", "", "is_causal=1, scale=0.7");
  attention("2,3,8", "2,5,4", "2,5,6", "float64[3,5] = random(1)", "q_num_heads=4, kv_num_heads=2, softcap=0.8");
  attention("1,2,2,3", "1,2,4,3", "1,2,4,3", "bool[2,4] = {1,0,1,1,1,1,0,1}", "");
  return cases;
}

std::vector<GradientCase> loss_gradient_cases() {
  std::vector<GradientCase> cases;
  const auto add = [&](const std::string& inputs, const std::string& call, double low = -1, double high = 1) {
    cases.push_back({.body = inputs + "y = onnxpress.training." + call + "\n", .low = low, .high = high});
  };
  const std::string logits = "initializer x: float64[3,4] = random(1)\n";
  const std::string labels = logits + "initializer t: int64[3] = {1,3,1}\n";
  add(labels, "CrossEntropy(x, t)");
  add(labels, "CrossEntropy(x, t) {label_smoothing=0.1}");
  add(labels, "CrossEntropy(x, t) {ignore_index=3}");
  add(labels, "CrossEntropy(x, t) {temperature=2.0}");
  add("initializer x: float64[2,3,2] = random(1)\ninitializer t: int64[2,2] = {1,2,1,0}\n", "CrossEntropy(x, t)");
  add("initializer x: float64[2,3,4] = random(1)\ninitializer t: int64[2,3] = {1,2,1,0,3,3}\n", "CrossEntropy(x, t)");
  add("initializer x: float64[3,4] = random(1)\ninitializer k_t: float64[3,4] = random(2)\n", "CrossEntropy(x, k_t)", 0.1, 1);
  add("initializer x: float64[3,4] = random(1)\ninitializer k_t: float64[3,4] = random(2)\n", "Distillation(x, k_t) {temperature=4.0}");
  const std::string taught = labels + "initializer k_z: float64[3,4] = random(2)\n";
  add(taught, "DecoupledDistillation(x, k_z, t)");
  add(taught, "DecoupledDistillation(x, k_z, t) {temperature=4.0, target_weight=2.0, other_weight=3.0}");
  add("initializer x: float64[2,3,2] = random(1)\ninitializer k_z: float64[2,3,2] = random(2)\n"
      "initializer t: int64[2,2] = {1,2,1,0}\n", "DecoupledDistillation(x, k_z, t) {axis=1, temperature=0.5}");
  add("initializer x: float64[2,3,2,2] = random(1)\ninitializer k_t: float64[2,5,2,2] = random(2)\n",
      "AttentionTransfer(x, k_t)");
  const std::string samples = "initializer x: float64[5,3] = random(1)\ninitializer k_t: float64[5,2,2] = random(2)\n";
  add(samples, "RelationalDistance(x, k_t)");
  add(samples, "RelationalAngle(x, k_t)");
  const std::string two = "initializer x: float64[3,4] = random(1)\ninitializer t: float64[3,4] = random(2)\n";
  const std::string fixed = "initializer x: float64[3,4] = random(1)\ninitializer k_t: float64[3,4] = random(2)\n";
  for (const char* op : {"SquaredError", "AbsoluteError", "Huber"}) {
    add(two, fmt::format("{}(x, t)", op));
    add(two, fmt::format("{}(x, t) {{reduction=\"batch\"}}", op));
  }
  add(two, "Huber(x, t) {delta=0.3}");
  add(fixed, "BinaryCrossEntropy(x, k_t)", 0, 1);
  add(fixed, "KlDivergence(x, k_t)", 0.1, 1);
  add(fixed, "KlDivergence(x, k_t) {reduction=\"mean\"}", 0.1, 1);
  add(two, "GaussianKl(x, t)");
  add("initializer a: float64[] = random(1)\ninitializer b: float64[1] = random(1)\n", "WeightedSum(a, b) {weights=[0.5,2.0]}");
  const std::string speech = "initializer x: float64[6,3,4] = random(1)\ninitializer t: int64[3,3] = {1,2,2,3,1,1,2,1,1}\n";
  add(speech, "CtcLoss(x, t)");
  add(speech + "initializer n: int64[3] = {6,5,4}\ninitializer m: int64[3] = {3,2,1}\n", "CtcLoss(x, t, n, m)");
  add(speech + "initializer n: int64[3] = {2,0,6}\ninitializer m: int64[3] = {3,0,0}\n", "CtcLoss(x, t, n, m)");
  add("initializer x: float64[3,6,4] = random(1)\ninitializer t: int64[3,2] = {0,2,2,0,1,1}\n", "CtcLoss(x, t) {blank=3, batch_first=1}");
  const std::string key = "initializer key: int64[] = {5}\n";
  add(logits + key, "Dropout(x, key) {ratio=0.4, salt=3}");
  add(two + key, "GaussianSample(x, t, key) {salt=2}");
  std::string batch = "initializer x: float64[4,3,2] = random(1)\n";
  for (const char* name : {"s", "b", "m", "v"}) batch += fmt::format("initializer {}: float64[3] = random(1)\n", name);
  add(batch, "BatchNormalization(x, s, b, m, v)", 0.2, 1.5);
  return cases;
}

}  // namespace onnxpress
