#include <hwy/targets.h>

#include <array>

#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

struct Sizes {
  int steps, batch, input, hidden;
};

struct Options {
  std::string direction = "forward", attributes, lengths;
  bool bias = true, states = true;
  bool constant = true;  // weights; else inputs
};

// A node with weights near those of trained networks.
std::string network(const std::string& op, const Sizes& s, const Options& o) {
  const int directions = o.direction == "bidirectional" ? 2 : 1;
  const int rows = s.hidden * (op == "LSTM" ? 4 : op == "GRU" ? 3 : 1);
  const bool batch_first = o.attributes.find("layout=1") != std::string::npos;
  const std::string state = batch_first
                                ? fmt::format("float32[{},{},{}]", s.batch, directions, s.hidden)
                                : fmt::format("float32[{},{},{}]", directions, s.batch, s.hidden);
  std::string text = fmt::format("input x: float32[{},{},{}]\n", batch_first ? s.batch : s.steps,
                                 batch_first ? s.steps : s.batch, s.input);
  const auto weights = [&](const char* name, int columns, const char* values) {
    const std::string type = fmt::format("{}: float32[{},{},{}]", name, directions, rows, columns);
    text += o.constant ? fmt::format("initializer {} = {}\n", type, values) : fmt::format("input {}\n", type);
  };
  weights("w", s.input, "random(2,-0.5,0.5)");
  weights("r", s.hidden, "random(3,-0.5,0.5)");
  std::string inputs = "x, w, r";
  if (o.bias)
    text += fmt::format("initializer b: float32[{},{}] = random(4,-1,1)\n", directions, 2 * rows);
  inputs += o.bias ? ", b" : ", _";
  if (!o.lengths.empty())
    text += fmt::format("initializer lengths: int32[{}] = {{{}}}\n", s.batch, o.lengths);
  inputs += o.lengths.empty() ? ", _" : ", lengths";
  if (o.states) {
    text += fmt::format("input h: {}\n", state);
    inputs += ", h";
    if (op == "LSTM") {
      text += fmt::format("input c: {}\n", state);
      inputs += ", c";
    }
  }
  text += fmt::format("y, y_h{} = {}({}) {{hidden_size={}, direction=\"{}\"{}}}\n",
                      op == "LSTM" ? ", y_c" : "", op, inputs, s.hidden, o.direction, o.attributes);
  return text + "output y\noutput y_h\n";
}

constexpr std::array cells{std::pair{"RNN", ""}, std::pair{"RNN", ", activations=[\"Relu\"]"},
                           std::pair{"GRU", ""}, std::pair{"GRU", ", linear_before_reset=1"},
                           std::pair{"LSTM", ""}};

void check_network(const std::string& op, const Sizes& sizes, const Options& options,
                   int threads = 1) {
  const std::size_t outputs = op == "LSTM" ? 3 : 2;
  for (std::size_t output = 0; output < outputs; ++output)
    check_rows(network(op, sizes, options), reassociated, 17,
               {.output = output, .threads = threads});
}

std::string both_directions(const std::string& attributes) {
  return attributes.find("Relu") != std::string::npos ? ", activations=[\"Relu\", \"Relu\"]"
                                                      : attributes;
}

TEST_CASE("vector kernels of recurrent networks equal the reference") {
  for (const auto& [op, attributes] : cells)
    for (const Sizes& sizes : {Sizes{1, 1, 1, 1}, Sizes{5, 1, 7, 16}, Sizes{4, 3, 5, 33},
                               Sizes{3, 13, 40, 17}, Sizes{70, 5, 3, 20}, Sizes{2, 200, 3, 9}}) {
      CAPTURE(sizes.hidden);
      for (const char* direction : {"forward", "reverse"})
        check_network(op, sizes, {.direction = direction, .attributes = attributes});
      check_network(op, sizes,
                    {.direction = "bidirectional", .attributes = both_directions(attributes)});
    }
}

TEST_CASE("vector kernels take sequence lengths, layouts and omitted inputs") {
  for (const auto& [op, attributes] : cells)
    for (const char* direction : {"forward", "reverse"})
      for (const char* layout : {"", ", layout=1"}) {
        const Options common{.direction = direction,
                             .attributes = std::string(attributes) + layout};
        for (const char* lengths : {"", "6,0,3,1", "2,2,0,0", "0,0,0,0"})
          for (const bool given : {true, false}) {
            Options options = common;
            options.lengths = lengths;
            options.bias = options.states = given;
            check_network(op, {6, 4, 3, 18}, options);
          }
      }
  check_network("LSTM", {6, 2, 3, 18}, {.direction = "bidirectional", .lengths = "4,6"});
}

TEST_CASE("vector kernels give the same on any number of threads") {
  for (const auto& [op, attributes] : cells)
    for (const char* direction : {"forward", "bidirectional"})
      for (const int batch : {1, 8, 21}) {
        const bool both = std::string_view(direction) == "bidirectional";
        const std::string text =
            network(op, {30, batch, 30, 150},
                    {.direction = direction,
                     .attributes = both ? both_directions(attributes) : attributes});
        CAPTURE(text);
        const Tensor serial = Case(text).run_fast();
        for (const int threads : {2, 3})
          CHECK(Case(text, 17, {.threads = threads}).run_fast().equals(serial));
      }
}

TEST_CASE("vector kernels of recurrent networks work on every instruction set") {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    CAPTURE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    for (const auto& [op, attributes] : cells)
      check_network(op, {9, 7, 11, 21}, {.attributes = attributes, .lengths = "9,8,7,3,2,1,0"});
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST_CASE("weights that are computed are packed in every call") {
  for (const auto& [op, attributes] : cells)
    for (const bool bias : {true, false})
      check_network(op, {2, 3, 7, 19}, {.attributes = attributes, .bias = bias, .constant = false});
}

TEST_CASE("networks without steps or sequences") {
  for (const auto& [op, attributes] : cells) {
    check_network(op, {0, 2, 3, 4}, {.attributes = attributes});
    check_network(op, {2, 0, 3, 4}, {.attributes = attributes});
  }
}

TEST_CASE("recurrent networks that the vector kernels do not take go to the reference") {
  const Sizes sizes{2, 1, 2, 2};
  const auto is_taken = [&](const std::string& op, const std::string& attributes) {
    return is_supported(network(op, sizes, {.attributes = attributes}));
  };
  CHECK(is_taken("LSTM", ", activations=[\"sigmoid\", \"TANH\", \"Tanh\"]"));
  CHECK_FALSE(is_taken("LSTM", ", clip=1.0"));
  CHECK_FALSE(is_taken("LSTM", ", input_forget=1"));
  CHECK_FALSE(is_taken("LSTM", ", activations=[\"Sigmoid\", \"Tanh\", \"Relu\"]"));
  CHECK_FALSE(is_taken("GRU", ", activations=[\"HardSigmoid\", \"Tanh\"]"));
  CHECK_FALSE(is_taken("RNN", ", activations=[\"Elu\"]"));
  CHECK_FALSE(is_supported(
      network("RNN", sizes,
              {.direction = "bidirectional", .attributes = ", activations=[\"Tanh\", \"Relu\"]"})));
  const std::string weights =
      "input x: float32[2,1,2]\ninitializer w: float32[1,8,2] = random(2)\n";
  CHECK(is_supported(weights + "input r: float32[1,8,2]\ny = LSTM(x, w, r) {hidden_size=2}\n"
                               "output y\n"));
  CHECK_FALSE(is_supported(weights +
                           "initializer r: float32[1,8,2] = random(3)\n"
                           "initializer p: float32[1,6] = random(4)\n"
                           "y = LSTM(x, w, r, _, _, _, _, p) {hidden_size=2}\noutput y\n"));
  CHECK_FALSE(is_supported(
      "input x: float16[2,1,2]\ninitializer w: float16[1,2,2] = zeros\n"
      "initializer r: float16[1,2,2] = zeros\ny = RNN(x, w, r) {hidden_size=2}\noutput y\n"));
}

}  // namespace
}  // namespace onnxpress::rows
