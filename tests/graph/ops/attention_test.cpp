// The attention operators of ai.onnx and com.microsoft. Expected values without a formula come from
// onnx.reference and ONNX Runtime.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

const std::string operands =
    "initializer q: float32[1,1,2,2] = {1,0,0,2}\n"
    "initializer k: float32[1,1,2,2] = {1,1,0,1}\n"
    "initializer v: float32[1,1,2,2] = {1,2,3,5}\n";

void check_outputs(const std::string& body, std::string_view y, std::string_view scores,
                   std::int64_t opset = 24) {
  CAPTURE(body);
  const Computed computed(body, opset);
  check_close(computed["y"], parse_tensor(y));
  check_close(computed["s"], parse_tensor(scores));
}

TEST_CASE("Attention shows its scores at every stage") {
  const auto with = [](std::string_view attributes) {
    return fmt::format("{}y, _, _, s = Attention(q, k, v) {{{}, scale=1.0}}\n", operands,
                       attributes);
  };
  check_outputs(with("qk_matmul_output_mode=3"), "float32[1,1,2,2]{1.53788,2.80682,2,3.5}",
                "float32[1,1,2,2]{0.731059,0.268941,0.5,0.5}");
  check_outputs(with("is_causal=1, qk_matmul_output_mode=2"), "float32[1,1,2,2]{1,2,2,3.5}",
                "float32[1,1,2,2]{1,-inf,2,2}");
  check_outputs(with("qk_matmul_output_mode=1, softcap=0.5"),
                "float32[1,1,2,2]{1.76355,3.14533,2,3.5}",
                "float32[1,1,2,2]{0.482014,0,0.499665,0.499665}");
  check_outputs(with("is_causal=1"), "float32[1,1,2,2]{1,2,2,3.5}", "float32[1,1,2,2]{1,0,2,2}",
                23);
}

TEST_CASE(
    "Attention masks: short ones leave the other keys out, lengths too, rows without keys are 0") {
  const std::string end =
      "y, _, _, s = Attention(q, k, v, m) {qk_matmul_output_mode=3, scale=1.0}\n";
  check_outputs(operands + "initializer m: bool[2,1] = {1,1}\n" + end, "float32[1,1,2,2]{1,2,1,2}",
                "float32[1,1,2,2]{1,0,1,0}");
  check_outputs(operands + "initializer m: bool[2,2] = {0,1,0,0}\n" + end,
                "float32[1,1,2,2]{3,5,0,0}", "float32[1,1,2,2]{0,1,0,0}");
  check_outputs(operands + "initializer m: float32[2,2] = {0,1,0,0}\n" + end,
                "float32[1,1,2,2]{2,3.5,2,3.5}", "float32[1,1,2,2]{0.5,0.5,0.5,0.5}");
  check_outputs(operands +
                    "initializer n: int64[1] = {1}\n"
                    "y, _, _, s = Attention(q, k, v, _, _, _, n) "
                    "{qk_matmul_output_mode=3, scale=1.0}\n",
                "float32[1,1,2,2]{1,2,1,2}", "float32[1,1,2,2]{1,0,1,0}");
}

TEST_CASE("Attention appends to its cache; causal rows begin after it") {
  const Computed computed(operands + R"(initializer pk: float32[1,1,1,2] = {2,0}
initializer pv: float32[1,1,1,2] = {10,20}
y, nk, nv, s = Attention(q, k, v, _, pk, pv) {is_causal=1, qk_matmul_output_mode=3, scale=1.0}
)",
                          23);
  check_close(computed["y"], parse_tensor("float32[1,1,2,2]{7.57953,15.1591,2.50703,4.54575}"));
  check_close(computed["nk"], parse_tensor("float32[1,1,3,2]{2,0,1,1,0,1}"));
  check_close(computed["nv"], parse_tensor("float32[1,1,3,2]{10,20,1,2,3,5}"));
  check_close(computed["s"],
              parse_tensor("float32[1,1,2,3]{0.731059,0.268941,0,0.0633789,0.468311,0.468311}"));
}

TEST_CASE("Attention of three axes splits heads; heads of keys are shared; half precision") {
  const auto body = [](std::string_view type) {
    return fmt::format(
        "initializer q: {0}[1,1,4] = {{1,0,0,2}}\ninitializer k: {0}[1,2,2] = {{1,1,0,1}}\n"
        "initializer v: {0}[1,2,1] = {{1,3}}\ny, _, _, s = Attention(q, k, v) {{kv_num_heads=1, "
        "q_num_heads=2, qk_matmul_output_mode=3, scale=1.0}}\n",
        type);
  };
  check_outputs(body("float32"), "float32[1,1,2]{1.53788,2}",
                "float32[1,2,1,2]{0.731059,0.268941,0.5,0.5}");
  check_outputs(body("float64"), "float64[1,1,2]{1.53788,2}",
                "float64[1,2,1,2]{0.731059,0.268941,0.5,0.5}");
  check_outputs(body("float16"), "float16[1,1,2]{1.538,2}",
                "float16[1,2,1,2]{0.731,0.2690,0.5,0.5}");
  check_outputs(body("bfloat16"), "bfloat16[1,1,2]{1.539,2}",
                "bfloat16[1,2,1,2]{0.731,0.269,0.5,0.5}");
}

TEST_CASE("Attention refuses operands that do not fit") {
  const auto refused = [](const std::string& body) {
    CAPTURE(body);
    CHECK_THROWS_AS(Computed(body, 24), Error);
  };
  refused(operands + "initializer m: float32[3,2] = ones\ny = Attention(q, k, v, m)\n");
  refused(operands + "initializer m: float32[2,3] = ones\ny = Attention(q, k, v, m)\n");
  refused(operands + "initializer p: float32[1,1,1,2] = ones\ny = Attention(q, k, v, _, p)\n");
  refused(operands + "initializer p: float32[1,1,1,3] = ones\ny = Attention(q, k, v, _, p, p)\n");
  refused(operands + "initializer n: int64[1] = {3}\ny = Attention(q, k, v, _, _, _, n)\n");
  refused(operands + "initializer n: int64[2] = {1,1}\ny = Attention(q, k, v, _, _, _, n)\n");
  refused(operands + "y = Attention(q, k, v) {kv_num_heads=3}\n");
  refused(operands + "y = Attention(q, k, v) {qk_matmul_output_mode=4}\n");
  refused("initializer q: float32[1,2,4] = ones\ny = Attention(q, q, q)\n");
  refused(
      "initializer q: float32[1,2,4] = ones\ny = Attention(q, q, q) {kv_num_heads=3, "
      "q_num_heads=3}\n");
  refused(
      "initializer q: float32[1,3,2,4] = ones\ninitializer k: float32[1,2,2,4] = ones\ny = "
      "Attention(q, k, k)\n");
}

TEST_CASE("long attention agrees with a plain sum whatever the blocks") {
  const Computed computed(R"(initializer q: float32[1,1,300,4] = random(1)
initializer k: float32[1,1,40,4] = random(2)
initializer v: float32[1,1,40,3] = random(3)
y = Attention(q, k, v) {scale=0.5}
)",
                          23);
  const auto q = computed["q"].data<float>(), k = computed["k"].data<float>(),
             v = computed["v"].data<float>(), y = computed["y"].data<float>();
  for (std::size_t row : {0U, 255U, 256U, 299U})
    for (std::size_t column = 0; column < 3; ++column) {
      double sum = 0, weights = 0;
      for (std::size_t key = 0; key < 40; ++key) {
        double score = 0;
        for (std::size_t i = 0; i < 4; ++i) score += double{q[row * 4 + i]} * k[key * 4 + i];
        const double weight = std::exp(0.5 * score);
        weights += weight;
        sum += weight * v[key * 3 + column];
      }
      CHECK(y[row * 3 + column] == doctest::Approx(sum / weights).epsilon(1e-4));
    }
}

TEST_CASE("RotaryEmbedding turns pairs, by halves or neighbours, and leaves the rest") {
  const std::string x =
      "initializer x: float32[1,1,4] = {1,2,3,4}\ninitializer c: float32[2,1] = {1,0}\n"
      "initializer s: float32[2,1] = {0,1}\ninitializer p: int64[1,1] = {1}\n";
  check_y(x + "y = RotaryEmbedding(x, c, s, p) {num_heads=2}\n", "float32[1,1,4]{-2,1,-4,3}", 23);
  check_y(x + "y = RotaryEmbedding(x, c, s, p) {num_heads=1, rotary_embedding_dim=2}\n",
          "float32[1,1,4]{-2,1,3,4}", 23);
  check_y(x + "y = com.microsoft.RotaryEmbedding(x, p, c, s)\n", "float32[1,1,4]{-2,1,-4,3}");
  const std::string wide =
      "initializer x: float32[1,1,1,4] = {1,2,3,4}\ninitializer c: float32[1,1,2] = {0,0}\n"
      "initializer s: float32[1,1,2] = {1,1}\n";
  check_y(wide + "y = RotaryEmbedding(x, c, s)\n", "float32[1,1,1,4]{-3,-4,1,2}", 23);
  check_y(wide + "y = RotaryEmbedding(x, c, s) {interleaved=1}\n", "float32[1,1,1,4]{-2,1,-4,3}",
          23);
  const std::string far = "initializer far: int64[1,1] = {2}\n";
  CHECK_THROWS_AS(Computed(x + far + "y = RotaryEmbedding(x, c, s, far) {num_heads=2}\n", 23),
                  Error);
  CHECK_THROWS_AS(Computed(x + "y = RotaryEmbedding(x, c, s, p)\n", 23), Error);
  CHECK_THROWS_AS(Computed(x + "y = RotaryEmbedding(x, c, s, p) {num_heads=1}\n", 23), Error);
  CHECK_THROWS_AS(Computed(x + "y = com.microsoft.RotaryEmbedding(x, far, c, s)\n"), Error);
}

TEST_CASE("LinearAttention: each rule, step by step") {
  const auto body = [](std::string_view rule, std::string_view rest) {
    return fmt::format(
        "initializer q: float32[1,2,1] = {{1,1}}\ninitializer k: float32[1,2,1] = {{2,3}}\n"
        "initializer v: float32[1,2,1] = {{5,7}}\ninitializer p: float32[1,1,1,1] = {{1}}\n"
        "initializer g: float32[1,2,1] = {{0,0.6931471805599453}}\n"
        "initializer b: float32[1,2,1] = {{1,0.5}}\ny, s = LinearAttention(q, k, v{}) "
        "{{kv_num_heads=1, q_num_heads=1, update_rule=\"{}\"}}\n",
        rest, rule);
  };
  // S: 1 -> 1 + 10 -> 11 + 21.
  check_outputs(body("linear", ", p"), "float32[1,2,1]{11,32}", "float32[1,1,1,1]{32}", 27);
  check_outputs(body("linear", ""), "float32[1,2,1]{10,31}", "float32[1,1,1,1]{31}", 27);
  // 1 + 10, 2 * 11 + 21.
  check_outputs(body("gated", ", p, g"), "float32[1,2,1]{11,43}", "float32[1,1,1,1]{43}", 27);
  // 1 + 2 (5 - 2) = 7, 7 + 0.5 * 3 (7 - 21) = -14.
  check_outputs(body("delta", ", p, _, b"), "float32[1,2,1]{7,-14}", "float32[1,1,1,1]{-14}", 27);
  // 7, then 14 + 0.5 * 3 (7 - 42).
  check_outputs(body("gated_delta", ", p, g, b"), "float32[1,2,1]{7,-38.5}",
                "float32[1,1,1,1]{-38.5}", 27);
  CHECK_THROWS_AS(Computed(body("gated", ", p"), 27), Error);
  CHECK_THROWS_AS(Computed(body("linear", ", p, g"), 27), Error);
  CHECK_THROWS_AS(Computed(body("cubic", ""), 27), Error);
}

TEST_CASE("CausalConvWithState looks back, through its state too") {
  const std::string x =
      "initializer x: float32[1,1,3] = {1,2,3}\ninitializer w: float32[1,1,2] = {10,1}\n"
      "initializer b: float32[1] = {0.5}\ninitializer p: float32[1,1,1] = {7}\n";
  check_outputs(x + "y, s = CausalConvWithState(x, w)\n", "float32[1,1,3]{1,12,23}",
                "float32[1,1,1]{3}", 27);
  check_outputs(x + "y, s = CausalConvWithState(x, w, b, p)\n", "float32[1,1,3]{71.5,12.5,23.5}",
                "float32[1,1,1]{3}", 27);
  check_y(x + "y = CausalConvWithState(x, w) {activation=\"silu\"}\n",
          "float32[1,1,3]{0.7310586,11.999926,23}", 27);
  CHECK_THROWS_AS(Computed(x + "y = CausalConvWithState(x, w) {activation=\"relu\"}\n", 27), Error);
  CHECK_THROWS_AS(
      Computed(x + "initializer u: float32[2,1,2] = ones\ny = CausalConvWithState(x, u)\n", 27),
      Error);
  CHECK_THROWS_AS(Computed(x + "y = CausalConvWithState(x, w, b, w)\n", 27), Error);
}

TEST_CASE("Attention of com.microsoft masks, appends and splits merged weights") {
  // Input and weights make q = k = v = x, for one head of one element.
  const std::string x =
      "initializer x: float32[1,2,1] = {0,2}\ninitializer w: float32[1,3] = {0,0,1}\n"
      "initializer b: float32[3] = {0,0,1}\n";
  const std::string end = " {num_heads=1}\n";
  check_y(x + "y = com.microsoft.Attention(x, w, b)" + end, "float32[1,2,1]{2,2}");
  check_y(x + "y = com.microsoft.Attention(x, w, b) {num_heads=1, unidirectional=1}\n",
          "float32[1,2,1]{1,2}");
  check_y(x + "initializer m: int32[1] = {1}\ny = com.microsoft.Attention(x, w, b, m)" + end,
          "float32[1,2,1]{1,1}");
  check_y(x + "initializer m: int32[1,2] = {0,1}\ny = com.microsoft.Attention(x, w, b, m)" + end,
          "float32[1,2,1]{3,3}");
  check_y(x +
              "initializer m: int32[1,1,3,3] = {1,0,0,0,1,0,0,0,1}\n"
              "y = com.microsoft.Attention(x, w, b, m)" +
              end,
          "float32[1,2,1]{1,3}");
  const std::string past = "initializer p: float32[2,1,1,1,1] = {0,5}\n";
  const Computed cached(x + past + "y, s = com.microsoft.Attention(x, w, b, _, p)" + end);
  check_close(cached["y"], parse_tensor("float32[1,2,1]{3,3}"));
  check_close(cached["s"], parse_tensor("float32[2,1,1,3,1]{0,0,0,5,1,3}"));
  for (const char* rest :
       {"y = com.microsoft.Attention(x, w, b) {num_heads=2}\n",
        "y = com.microsoft.Attention(x, w, b) {num_heads=0}\n",
        "y = com.microsoft.Attention(x, w, b) {do_rotary=1, num_heads=1}\n",
        "initializer m: int32[3] = ones\ny = com.microsoft.Attention(x, w, b, m) {num_heads=1}\n",
        "y = com.microsoft.Attention(x, w, w) {num_heads=1}\n"}) {
    CAPTURE(rest);
    CHECK_THROWS_AS(Computed(x + rest), Error);
  }
}

TEST_CASE("MultiHeadAttention takes packed operands") {
  const std::string end = " {num_heads=2}\n";
  const Computed computed(R"(initializer q: float32[1,3,4] = random(1)
initializer k: float32[1,3,4] = random(2)
initializer v: float32[1,3,4] = random(3)
initializer d: int64[5] = {1,3,2,1,2}
q5 = Reshape(q, d)
k5 = Reshape(k, d)
v5 = Reshape(v, d)
qkv = Concat(q5, k5, v5) {axis=3}
kv = Concat(k5, v5) {axis=3}
y = com.microsoft.MultiHeadAttention(q, k, v) {num_heads=2}
a = com.microsoft.MultiHeadAttention(qkv) {num_heads=2}
b = com.microsoft.MultiHeadAttention(q, kv) {num_heads=2}
)");
  check_close(computed["a"], computed["y"]);
  check_close(computed["b"], computed["y"]);
  CHECK_THROWS_AS(Computed("initializer q: float32[1,3,2,2,2] = ones\n"
                           "y = com.microsoft.MultiHeadAttention(q)" +
                           end),
                  Error);
  CHECK_THROWS_AS(Computed("initializer q: float32[1,3,4] = ones\n"
                           "initializer k: float32[2,3,4] = ones\n"
                           "y = com.microsoft.MultiHeadAttention(q, k, k)" +
                           end),
                  Error);
}

TEST_CASE("GroupQueryAttention: rows in use differ by batch element") {
  // Zero queries weigh all visible values alike.
  const std::string head =
      "initializer q: float32[2,1,2] = zeros\ninitializer k: float32[2,1,1] = zeros\n"
      "initializer v: float32[2,1,1] = {9,7}\ninitializer pk: float32[2,1,2,1] = zeros\n"
      "initializer pv: float32[2,1,2,1] = {1,2,3,4}\ninitializer n: int32[2] = {2,1}\n"
      "initializer t: int32[] = {3}\n";
  const Computed computed(head +
                          "y, _, s = com.microsoft.GroupQueryAttention(q, k, v, pk, pv, n, t) "
                          "{kv_num_heads=1, num_heads=2}\n");
  check_close(computed["y"], parse_tensor("float32[2,1,2]{4,4,5,5}"));
  check_close(computed["s"], parse_tensor("float32[2,1,3,1]{1,2,9,3,7,0}"));
  check_y(head +
              "y = com.microsoft.GroupQueryAttention(q, k, v, pk, pv, n, t) {kv_num_heads=1, "
              "local_window_size=1, num_heads=2}\n",
          "float32[2,1,2]{9,9,7,7}");
  check_y(head +
              "y = com.microsoft.GroupQueryAttention(q, k, v, pk, pv, n, t) {kv_num_heads=1, "
              "num_heads=2, smooth_softmax=1}\n",
          "float32[2,1,2]{3,3,3.3333333,3.3333333}");
  // Keys normalized to their sign: of 3 and -3 times a weight of 2.
  check_close(
      Computed("initializer q: float32[1,2,1] = {4,4}\n"
               "initializer k: float32[1,2,1] = {3,-3}\ninitializer n: int32[1] = {1}\n"
               "initializer t: int32[] = {2}\ninitializer w: float32[1] = {2}\n"
               "_, s = com.microsoft.GroupQueryAttention(q, k, k, _, _, n, t, _, _, _, _, _, "
               "_, _, w, w) {kv_num_heads=1, num_heads=1, qk_norm_epsilon=0.0}\n")["s"],
      parse_tensor("float32[1,1,2,1]{2,-2}"));
  const auto refused = [&](const std::string& changed, const std::string& attributes) {
    CHECK_THROWS_AS(
        Computed(head + changed + "y = com.microsoft.GroupQueryAttention(q, k, v, pk, pv, m, l) {" +
                 attributes + "}\n"),
        Error);
  };
  const std::string good = "kv_num_heads=1, num_heads=2";
  refused("initializer m: int32[2] = {2,5}\ninitializer l: int32[] = {3}\n", good);
  refused("initializer m: int32[2] = {2,-3}\ninitializer l: int32[] = {3}\n", good);
  refused("initializer m: int32[3] = {2,2,2}\ninitializer l: int32[] = {3}\n", good);
  refused("initializer m: int32[2] = {2,2}\ninitializer l: int32[] = {90}\n", good);
  refused("initializer m: int32[2] = {2,2}\ninitializer l: int32[] = {3}\n",
          "kv_num_heads=2, num_heads=3");
}

}  // namespace
}  // namespace onnxpress
