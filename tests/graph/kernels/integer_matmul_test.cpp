// Integer products and DynamicQuantizeLinear against the reference rows.
#include <hwy/targets.h>

#include <limits>

#include "graph/kernels/quantized_loops.h"
#include "graph/kernels/quantized_primitive.h"
#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

template <class Body>
void on_every_target(const Body& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    CAPTURE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

struct Codes {
  std::string a_type, b_type;
  std::string a_zero, b_zero;  // initializers of az, bz; empty: omitted
};

std::vector<Codes> zero_points(int columns) {
  const std::string by_column = fmt::format("initializer bz: BT[{}] = random(8,1,20)\n", columns);
  std::vector<Codes> all;
  for (const char* a : {"uint8", "int8"})
    for (const char* b : {"int8", "uint8"})
      for (const char* a_zero : {"", "initializer az: AT[] = {100}\n", "initializer az: AT[1] = {0}\n"})
        for (const std::string& b_zero : {std::string(), std::string("initializer bz: BT[] = {77}\n"), by_column})
          all.push_back({a, b, a_zero, b_zero});
  return all;
}

std::string with_types(std::string text, const Codes& c) {
  for (const auto& [mark, type] : {std::pair("AT", c.a_type), std::pair("XT", c.a_type), std::pair("BT", c.b_type)})
    for (std::size_t at = text.find(mark); at != std::string::npos; at = text.find(mark))
      text.replace(at, 2, type);
  return text;
}

std::string operands(const std::string& a, const std::string& b, const Codes& c) {
  return with_types(fmt::format("input a: AT[{}]\ninitializer b: BT[{}] = random(3,{},127)\n", a, b,
                                c.b_type == "int8" ? -128 : 0) + c.a_zero + c.b_zero, c);
}

const std::vector<std::pair<std::string, std::string>> shapes{
    {"1,7", "7,5"}, {"6,64", "64,33"}, {"2,3,70", "70,17"}, {"300", "300,10"}, {"2,1,4,31", "31,48"}};

TEST_CASE("MatMulInteger on oneDNN equals the reference") {
  for (const auto& [a, b] : shapes)
    for (const Codes& c : zero_points(std::stoi(b.substr(b.find(',') + 1)))) {
      const std::string text = operands(a, b, c) + fmt::format("y = MatMulInteger(a, b, {}, {})\noutput y\n",
                                                               c.a_zero.empty() ? "_" : "az", c.b_zero.empty() ? "_" : "bz");
      CAPTURE(text);
      const Case test(text, 17, {.threads = 2});
      REQUIRE(test.is_supported() == onednn::has_exact_sums());
      if (test.is_supported()) CHECK(test.run_fast().equals(test.run_reference()));
    }
}

TEST_CASE("MatMulIntegerToFloat on oneDNN equals the reference") {
  for (const std::size_t shape : {std::size_t{1}, std::size_t{2}}) {
    const auto& [a, b] = shapes[shape];
    const std::string columns = b.substr(b.find(',') + 1);
    std::size_t turn = 0;  // scales per column or one, with and without a bias
    for (const Codes& c : zero_points(std::stoi(columns))) {
      const bool per_column = turn % 2 == 0, bias = turn++ % 3 == 0;
      const std::string text =
          operands(a, b, c) + "initializer as: float32[] = {0.013}\n" +
          fmt::format("initializer bs: float32[{}] = random(5,0.001,0.01)\n", per_column ? columns : "1") +
          fmt::format("initializer c: float32[{}] = random(6)\n", columns) +
          fmt::format("y = com.microsoft.MatMulIntegerToFloat(a, b, as, bs, {}, {}{})\noutput y\n",
                      c.a_zero.empty() ? "_" : "az", c.b_zero.empty() ? "_" : "bz", bias ? ", c" : "");
      CAPTURE(text);
      const Case test(text, 17, {.threads = 2});
      REQUIRE(test.is_supported() == onednn::has_exact_sums());
      if (!test.is_supported()) continue;
      const Tensor found = test.run_fast(), expected = test.run_reference();
      REQUIRE(found.dims() == expected.dims());
      for (std::size_t i = 0; i < found.data<float>().size(); ++i)
        CHECK(std::abs(found.data<float>()[i] - expected.data<float>()[i]) <=
              1e-5F * (1 + std::abs(expected.data<float>()[i])));
    }
  }
}

TEST_CASE("what integer products on oneDNN do not take goes to the reference") {
  CHECK_FALSE(is_supported("input a: uint8[2,3]\ninput b: int8[3,4]\ny = MatMulInteger(a, b)\noutput y\n"));
  CHECK_FALSE(is_supported("input a: uint8[2,3]\ninitializer b: int8[5,3,4] = random(1,-9,9)\n"
                           "y = MatMulInteger(a, b)\noutput y\n"));
  CHECK_FALSE(is_supported("input a: uint8[2,3]\ninitializer b: int8[3,4] = random(1,-9,9)\n"
                           "initializer az: uint8[2] = {1,2}\ny = MatMulInteger(a, b, az)\noutput y\n"));
}

TEST_CASE("ConvInteger on oneDNN equals the reference in either layout") {
  struct Shape {
    const char *x, *w, *attributes;
  };
  for (const Shape& shape : {Shape{"2,3,9,8", "16,3,3,3", "pads=[1,1,1,1]"}, Shape{"1,16,7,7", "32,16,3,3", "pads=[0,1,2,1], strides=[2,2]"},
                             Shape{"1,17,5,6", "19,17,1,1", ""}, Shape{"1,24,6,7", "24,1,3,3", "group=24, pads=[1,1,1,1]"},
                             Shape{"1,8,20", "8,8,5", "pads=[2,2], dilations=[2]"}})
    for (const char* x : {"uint8", "int8"})
      for (const bool is_unsigned : {true, false})
        for (const char* zero : {"", "initializer xz: XT[] = {100}\n", "initializer xz: XT[] = {0}\n"})
          for (const Layout layout : {Layout::row_major, Layout::channels_last}) {
            const std::string w = is_unsigned ? "uint8" : "int8";
            const std::string text =
                with_types(fmt::format("input x: {}[{}]\ninitializer w: {}[{}] = random(3,{},127)\n{}", x, shape.x, w, shape.w,
                                       is_unsigned ? 0 : -128, zero), {x, w, "", ""}) +
                (is_unsigned ? "initializer wz: uint8[] = {128}\n" : "") +
                fmt::format("y = ConvInteger(x, w, {}, {}) {{{}}}\noutput y\n", *zero ? "xz" : "_", is_unsigned ? "wz" : "_",
                            shape.attributes);
            CAPTURE(text);
            const Case test(text, 17, {.threads = 2, .input = layout, .layout = layout});
            REQUIRE(test.is_supported() == onednn::has_exact_sums());
            if (test.is_supported()) CHECK(test.run_fast().equals(test.run_reference()));
          }
}

TEST_CASE("DynamicQuantizeLinear by vectors equals the reference at every size") {
  on_every_target([] {
    for (int size = 1; size <= 70; ++size)
      for (const std::size_t output : {0, 1, 2}) {
        const std::string text = fmt::format("input x: float32[{}]\ny, s, z = DynamicQuantizeLinear(x)\noutput y\n"
                                             "output s\noutput z\n", size);
        const Case test(text, 17, {.output = output});
        REQUIRE(test.is_supported());
        CHECK(test.run_fast().equals(test.run_reference()));
      }
  });
}

TEST_CASE("the range of floats by vectors is that of a loop") {
  std::vector<float> values;
  for (int i = 0; i < 200; ++i) values.push_back(static_cast<float>((i * 7919) % 401 - 200));
  values[3] = std::numeric_limits<float>::quiet_NaN();
  on_every_target([&] {
    for (std::int64_t count = 0; count <= 200; ++count) {
      float low = 0, high = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        if (values[static_cast<std::size_t>(i)] < low) low = values[static_cast<std::size_t>(i)];
        if (values[static_cast<std::size_t>(i)] > high) high = values[static_cast<std::size_t>(i)];
      }
      const FloatRange found = range_loop(values.data(), count);
      CHECK(found.low == low);
      CHECK(found.high == high);
    }
  });
}

}  // namespace
}  // namespace onnxpress::rows
