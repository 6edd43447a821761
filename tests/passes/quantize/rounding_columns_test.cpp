// The columns of every operator, multiplied with its weight, are its output.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "graph/base/random.h"
#include "graph/exec/engine.h"
#include "graph/ir/parse.h"
#include "passes/quantize/column_reader.h"
#include "passes/quantize/layer_inputs.h"
#include "passes/core/pipeline.h"
#include "tests/graph/exec/given_data.h"

namespace onnxpress {
namespace {

Tensor random_tensor(const Dims& dims, std::uint64_t seed) {
  Random random(seed);
  Tensor tensor(DType::float32, dims);
  for (float& value : tensor.mutable_data<float>()) value = static_cast<float>(random.normal());
  return tensor;
}

// Element of the output that belongs to a row of a group and a column.
using Place = std::function<std::int64_t(const Dims& output, std::int64_t group, std::int64_t row, std::int64_t column,
                                         const WeightMatrix& matrix)>;

// [samples, channels, positions].
std::int64_t image_place(const Dims& output, std::int64_t group, std::int64_t row, std::int64_t column,
                         const WeightMatrix& matrix) {
  const std::int64_t positions = element_count(std::span(output).subspan(2));
  return (column / positions * output[1] + group * matrix.rows + row) * positions + column % positions;
}

void check(const std::string& text, std::size_t operand, const Place& place) {
  CAPTURE(text);
  const auto model = parse_model(text);
  const Node* node = model->graph.nodes()[0];
  const Tensor weight = *node->input(operand)->constant();
  std::string reason;
  const auto reader = column_reader(*node, operand, weight.dims(), reason);
  REQUIRE_MESSAGE(reader, reason);
  std::vector<Tensor> inputs;
  for (const Value* input : model->required_inputs()) {
    Dims dims;
    for (const Dim& dim : *input->type.shape) dims.push_back(dim.value());
    inputs.push_back(random_tensor(dims, 11));
  }
  REQUIRE(&reader->source() == model->graph.inputs()[0]);
  Engine engine(*model, {.threads = 1, .reference = true});
  const Tensor output = engine.run(inputs)[0];
  const WeightMatrix& matrix = reader->matrix();
  REQUIRE(matrix.size() == weight.size());
  const std::int64_t count = reader->count(inputs[0].dims());
  REQUIRE(count * matrix.groups * matrix.rows == output.size());
  // Every second column, from the last.
  std::vector<std::int64_t> which;
  for (std::int64_t i = count - 1; i >= 0; i -= 2) which.push_back(i);
  std::vector<float> columns(which.size() * static_cast<std::size_t>(matrix.depth));
  for (std::int64_t group = 0; group < matrix.groups; ++group) {
    reader->read(inputs[0].data<float>(), inputs[0].dims(), group, which, columns.data());
    for (std::size_t c = 0; c < which.size(); ++c)
      for (std::int64_t row = 0; row < matrix.rows; ++row) {
        double sum = 0;
        for (std::int64_t d = 0; d < matrix.depth; ++d)
          sum += static_cast<double>(weight.data<float>()[static_cast<std::size_t>(matrix.element(group, row, d))]) *
                 static_cast<double>(columns[c * static_cast<std::size_t>(matrix.depth) + static_cast<std::size_t>(d)]);
        const std::int64_t at = place(output.dims(), group, row, which[c], matrix);
        CHECK(sum == doctest::Approx(output.data<float>()[static_cast<std::size_t>(at)]).epsilon(1e-4));
      }
  }
}

std::string model_of(const std::string& x, const std::string& w, const std::string& node) {
  return "model ir=8 opset=17\ninput x: float32" + x + "\ninitializer w: float32" + w + " = random(1)\ny = " + node +
         "\noutput y\n";
}

TEST_CASE("columns of convolutions") {
  for (const std::string attributes :
       {"", " {pads=[1,2,0,1]}", " {strides=[2,3], pads=[1,1,1,1]}", " {dilations=[2,1], pads=[2,0,1,1]}",
        " {auto_pad=\"SAME_LOWER\", strides=[2,2]}"})
    check(model_of("[2,3,8,7]", "[4,3,3,2]", "Conv(x, w)" + attributes), 1, image_place);
  check(model_of("[2,6,5,5]", "[4,3,3,3]", "Conv(x, w) {group=2, pads=[1,1,1,1]}"), 1, image_place);
  check(model_of("[2,4,5,5]", "[8,1,3,3]", "Conv(x, w) {group=4}"), 1, image_place);
  check(model_of("[2,3,9]", "[4,3,3]", "Conv(x, w) {strides=[2]}"), 1, image_place);
  check(model_of("[1,2,4,5,4]", "[3,2,2,2,2]", "Conv(x, w) {pads=[1,0,0,0,1,0]}"), 1, image_place);
}

TEST_CASE("columns of transposed convolutions") {
  for (const std::string attributes :
       {"", " {strides=[2,2], pads=[1,0,1,1]}", " {strides=[2,3], dilations=[2,1], output_padding=[1,0]}",
        " {strides=[2,2], output_shape=[11,10]}", " {auto_pad=\"SAME_UPPER\", strides=[2,2]}"})
    check(model_of("[2,3,5,4]", "[3,4,3,2]", "ConvTranspose(x, w)" + attributes), 1, image_place);
  check(model_of("[2,6,4,4]", "[6,2,3,3]", "ConvTranspose(x, w) {group=3, strides=[2,2]}"), 1, image_place);
}

TEST_CASE("columns of products") {
  const Place by_rows = [](const Dims& output, std::int64_t, std::int64_t row, std::int64_t column,
                           const WeightMatrix&) { return column * output.back() + row; };
  const Place by_columns = [](const Dims& output, std::int64_t, std::int64_t row, std::int64_t column,
                              const WeightMatrix&) { return row * output.back() + column; };
  check(model_of("[5,6]", "[6,4]", "MatMul(x, w)"), 1, by_rows);
  check(model_of("[2,5,6]", "[6,4]", "MatMul(x, w)"), 1, by_rows);
  check(model_of("[6]", "[6,4]", "MatMul(x, w)"), 1, by_rows);
  check(model_of("[5,6]", "[6]", "MatMul(x, w)"), 1, [](const Dims&, std::int64_t, std::int64_t, std::int64_t column,
                                                       const WeightMatrix&) { return column; });
  check(model_of("[6,5]", "[4,6]", "MatMul(w, x)"), 0, by_columns);
  // Groups: one matrix for each element of the batch.
  check(model_of("[2,3,5,6]", "[3,6,4]", "MatMul(x, w)"), 1,
        [](const Dims& output, std::int64_t group, std::int64_t row, std::int64_t column, const WeightMatrix&) {
          return ((column / 5 * 3 + group) * 5 + column % 5) * output.back() + row;
        });
  for (const bool a : {false, true})
    for (const bool b : {false, true}) {
      const std::string attributes = " {alpha=1.0, transA=" + std::to_string(a) + ", transB=" + std::to_string(b) + "}";
      check(model_of(a ? "[6,5]" : "[5,6]", b ? "[4,6]" : "[6,4]", "Gemm(x, w)" + attributes), 1, by_rows);
      check(model_of(b ? "[5,6]" : "[6,5]", a ? "[6,4]" : "[4,6]", "Gemm(w, x)" + attributes), 0, by_columns);
    }
}

// With the identity as its activation, an RNN is y[t] = W x[t] + R y[t - 1].
TEST_CASE("columns of recurrent weights") {
  for (const std::string direction : {"forward", "reverse", "bidirectional"})
    for (const int layout : {0, 1}) {
      CAPTURE(direction);
      CAPTURE(layout);
      const std::int64_t directions = direction == "bidirectional" ? 2 : 1;
      const std::string d = std::to_string(directions);
      const std::string names = directions == 2 ? "\"Affine\", \"Affine\"" : "\"Affine\"";
      const std::string numbers = directions == 2 ? "1.0, 1.0" : "1.0";
      const auto model = parse_model(
          "model ir=8 opset=17\ninput x: float32[4,3,5]\ninitializer w: float32[" + d + ",2,5] = random(1)\n" +
          "initializer r: float32[" + d + ",2,2] = random(2)\ny = RNN(x, w, r) {hidden_size=2, direction=\"" + direction +
          "\", layout=" + std::to_string(layout) + ", activations=[" + names + "], activation_alpha=[" + numbers +
          "]}\noutput y\n");
      const Node* node = model->graph.nodes()[0];
      std::string reason;
      const auto of_inputs = column_reader(*node, 1, {directions, 2, 5}, reason);
      const auto of_states = column_reader(*node, 2, {directions, 2, 2}, reason);
      REQUIRE(of_inputs);
      REQUIRE(of_states);
      const Tensor x = random_tensor({4, 3, 5}, 3);
      Engine engine(*model, {.threads = 1, .reference = true});
      const Tensor y = engine.run(std::vector<Tensor>{x})[0];
      const std::int64_t steps = layout == 0 ? 4 : 3, batch = layout == 0 ? 3 : 4;
      CHECK(of_inputs->count(x.dims()) == steps * batch);
      CHECK(of_states->count(y.dims()) == (steps - 1) * batch);
      const auto w = node->input(1)->constant()->data<float>(), r = node->input(2)->constant()->data<float>();
      for (std::int64_t group = 0; group < directions; ++group) {
        const bool reverse = direction == "reverse" || group == 1;
        for (std::int64_t t = 1; t < steps; ++t)
          for (std::int64_t b = 0; b < batch; ++b) {
            // The t-th step in the order of the direction, and the state before it.
            const std::int64_t time = reverse ? steps - 1 - t : t;
            const std::int64_t before = reverse ? time : time - 1;
            std::vector<float> input(5), state(2);
            of_inputs->read(x.data<float>(), x.dims(), group, std::vector<std::int64_t>{time * batch + b}, input.data());
            of_states->read(y.data<float>(), y.dims(), group, std::vector<std::int64_t>{before * batch + b}, state.data());
            for (std::int64_t h = 0; h < 2; ++h) {
              double sum = 0;
              for (std::int64_t k = 0; k < 5; ++k)
                sum += static_cast<double>(w[static_cast<std::size_t>((group * 2 + h) * 5 + k)]) *
                       static_cast<double>(input[static_cast<std::size_t>(k)]);
              for (std::int64_t k = 0; k < 2; ++k)
                sum += static_cast<double>(r[static_cast<std::size_t>((group * 2 + h) * 2 + k)]) *
                       static_cast<double>(state[static_cast<std::size_t>(k)]);
              const std::int64_t at = layout == 0 ? ((time * directions + group) * batch + b) * 2 + h
                                                  : ((b * steps + time) * directions + group) * 2 + h;
              CHECK(sum == doctest::Approx(y.data<float>()[static_cast<std::size_t>(at)]).epsilon(1e-4));
            }
          }
      }
    }
}

TEST_CASE("operators without columns say why") {
  const auto model = parse_model("model ir=8 opset=17\ninput i: int64[3]\ninput x: float32[4,2,3]\n"
                                 "initializer w: float32[5,2] = random(1)\n"
                                 "initializer w1: float32[1,8,3] = random(1)\ninitializer r1: float32[1,8,2] = random(1)\n"
                                 "y = Gather(w, i)\n_, h = LSTM(x, w1, r1) {hidden_size=2}\noutput y\noutput h\n");
  std::string reason;
  CHECK_FALSE(column_reader(*model->graph.nodes()[0], 0, {5, 2}, reason));
  CHECK(reason == "Gather is not read as a product of its input 0");
  CHECK_FALSE(column_reader(*model->graph.nodes()[1], 2, {1, 8, 2}, reason));
  CHECK(reason == "its states are not an output");
}

TEST_CASE("columns are streamed from both models at the same positions, in bounded numbers") {
  const auto model = parse_model("model ir=8 opset=17\ninput x: float32[N,3,6,6]\ninitializer w: float32[4,3,3,3] = random(1)\n"
                                 "initializer v: float32[2,4,3,3] = random(2)\na = Conv(x, w)\nb = Relu(a)\ny = Conv(b, v)\n"
                                 "output y\n");
  const auto rounded = model->clone();
  Tensor zero(DType::float32, {4, 3, 3, 3});
  rounded->graph.set_initializer(rounded->graph.find("w"), zero);
  std::string reason;
  const auto reader = column_reader(*model->graph.nodes()[2], 1, {2, 4, 3, 3}, reason);
  REQUIRE(reader);
  GivenData data(random_tensor({20, 3, 6, 6}, 5), Tensor(), 3);
  const Pipeline pipeline = Pipeline::parse("quantize{scheme=weights}");
  std::vector<float> by_threads[2];
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    PassContext context{.options = pipeline.steps[0].options, .pool = pool, .seed = 1, .calibration = &data};
    CalibrationSubset subset(data, 12);
    CHECK(subset.samples() == 12);
    for (int pass = 0; pass < 2; ++pass) {
      std::int64_t count = 0;
      std::vector<float> all;
      stream_columns(*model, rounded.get(), {{{reader.get()}, 24}}, subset, context,
                     [&](std::size_t layer, const ColumnBlock& block) {
                       CHECK(layer == 0);
                       count += block.count;
                       CHECK(std::ssize(block.exact) == block.count * 36);
                       // Relu of a convolution with zeros.
                       CHECK(std::ranges::all_of(block.rounded, [](float v) { return v == 0; }));
                       CHECK(std::ranges::any_of(block.exact, [](float v) { return v > 0; }));
                       all.insert(all.end(), block.exact.begin(), block.exact.end());
                     });
      CHECK(count >= 20);
      CHECK(count <= 32);
      std::vector<float>& kept = by_threads[threads == 1 ? 0 : 1];
      if (pass == 0)
        kept = all;
      else
        CHECK(kept == all);
    }
  }
  CHECK(by_threads[0] == by_threads[1]);
  GivenData none(Tensor(DType::float32, {0, 3, 6, 6}), Tensor(), 3);
  CHECK_THROWS_AS(CalibrationSubset(none, 5), Error);
}

}  // namespace
}  // namespace onnxpress
