#include <hwy/targets.h>

#include <limits>

#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

template <class Body>
void on_every_target(const Body& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    CAPTURE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

std::string softmax(const std::string& shape, const std::string& attributes = "") {
  return fmt::format("input x: float32[{}]\ny = Softmax(x){}\noutput y\n", shape, attributes);
}

TEST_CASE("Softmax by vectors equals the reference at every size") {
  on_every_target([] {
    for (int size = 1; size <= 70; ++size) check_rows(softmax(fmt::format("3,{}", size)), 2e-6);
    check_rows(softmax("2,5,1000"), 2e-6, 17, {.threads = 3});
    check_rows(softmax("1300,9"), 2e-6, 17, {.threads = 3});
  });
}

TEST_CASE("Softmax by vectors takes the axes that are rows in memory") {
  check_rows(softmax("2,3,4", " {axis=2}"), 2e-6);
  check_rows(softmax("9", " {axis=0}"), 2e-6);
  check_rows(softmax("2,9,1,1", " {axis=1}"), 2e-6);
  for (const int opset : {1, 11}) {  // flattened from the axis on, which is 1 where not given
    check_rows(softmax("2,3,4"), 2e-6, opset);
    check_rows(softmax("2,3,4", " {axis=0}"), 2e-6, opset);
    check_rows(softmax("2,3,4", " {axis=2}"), 2e-6, opset);
  }
  check_rows(softmax("2,3,4", " {axis=-2}"), 2e-6, 11);
  CHECK_FALSE(is_supported(softmax("2,3,4", " {axis=1}")));
  CHECK_FALSE(is_supported(softmax("2,0")));
}

TEST_CASE("Softmax of infinities, NaN and large numbers is as the reference has it") {
  on_every_target([] {
    for (int size = 1; size <= 40; ++size)
      for (int at = 0; at < size; at += size < 20 ? 1 : 3) {
        const auto with = [&](float others, float one) {
          CAPTURE(size);
          CAPTURE(at);
          CAPTURE(others);
          CAPTURE(one);
          std::vector<float> values(static_cast<std::size_t>(size), others);
          values[static_cast<std::size_t>(at)] = one;
          check_rows(softmax(fmt::format("1,{}", size)), 2e-6, 17,
                     {.given = {Tensor::of<float>({1, size}, values)}});
        };
        with(0.5f, -infinity);
        with(-infinity, 0.5f);
        with(-infinity, -infinity);
        with(0.5f, infinity);
        with(0.5f, nan);
        with(-infinity, nan);
        with(-3e38f, 3e38f);
        with(1e4f, 1e4f + 1);
        with(-100, -190);
      }
  });
}

struct Norm {
  std::string shape, size;  // of x, of scale and bias
  std::string attributes;
  bool bias = true;
};

std::string norm(const std::string& op, const Norm& n) {
  const bool has_bias = n.bias && op == "LayerNormalization";
  std::string text = fmt::format("input x: float32[{}]\ninput s: float32[{}]\n", n.shape, n.size);
  if (has_bias) text += fmt::format("input b: float32[{}]\n", n.size);
  return text + fmt::format("y = {}(x, s{}){}\noutput y\n", op, has_bias ? ", b" : "",
                            n.attributes.empty() ? "" : " {" + n.attributes + "}");
}

constexpr std::array norms{std::pair{"LayerNormalization", 17}, std::pair{"RMSNormalization", 23}};

TEST_CASE("normalizations by vectors equal the reference at every size") {
  on_every_target([] {
    for (const auto& [op, opset] : norms) {
      for (int size = 1; size <= 70; ++size)
        for (const bool bias : {true, false})
          check_rows(norm(op, {fmt::format("3,{}", size), fmt::format("{}", size), "", bias}), 4e-6,
                     opset);
      check_rows(norm(op, {"2,7,768", "768", "epsilon=1e-12"}), 4e-6, opset, {.threads = 3});
      check_rows(norm(op, {"900,12", "12", "epsilon=0.1"}), 4e-6, opset, {.threads = 3});
    }
  });
}

TEST_CASE("normalizations by vectors take every axis") {
  for (const auto& [op, opset] : norms) {
    check_rows(norm(op, {"2,3,4,5", "3,4,5", "axis=1"}), 4e-6, opset);
    check_rows(norm(op, {"2,3,4,5", "4,5", "axis=-2"}), 4e-6, opset);
    check_rows(norm(op, {"2,3,4,5", "2,3,4,5", "axis=0"}), 4e-6, opset);
    check_rows(norm(op, {"7", "7", ""}), 4e-6, opset);
    check_rows(norm(op, {"2,4,5", "1,4,5", "axis=1"}), 4e-6, opset);  // a leading axis too many
    CHECK_FALSE(is_supported(norm(op, {"2,3,4", "4", "axis=1"}), opset));  // scale broadcasts
    CHECK_FALSE(is_supported(norm(op, {"2,3,4", "4,3", "axis=1"}), opset));  // no row's shape
  }
  CHECK_FALSE(
      is_supported("input x: float32[2,3]\ninput s: float32[3]\n"
                   "y, m = LayerNormalization(x, s)\noutput y\noutput m\n"));
}

TEST_CASE("normalization keeps its digits behind a large offset") {
  on_every_target([] {
    for (const int size : {5, 16, 64, 300, 1000})
      for (const float offset : {100.0f, -3e4f, 1e6f}) {
        CAPTURE(size);
        CAPTURE(offset);
        Tensor x = random_tensor(DType::float32, {3, size}, 9);
        for (float& value : x.mutable_data<float>()) value = value * 4 + offset;
        const Tensor scale = random_tensor(DType::float32, {size}, 10);
        const Tensor bias = random_tensor(DType::float32, {size}, 11);
        const std::string row = fmt::format("{}", size);
        check_rows(norm("LayerNormalization", {"3," + row, row, ""}), 1e-5, 17,
                   {.given = {x, scale, bias}});
        check_rows(norm("RMSNormalization", {"3," + row, row, ""}), 4e-6, 23,
                   {.given = {x, scale}});
      }
  });
}

TEST_CASE("normalization of constant rows, zeros and NaN is as the reference has it") {
  for (const int size : {3, 33})
    for (const float value : {0.0f, 7.0f, 1e-30f, nan, infinity}) {
      CAPTURE(value);
      const Tensor x =
          Tensor::of<float>({1, size}, std::vector<float>(static_cast<std::size_t>(size), value));
      const std::string row = fmt::format("{}", size);
      for (const auto& [op, opset] : norms)
        check_rows(norm(op, {"1," + row, row, "", false}), 4e-6, opset,
                   {.given = {x, random_tensor(DType::float32, {size}, 12)}});
    }
}

std::string group_norm(const std::string& call, const std::string& shape, int scales) {
  return fmt::format("input x: float32[{}]\ninitializer a: float32[{}] = random(2,-2,2)\ninitializer b: float32[{}] = random(3,-2,2)\n"
                     "y = {}\noutput y\n", shape, scales, scales, call);
}

TEST_CASE("instance and group normalization by vectors equal the reference") {
  on_every_target([] {
    for (const char* shape : {"2,6,8", "1,6,5,7", "3,6,2,3,4"}) {
      check_rows(group_norm("InstanceNormalization(x, a, b)", shape, 6), reassociated);
      for (const int groups : {1, 2, 3, 6}) {
        const std::string call = fmt::format("GroupNormalization(x, a, b) {{num_groups={}}}", groups);
        check_rows(group_norm(call, shape, groups), reassociated, 18);
        check_rows(group_norm(call, shape, 6), reassociated, 21);
      }
    }
  });
  check_rows(group_norm("InstanceNormalization(x, a, b) {epsilon=0.5}", "4,3,50,41", 3), reassociated, 17, {.threads = 3});
  CHECK_FALSE(is_supported(group_norm("InstanceNormalization(x, a, b)", "2,3,7", 3)));
  CHECK_FALSE(is_supported(group_norm("InstanceNormalization(x, a, b)", "0,3,9", 3)));
}

}  // namespace
}  // namespace onnxpress::rows
