// Post-ops, layouts and parts of the rows on oneDNN.
#include "tests/graph/kernels/post_ops.h"

namespace onnxpress::rows {
namespace {

// Formulas of oneDNN's own on sums in another order.
constexpr double tolerance = 1e-5;

struct Image {
  std::string x, w, attributes;
  std::int64_t filters;
};

std::string conv(const std::string& op, const Image& image) {
  return fmt::format(
      "input x: float32[{}]\ninitializer w: float32[{}] = random(3,-0.5,0.5)\n"
      "initializer b: float32[{}] = random(4)\ny = {}(x, w, b) {{{}}}\noutput y\n",
      image.x, image.w, image.filters, op, image.attributes);
}

// Square roots of negative numbers are NaN everywhere; poles and kinks amplify rounding.
bool is_smooth(const PostOp& op) {
  return op.kind != PostOp::Kind::sqrt && op.kind != PostOp::Kind::reciprocal;
}

struct Layouts {
  Layout input, output;
};
constexpr Layouts layouts[] = {{Layout::row_major, Layout::row_major},
                               {Layout::row_major, Layout::channels_last},
                               {Layout::channels_last, Layout::row_major},
                               {Layout::channels_last, Layout::channels_last}};

// The operand of an addition has the output's dims.
RowOptions with_operand(const std::string& text, const std::vector<PostOp>& ops, int opset = 17) {
  const Case plain(text, opset);
  RowOptions options{.post_ops = ops};
  for (std::size_t i = 0; i < plain.inputs().size(); ++i)
    if (!plain.node().input(i)->constant()) options.given.push_back(plain.inputs()[i]);
  options.given.push_back(random_tensor(DType::float32, plain.run_reference().dims(), 31));
  return options;
}

// Every operation that the row takes, behind each other's absence; returns how many.
int check_each_post_op(const std::string& text, std::span<const Layouts> in) {
  const Case plain(text);
  REQUIRE(plain.is_supported());
  int taken = 0;
  for (const PostOp& op : all_post_ops(plain.inputs().size())) {
    CAPTURE(static_cast<int>(op.kind));
    if (!is_smooth(op) || !plain.fuses(op)) continue;
    ++taken;
    RowOptions options = with_operand(text, {op});
    for (const auto& [input, output] : in) {
      options.input = input;
      options.layout = output;
      check_post_ops(text, tolerance, options);
    }
  }
  return taken;
}

const std::vector<PostOp> residual(std::size_t operand) {
  return {{.kind = PostOp::Kind::add, .operand = operand}, {.kind = PostOp::Kind::relu}};
}

// An addition and what follows, with the operand's memory apart and the output's own.
void check_residual(const std::string& text, std::span<const Layouts> in) {
  CAPTURE(text);
  const std::size_t operand = Case(text).inputs().size();
  if (!Case(text).fuses({.kind = PostOp::Kind::add, .operand = operand})) return;
  for (const auto& ops :
       {residual(operand), std::vector<PostOp>{{.kind = PostOp::Kind::relu},
                                               {.kind = PostOp::Kind::add, .operand = operand}}}) {
    RowOptions options = with_operand(text, ops);
    for (const auto& [input, output] : in) {
      options.input = input;
      options.layout = output;
      const Case test(text, 17, options);
      REQUIRE(test.is_supported());
      const Tensor expected = with_post_ops(test, test.run_reference(), ops);
      check_floats(test.run_fast(), expected, tolerance);
      check_floats(test.run_fast_in_place(operand), expected, tolerance);
    }
  }
}

const std::vector<Image> convolutions{
    {"2,3,15", "8,3,3", "pads=[1,1]", 8},
    {"2,6,15", "10,3,4", "group=2, strides=[2]", 10},
    {"1,3,11,9", "8,3,3,3", "pads=[1,1,1,1]", 8},
    {"2,16,7,6", "32,16,3,3", "strides=[2,2], pads=[1,1,1,1]", 32},
    {"1,17,5,6", "19,17,1,1", "", 19},
    {"2,24,6,5", "24,1,3,3", "group=24, pads=[1,1,1,1]", 24},
    {"1,13,6,5", "13,1,3,3", "group=13, pads=[1,1,1,1]", 13},
    {"1,12,6,5", "24,4,3,2", "group=3", 24},
    {"3,20,1,1", "9,20,1,1", "", 9},
    {"1,3,4,5,6", "5,3,2,3,3", "pads=[0,1,1,1,1,1]", 5},
    {"1,16,4,4,3", "16,16,1,1,1", "", 16},
    {"1,6,4,5,4", "6,1,3,3,3", "group=6", 6}};

const std::vector<Image> transposed{
    {"2,3,7", "3,8,3", "strides=[2]", 8},
    {"1,5,4,6", "5,7,3,3", "strides=[2,2], pads=[1,1,1,1]", 7},
    {"2,16,4,5", "16,16,2,2", "strides=[2,2]", 16},
    {"1,8,5,5", "8,2,3,3", "group=4, strides=[2,2], output_padding=[1,1]", 8},
    {"1,8,5,5", "8,1,3,3", "group=8", 8},
    {"1,4,3,4,3", "4,5,2,2,2", "strides=[2,2,2]", 5}};

TEST_CASE("convolutions on oneDNN take images in either layout") {
  const auto check = [](const char* op, const std::vector<Image>& images) {
    for (const Image& image : images)
      for (const auto& [input, output] : layouts)
        check_rows(conv(op, image), reassociated, 17, {.input = input, .layout = output});
  };
  check("Conv", convolutions);
  check("ConvTranspose", transposed);
}

TEST_CASE("convolutions on oneDNN apply post-ops") {
  for (const Image& image : convolutions) {
    CHECK(check_each_post_op(conv("Conv", image), std::span(layouts).subspan(3)) >= 14);
  }
  CHECK(check_each_post_op(conv("Conv", convolutions[3]), layouts) == 15);
  for (const Image& image : transposed)
    CHECK(check_each_post_op(conv("ConvTranspose", image), std::span(layouts).first(1)) >= 14);
}

TEST_CASE("convolutions on oneDNN add to what the output's memory holds or another's") {
  for (const Image& image : convolutions) check_residual(conv("Conv", image), layouts);
  for (const Image& image : transposed) check_residual(conv("ConvTranspose", image), layouts);
}

TEST_CASE("products on oneDNN apply post-ops") {
  const std::vector<std::string> products{
      "input a: float32[7,13]\ninitializer b: float32[13,9] = random(3)\ny = MatMul(a, b)\n",
      "input a: float32[2,3,7,13]\ninput b: float32[2,3,13,5]\ny = MatMul(a, b)\n",
      "input a: float32[2,7,13]\ninitializer b: float32[13,32] = random(3)\ny = MatMul(a, b)\n",
      "input a: float32[1,33]\ninitializer b: float32[33,17] = random(3)\n"
      "initializer c: float32[17] = random(4)\ny = Gemm(a, b, c)\n",
      "input a: float32[6,33]\ninitializer b: float32[17,33] = random(3)\n"
      "y = Gemm(a, b) {transB=1, alpha=0.5}\n"};
  for (const std::string& product : products) {
    const std::string text = product + "output y\n";
    CHECK(check_each_post_op(text, std::span(layouts).first(1)) == 15);
    check_residual(text, std::span(layouts).first(1));
  }
}

TEST_CASE("one addition and each algorithm once go behind a primitive") {
  const std::string text = conv("Conv", convolutions[2]);
  const PostOp add{.kind = PostOp::Kind::add, .operand = 3};
  CHECK(Case(text).fuses(add));
  const Case full(text, 17, {.post_ops = {{.kind = PostOp::Kind::relu}, add}});
  CHECK_FALSE(full.fuses(add));
  CHECK(full.fuses({.kind = PostOp::Kind::sigmoid}));
  for (const auto kind : {PostOp::Kind::relu, PostOp::Kind::leaky_relu})  // one algorithm
    CHECK_FALSE(full.fuses({.kind = kind, .alpha = 0.1f}));
  for (const auto kind : {PostOp::Kind::multiply, PostOp::Kind::reciprocal, PostOp::Kind::erf})
    CHECK_FALSE(Case(text).fuses({.kind = kind, .operand = 3}));
}

TEST_CASE("Winograd's convolution, a few images at a time, stays within 1e-5 of the range") {
  for (const int batch : {1, 7, 9, 11, 12, 16})
    for (const auto& [channels, filters] : {std::pair{32, 32}, std::pair{48, 33}}) {
      const Image image{fmt::format("{},{},9,10", batch, channels),
                        fmt::format("{},{},3,3", filters, channels), "pads=[1,1,1,1]", filters};
      const std::string text = conv("Conv", image);
      CAPTURE(text);
      for (const auto& [input, output] : layouts) {
        check_rows(text, 1e-5, 17, {.input = input, .layout = output, .may_approximate = true});
        RowOptions options = with_operand(text, residual(3));
        options.input = input;
        options.layout = output;
        options.may_approximate = true;
        const Case test(text, 17, options);
        const Tensor expected = with_post_ops(test, test.run_reference(), options.post_ops);
        check_floats(test.run_fast(), expected, 1e-5);
        check_floats(test.run_fast_in_place(3), expected, 1e-5);
      }
    }
}

}  // namespace
}  // namespace onnxpress::rows
