#include <hwy/targets.h>

#include <limits>

#include "tests/graph/kernels/post_ops.h"

namespace onnxpress::rows {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

struct Unary {
  std::string call;  // "Elu(x) {alpha=0.5}"
  int opset = 17;
  double relative = 2e-6, absolute = 2e-6;
};

const std::vector<Unary>& unary_operators() {
  static const std::vector<Unary> all{
      {"Relu(x)", 17, 0, 0},
      {"Relu(x)", 6, 0, 0},
      {"LeakyRelu(x)", 17, 0, 0},
      {"LeakyRelu(x) {alpha=-0.3}", 6, 0, 0},
      {"Clip(x) {min=-0.5, max=1.5}", 6, 0, 0},
      {"Clip(x) {max=6.0}", 6, 0, 0},
      {"Clip(x) {min=0.0}", 10, 0, 0},
      {"Clip(x)", 6, 0, 0},
      {"Clip(x, low, high)", 13, 0, 0},
      {"Clip(x, low)", 11, 0, 0},
      {"Clip(x, _, high)", 13, 0, 0},
      {"Clip(x)", 13, 0, 0},
      {"Elu(x)"},
      {"Elu(x) {alpha=0.5}", 6},
      {"Sigmoid(x)", 17, 2e-6, 1e-37},
      {"Tanh(x)", 17, 2e-6, 1e-37},
      {"HardSigmoid(x)", 17, 2e-7, 2e-7},
      {"HardSigmoid(x) {alpha=0.1, beta=0.6}", 6, 2e-7, 2e-7},
      {"HardSwish(x)", 14, 2e-7, 2e-7},
      {"Swish(x)", 24},
      {"Swish(x) {alpha=2.5}", 24},
      {"Swish(x) {alpha=-1.0}", 24},
      {"Mish(x)", 18},
      {"Gelu(x)", 20},
      {"Gelu(x) {approximate=\"tanh\"}", 20},
      {"Softplus(x)", 17},
      {"Erf(x)", 13},
      {"Exp(x)", 13, 2e-6, 1e-37},
      {"Sqrt(x)", 13, 0, 0},
      {"Abs(x)", 13, 0, 0},
      {"Reciprocal(x)", 13, 0, 0},
      {"Neg(x)", 13, 0, 0},
      {"com.microsoft.Gelu(x)"},
      {"com.microsoft.FastGelu(x)"},
      {"com.microsoft.QuickGelu(x)"},
      {"com.microsoft.QuickGelu(x) {alpha=0.5}"},
  };
  return all;
}

std::string unary_text(const Unary& op, std::int64_t size) {
  return fmt::format(
      "input x: float32[{}]\ninitializer low: float32[] = {{-0.75}}\n"
      "initializer high: float32[] = {{0.5}}\ny = {}\noutput y\n",
      size, op.call);
}

std::vector<float> specials() {
  std::vector<float> values{nan, 1, -nan};
  for (const float x :
       {0.0f,   1e-45f, 1e-39f, 1.2e-38f, 1e-20f, 1e-8f, 1e-5f,   3e-4f,   0.1f,  0.5f,
        1.0f,   2.999f, 3.0f,   3.9f,     4.0f,   4.1f,  5.6f,    5.7f,    7.9f,  9.1f,
        17.0f,  20.0f,  44.0f,  87.0f,    87.4f,  88.0f, 88.72f,  88.73f,  89.0f, 103.0f,
        104.0f, 200.0f, 1e5f,   1e10f,    1e19f,  1e30f, 3.4e38f, infinity})
    for (const float sign : {1.0f, -1.0f}) values.push_back(sign * x);
  return values;
}

Tensor specials_tensor() {
  const std::vector<float> values = specials();
  return Tensor::of<float>({static_cast<std::int64_t>(values.size())}, values);
}

Tensor grid(float low, float high, int count) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i)
    values.push_back(low + (high - low) * static_cast<float>(i) / static_cast<float>(count - 1));
  return Tensor::of<float>({count}, values);
}

// Element by element, unlike check_floats; names what was computed of `x`.
void check_each(const Tensor& x, const Tensor& found, const Tensor& expected, double relative,
                double absolute) {
  REQUIRE(found.dims() == expected.dims());
  const auto a = found.data<float>(), b = expected.data<float>();
  int wrong = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double exact_value = static_cast<double>(b[i]);
    const double difference = std::abs(static_cast<double>(a[i]) - exact_value);
    const bool close = std::isfinite(b[i])
                           ? difference <= relative * std::abs(exact_value) + absolute
                       : std::isnan(b[i]) ? std::isnan(a[i])
                                          : a[i] == b[i];
    if (!close && ++wrong <= 3)
      MESSAGE("of ", x.data<float>()[i % static_cast<std::size_t>(x.size())], ": expected ", b[i],
              ", found ", a[i]);
  }
  CHECK(wrong == 0);
}

void check_unary(const Unary& op, const Tensor& x) {
  CAPTURE(op.call);
  const Case test(unary_text(op, x.size()), op.opset, {.backend = "elementwise", .given = {x}});
  REQUIRE(test.is_supported());
  check_each(x, test.run_fast(), test.run_reference(), op.relative, op.absolute);
}

template <class Body>
void on_every_target(const Body& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    CAPTURE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST_CASE("elementwise rows of one operand equal the reference at every size") {
  on_every_target([] {
    for (const Unary& op : unary_operators())
      for (std::int64_t size = 1; size <= 70; ++size) {
        CAPTURE(size);
        check_unary(op, random_tensor(DType::float32, {size}, 5));
      }
  });
}

TEST_CASE("elementwise rows of one operand equal the reference on grids and special numbers") {
  on_every_target([] {
    for (const Unary& op : unary_operators()) {
      check_unary(op, specials_tensor());
      check_unary(op, grid(-12, 12, 4001));
      check_unary(op, grid(-0.01f, 0.01f, 1001));
    }
  });
}

TEST_CASE("elementwise rows run in parallel and in place") {
  const Tensor x = random_tensor(DType::float32, {3, 50021}, 6);
  for (const Unary& op : unary_operators()) {
    CAPTURE(op.call);
    std::string text = unary_text(op, 1);
    text.replace(text.find("[1]"), 3, "[3,50021]");
    const Case test(text, op.opset, {.threads = 3, .backend = "elementwise", .given = {x}});
    const Tensor expected = test.run_reference();
    check_each(x, test.run_fast(), expected, op.relative, op.absolute);
    const Case in_place(text, op.opset, {.threads = 3, .backend = "elementwise", .given = {x}});
    check_each(x, in_place.run_fast_in_place(0), expected, op.relative, op.absolute);
  }
  const Case scalar("input x: float32[]\ny = Exp(x)\noutput y\n");
  check_floats(scalar.run_fast(), scalar.run_reference(), reassociated);
}

TEST_CASE("bounds of Clip that are not known go to the reference") {
  CHECK_FALSE(
      is_supported("input x: float32[3]\ninput low: float32[]\ny = Clip(x, low)\noutput y\n", 13));
  CHECK_FALSE(is_supported(
      "input x: float32[3]\ninitializer low: float32[] = {nan}\ny = Clip(x, low)\noutput y\n", 13));
  CHECK_FALSE(
      is_supported("input x: float32[3]\ninitializer low: float32[] = {2}\n"
                   "initializer high: float32[] = {1}\ny = Clip(x, low, high)\noutput y\n",
                   13));
  CHECK_FALSE(is_supported("input x: float64[3]\ny = Relu(x)\noutput y\n"));
  CHECK_FALSE(is_supported(
      "input x: float32[3]\ninput b: float32[3]\ny = com.microsoft.FastGelu(x, b)\noutput y\n"));
}

struct Binary {
  std::string name;
  int opset = 17;
};

const std::vector<Binary> binary_operators{{"Add"}, {"Sub"},   {"Mul"},    {"Div"},   {"Min"},
                                           {"Max"}, {"PRelu"}, {"Add", 7}, {"Max", 8}};

std::string binary_text(const std::string& name, const std::string& a, const std::string& b,
                        const std::string& attributes = "") {
  return fmt::format("input a: float32[{}]\ninput b: float32[{}]\ny = {}(a, b){}\noutput y\n", a, b,
                     name, attributes);
}

TEST_CASE("elementwise rows of two operands equal the reference however they broadcast") {
  const std::vector<std::pair<std::string, std::string>> shapes{{"", ""},
                                                                {"1", "1"},
                                                                {"7", ""},
                                                                {"2,3,4,5", "2,3,4,5"},
                                                                {"2,3,4,5", "5"},
                                                                {"2,3,4,5", "1"},
                                                                {"2,3,4,5", ""},
                                                                {"2,3,4,5", "3,1,1"},
                                                                {"2,3,4,5", "4,1"},
                                                                {"2,3,4,5", "2,1,4,1"},
                                                                {"2,3,4,5", "1,3,1,5"},
                                                                {"2,3,1,1", "2,3,1,1"},
                                                                {"3,2100", "3,1"},
                                                                {"3,2100", "2100"},
                                                                {"1100,3", "3"},
                                                                {"1100,3", "1100,1"}};
  for (const Binary& op : binary_operators)
    for (const auto& [a, b] : shapes) {
      for (const int threads : {1, 3})
        check_rows(binary_text(op.name, a, b), exact, op.opset,
                   {.threads = threads, .backend = "elementwise"});
      if (op.name != "PRelu")  // a slope broadcasts to x only
        check_rows(binary_text(op.name, b, a), exact, op.opset, {.backend = "elementwise"});
    }
  for (const Binary& op : binary_operators)
    if (op.name != "PRelu") {
      check_rows(binary_text(op.name, "4,1", "3,1,5"), exact, op.opset, {.backend = "elementwise"});
      check_rows(binary_text(op.name, "1,6,1", "5,1,7"), exact, op.opset,
                 {.backend = "elementwise"});
    }
}

TEST_CASE("elementwise rows of two operands equal the reference at every size") {
  on_every_target([] {
    for (const Binary& op : binary_operators)
      for (std::int64_t size = 1; size <= 70; ++size) {
        const std::string dims = fmt::format("{}", size);
        check_rows(binary_text(op.name, dims, dims), exact, op.opset, {.backend = "elementwise"});
        check_rows(binary_text(op.name, "2," + dims, "2,1"), exact, op.opset);
      }
  });
}

TEST_CASE("elementwise rows of two operands equal the reference on special numbers") {
  const Tensor x = specials_tensor();
  const std::int64_t n = x.size();
  on_every_target([&] {
    for (const Binary& op : binary_operators) {
      CAPTURE(op.name);
      const std::string matrix = fmt::format("{},{}", n, n);
      // All pairs: both operands spread out, then one of them.
      Tensor rows(DType::float32, {n, n}), columns(DType::float32, {n, n});
      for (std::size_t i = 0; i < rows.data<float>().size(); ++i) {
        const auto count = static_cast<std::size_t>(n);
        rows.mutable_data<float>()[i] = x.data<float>()[i / count];
        columns.mutable_data<float>()[i] = x.data<float>()[i % count];
      }
      const Case spread(binary_text(op.name, matrix, matrix), op.opset, {.given = {rows, columns}});
      check_each(x, spread.run_fast(), spread.run_reference(), 0, 0);
      const Case right(binary_text(op.name, matrix, fmt::format("{},1", n)), op.opset,
                       {.given = {columns, x.reshaped({n, 1})}});
      check_each(x, right.run_fast(), right.run_reference(), 0, 0);
      if (op.name == "PRelu") continue;
      const Case outer(binary_text(op.name, fmt::format("{},1", n), fmt::format("{}", n)), op.opset,
                       {.given = {x.reshaped({n, 1}), x}});
      check_each(x, outer.run_fast(), outer.run_reference(), 0, 0);
    }
  });
}

TEST_CASE("elementwise rows of two operands write over either") {
  for (const Binary& op : binary_operators)
    for (const std::string dims : {"3", "70", "5,3001"})
      for (const std::size_t place : {std::size_t{0}, std::size_t{1}}) {
        CAPTURE(op.name);
        const Case test(binary_text(op.name, dims, dims), op.opset, {.threads = 2});
        check_floats(test.run_fast_in_place(place), test.run_reference(), exact);
        if (place == 1) continue;
        const Case row(binary_text(op.name, dims, "1"), op.opset, {.threads = 2});
        check_floats(row.run_fast_in_place(0), row.run_reference(), exact);
      }
}

TEST_CASE("operators before opset 7 align their second operand by attributes") {
  for (const char* name : {"Add", "Sub", "Mul", "Div"}) {
    const auto check = [&](const char* b, const char* attributes) {
      check_rows(binary_text(name, "2,3,4,5", b, attributes), exact, 6, {.backend = "elementwise"});
    };
    check("2,3,4,5", "");
    check("3,4", " {broadcast=1, axis=1}");
    check("3", " {broadcast=1, axis=1}");
    check("2", " {broadcast=1, axis=0}");
    check("5", " {broadcast=1, axis=3}");
    check("4,5", " {broadcast=1}");
    check("1", " {broadcast=1}");
    check("", " {broadcast=1}");
  }
  CHECK_FALSE(is_supported(binary_text("PRelu", "2,3,4", "3"), 6));
  check_rows(binary_text("PRelu", "2,3,4", "3,1"), exact, 7);
  CHECK_FALSE(
      is_supported("input a: float32[3]\ninput b: float32[3]\ninput c: float32[3]\n"
                   "y = Max(a, b, c)\noutput y\n",
                   13));
}

TEST_CASE("elementwise rows apply every post-op") {
  for (const int size : {1, 7, 70, 3000}) {
    const Dims dims{2, size};
    const Tensor x = random_tensor(DType::float32, dims, 21);
    const Tensor y = random_tensor(DType::float32, dims, 22);
    const Tensor other = random_tensor(DType::float32, dims, 23);
    const std::string shape = fmt::format("2,{}", size);
    const std::string unary = fmt::format("input x: float32[{}]\ny = Neg(x)\noutput y\n", shape);
    for (const PostOp& op : all_post_ops(1)) {
      CAPTURE(static_cast<int>(op.kind));
      const Case test(unary, 17, {.backend = "elementwise"});
      CHECK(test.fuses(op));
      check_post_ops(
          unary, reassociated,
          {.threads = 2, .backend = "elementwise", .post_ops = {op}, .given = {x, other}});
    }
    for (const PostOp& op : all_post_ops(2)) {
      CAPTURE(static_cast<int>(op.kind));
      const std::string text = binary_text("Add", shape, shape);
      const std::vector<PostOp> chain{
          op, {.kind = PostOp::Kind::multiply, .operand = 2}, {.kind = PostOp::Kind::tanh}};
      check_post_ops(text, 4e-6, {.threads = 2, .post_ops = chain, .given = {x, y, other}});
      const RowOptions options{.post_ops = chain, .given = {x, y, other}};
      const Case test(text, 17, options);
      const Tensor expected = with_post_ops(test, test.run_reference(), chain);
      for (const std::size_t place : {0, 1, 2})
        check_floats(test.run_fast_in_place(place), expected, 4e-6);
    }
  }
}

}  // namespace
}  // namespace onnxpress::rows
