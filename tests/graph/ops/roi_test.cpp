// RoiAlign and MaxRoiPool on values worked out by hand.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

const std::string image =
    "initializer x: float32[1,1,4,4] = {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}\n";

TEST_CASE("RoiAlign averages samples") {
  const auto aligned = [](const std::string& roi, const std::string& attributes,
                          const std::string& expected, std::int64_t opset = 16) {
    check_y(image + "initializer r: float32[1,4] = {" + roi + "}\n" +
                "initializer b: int64[1] = {0}\ny = RoiAlign(x, r, b) {" + attributes + "}\n",
            expected, opset);
  };
  // The value at (x, y) is 4y + x. One sample in the middle of the region, (2, 1) less half a cell.
  aligned("1,0,3,2", "sampling_ratio=1", "float32[1,1,1,1]{3.5}");
  aligned("1,0,3,2", "sampling_ratio=1, coordinate_transformation_mode=\"output_half_pixel\"",
          "float32[1,1,1,1]{6}");
  aligned("1,0,3,2", "sampling_ratio=1", "float32[1,1,1,1]{6}", 10);
  // Bins of 1 by 2 cells with ceil(2) samples along y: means over y of 0 and 1, x of 0.5 + 1 and 2.
  aligned("1,0,3,2", "output_width=2, spatial_scale=1.0", "float32[1,1,1,2]{3,4}");
  aligned("2,0,6,4", "output_width=2, spatial_scale=0.5", "float32[1,1,1,2]{3,4}");
  // Samples outside by more than a cell are 0; nearer ones are moved to the border.
  aligned("-9,-9,-5,-5", "sampling_ratio=2", "float32[1,1,1,1]{0}");
  aligned("0,0,1,1", "sampling_ratio=1", "float32[1,1,1,1]{0}");
  aligned("3.5,3.5,4.5,4.5", "sampling_ratio=1", "float32[1,1,1,1]{15}");
  // No samples in a region without area, one cell where malformed regions are widened.
  aligned("2,2,2,2", "", "float32[1,1,1,1]{0}");
  aligned("2,2,2,2", "", "float32[1,1,1,1]{12.5}", 10);
  // Largest of the weighted cells: (1, 1) with weight 1/4 each, 10 / 4.
  aligned("1.5,1.5,2.5,2.5", "mode=\"max\", sampling_ratio=1", "float32[1,1,1,1]{2.5}");
}

TEST_CASE("RoiAlign takes each region from its image") {
  check_y(R"(initializer x: float16[2,2,1,1] = {1,2,3,4}
initializer r: float16[3,4] = {0,0,1,1, 0,0,1,1, 0,0,1,1}
initializer b: int64[3] = {1,0,1}
y = RoiAlign(x, r, b)
)",
          "float16[3,2,1,1]{3,4,1,2,3,4}", 16);
}

TEST_CASE("MaxRoiPool takes the largest of the cells that a bin touches") {
  const auto pooled = [](const std::string& roi, const std::string& attributes,
                         const std::string& expected) {
    check_y(image + "initializer r: float32[1,5] = {" + roi + "}\ny = MaxRoiPool(x, r) {" +
                attributes + "}\n",
            expected, 11);
  };
  pooled("0,0,0,3,3", "pooled_shape=[2,2]", "float32[1,1,2,2]{5,7,13,15}");
  // Three cells in two bins: 0..1.5 and 1.5..3 are both two cells wide.
  pooled("0,0,0,2,0", "pooled_shape=[1,2]", "float32[1,1,1,2]{1,2}");
  pooled("0,2,2,6,6", "pooled_shape=[1,1], spatial_scale=0.5", "float32[1,1,1,1]{15}");
  pooled("0,7,7,9,9", "pooled_shape=[1,1]", "float32[1,1,1,1]{0}");
  pooled("0,2,1,0,0", "pooled_shape=[1,1]", "float32[1,1,1,1]{6}");
}

TEST_CASE("Pooling over regions refuses what makes no sense") {
  const auto align = [](const std::string& roi, const std::string& index,
                        const std::string& attributes = "") {
    CAPTURE(roi);
    CHECK_THROWS_AS(Computed(image + "initializer r: float32" + roi + "\ninitializer b: int64" +
                                 index + "\ny = RoiAlign(x, r, b) {" + attributes + "}\n",
                             16),
                    Error);
  };
  align("[1,4] = {0,0,1,1}", "[1] = {1}");
  align("[1,4] = {0,0,1,1}", "[1] = {-1}");
  align("[1,4] = {0,0,1,1}", "[2] = {0,0}");
  align("[1,5] = {0,0,1,1,1}", "[1] = {0}");
  align("[1,4] = {0,0,nan,1}", "[1] = {0}");
  align("[1,4] = {0,0,1e30,1e30}", "[1] = {0}");
  align("[1,4] = {0,0,1,1}", "[1] = {0}", "output_height=0");
  align("[1,4] = {0,0,1,1}", "[1] = {0}", "sampling_ratio=-1");
  align("[1,4] = {0,0,1,1}", "[1] = {0}", "sampling_ratio=4611686018427387904");
  align("[1,4] = {0,0,1,1}", "[1] = {0}", "mode=\"sum\"");
  align("[1,4] = {0,0,1,1}", "[1] = {0}", "output_height=4611686018427387904, output_width=4");
  const auto pool = [](const std::string& roi, const std::string& attributes) {
    CAPTURE(roi);
    CHECK_THROWS_AS(Computed(image + "initializer r: float32" + roi + "\ny = MaxRoiPool(x, r) {" +
                                 attributes + "}\n",
                             11),
                    Error);
  };
  pool("[1,5] = {1,0,0,1,1}", "pooled_shape=[1,1]");
  pool("[1,5] = {nan,0,0,1,1}", "pooled_shape=[1,1]");
  pool("[1,5] = {0,0,0,1e30,1}", "pooled_shape=[1,1]");
  pool("[1,5] = {0,0,0,1,1}", "pooled_shape=[0,1]");
  pool("[1,5] = {0,0,0,1,1}", "");
}

}  // namespace
}  // namespace onnxpress
