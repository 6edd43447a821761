#include <fmt/format.h>

#include "tests/graph/ops/gradient_cases.h"

namespace onnxpress {

std::vector<GradientCase> movement_gradient_cases() {
  std::vector<GradientCase> cases;
  const auto add = [&](const std::string& body, std::int64_t opset = 17) {
    cases.push_back({.body = body, .opset = opset});
  };
  const auto x = [&](const char* dims, const std::string& rest, std::int64_t opset = 17) {
    add(fmt::format("initializer x: float64[{}] = random(1)\n{}\n", dims, rest), opset);
  };
  x("2,6", "initializer t: int64[3] = {3,-1,2}\ny = Reshape(x, t)");
  x("2,3,4", "y = Flatten(x) {axis=2}");
  x("2,1,3", "initializer a: int64[1] = {1}\ny = Squeeze(x, a)");
  x("2,3", "initializer a: int64[2] = {0,2}\ny = Unsqueeze(x, a)");
  x("2,3", "y = Cast(x) {to=11}");
  x("2,3", "initializer k_like: float64[1] = {0.0}\ny = CastLike(x, k_like)");
  x("2,3,4", "y = Transpose(x) {perm=[2,0,1]}");
  x("2,3", "y = Transpose(x)");
  x("3,1", "initializer s: int64[3] = {2,3,4}\ny = Expand(x, s)");
  x("2,3", "initializer r: int64[2] = {2,3}\ny = Tile(x, r)");
  x("4,5", "initializer s: int64[2] = {1,-1}\ninitializer e: int64[2] = {3,0}\ninitializer a: int64[2] = {0,1}\n"
           "initializer d: int64[2] = {1,-2}\ny = Slice(x, s, e, a, d)");
  x("4,5", "y = Slice(x) {starts=[1], ends=[3], axes=[1]}", 9);
  x("4,5", "y = Slice(x) {starts=[1], ends=[3], axes=[0]}", 9);
  x("2,3,4", "y = Slice(x) {starts=[0,1], ends=[9,2], axes=[0,1]}", 9);
  x("2,3,4", "y = Slice(x) {starts=[1,1,-3], ends=[2,9,-1]}", 9);
  x("3,4", "initializer s: int64[1] = {-1}\ninitializer e: int64[1] = {-9}\ninitializer a: int64[1] = {0}\n"
           "initializer d: int64[1] = {-1}\ny = Slice(x, s, e, a, d)");
  x("2,3", "initializer b: float64[2,2] = random(2)\ninitializer c: float64[2,0] = zeros\n"
           "y = Concat(x, b, c, x) {axis=1}");
  x("2,6", "initializer s: int64[3] = {1,3,2}\na, b, c = Split(x, s) {axis=1}");
  x("6,2", "a, b = Split(x) {axis=0}", 13);
  x("5,3", "initializer i: int64[2,2] = {0,-1,0,2}\ny = Gather(x, i)");
  x("2,5,3", "initializer i: int64[3] = {4,0,4}\ny = Gather(x, i) {axis=1}");
  x("3,3", "initializer i: int64[2,3] = {0,2,1,1,0,-1}\ny = GatherElements(x, i)");
  x("3,4", "initializer i: int64[3,2] = {0,3,1,-1,0,3}\ny = GatherND(x, i)");
  x("2,3,2", "initializer i: int64[2,1] = {1,0}\ny = GatherND(x, i) {batch_dims=1}");
  x("1,8,2,3", "y = DepthToSpace(x) {blocksize=2}");
  x("1,8,2,3", "y = DepthToSpace(x) {blocksize=2, mode=\"CRD\"}");
  x("1,2,4,6", "y = SpaceToDepth(x) {blocksize=2}");
  x("4,3", "initializer l: int64[3] = {1,4,2}\ny = ReverseSequence(x, l) {batch_axis=1, time_axis=0}");
  x("5,4", "initializer s: int64[2] = {3,6}\ny = CenterCropPad(x, s)", 18);
  x("4,4", "y = Trilu(x) {upper=0}");
  x("3,4", "initializer c: bool[3] = {1,0,1}\ny = Compress(x, c) {axis=0}");
  x("2,3", "initializer p: int64[4] = {1,0,2,1}\ny = Pad(x, p)");
  x("2,3", "initializer p: int64[4] = {1,0,2,1}\ninitializer v: float64[] = {0.5}\ny = Pad(x, p, v)");
  x("3,4", "initializer p: int64[4] = {1,2,0,1}\ny = Pad(x, p) {mode=\"reflect\"}");
  x("3,4", "initializer p: int64[4] = {1,2,0,1}\ny = Pad(x, p) {mode=\"edge\"}");
  x("3,4", "initializer p: int64[4] = {1,2,0,-1}\ny = Pad(x, p) {mode=\"wrap\"}", 19);
  add("initializer i: int64[3] = {2,0,5}\ninitializer d: int64[] = {4}\ninitializer v: float64[2] = random(1)\n"
      "y = OneHot(i, d, v)\n");
  x("2,3,4,5", "initializer u: float64[2,3,2,5] = random(2)\ninitializer w: int64[2] = {1,2}\n"
               "y = TensorScatter(x, u, w)", 24);
  for (const char* op : {"ScatterElements", "Scatter"})
    x("3,4", fmt::format("initializer i: int64[2,4] = {{0,2,1,1,2,2,0,-1}}\n"
                         "initializer u: float64[2,4] = random(2)\ny = {}(x, i, u)", op),
      std::string_view(op) == "Scatter" ? 10 : 17);
  for (const char* reduction : {"none", "add", "mul", "max", "min"}) {
    x("3,4", fmt::format("initializer i: int64[2,4] = {{0,2,1,1,0,2,0,-1}}\ninitializer u: float64[2,4] = "
                         "random(2)\ny = ScatterElements(x, i, u) {{axis=0, reduction=\"{}\"}}", reduction), 18);
    x("4,3", fmt::format("initializer i: int64[3,1] = {{1,3,1}}\ninitializer u: float64[3,3] = "
                         "random(2)\ny = ScatterND(x, i, u) {{reduction=\"{}\"}}", reduction), 18);
  }
  x("3,5", "initializer k: int64[1] = {2}\nv, i = TopK(x, k)");
  x("3,5", "initializer k: int64[1] = {2}\nv, i = TopK(x, k) {axis=0, largest=0}");
  const auto resize = [&](const char* dims, const char* sizes, const char* attributes, std::int64_t opset = 19) {
    x(dims, fmt::format("initializer s: int64[4] = {}\ny = Resize(x, _, _, s) {{{}}}", sizes, attributes), opset);
  };
  resize("1,2,3,4", "{1,2,5,7}", "mode=\"nearest\"");
  resize("1,2,3,4", "{1,2,5,7}", "mode=\"linear\"");
  resize("1,2,6,5", "{1,2,3,2}", "mode=\"linear\", antialias=1");
  resize("1,2,3,4", "{1,3,5,7}", "mode=\"linear\", coordinate_transformation_mode=\"align_corners\"");
  resize("1,2,4,4", "{1,2,7,3}", "mode=\"cubic\", exclude_outside=1");
  x("1,2,3,4", "initializer r: float32[8] = {0.0,0.0,0.2,-0.5,1.0,1.0,0.8,1.2}\ninitializer s: int64[4] = {1,2,4,6}\n"
               "y = Resize(x, r, _, s) {mode=\"linear\", coordinate_transformation_mode=\"tf_crop_and_resize\"}", 19);
  x("1,1,2,3", "initializer s: float32[4] = {1.0,1.0,2.0,2.0}\ny = Upsample(x, s) {mode=\"linear\"}", 9);
  return cases;
}

std::vector<GradientCase> reduce_gradient_cases() {
  std::vector<GradientCase> cases;
  const auto add = [&](const std::string& call, std::int64_t opset, double low = -1, double high = 1) {
    cases.push_back({.body = "initializer x: float64[2,3,4] = random(1)\n" + call + "\n",
                     .opset = opset,
                     .low = low,
                     .high = high});
  };
  for (const char* op : {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
                         "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"}) {
    const bool positive = std::string_view(op) == "ReduceLogSum";
    add(fmt::format("y = {}(x) {{axes=[1], keepdims=0}}", op), 11, positive ? 0.2 : -1);
    add(fmt::format("y = {}(x) {{axes=[0,2]}}", op), 11, positive ? 0.2 : -1);
    add(fmt::format("y = {}(x)", op), 18, positive ? 0.2 : -1);
    add(fmt::format("initializer a: int64[1] = {{-1}}\ny = {}(x, a)", op), 18, positive ? 0.2 : -1);
  }
  add("initializer a: int64[] = {1}\ny = CumSum(x, a)", 14);
  add("initializer a: int64[] = {-1}\ny = CumSum(x, a) {exclusive=1, reverse=1}", 14);
  add("y = LpNormalization(x) {axis=1}", 17);
  add("y = LpNormalization(x) {axis=2, p=1}", 17);
  return cases;
}

}  // namespace onnxpress
