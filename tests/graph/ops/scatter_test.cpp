#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

const std::string vectors = R"(initializer x: int32[5] = {1,2,3,4,5}
initializer i: int64[3] = {1,-2,1}
initializer u: int32[3] = {10,20,30}
)";

TEST_CASE("ScatterElements writes along an axis, the last one winning") {
  check_y(vectors + "y = ScatterElements(x, i, u)\n", "int32[5]{1,30,3,20,5}");
  check_y(vectors + "y = Scatter(x, i, u)\n", "int32[5]{1,30,3,20,5}", 9);
  check_y(R"(initializer x: string[2,3] = {"a","b","c","d","e","f"}
initializer i: int32[2,1] = {2,0}
initializer u: string[2,1] = {"p","q"}
y = ScatterElements(x, i, u) {axis=1}
)",
          R"(string[2,3]{"a","b","p","q","e","f"})");
  check_y(R"(initializer x: int4[2,2] = {1,2,3,4}
initializer i: int64[1,2] = {1,0}
initializer u: int4[1,2] = {-8,7}
y = ScatterElements(x, i, u)
)",
          "int4[2,2]{1,7,-8,4}", 21);
}

TEST_CASE("ScatterElements reduces in every way") {
  check_y(vectors + "y = ScatterElements(x, i, u) {reduction=\"add\"}\n", "int32[5]{1,42,3,24,5}",
          16);
  check_y(vectors + "y = ScatterElements(x, i, u) {reduction=\"mul\"}\n", "int32[5]{1,600,3,80,5}",
          18);
  check_y(vectors + "y = ScatterElements(x, i, u) {reduction=\"max\"}\n", "int32[5]{1,30,3,20,5}",
          18);
  check_y(vectors + "y = ScatterElements(x, i, u) {reduction=\"min\"}\n", "int32[5]{1,2,3,4,5}",
          18);
  const std::string halves = R"(initializer x: float16[2] = {1.5,2}
initializer i: int64[2] = {0,0}
initializer u: float16[2] = {0.25,nan}
)";
  check_y(halves + "y = ScatterElements(x, i, u) {reduction=\"max\"}\n", "float16[2]{nan,2}", 18);
  check_y(R"(initializer x: bool[2] = {1,0}
initializer i: int64[2] = {0,1}
initializer u: bool[2] = {1,0}
y = ScatterElements(x, i, u) {reduction="add"}
)",
          "bool[2]{1,0}", 18);
  check_y(R"(initializer x: int64[1] = {9223372036854775807}
initializer i: int64[1] = {0}
initializer u: int64[1] = {1}
y = ScatterElements(x, i, u) {reduction="add"}
)",
          "int64[1]{-9223372036854775808}", 18);
}

TEST_CASE("ScatterND writes and reduces slices") {
  const std::string matrix = R"(initializer x: float32[3,2] = {1,2,3,4,5,6}
initializer i: int64[2,1] = {2,-3}
initializer u: float32[2,2] = {10,20,30,40}
)";
  check_y(matrix + "y = ScatterND(x, i, u)\n", "float32[3,2]{30,40,3,4,10,20}", 11);
  check_y(matrix + "y = ScatterND(x, i, u) {reduction=\"add\"}\n", "float32[3,2]{31,42,3,4,15,26}",
          16);
  check_y(matrix + "y = ScatterND(x, i, u) {reduction=\"min\"}\n", "float32[3,2]{1,2,3,4,5,6}", 18);
  check_y(R"(initializer x: float32[2] = {1,2}
initializer i: int64[1,0] = {}
initializer u: float32[1,2] = {3,4}
y = ScatterND(x, i, u)
)",
          "float32[2]{3,4}");
}

TEST_CASE("TensorScatter writes from each sample's index on") {
  const std::string cache = R"(initializer x: int32[2,4,1] = {1,2,3,4,5,6,7,8}
initializer u: int32[2,2,1] = {10,20,30,40}
initializer i: int64[2] = {1,3}
)";
  check_y(cache + "y = TensorScatter(x, u)\n", "int32[2,4,1]{10,20,3,4,30,40,7,8}", 24);
  check_y(cache + "y = TensorScatter(x, u, i) {mode=\"circular\"}\n",
          "int32[2,4,1]{1,10,20,4,40,6,7,30}", 24);
  CHECK_THROWS_WITH_AS(Computed(cache + "y = TensorScatter(x, u, i)\n", 24),
                       doctest::Contains("cannot write 2 steps from index 3 on into a cache of 4"),
                       Error);
  CHECK_THROWS_AS(Computed(cache + "y = TensorScatter(x, u) {axis=0}\n", 24), Error);
  CHECK_THROWS_AS(Computed(cache + "y = TensorScatter(x, u) {mode=\"ring\"}\n", 24), Error);
}

TEST_CASE("scatter refuses what does not fit") {
  const auto refused = [](const std::string& i, const std::string& u, const std::string& call) {
    CAPTURE(i + u + call);
    CHECK_THROWS_AS(Computed("initializer x: int32[2,2] = {1,2,3,4}\ninitializer i: " + i +
                                 "\ninitializer u: " + u + "\ny = " + call + "\n",
                             18),
                    Error);
  };
  refused("int64[1,1] = {2}", "int32[1,1] = {5}", "ScatterElements(x, i, u)");
  refused("int64[1,1] = {-3}", "int32[1,1] = {5}", "ScatterElements(x, i, u)");
  refused("int64[1] = {0}", "int32[1] = {5}", "ScatterElements(x, i, u)");
  refused("int64[1,3] = {0,0,0}", "int32[1,3] = {5,5,5}", "ScatterElements(x, i, u)");
  refused("int64[1,1] = {0}", "int32[1,2] = {5,5}", "ScatterElements(x, i, u)");
  refused("int64[1,1] = {0}", "int64[1,1] = {5}", "ScatterElements(x, i, u)");
  refused("int64[1,1] = {0}", "int32[1,1] = {5}", "ScatterElements(x, i, u) {axis=2}");
  refused("int64[1,1] = {0}", "int32[1,1] = {5}", "ScatterElements(x, i, u) {reduction=\"mean\"}");
  refused("int64[1,3] = {0,0,0}", "int32[1] = {5}", "ScatterND(x, i, u)");
  refused("int64[1,2] = {0,2}", "int32[1] = {5}", "ScatterND(x, i, u)");
  refused("int64[1,1] = {0}", "int32[1,3] = {5,5,5}", "ScatterND(x, i, u)");
  CHECK_THROWS_AS(Computed(R"(initializer x: string[1] = {"a"}
initializer i: int64[1] = {0}
initializer u: string[1] = {"b"}
y = ScatterElements(x, i, u) {reduction="add"}
)",
                           18),
                  Error);
}

}  // namespace
}  // namespace onnxpress
