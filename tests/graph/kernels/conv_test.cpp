#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

struct Grid {
  std::int64_t batch, channels, filters, group;
  std::string spatial, kernel, attributes;
};

// `transposed`: weights are [channels, filters / group, kernel].
std::string text(const Grid& g, bool transposed, bool constant, bool bias) {
  const std::string weights =
      transposed ? fmt::format("float32[{},{},{}]", g.channels, g.filters / g.group, g.kernel)
                 : fmt::format("float32[{},{},{}]", g.filters, g.channels / g.group, g.kernel);
  std::string result = fmt::format("input x: float32[{},{},{}]\n", g.batch, g.channels, g.spatial);
  result += constant ? fmt::format("initializer w: {} = random(3)\n", weights)
                     : fmt::format("input w: {}\n", weights);
  if (bias)
    result += constant ? fmt::format("initializer b: float32[{}] = random(4)\n", g.filters)
                       : fmt::format("input b: float32[{}]\n", g.filters);
  return result + fmt::format("y = {}(x, w{}) {{group={}{}{}}}\noutput y\n",
                              transposed ? "ConvTranspose" : "Conv", bias ? ", b" : "", g.group,
                              g.attributes.empty() ? "" : ", ", g.attributes);
}

void check_both(const Grid& grid, bool transposed) {
  for (const bool constant : {true, false})
    for (const bool bias : {true, false})
      check_rows(text(grid, transposed, constant, bias), reassociated);
}

TEST_CASE("convolution on oneDNN equals the reference") {
  const std::vector<Grid> grids{
      {1, 3, 8, 1, "15", "4", ""},
      {2, 4, 6, 2, "15", "3", "strides=[2], pads=[1,2], dilations=[2]"},
      {1, 3, 16, 1, "9,11", "3,3", "pads=[1,1,1,1]"},
      {2, 16, 5, 1, "8,8", "1,1", ""},
      {1, 16, 16, 16, "9,9", "3,3", "pads=[1,1,1,1], strides=[2,2]"},
      {1, 12, 24, 3, "7,7", "3,2", "pads=[1,0,2,1]"},
      {1, 5, 7, 1, "12,10", "3,3", "dilations=[2,3], pads=[2,3,2,3]"},
      {1, 5, 7, 1, "12,10", "3,4", "auto_pad=\"SAME_UPPER\", strides=[2,3]"},
      {1, 5, 7, 1, "12,10", "2,4", "auto_pad=\"SAME_LOWER\", strides=[2,3]"},
      {1, 5, 7, 1, "12,10", "3,3", "auto_pad=\"VALID\""},
      {1, 2, 4, 1, "5,6,7", "3,3,2", "pads=[1,1,0,1,1,1], strides=[1,2,1]"},
      {1, 4, 4, 4, "5,6,7", "2,2,2", ""},
      {3, 1, 1, 1, "1,1", "1,1", ""},
  };
  for (const Grid& grid : grids) check_both(grid, false);
}

TEST_CASE("transposed convolution on oneDNN equals the reference") {
  const std::vector<Grid> grids{
      {1, 3, 8, 1, "7", "4", "strides=[2]"},
      {1, 3, 16, 1, "5,6", "3,3", ""},
      {2, 16, 5, 1, "5,6", "2,2", "strides=[2,2]"},
      {1, 8, 8, 4, "5,5", "3,3", "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]"},
      {1, 8, 8, 8, "5,5", "3,3", "strides=[2,2], pads=[1,1,1,1]"},
      {1, 5, 7, 1, "4,5", "3,2", "dilations=[2,3], pads=[1,1,0,2]"},
      {1, 5, 7, 1, "4,5", "3,3", "auto_pad=\"SAME_UPPER\", strides=[2,2]"},
      {1, 5, 7, 1, "4,5", "3,3", "output_shape=[8,9], strides=[2,2]"},
      {1, 2, 4, 1, "3,4,5", "2,3,2", "strides=[1,2,1]"},
  };
  for (const Grid& grid : grids) check_both(grid, true);
}

TEST_CASE("convolutions that oneDNN does not take go to the reference") {
  CHECK_FALSE(is_supported(
      "input x: float64[1,3,8,8]\ninput w: float64[4,3,3,3]\ny = Conv(x, w)\noutput y\n"));
  CHECK_FALSE(is_supported(
      "input x: float32[n,3,8,8]\ninput w: float32[4,3,3,3]\ny = Conv(x, w)\noutput y\n"));
  CHECK_FALSE(is_supported(
      "input x: float32[0,3,8,8]\ninput w: float32[4,3,3,3]\ny = Conv(x, w)\noutput y\n"));
}

}  // namespace
}  // namespace onnxpress::rows
