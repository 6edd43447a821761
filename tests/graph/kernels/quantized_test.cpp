// Rows on 8-bit codes against the reference rows.
#include <hwy/targets.h>

#include <cstdlib>
#include <limits>

#include "graph/kernels/depthwise_codes.h"
#include "graph/kernels/quantized_primitive.h"
#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

// Rows that only exist where oneDNN sums products exactly.
bool is_product(const Node& node) {
  return node.op_type() == "QLinearConv" || node.op_type() == "QGemm";
}

// Codes within one quantum, and equal for at least 99 of 100 (small outputs: all but one).
void check_codes(const std::string& text, RowOptions options = {}, int opset = 17) {
  CAPTURE(text);
  const Case test(text, opset, std::move(options));
  if (is_product(test.node()) && !onednn::has_exact_sums()) {
    CHECK_FALSE(test.is_supported());
    return;
  }
  REQUIRE(test.is_supported());
  const Tensor found = test.run_fast(), expected = test.run_reference();
  REQUIRE(found.dtype() == expected.dtype());
  REQUIRE(found.dims() == expected.dims());
  const auto a = found.to_ints(), b = expected.to_ints();
  std::int64_t most = 0;
  std::size_t different = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max<std::int64_t>(most, std::abs(a[i] - b[i]));
    different += a[i] != b[i];
  }
  CHECK(most <= 1);
  CHECK(different <= 1 + a.size() / 100);
}

void check_equal(const std::string& text, RowOptions options = {}, int opset = 17) {
  CAPTURE(text);
  const Case test(text, opset, std::move(options));
  REQUIRE(test.is_supported());
  CHECK(test.run_fast().equals(test.run_reference()));
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

// "initializer <name>: <type>[...] = ..." of a scalar.
std::string scalar(const std::string& name, const std::string& type, double value) {
  return fmt::format("initializer {}: {}[] = {{{}}}\n", name, type, value);
}

struct Product {
  std::string x, w, attributes;
  std::int64_t filters, depth;  // products of one sum
};

// What codes and scales a product has.
struct Codes {
  std::string x_type = "uint8", y_type = "uint8";
  int x_zero = 128, y_zero = 128;
  bool per_channel = true, bias = true;
  int weights = 127;   // largest
  double spread = 50;  // of the output, in codes: 50 saturates few, 300 most
};

std::string scales(const Product& p, const Codes& c) {
  const double w_scale = 0.01;
  std::string text =
      scalar("xs", "float32", 0.02) + scalar("xz", c.x_type, c.x_zero) +
      (c.per_channel ? fmt::format("initializer ws: float32[{}] = random(5,0.005,0.015)\n"
                                   "initializer wz: int8[{}] = zeros\n",
                                   p.filters, p.filters)
                     : scalar("ws", "float32", w_scale) + scalar("wz", "int8", 0));
  const double products = 74 * 0.58 * c.weights * std::sqrt(static_cast<double>(p.depth));
  text += scalar("ys", "float32", 0.02 * w_scale * products / c.spread);
  text += scalar("yz", c.y_type, c.y_zero);
  if (c.bias)
    text += fmt::format("initializer b: int32[{}] = random(6,{},{})\n", p.filters,
                        static_cast<int>(-products), static_cast<int>(products));
  return text;
}

std::string qlinear_conv(const Product& p, const Codes& c, const std::string& domain = "") {
  return fmt::format("input x: {}[{}]\ninitializer w: int8[{}] = random(3,{},{})\n", c.x_type, p.x,
                     p.w, -c.weights, c.weights) +
         scales(p, c) +
         fmt::format("y = {}QLinearConv(x, xs, xz, w, ws, wz, ys, yz{}) {{{}}}\noutput y\n", domain,
                     c.bias ? ", b" : "", p.attributes);
}

std::string qgemm(const Product& p, const Codes& c, bool is_float) {
  return fmt::format("input x: {}[{}]\ninitializer w: int8[{}] = random(3,{},{})\n", c.x_type, p.x,
                     p.w, -c.weights, c.weights) +
         scales(p, c) +
         fmt::format("y = com.microsoft.QGemm(x, xs, xz, w, ws, wz, {}{}) {{{}}}\noutput y\n",
                     c.bias ? "b" : "_", is_float ? "" : ", ys, yz", p.attributes);
}

const std::vector<Codes>& all_codes() {
  static const std::vector<Codes> all{
      {},
      {.x_zero = 0, .y_zero = 0},
      {.x_zero = 255, .y_zero = 255, .bias = false},
      {.x_zero = 7, .per_channel = false},
      {.x_type = "int8", .y_type = "int8", .x_zero = 0, .y_zero = 0},
      {.x_type = "int8", .y_type = "int8", .x_zero = -128, .y_zero = -20, .per_channel = false},
      {.x_type = "int8", .y_type = "int8", .x_zero = 33, .y_zero = 127, .bias = false},
      {.weights = 60},
      {.spread = 400},
      {.x_type = "int8", .y_type = "int8", .x_zero = 5, .y_zero = 3, .spread = 400}};
  return all;
}

const std::vector<Product> convolutions{
    {"2,3,9,8", "16,3,3,3", "pads=[1,1,1,1]", 16, 27},
    {"1,16,7,7", "32,16,3,3", "pads=[1,1,1,1], strides=[2,2]", 32, 144},
    {"1,17,5,6", "19,17,1,1", "", 19, 17},
    {"2,64,4,4", "32,64,1,1", "", 32, 64},
    {"1,24,6,7", "24,1,3,3", "group=24, pads=[1,1,1,1]", 24, 9},
    {"1,13,6,7", "13,1,3,3", "group=13, pads=[1,0,1,2], strides=[2,1]", 13, 9},
    {"1,12,6,5", "24,4,3,2", "group=3, pads=[1,1,0,0]", 24, 24},
    {"1,8,20", "8,8,5", "pads=[2,2], dilations=[2]", 8, 40},
    {"1,6,4,5,6", "8,6,2,3,3", "pads=[0,1,1,1,1,1]", 8, 108}};

TEST_CASE("QLinearConv on oneDNN equals the reference") {
  for (const Product& product : convolutions)
    for (const Codes& codes : all_codes())
      check_codes(qlinear_conv(product, codes), {.backend = "onednn"});
  check_codes(qlinear_conv(convolutions[0], {}, "com.microsoft."), {.backend = "onednn"});
}

TEST_CASE("QLinearConv on oneDNN takes images in either layout") {
  for (const Product& product : convolutions)
    for (const Codes& codes : {all_codes()[0], all_codes()[6]})
      for (const Layout input : {Layout::row_major, Layout::channels_last})
        for (const Layout output : {Layout::row_major, Layout::channels_last})
          check_codes(qlinear_conv(product, codes),
                      {.backend = "onednn", .input = input, .layout = output});
}

TEST_CASE("QLinearConv with a filter for every channel equals the reference on VNNI") {
  const std::vector<Product> depthwise{
      {"2,64,6,7", "64,1,3,3", "group=64, pads=[1,1,1,1]", 64, 9},
      {"1,96,9,8", "96,1,3,3", "group=96, pads=[1,0,1,2], strides=[2,2]", 96, 9},
      {"1,130,7,7", "130,1,5,5", "group=130, pads=[2,2,2,2]", 130, 25},
      {"1,50,7,7", "50,1,7,7", "group=50", 50, 49},
      {"1,128,9,10", "128,1,3,2", "group=128, pads=[2,3,2,3], dilations=[2,3]", 128, 6},
      {"3,64,1,5", "64,1,1,4", "group=64, strides=[1,3], pads=[0,3,0,3]", 64, 4},
      {"2,192,17", "192,1,3", "group=192, pads=[1,1]", 192, 3},
      {"1,64,40,90", "64,1,8,3", "group=64, pads=[4,1,3,1]", 64, 24}};
  const WindowGeometry small{{1, 9, 9}, {1, 7, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}};
  if (!DepthwiseCodes::is_fast_for(64, small)) return;
  for (const Product& product : depthwise)
    for (const Codes& codes : all_codes())
      for (const int threads : {1, 3})
        check_codes(qlinear_conv(product, codes),
                    {.threads = threads,
                     .backend = "vector",
                     .input = Layout::channels_last,
                     .layout = Layout::channels_last});
  CHECK_FALSE(DepthwiseCodes::is_fast_for(65, small));  // a second block for one channel
}

TEST_CASE("QLinearConv keeps sums of the largest codes and weights") {
  for (const char* type : {"uint8", "int8"})
    for (const int weight : {127, -128}) {
      const bool is_unsigned = std::string(type) == "uint8";
      Tensor x(is_unsigned ? DType::uint8 : DType::int8, {1, 32, 5, 5});
      std::ranges::fill(x.mutable_bytes(), static_cast<std::byte>(is_unsigned ? 255 : 0x80));
      const std::string text = fmt::format(
          "input x: {}[1,32,5,5]\ninitializer xs: float32[] = {{1}}\n"
          "initializer xz: {}[] = {{0}}\ninitializer w: int8[16,32,3,3] = random(3,{},{})\n"
          "initializer ws: float32[] = {{1}}\ninitializer wz: int8[] = {{0}}\n"
          "initializer ys: float32[] = {{1.0e5}}\ninitializer yz: {}[] = {{100}}\n"
          "y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz)\noutput y\n",
          type, type, weight, weight, type);
      check_codes(text, {.backend = "onednn", .given = {x}});
    }
}

TEST_CASE("QLinearConv leaves arguments that do not fit to the reference") {
  const auto conv = [](const std::string& x_zero, const std::string& w_zeros, const std::string& bias) {
    return "input x: uint8[1,64,7,7]\ninitializer w: int8[64,1,3,3] = random(3,-9,9)\n" +
           scalar("xs", "float32", 0.02) + scalar("xz", x_zero, 3) + scalar("ws", "float32", 0.02) +
           scalar("ys", "float32", 0.02) + scalar("yz", "uint8", 3) +
           fmt::format("initializer wz: int8[{}] = zeros\ninitializer b: {} = zeros\n", w_zeros, bias) +
           "y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b) {group=64}\noutput y\n";
  };
  for (const char* backend : {"onednn", "vector"}) {
    if (!onednn::has_exact_sums()) continue;
    const RowOptions options{.backend = backend, .input = Layout::channels_last, .layout = Layout::channels_last};
    const WindowGeometry window{{1, 7, 7}, {1, 5, 5}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}};
    const bool is_there = backend == std::string("onednn") || DepthwiseCodes::is_fast_for(64, window);
    CHECK(is_supported(conv("uint8", "64", "int32[64]"), 17, options) == is_there);
    for (const char* bias : {"int32[1]", "int32[3]", "int32[1000]", "int32[1,64]", "int64[64]"})
      CHECK_FALSE(is_supported(conv("uint8", "64", bias), 17, options));
    CHECK_FALSE(is_supported(conv("uint8", "3", "int32[64]"), 17, options));
    CHECK_FALSE(is_supported(conv("int8", "64", "int32[64]"), 17, options));
  }
}

TEST_CASE("QGemm on oneDNN equals the reference") {
  const std::vector<Product> products{{"1,7", "7,5", "", 5, 7},
                                      {"6,64", "64,32", "", 32, 64},
                                      {"5,33", "17,33", "transB=1", 17, 33},
                                      {"16,300", "10,300", "transB=1", 10, 300}};
  for (const Product& product : products)
    for (const Codes& codes : all_codes()) {
      check_codes(qgemm(product, codes, false));
      if (onednn::has_exact_sums()) check_rows(qgemm(product, codes, true), 2e-6);
    }
}

TEST_CASE("quantization by vectors equals the reference at every size") {
  on_every_target([] {
    for (const char* type : {"uint8", "int8"})
      for (const int zero : {0, 100})
        for (int size = 1; size <= 70; ++size) {
          const std::string constants = scalar("s", "float32", 0.013) + scalar("z", type, zero);
          check_equal(fmt::format("input x: float32[{}]\n", size) + constants +
                      "y = QuantizeLinear(x, s, z)\noutput y\n");
          check_equal(fmt::format("input x: {}[{}]\n", type, size) + constants +
                      "y = DequantizeLinear(x, s, z)\noutput y\n");
        }
  });
}

TEST_CASE("quantization by vectors rounds to even and saturates") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> values{infinity, -infinity, 3e38f, -3e38f, 1e10f, -1e10f, 0.0f, -0.0f, 1e-40f};
  for (int i = -1200; i <= 1200; ++i) values.push_back(static_cast<float>(i) * 0.25f);
  const auto count = static_cast<std::int64_t>(values.size());
  const Tensor x = Tensor::of<float>({count}, values);
  on_every_target([&] {
    for (const char* type : {"uint8", "int8"})
      for (const int zero : {0, 1, 127})
        for (const double scale : {0.5, 1.0, 0.3, 1e-20, 1e20})
          check_equal(fmt::format("input x: float32[{}]\n", count) + scalar("s", "float32", scale) +
                          scalar("z", type, zero) + "y = QuantizeLinear(x, s, z)\noutput y\n",
                      {.threads = 2, .given = {x}});
  });
  check_equal(
      "input x: float32[300,70]\ninitializer s: float32[] = {0.02}\n"
      "y = QuantizeLinear(x, s)\noutput y\n",
      {.threads = 3});
  check_equal(
      "input x: int8[300,70]\ninitializer s: float32[] = {0.02}\n"
      "y = DequantizeLinear(x, s)\noutput y\n",
      {.threads = 3});
}

TEST_CASE("what quantization by vectors does not take goes to the reference") {
  CHECK_FALSE(
      is_supported("input x: float32[3]\ninput s: float32[]\n"
                   "y = QuantizeLinear(x, s)\noutput y\n"));
  CHECK_FALSE(
      is_supported("input x: float32[2,3]\ninitializer s: float32[3] = ones\n"
                   "y = QuantizeLinear(x, s)\noutput y\n"));
  CHECK_FALSE(
      is_supported("input x: int8[3]\ninitializer s: float32[] = {0}\n"
                   "y = DequantizeLinear(x, s)\noutput y\n"));
}

TEST_CASE("Implementations on tiles are for large convolutions") {
  const auto small = onednn::suited_implementations(1'000'000);
  const auto large = onednn::suited_implementations(100'000'000);
  for (const char* tiles : {"jit:avx512_core_amx_int8", "brgconv_1x1:avx512_core_amx_int8"}) {
    CHECK_FALSE(small(tiles));
    CHECK(large(tiles));
  }
  for (const auto& suits : {small, large}) {
    CHECK(suits("jit_int8_1x1:avx512_core_vnni"));
    CHECK_FALSE(suits("jit_1x1:avx512_core_amx_int8"));
    CHECK_FALSE(suits("brdgmm_dw:avx512_core_vnni"));
    CHECK_FALSE(suits("x64:gemm_s8u8s32:jit"));
    CHECK_FALSE(suits("ref:any"));
  }
}

TEST_CASE("QLinearAdd by vectors equals the reference") {
  const auto text = [](const std::string& type, const std::string& dims, double a, int a_zero,
                       double b, int b_zero, double y, int y_zero) {
    return fmt::format("input a: {}[{}]\ninput b: {}[{}]\n", type, dims, type, dims) +
           scalar("as", "float32", a) + scalar("az", type, a_zero) + scalar("bs", "float32", b) +
           scalar("bz", type, b_zero) + scalar("ys", "float32", y) + scalar("yz", type, y_zero) +
           "y = com.microsoft.QLinearAdd(a, as, az, b, bs, bz, ys, yz)\noutput y\n";
  };
  on_every_target([&] {
    for (const char* type : {"uint8", "int8"}) {
      for (int size = 1; size <= 70; ++size)
        check_codes(text(type, fmt::format("{}", size), 0.011, 3, 0.023, 90, 0.031, 60));
      check_codes(text(type, "2,5003", 0.1, 0, 0.1, 0, 0.01, 0), {.threads = 3});  // saturates
      check_codes(text(type, "2,5003", 1, 0, 1, 0, 2, 0), {.threads = 3});         // ties
      check_codes(text(type, "2,5003", 0.013, 127, 0.007, 1, 0.009, 100), {.threads = 3});
      check_codes(text(type, "2,53", 1e20, 3, 0.5, 0, 0.01, 7));  // beyond what integers hold
      check_codes(text(type, "2,53", 10, 3, 0.5, 0, 1e-3, 7));    // far beyond codes
    }
  });
}

TEST_CASE("QLinearGlobalAveragePool by vectors equals the reference in either layout") {
  for (const char* type : {"uint8", "int8"})
    for (const char* dims : {"1,1,1", "2,3,7,7", "3,70,4,5", "1,17,3,2,4"})
      for (const int zero : {0, 100})
        for (const double scale : {0.02, 0.005})  // the smaller saturates
          for (const Layout input : {Layout::row_major, Layout::channels_last})
            for (const Layout output : {Layout::row_major, Layout::channels_last})
              check_codes(fmt::format("input x: {}[{}]\n", type, dims) +
                              scalar("xs", "float32", 0.02) + scalar("xz", type, zero) +
                              scalar("ys", "float32", scale) + scalar("yz", type, 20) +
                              "y = com.microsoft.QLinearGlobalAveragePool(x, xs, xz, ys, yz)\n"
                              "output y\n",
                          {.threads = 2, .input = input, .layout = output});
}

TEST_CASE("MaxPool of codes on oneDNN equals the reference") {
  for (const char* type : {"uint8", "int8"})
    for (const char* window :
         {"kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]", "kernel_shape=[2,2]",
          "kernel_shape=[3,2], ceil_mode=1, strides=[2,2]"})
      for (const char* dims : {"2,3,9,11", "1,17,6,7", "1,64,8,8"})
        for (const Layout input : {Layout::row_major, Layout::channels_last})
          for (const Layout output : {Layout::row_major, Layout::channels_last})
            check_equal(fmt::format("input x: {}[{}]\ny = MaxPool(x) {{{}}}\noutput y\n", type,
                                    dims, window),
                        {.input = input, .layout = output});
}

}  // namespace
}  // namespace onnxpress::rows
