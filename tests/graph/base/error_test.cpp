#include "graph/base/error.h"

#include <doctest/doctest.h>

using namespace std::string_literals;
using onnxpress::Error;

TEST_CASE("an error shows its trail, outermost context first") {
  Error error("expected 2 inputs, found 3");
  CHECK(error.what() == "expected 2 inputs, found 3"s);
  error.within("node 'conv3' (Conv)").within("running pass fuse");
  CHECK(error.what() == "running pass fuse / node 'conv3' (Conv): expected 2 inputs, found 3"s);
  CHECK(error.message() == "expected 2 inputs, found 3");
  CHECK(error.trail() == std::vector{"running pass fuse"s, "node 'conv3' (Conv)"s});
}

TEST_CASE("in_context adds to errors that leave it and passes values and other exceptions on") {
  CHECK(onnxpress::in_context([] { return "never"; }, [] { return 7; }) == 7);
  CHECK_THROWS_WITH_AS(onnxpress::in_context([] { return "reading a.onnx"; },
                                             [] { onnxpress::fail("{} bytes left", 3); }),
                       "reading a.onnx: 3 bytes left", Error);
  CHECK_THROWS_AS(onnxpress::in_context([] { return "never"; }, [] { throw 5; }), int);
}

TEST_CASE("in_context keeps references") {
  int value = 0;
  onnxpress::in_context([] { return ""; }, [&]() -> int& { return value; }) = 4;
  CHECK(value == 4);
}

TEST_CASE("require throws only when its condition does not hold") {
  CHECK_NOTHROW(onnxpress::require(true, "found {}", 1));
  CHECK_THROWS_WITH_AS(onnxpress::require(false, "found {}", 1), "found 1", Error);
}

TEST_CASE("the nearest name is found by edit distance") {
  const std::vector names{"quantize"s, "prune_magnitude"s, "fuse"s, "fold"s};
  const auto nearest = [&](std::string_view name) { return onnxpress::nearest_name(name, names); };
  CHECK(nearest("quantise") == "quantize");
  CHECK(nearest("qauntize") == "quantize");  // one swap
  CHECK(nearest("prune_magntude") == "prune_magnitude");
  CHECK(nearest("prunemagnitud") == "prune_magnitude");
  CHECK(nearest("fues") == "fuse");  // a short name: one edit
  CHECK(nearest("ufes") == "");      // two
  CHECK(nearest("distill") == "");
  CHECK(nearest("fuse") == "fuse");
  CHECK(nearest("") == "");
  CHECK(onnxpress::nearest_name("fuse", {}) == "");
}

TEST_CASE("the first of equally near names wins") {
  CHECK(onnxpress::nearest_name("fose", {"fuse", "fese"}) == "fuse");
  CHECK(onnxpress::nearest_name("fose", {"fese", "fuse"}) == "fese");
}
