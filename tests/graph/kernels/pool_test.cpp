#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

std::string text(const std::string& shape, const std::string& op, const std::string& attributes) {
  return fmt::format("input x: float32[{}]\ny = {}(x){}\noutput y\n", shape, op,
                     attributes.empty() ? "" : " {" + attributes + "}");
}

TEST_CASE("pooling on oneDNN equals the reference") {
  const std::vector<std::pair<std::string, std::string>> windows{
      {"2,3,16", "kernel_shape=[3], strides=[2], pads=[1,1]"},
      {"2,5,9,11", "kernel_shape=[2,2], strides=[2,2]"},
      {"1,16,9,11", "kernel_shape=[3,3], pads=[1,1,1,1]"},
      {"1,3,9,11", "kernel_shape=[3,2], strides=[2,3], pads=[1,0,0,1]"},
      {"1,3,10,10", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1"},
      {"1,3,10,9", "kernel_shape=[3,3], strides=[2,2], auto_pad=\"SAME_UPPER\""},
      {"1,3,10,9", "kernel_shape=[3,3], strides=[2,2], auto_pad=\"SAME_LOWER\""},
      {"1,2,5,6,7", "kernel_shape=[2,3,2], strides=[1,2,2]"}};
  for (const auto& [shape, window] : windows) {
    check_rows(text(shape, "MaxPool", window), exact);
    check_rows(text(shape, "AveragePool", window), reassociated);
    if (window.find("ceil_mode") == std::string::npos)
      check_rows(text(shape, "AveragePool", window + ", count_include_pad=1"), reassociated);
  }
}

TEST_CASE("global pooling on oneDNN equals the reference") {
  for (const char* shape : {"2,3,16", "2,17,7,7", "1,5,3,4,5"}) {
    check_rows(text(shape, "GlobalAveragePool", ""), reassociated);
    check_rows(text(shape, "GlobalMaxPool", ""), exact);
  }
}

TEST_CASE("maxima of windows without a larger number than the lowest") {
  const float infinity = std::numeric_limits<float>::infinity();
  const float lowest = std::numeric_limits<float>::lowest(), nan = std::numeric_limits<float>::quiet_NaN();
  Tensor x(DType::float32, {1, 5, 4, 4});
  const std::span<float> cells = x.mutable_data<float>();
  for (std::size_t i = 0; i < cells.size(); ++i)
    cells[i] = i < 16 ? -infinity : i < 32 ? lowest : i < 48 ? (i % 2 == 0 ? -infinity : lowest) : i < 64 ? nan : -1;
  for (const char* op : {"MaxPool", "GlobalMaxPool"})
    for (const Layout input : {Layout::row_major, Layout::channels_last})
      for (const Layout output : {Layout::row_major, Layout::channels_last}) {
        const std::string window =
            op == std::string("MaxPool") ? "kernel_shape=[2,2], strides=[2,1], pads=[0,1,0,0]" : "";
        const Case test(text("1,5,4,4", op, window), 17, {.input = input, .layout = output, .given = {x}});
        REQUIRE(test.is_supported());
        const Tensor found = test.run_fast(), expected = test.run_reference();
        for (std::int64_t i = 0; i < found.size(); ++i) {
          const float a = found.data<float>()[static_cast<std::size_t>(i)];
          const float b = expected.data<float>()[static_cast<std::size_t>(i)];
          CHECK((a == b || (std::isnan(a) && std::isnan(b))));
        }
      }
}

TEST_CASE("pooling that oneDNN does not take goes to the reference") {
  CHECK_FALSE(
      is_supported("input x: float32[1,3,8,8]\ny, i = MaxPool(x) {kernel_shape=[2,2]}\n"
                   "output y\noutput i\n"));
  CHECK_FALSE(is_supported(text("1,3,8,8", "MaxPool", "kernel_shape=[2,2], dilations=[2,2]")));
  CHECK_FALSE(
      is_supported(text("1,3,10,10", "AveragePool",
                        "kernel_shape=[3,3], strides=[2,2], ceil_mode=1, count_include_pad=1")));
}

}  // namespace
}  // namespace onnxpress::rows
