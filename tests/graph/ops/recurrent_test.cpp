#include "graph/ops/recurrent.h"

#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

// The expected values of these three were computed by ONNX Runtime 1.31.1.
TEST_CASE("LSTM gives what ONNX Runtime gives") {
  {  // both directions, peepholes, sequences of 3, 1 and 0 steps
    const Computed computed(
        "initializer x: float32[3,3,2] = {0, 0, 0.5, 1, -1, -0.75, 0.625, 1, -0.5, -0.375, 0.75, "
        "-0.125, -0.5, 0.75, -0.5, -0.25, 0.25, 0.125}\n"
        "initializer w: float32[2,8,2] = {-0.875, -1, 0.75, 0.5, 0.75, 0.125, 0.625, -0.375, "
        "-0.125, 0.625, -0.75, -0.375, -0.75, -0.125, 1, -0.75, -0.25, -0.25, 0.875, -0.625, 0, "
        "-0.5, -1, 0.5, -0.875, -0.5, 0, 0, -0.875, 1, 0.5, 1}\n"
        "initializer r: float32[2,8,2] = {-0.875, 0.5, -0.5, 0.125, 0.875, -0.5, 0.5, -0.75, "
        "-0.375, 1, -0.125, 0, -0.5, -0.875, -0.125, 0.25, -0.125, 0.625, -0.25, 0.25, 0.625, "
        "0.875, -0.125, -1, 0.5, 0, 0.75, -0.125, -0.25, -0.875, -0.125, 0.25}\n"
        "initializer b: float32[2,16] = {0.625, 0.75, -0.625, 0.25, 0.625, -0.5, -0.375, 0.75, "
        "0.125, 0, 0.375, 0, 1, 0.5, -1, -0.75, 0.125, 0.625, -0.875, 0.375, 0.5, 0.625, 0.75, "
        "-0.625, 0.125, 0.625, -0.25, -0.625, 0, -0.875, -0.625, 0.75}\n"
        "initializer lengths: int32[3] = {3, 1, 0}\n"
        "initializer h: float32[2,3,2] = {0.375, 0.75, 0.75, 0.75, -0.375, 0, 0.25, -0.5, 0.875, "
        "-1, 0.75, 0.25}\n"
        "initializer c: float32[2,3,2] = {-0.5, 0.5, -0.125, 0.75, 1, -0.5, -0.125, -0.625, 0.375, "
        "0.25, 0.75, 0.625}\n"
        "initializer p: float32[2,6] = {1, 1, 0.875, -0.75, -1, 0, -0.375, 0.875, 0.625, -0.125, "
        "0.125, 0.25}\n"
        "y, y_h, y_c = LSTM(x, w, r, b, lengths, h, c, p) {hidden_size=2, "
        "direction=\"bidirectional\"}\n",
        14);
    check_close(
        computed["y"],
        parse_tensor("float32[3,2,3,2]{-0.1794049, 0.1361248, -0.1941229, 0.04224062, 0, 0, "
                     "0.05935678, 0.1521851, 0.06287559, 0.3810013, 0, 0, -0.2380341, 0.02322755, "
                     "0, 0, 0, 0, 0.06842102, 0.2204403, 0, 0, 0, 0, -0.107292, -0.231705, 0, 0, "
                     "0, 0, 0.05988499, -0.0836181, 0, 0, 0, 0}"));
    check_close(computed["y_h"],
                parse_tensor("float32[2,3,2]{-0.107292, -0.231705, -0.1941229, 0.04224062, 0, 0, "
                             "0.05935678, 0.1521851, 0.06287559, 0.3810013, 0, 0}"));
    check_close(computed["y_c"],
                parse_tensor("float32[2,3,2]{-1.408514, -0.5279064, -0.3671236, 0.08757187, 0, 0, "
                             "0.1898895, 0.4376512, 0.426564, 0.6930598, 0, 0}"));
  }
  {  // activations with parameters, clip, coupled gates
    const Computed computed(
        "initializer x: float32[3,2,2] = {0.75, -0.5, -0.875, -0.375, -0.125, 0.625, -0.125, "
        "-0.875, -0.375, 0.25, 0.625, 0.5}\n"
        "initializer w: float32[1,8,2] = {1, -0.625, 0.75, -1, 0.125, -0.5, -0.625, 0.375, -0.375, "
        "0.125, -0.5, -0.75, 0.5, -0.125, 0.375, 0.375}\n"
        "initializer r: float32[1,8,2] = {1, -0.125, -0.625, 0.25, 0.875, 1, 0.75, 0.375, -0.25, "
        "-0.25, -1, -0.625, -0.375, -0.375, 0.125, 0}\n"
        "initializer b: float32[1,16] = {0.375, 0.875, 0.75, 0.625, 1, -0.375, 0.875, 0.875, "
        "-0.625, 0, 0.125, 0.375, 0.375, -0.875, 0, -0.875}\n"
        "initializer c: float32[1,2,2] = {1, -0.625, -0.125, 0.875}\n"
        "y, y_h, y_c = LSTM(x, w, r, b, _, _, c) {hidden_size=2, "
        "activations=[\"HardSigmoid\",\"ScaledTanh\",\"Softsign\"], activation_alpha=[0.3,1.5], "
        "activation_beta=[0.25,0.75], clip=0.5, input_forget=1}\n",
        14);
    check_close(
        computed["y"],
        parse_tensor(
            "float32[3,1,2,2]{0.1796161, -0.08819154, -0.0227429, 0.09750678, 0.1761946, "
            "-0.06311885, 0.04084676, 0.01081421, 0.173023, -0.04822551, 0.07549585, 0.06736078}"));
    check_close(computed["y_h"],
                parse_tensor("float32[1,2,2]{0.173023, -0.04822551, 0.07549585, 0.06736078}"));
    check_close(computed["y_c"],
                parse_tensor("float32[1,2,2]{0.7622935, -0.1370921, 0.2326499, 0.202504}"));
  }
  {  // other activations in the reverse direction
    const Computed computed(
        "initializer x: float32[3,2,2] = {0.625, -0.875, -0.625, -0.5, -0.625, 0.625, 0.75, 0.125, "
        "-1, -0.875, -0.375, -0.125}\n"
        "initializer w: float32[2,8,2] = {0.25, 0, -0.5, -0.75, 0.375, 0.5, -1, -0.875, -0.125, "
        "-0.25, 0.875, 0, -0.125, -0.125, 0.375, 0.125, -0.75, 0.5, 0.5, 1, 0.625, -0.5, -0.375, "
        "0.375, 0.375, 0.375, 0.75, -0.5, 0.875, -1, -0.875, 1}\n"
        "initializer r: float32[2,8,2] = {1, -0.375, -0.75, -0.375, -1, 0.875, 0.375, 0.125, -0.5, "
        "0, -0.625, 0.625, 0, -1, -0.5, 0.5, 0, -0.25, -0.5, -0.875, 0.25, 0.375, 0, 0.875, 0.875, "
        "-0.625, 0.25, 0.25, -0.5, -0.375, 0, 0.5}\n"
        "y, y_h, y_c = LSTM(x, w, r) {hidden_size=2, direction=\"bidirectional\", "
        "activations=[\"Sigmoid\",\"Tanh\",\"Tanh\",\"Softplus\",\"Elu\",\"LeakyRelu\"], "
        "activation_alpha=[0.5,0.125]}\n",
        14);
    check_close(
        computed["y"],
        parse_tensor("float32[3,2,2,2]{0.007566043, 0.03886471, 0.02451912, -0.1409158, 0.1971609, "
                     "1.151688, 0.03184685, -0.002458895, -0.00513809, -0.0191227, 0.02623445, "
                     "-0.01150332, -0.02009261, 0.9639387, 0.1610596, -0.005415553, 0.03131572, "
                     "-0.2930652, 0.02659737, -0.07058629, 0, 0, -0.005674477, 0.08265476}"));
    check_close(computed["y_h"],
                parse_tensor("float32[2,2,2]{0.03131572, -0.2930652, 0.02659737, -0.07058629, "
                             "0.1971609, 1.151688, 0.03184685, -0.002458895}"));
    check_close(computed["y_c"],
                parse_tensor("float32[2,2,2]{0.1030732, -0.3579642, 0.0604634, -0.1142034, "
                             "0.135837, 1.365442, 0.0495084, -0.02753378}"));
  }
}

TEST_CASE("GRU gives what ONNX Runtime gives") {
  {  // the reset gate before the product
    const Computed computed(
        "initializer x: float32[3,2,2] = {0.5, 1, 0.75, 0, 0.875, 1, 1, -0.875, -0.125, 0.25, "
        "-0.5, -0.25}\n"
        "initializer w: float32[1,6,2] = {0.25, 0.625, 0.125, -0.75, 0.375, 0.75, -0.625, 0.125, "
        "-0.375, 0.875, -0.875, 0}\n"
        "initializer r: float32[1,6,2] = {0.875, -0.125, -0.75, 0.625, 1, 1, 0.875, -0.25, 0.5, 1, "
        "0.125, 0.875}\n"
        "initializer b: float32[1,12] = {0.25, -0.625, -0.125, 0.25, -0.375, 0.375, -0.25, 1, "
        "-0.625, 0.375, -0.875, -0.75}\n"
        "initializer lengths: int32[2] = {2, 3}\n"
        "initializer h: float32[1,2,2] = {0, 0, 0, 0}\n"
        "y, y_h = GRU(x, w, r, b, lengths, h) {hidden_size=2, direction=\"reverse\"}\n",
        14);
    check_close(
        computed["y"],
        parse_tensor("float32[3,1,2,2]{-0.3611512, -0.6608834, -0.8900435, -0.3098205, -0.1823564, "
                     "-0.4610925, -0.8228142, -0.1308827, 0, 0, -0.4882598, 0.02356561}"));
    check_close(computed["y_h"],
                parse_tensor("float32[1,2,2]{-0.3611512, -0.6608834, -0.8900435, -0.3098205}"));
  }
  {  // the reset gate behind the product
    const Computed computed(
        "initializer x: float32[3,3,2] = {0.375, 0.625, -1, 0.625, -0.125, 0, 0.25, -0.5, 1, -1, "
        "-0.5, -0.25, 0.125, -0.25, -0.75, -1, -1, -1}\n"
        "initializer w: float32[2,6,2] = {-0.75, 1, -0.625, 0.375, 0.5, -0.625, -0.5, -0.125, "
        "-0.5, 1, -0.625, 0.875, 0.625, 0.75, -0.875, -0.25, 0.25, 0, 0.375, 0.375, 0.375, -0.875, "
        "1, 0.125}\n"
        "initializer r: float32[2,6,2] = {0.875, -0.5, -0.25, 0.75, -0.625, -0.875, -0.25, 0.375, "
        "-0.75, 0.75, -0.375, -0.625, 0.125, 0.875, 0.875, 0.75, -0.375, -1, 0.625, 0.5, 0.625, "
        "-1, -1, 0}\n"
        "initializer b: float32[2,12] = {-0.375, -0.125, 0.875, -0.625, 0, -0.375, -0.375, 0.625, "
        "-0.75, -0.375, -0.75, -0.75, -0.5, 0.375, 0.125, -0.125, -0.75, 0.625, 0.625, -0.5, "
        "-0.875, -0.375, -0.75, 0.625}\n"
        "initializer lengths: int32[3] = {3, 0, 2}\n"
        "initializer h: float32[2,3,2] = {0, 0, -0.5, 0, 1, -0.5, 0.625, -1, -0.375, 0.875, 0.75, "
        "-0.875}\n"
        "y, y_h = GRU(x, w, r, b, lengths, h) {hidden_size=2, direction=\"bidirectional\", "
        "linear_before_reset=1}\n",
        14);
    check_close(
        computed["y"],
        parse_tensor(
            "float32[3,2,3,2]{0.0462075, -0.08444067, 0, 0, 0.355984, -0.4645765, -0.3509912, "
            "0.7055557, 0, 0, -0.4918922, 0.1963194, -0.6467615, -0.435621, 0, 0, -0.1615252, "
            "-0.4436949, -0.1760966, 0.3957981, 0, 0, -0.125486, -0.4967519, -0.6419711, "
            "-0.522732, 0, 0, 0, 0, 0.08976059, -0.04217106, 0, 0, 0, 0}"));
    check_close(computed["y_h"],
                parse_tensor("float32[2,3,2]{-0.6419711, -0.522732, 0, 0, -0.1615252, -0.4436949, "
                             "-0.3509912, 0.7055557, 0, 0, -0.4918922, 0.1963194}"));
  }
  {  // clip and activations
    const Computed computed(
        "initializer x: float32[3,2,2] = {-0.125, 0.125, 0, -0.375, 1, -0.25, 0.375, -0.25, "
        "-0.125, 1, -0.625, 0.25}\n"
        "initializer w: float32[1,6,2] = {-0.125, 0.375, 0.5, -0.375, 0.375, 0.375, -0.125, -0.75, "
        "0.25, -1, 0.875, 0.75}\n"
        "initializer r: float32[1,6,2] = {0.75, -1, 1, 1, 0.125, 0.75, 0.625, 0.625, -0.75, -1, "
        "-0.5, -0.625}\n"
        "initializer b: float32[1,12] = {0.125, 0.75, 0.5, -0.125, 0.125, 0.25, 0.625, -0.75, "
        "0.625, -0.625, 0.125, 0}\n"
        "y, y_h = GRU(x, w, r, b) {hidden_size=2, linear_before_reset=1, clip=0.75, "
        "activations=[\"HardSigmoid\",\"ThresholdedRelu\"], activation_alpha=[0.25,0.125], "
        "activation_beta=[0.5]}\n",
        14);
    check_close(computed["y"],
                parse_tensor("float32[3,1,2,2]{0, 0.1235962, 0.2037048, 0, 0.2491883, 0.324461, "
                             "0.2805634, 0.133314, 0.171317, 0.5227463, 0.1928873, 0.06691118}"));
    check_close(computed["y_h"],
                parse_tensor("float32[1,2,2]{0.171317, 0.5227463, 0.1928873, 0.06691118}"));
  }
}

TEST_CASE("RNN gives what ONNX Runtime gives") {
  {  // both directions
    const Computed computed(
        "initializer x: float32[3,2,2] = {1, 0.25, 0.375, 0.875, 0.125, 0.625, 0.75, -0.625, -1, "
        "-0.375, -0.5, 0.75}\n"
        "initializer w: float32[2,2,2] = {0.875, -1, 0, 0.625, -0.75, 0.625, -0.75, -0.125}\n"
        "initializer r: float32[2,2,2] = {0.625, -0.375, -0.375, -0.5, 0.5, -0.5, 1, -0.125}\n"
        "initializer b: float32[2,4] = {0, 0, 0.125, 0.125, 0, 1, 0.625, 0.625}\n"
        "initializer lengths: int32[2] = {1, 3}\n"
        "initializer h: float32[2,2,2] = {0.375, 0.25, -0.375, 1, -0.125, -0.625, 0.75, -0.75}\n"
        "y, y_h = RNN(x, w, r, b, lengths, h) {hidden_size=2, direction=\"bidirectional\", "
        "activations=[\"Relu\",\"Affine\"], activation_alpha=[0.5], activation_beta=[0.25]}\n",
        14);
    check_close(computed["y"],
                parse_tensor("float32[3,2,2,2]{0.890625, 0.015625, 0, 0.3125, 0.390625, 0.6484375, "
                             "0.3505859, 0.7895508, 0, 0, 1.289062, 0, 0, 0, 0.01953125, 1.398438, "
                             "0, 0, 0, 0.1103516, 0, 0, 1.359375, 1.625}"));
    check_close(computed["y_h"], parse_tensor("float32[2,2,2]{0.890625, 0.015625, 0, 0.1103516, "
                                              "0.390625, 0.6484375, 0.3505859, 0.7895508}"));
  }
}

// One step of one unit without recurrence: y = f(x).
double activated(const std::string& attributes, double x) {
  const Computed computed(fmt::format(
      "initializer x: float64[1,1,1] = {{{}}}\ninitializer w: float64[1,1,1] = {{1}}\n"
      "initializer r: float64[1,1,1] = {{0}}\ny, _ = RNN(x, w, r) {{hidden_size=1, {}}}\n",
      x, attributes));
  return computed["y"].data<double>()[0];
}

TEST_CASE("activation functions of recurrent networks") {
  const auto check = [](const std::string& name, const std::string& parameters,
                        const std::function<double(double)>& expected) {
    CAPTURE(name);
    for (const double x : {-40.0, -2.0, -0.25, 0.0, 0.5, 3.0, 40.0})
      CHECK(activated(fmt::format("activations=[\"{}\"]{}", name, parameters), x) ==
            doctest::Approx(expected(x)).epsilon(1e-7));
  };
  check("Relu", "", [](double x) { return x > 0 ? x : 0; });
  check("Tanh", "", [](double x) { return std::tanh(x); });
  check("Sigmoid", "", [](double x) { return 1 / (1 + std::exp(-x)); });
  check("Affine", "", [](double x) { return x; });
  check("Affine", ", activation_alpha=[0.5], activation_beta=[2.0]",
        [](double x) { return 0.5 * x + 2; });
  check("LeakyRelu", "", [](double x) { return x > 0 ? x : 0.01 * x; });
  check("leakyrelu", ", activation_alpha=[0.25]", [](double x) { return x > 0 ? x : 0.25 * x; });
  check("ThresholdedRelu", "", [](double x) { return x >= 1 ? x : 0; });
  check("ThresholdedRelu", ", activation_alpha=[0.5]", [](double x) { return x >= 0.5 ? x : 0; });
  check("ScaledTanh", "", [](double x) { return std::tanh(x); });
  check("ScaledTanh", ", activation_alpha=[2.0], activation_beta=[0.5]",
        [](double x) { return 2 * std::tanh(0.5 * x); });
  check("HardSigmoid", "", [](double x) { return std::clamp(0.2 * x + 0.5, 0.0, 1.0); });
  check("HARDSIGMOID", ", activation_alpha=[0.5], activation_beta=[0.25]",
        [](double x) { return std::clamp(0.5 * x + 0.25, 0.0, 1.0); });
  check("Elu", "", [](double x) { return x > 0 ? x : std::expm1(x); });
  check("Elu", ", activation_alpha=[0.5]",
        [](double x) { return x > 0 ? x : 0.5 * std::expm1(x); });
  check("Softsign", "", [](double x) { return x / (1 + std::abs(x)); });
  check("Softplus", "", [](double x) { return std::log1p(std::exp(x)); });
  // Parameters go to the functions that take some, in order.
  CHECK(RecurrentAttrs::from(
            *parse_model("model ir=8 opset=17\ninput x\ninput w\ninput r\n"
                         "y = LSTM(x, w, r) {hidden_size=1, activations=[\"Tanh\", \"Elu\", "
                         "\"LeakyRelu\"], activation_alpha=[0.5]}\noutput y\n")
                 ->graph.nodes()[0])
            .activations ==
        std::vector<GateActivation>{{GateActivation::Kind::tanh, 0, 0},
                                    {GateActivation::Kind::elu, 0.5f, 0},
                                    {GateActivation::Kind::leaky_relu, 0.01f, 0}});
}

constexpr const char* weights =
    "initializer w: float32[2,8,3] = random(1)\ninitializer r: float32[2,8,2] = random(2)\n"
    "initializer b: float32[2,16] = random(3)\n";

TEST_CASE("layout 1 puts the batch in front") {
  const Computed computed(
      std::string(weights) +
      "initializer x: float32[4,5,3] = random(4)\ninitializer h: float32[2,5,2] = random(5)\n"
      "initializer c: float32[2,5,2] = random(6)\ninitializer lengths: int32[5] = {4,1,0,2,3}\n"
      "x1 = Transpose(x) {perm=[1,0,2]}\nh1 = Transpose(h) {perm=[1,0,2]}\n"
      "c1 = Transpose(c) {perm=[1,0,2]}\n"
      "y, y_h, y_c = LSTM(x, w, r, b, lengths, h, c) {hidden_size=2, "
      "direction=\"bidirectional\"}\n"
      "z, z_h, z_c = LSTM(x1, w, r, b, lengths, h1, c1) {hidden_size=2, "
      "direction=\"bidirectional\", layout=1}\n"
      "back = Transpose(z) {perm=[1,2,0,3]}\nback_h = Transpose(z_h) {perm=[1,0,2]}\n"
      "back_c = Transpose(z_c) {perm=[1,0,2]}\n");
  CHECK(computed["z"].dims() == Dims{5, 4, 2, 2});
  CHECK(computed["z_h"].dims() == Dims{5, 2, 2});
  CHECK(computed["back"].equals(computed["y"]));
  CHECK(computed["back_h"].equals(computed["y_h"]));
  CHECK(computed["back_c"].equals(computed["y_c"]));
}

TEST_CASE("recurrent networks in other element types") {
  const std::string body =
      "initializer x: float32[3,2,3] = random(4)\n" + std::string(weights) +
      "y, y_h, _ = LSTM(x, w, r, b) {hidden_size=2, direction=\"bidirectional\"}\n";
  const Computed computed(body);
  for (const auto& [type, code, tolerance] :
       {std::tuple{"float16", 10, 2e-3}, std::tuple{"float64", 11, 1e-6},
        std::tuple{"bfloat16", 16, 2e-2}}) {
    std::string text = body.substr(0, body.find("y, y_h"));
    for (const char* name : {"x", "w", "r", "b"})
      text += fmt::format("{0}_ = Cast({0}) {{to={1}}}\n", name, code);
    text += "t, t_h, _ = LSTM(x_, w_, r_, b_) {hidden_size=2, direction=\"bidirectional\"}\n";
    CAPTURE(text);
    const Computed other(text, 22);
    CHECK(name(other["t"].dtype()) == std::string_view(type));
    check_close(other["t"].cast(DType::float32), computed["y"], tolerance);
    check_close(other["t_h"].cast(DType::float32), computed["y_h"], tolerance);
  }
}

TEST_CASE("older versions of the recurrent operators") {
  const std::string inputs =
      "initializer x: float32[2,1,1] = {1,2}\ninitializer w: float32[1,3,1] = {1,2,3}\n"
      "initializer r: float32[1,3,1] = {0.5,-1,0.25}\n"
      "initializer b: float32[1,6] = {0,0,0,0,0,1}\n";
  const Computed latest(inputs + "y, y_h = GRU(x, w, r, b) {hidden_size=1}\n", 14);
  for (const char* attributes : {"output_sequence=0", "output_sequence=1", "direction=\"foward\""})
    check_close(
        Computed(inputs + fmt::format("y, y_h = GRU(x, w, r, b) {{{}}}\n", attributes), 1)["y"],
        latest["y"]);
  // The attribute came with opset 3, and is unknown before.
  const std::string reset = "y = GRU(x, w, r, b) {hidden_size=1, linear_before_reset=1}\n";
  check_close(Computed(inputs + reset, 1)["y"], latest["y"]);
  CHECK_FALSE(Computed(inputs + reset, 3)["y"].equals(latest["y"]));
}

// Type of value `of` when only declared types are known.
std::string inferred(const std::string& body, const std::string& of, int opset = 17) {
  const std::unique_ptr<Model> model =
      parse_model(fmt::format("model ir=8 opset={}\n{}output y\n", opset, body));
  TypeInference inference(*model);
  inference.run();
  return to_string(inference.type(model->graph.find(of)));
}

TEST_CASE("shapes of recurrent networks keep symbols") {
  const std::string head = "input x: float32[time,batch,3]\ninput w: float32\n";
  CHECK(inferred(head + "input r: float32[2,8,2]\n"
                        "y, y_h, y_c = LSTM(x, w, r) {direction=\"bidirectional\"}\n",
                 "y") == "float32[time,2,batch,2]");
  CHECK(inferred(head + "input r: float32[?,?,?]\n"
                        "y, y_h = GRU(x, w, r) {hidden_size=4, layout=1}\n",
                 "y") == "float32[time,batch,1,4]");
  CHECK(inferred(head + "input r: float32\ny, y_h = GRU(x, w, r) {hidden_size=4}\n", "y_h") ==
        "float32[1,batch,4]");
  CHECK(inferred("input x: float32\ninput w: float32[1,12,5]\ninput r\n"
                 "input lengths: int32[n]\ny, y_h = GRU(x, w, r, _, lengths)\n",
                 "y") == "float32[?,1,n,4]");
  CHECK(inferred("input x: float32\ninput w\ninput r\ny, y_h = RNN(x, w, r)\n", "y") ==
        "float32[?,1,?,?]");
}

TEST_CASE("multiply-accumulates of recurrent networks") {
  const std::unique_ptr<Model> model = parse_model(
      "model ir=8 opset=17\ninput x: float32[5,7,3]\ninput w: float32[2,8,3]\n"
      "input r: float32[2,8,2]\ny: float32[5,2,7,2] = LSTM(x, w, r) {hidden_size=2, "
      "direction=\"bidirectional\"}\noutput y\n");
  const Node& node = *model->graph.nodes()[0];
  struct Declared final : PrepareContext {
    explicit Declared(const Node& of) : of_node(of) {}
    const Node& node() const override { return of_node; }
    const Type* input_type(std::size_t i) const override {
      return of_node.input(i) ? &of_node.input(i)->type : nullptr;
    }
    const Type* output_type(std::size_t i) const override { return &of_node.output(i)->type; }
    const Tensor* constant_input(std::size_t) const override { return nullptr; }
    int threads() const override { return 1; }
    const Node& of_node;
  };
  // 2 directions, 5 steps, 7 sequences, 4 gates of 2 units, 3 inputs and 2 units each.
  CHECK(operators().find(node)->cost(Declared(node)).macs == 2 * 5 * 7 * (4 * 2) * (3 + 2));
}

TEST_CASE("recurrent networks refuse what does not fit together") {
  const auto x = "initializer x: float32[2,3,4] = zeros\n";
  const auto w = "initializer w: float32[1,8,4] = zeros\n";
  const auto r = "initializer r: float32[1,8,2] = zeros\n";
  const std::string all = std::string(x) + w + r;
  const auto refuses = [](const std::string& body, const std::string& message) {
    CAPTURE(body);
    try {
      const Computed computed(body);
      FAIL_CHECK("accepted");
    } catch (const Error& error) {
      CHECK_MESSAGE(std::string(error.what()).find(message) != std::string::npos, error.what());
    }
  };
  const auto call = [&](const std::string& more, const std::string& inputs,
                        const std::string& attributes) {
    return all + more + "y, _, _ = LSTM(x, w, r" + inputs + ") {" + attributes + "}\n";
  };
  refuses(call("", "", "hidden_size=3"), "hidden size of R");
  refuses(call("", "", "hidden_size=0"), "expected a positive hidden_size, found 0");
  refuses(call("", "", "hidden_size=4611686018427387904"), "hidden size");
  refuses(call("", "", "direction=\"bidirectional\""), "directions of");
  refuses(call("", "", "direction=\"both\""), "found 'both'");
  refuses(call("", "", "clip=-1.0"), "clip threshold");
  refuses(call("", "", "activations=[\"Tanh\"]"), "expected 3 activations, found 1");
  refuses(call("", "", "activations=[\"Tanh\", \"Gelu\", \"Tanh\"]"), "'Gelu' is not known");
  refuses(std::string(x) + w + "initializer r: float32[1,7,2] = zeros\ny, _, _ = LSTM(x, w, r)\n",
          "gates times hidden size");
  refuses(std::string(x) + r + "initializer w: float32[1,8,5] = zeros\ny, _, _ = LSTM(x, w, r)\n",
          "input size of W");
  refuses(std::string(w) + r + "initializer x: float32[3,4] = zeros\ny, _, _ = LSTM(x, w, r)\n",
          "expected X of 3 axes");
  refuses(std::string(x) + w + "initializer r: float64[1,8,2] = zeros\ny, _, _ = LSTM(x, w, r)\n",
          "expected float32 for input 2, found float64");
  refuses(call("initializer b: float32[1,8] = zeros\n", ", b", ""), "biases of B");
  refuses(call("initializer n: int32[2] = {1,1}\n", ", _, n", ""), "batch size of sequence_lens");
  refuses(call("initializer n: int32[3] = {1,-1,1}\n", ", _, n", ""), "from 0 to 2, found -1");
  refuses(call("initializer n: int32[3] = {1,2,3}\n", ", _, n", ""), "from 0 to 2, found 3");
  refuses(call("initializer h: float32[3,1,2] = zeros\n", ", _, _, h", ""),
          "directions of initial_h");
  refuses(call("initializer c: float32[1,3,3] = zeros\n", ", _, _, _, c", ""),
          "hidden size of initial_c");
  refuses(call("initializer p: float32[1,8] = zeros\n", ", _, _, _, _, p", ""), "weights of P");
  refuses("initializer x: float32[0,1099511627776,4] = zeros\n" + std::string(w) + r +
              "_, y, _ = LSTM(x, w, r)\n",
          "empty sequences is too large");
}

}  // namespace
}  // namespace onnxpress
