#include <fmt/format.h>

#include "tests/graph/ops/gradient_cases.h"

namespace onnxpress {

std::vector<GradientCase> neural_gradient_cases() {
  std::vector<GradientCase> cases;
  const auto add = [&](const std::string& body, std::int64_t opset = 17, double low = -1,
                       double high = 1) {
    cases.push_back({.body = body, .opset = opset, .low = low, .high = high});
  };
  const auto conv = [&](const char* op, const char* x, const char* w, const char* b,
                        const char* attributes) {
    add(fmt::format("initializer x: float64[{}] = random(1)\ninitializer w: float64[{}] = "
                    "random(2)\ninitializer b: float64[{}] = random(3)\ny = {}(x, w, b) {{{}}}\n",
                    x, w, b, op, attributes));
  };
  conv("Conv", "2,3,5,4", "4,3,3,3", "4", "");
  conv("Conv", "2,3,5,4", "4,3,1,1", "4", "");
  conv("Conv", "2,3,5,4", "4,3,1,1", "4", "strides=[2,2]");
  conv("Conv", "1,4,6,5", "6,2,3,2", "6", "group=2, strides=[2,1], pads=[1,0,2,1], dilations=[1,2]");
  conv("Conv", "2,4,5,5", "4,1,3,3", "4", "group=4, pads=[1,1,1,1]");
  conv("Conv", "2,3,9", "4,3,4", "4", "strides=[3], auto_pad=\"SAME_UPPER\"");
  conv("Conv", "1,2,3,4,3", "3,2,2,2,2", "3", "pads=[1,0,1,0,1,1], strides=[1,2,1]");
  conv("ConvTranspose", "2,3,3,4", "3,4,3,3", "4", "");
  conv("ConvTranspose", "2,4,3,3", "4,2,3,2", "4",
       "group=2, strides=[2,1], pads=[1,0,1,1], output_padding=[1,0]");
  conv("ConvTranspose", "1,4,3,3", "4,1,3,3", "4", "group=4, strides=[2,2], pads=[1,1,1,1]");
  conv("ConvTranspose", "2,2,4", "2,3,3", "3", "strides=[2], output_shape=[9]");
  conv("ConvTranspose", "1,2,2,3,2", "2,2,2,2,2", "2", "dilations=[1,2,1]");
  add("initializer x: float64[1,2,4,4] = random(1)\ninitializer w: float64[3,2,2,2] = random(2)\n"
      "y = Conv(x, w)\n");

  const auto x_only = [&](const char* x, const std::string& call, std::int64_t opset = 17) {
    add(fmt::format("initializer x: float64[{}] = random(1)\ny = {}\n", x, call), opset);
  };
  x_only("2,3,6,5", "MaxPool(x) {kernel_shape=[2,2], strides=[2,2]}");
  x_only("2,3,6,5", "MaxPool(x) {kernel_shape=[3,2], pads=[1,0,1,1], strides=[2,1], dilations=[1,2]}");
  x_only("2,2,7", "MaxPool(x) {kernel_shape=[3], strides=[2], ceil_mode=1}");
  x_only("1,2,4,4,3", "MaxPool(x) {kernel_shape=[2,2,2]}");
  x_only("2,3,6,5", "AveragePool(x) {kernel_shape=[2,2], strides=[2,2]}");
  x_only("2,3,6,5", "AveragePool(x) {kernel_shape=[3,2], pads=[1,0,1,1]}");
  x_only("2,3,6,5", "AveragePool(x) {kernel_shape=[3,2], pads=[1,0,1,1], count_include_pad=1}");
  x_only("2,2,7", "AveragePool(x) {kernel_shape=[3], strides=[3], ceil_mode=1, pads=[1,1], "
                  "count_include_pad=1}", 19);
  x_only("2,3,4,4", "LpPool(x) {kernel_shape=[2,2], p=3}");
  x_only("2,3,4,3", "GlobalAveragePool(x)");
  x_only("2,3,4,3", "GlobalMaxPool(x)");
  x_only("2,3,4,3", "GlobalLpPool(x) {p=2}");
  x_only("2,5,2,3", "LRN(x) {size=3, alpha=0.5, beta=0.75, bias=1.5}");
  x_only("2,5,3", "LRN(x) {size=4, alpha=0.5}");
  x_only("2,3,2,3", "MeanVarianceNormalization(x)");
  x_only("2,3,4", "MeanVarianceNormalization(x) {axes=[1,2]}");

  const auto norm = [&](const char* op, const char* x, const char* s, const char* b,
                        const char* attributes, std::int64_t opset = 17) {
    add(fmt::format("initializer x: float64[{}] = random(1)\ninitializer s: float64[{}] = "
                    "random(2)\ninitializer b: float64[{}] = random(3)\ny = {}(x, s, b) {{{}}}\n",
                    x, s, b, op, attributes),
        opset);
  };
  norm("LayerNormalization", "2,3,4", "4", "4", "");
  norm("LayerNormalization", "2,3,4", "3,4", "3,4", "axis=1");
  norm("LayerNormalization", "2,3,4", "3,1", "1,4", "axis=1, epsilon=0.1");
  norm("LayerNormalization", "2,3,4", "1,1,4", "4", "axis=2");
  norm("InstanceNormalization", "2,3,4,2", "3", "3", "epsilon=0.01");
  norm("GroupNormalization", "2,4,3,2", "2", "2", "num_groups=2", 18);
  norm("GroupNormalization", "2,4,3,2", "4", "4", "num_groups=2", 21);
  for (const char* dims : {"4", "2,3,4", "2,1,4", "3,1"})
    add(fmt::format("initializer x: float64[2,3,4] = random(1)\ninitializer s: float64[{}] = random(2)\n"
                    "y = RMSNormalization(x, s)\n", dims), 23);
  add("initializer x: float64[2,3,4] = random(1)\ninitializer s: float64[4] = random(2)\n"
      "y = LayerNormalization(x, s)\n");
  const auto batch_norm = [&](const char* x, const char* results, const char* attributes,
                              std::int64_t opset) {
    add(fmt::format("initializer x: float64[{}] = random(1)\ninitializer s: float64[3] = random(2)\n"
                    "initializer b: float64[3] = random(3)\ninitializer m: float64[3] = random(4)\n"
                    "initializer v: float64[3] = random(5)\n"
                    "{} = BatchNormalization(x, s, b, m, v) {{{}}}\n",
                    x, results, attributes),
        opset, 0.2, 1.5);
  };
  batch_norm("2,3,4,2", "y", "", 17);
  batch_norm("5,3", "y", "epsilon=0.1", 9);
  batch_norm("4,3,3", "y", "training_mode=1", 17);
  batch_norm("6,3", "y", "training_mode=1", 15);

  const auto loss = [&](const char* op, const char* x, const char* targets,
                        const char* attributes) {
    add(fmt::format("initializer x: float64[{}] = random(1)\ninitializer t: int64{}\n"
                    "y = {}(x, t) {{{}}}\n",
                    x, targets, op, attributes));
  };
  for (const char* op : {"SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"}) {
    loss(op, "4,3", "[4] = {0,2,1,1}", "");
    loss(op, "4,3", "[4] = {0,2,1,1}", "reduction=\"sum\"");
    loss(op, "4,3", "[4] = {0,2,1,1}", "reduction=\"none\", ignore_index=1");
    loss(op, "2,3,2", "[2,2] = {0,2,1,1}", "ignore_index=2");
  }
  add("initializer x: float64[4,3] = random(1)\ninitializer t: int64[4] = {0,2,1,1}\n"
      "y, p = SoftmaxCrossEntropyLoss(x, t)\n");
  return cases;
}

}  // namespace onnxpress
