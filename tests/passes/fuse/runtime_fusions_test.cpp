// What level=runtime fuses into ONNX Runtime's own operators.
#include <doctest/doctest.h>

#include "tests/passes/fuse/recognition.h"

namespace onnxpress {
namespace {

TEST_CASE("an activation goes into the Conv or Gemm before it") {
  const char* step = "runtime_fused_activation{level=runtime}";
  const std::string conv =
      "model ir=8 opset=13\ninput x: float32[1,3,6,6]\ninitializer w: float32[4,3,3,3] = "
      "random(1)\n"
      "initializer b: float32[4] = random(2)\ninitializer lo: float32[] = {-0.5}\n"
      "initializer hi: float32[] = {0.5}\nt = Conv(x, w, b) {pads=[1,1,1,1]} \"conv\"\n";
  for (const char* activation :
       {"Relu(t)", "Sigmoid(t)", "Tanh(t)", "LeakyRelu(t) {alpha=0.3}",
        "HardSigmoid(t) {alpha=0.4, beta=0.3}", "Clip(t, lo, hi)", "Clip(t, lo)", "Clip(t)"}) {
    const PassRun run =
        check_fused(step, conv + "y = " + activation + "\noutput y\n", "com.microsoft.FusedConv");
    CHECK(run.after->opsets.at("com.microsoft") == 1);
    CHECK(run.after->graph.nodes()[0]->name == "conv");
  }
  const std::string gemm =
      "model ir=8 opset=13\ninput x: float32[2,3]\ninitializer w: float32[4,3] = random(1)\n"
      "initializer b: float32[4] = random(2)\nt = Gemm(x, w, b) {transB=1, alpha=0.5}\n";
  for (const char* activation : {"Relu(t)", "Elu(t) {alpha=0.7}", "Softplus(t)", "Softsign(t)",
                                 "ThresholdedRelu(t) {alpha=0.3}", "LeakyRelu(t)", "Sigmoid(t)"})
    check_fused(step, gemm + "y = " + activation + "\noutput y\n", "com.microsoft.FusedGemm");

  const char* rule = "runtime_fused_activation";
  check_refused(step, rule, conv + "y = Softplus(t)\noutput y\n",
                "no FusedConv with this Softplus");
  check_refused(step, rule, conv + "y = Relu(t)\noutput y\noutput t\n", "is a graph output");
  check_refused(step, rule, conv + "y = Relu(t)\nz = Neg(t)\noutput y\noutput z\n",
                "another reader");
  check_refused(
      step, rule,
      "model ir=8 opset=13\ninput x: float64[2,3]\ninitializer w: float64[3,4] = random(1)\n"
      "t = Gemm(x, w)\ny = Relu(t)\noutput y\n",
      "float64");
  check_refused("runtime_fused_activation", rule, conv + "y = Relu(t)\noutput y\n", "");
}

std::string norm(const std::string& skip, int opset = 17) {
  return "model ir=8 opset=" + std::to_string(opset) +
         "\ninput x: float32[b,n,8]\ninput s: float32" + skip +
         "\ninitializer g: float32[8] = random(1,0.5,2)\ninitializer h: float32[8] = random(2)\n"
         "initializer c: float32[8] = random(3)\n";
}

TEST_CASE("a sum before a layer normalization goes into it") {
  const char* step = "runtime_layer_norm{level=runtime}";
  const std::string one = "com.microsoft.SkipLayerNormalization";
  check_fused(step, norm("[b,n,8]") + "t = Add(x, s)\ny = LayerNormalization(t, g, h)\noutput y\n",
              one);
  check_fused(step, norm("[b,n,8]") + "t = Add(x, s)\ny = LayerNormalization(t, g)\noutput y\n",
              one);
  // With a bias, before or behind.
  check_fused(step,
              norm("[b,n,8]") +
                  "u = Add(c, s)\nt = Add(x, u)\n"
                  "y = LayerNormalization(t, g, h)\noutput y\n",
              one);
  check_fused(step,
              norm("[b,n,8]") +
                  "u = Add(s, c)\nt = Add(u, x)\n"
                  "y = LayerNormalization(t, g)\noutput y\n",
              one);
  // The sum is read elsewhere too, or an output.
  check_fused(step,
              norm("[b,n,8]") +
                  "t = Add(x, s)\ny = LayerNormalization(t, g, h)\nz = Neg(t)\n"
                  "output y\noutput z\n",
              one + " Neg");
  const PassRun run = check_fused(
      step,
      norm("[b,n,8]") + "t = Add(x, s)\ny = LayerNormalization(t, g, h)\noutput y\noutput t\n",
      one);
  CHECK(run.after->graph.outputs()[1]->name() == "t");
  check_fused(step, norm("[b,n,8]", 23) + "t = Add(x, s)\ny = RMSNormalization(t, g)\noutput y\n",
              "com.microsoft.SkipSimplifiedLayerNormalization");

  const char* rule = "runtime_skip_layer_norm";
  check_refused(step, rule,
                norm("[1,n,8]") + "t = Add(x, s)\ny = LayerNormalization(t, g)\noutput y\n",
                "not known to have the same shape");
  check_refused(step, rule,
                norm("[b,n,8]") +
                    "initializer r: float32[1] = {2}\nt = Add(x, s)\n"
                    "y = LayerNormalization(t, r)\noutput y\n",
                "expected a vector");
  check_refused(step, rule,
                norm("[b,n,8]") +
                    "t = Add(x, s)\ny, m = LayerNormalization(t, g)\noutput y\n"
                    "output m\n",
                "its mean or deviation is read");
}

TEST_CASE("a bias goes into the Gelu behind it") {
  const char* step = "runtime_layer_norm{level=runtime}";
  const std::string head =
      "model ir=8 opset=20\ninput x: float32[b,8]\n"
      "initializer c: float32[8] = random(3)\n";
  check_fused(step, head + "t = Add(x, c)\ny = Gelu(t)\noutput y\n", "com.microsoft.BiasGelu");
  check_fused(step, head + "t = Add(c, x)\ny = Gelu(t) {approximate=\"tanh\"}\noutput y\n",
              "com.microsoft.FastGelu");
  check_refused(step, "runtime_bias_gelu",
                head + "t = Add(x, c)\ny = Gelu(t)\noutput y\noutput t\n", "");
}

TEST_CASE("transposes and factors go into MatMul") {
  const char* step = "runtime_fused_matmul{level=runtime}";
  const std::string head =
      "model ir=8 opset=13\ninput a: float32[2,3,4]\ninput b: float32[2,5,4]\n"
      "initializer k: float32[] = {0.25}\n";
  const std::string one = "com.microsoft.FusedMatMul";
  check_fused(step, head + "t = Transpose(b) {perm=[0,2,1]}\ny = MatMul(a, t)\noutput y\n", one);
  check_fused(step,
              head +
                  "t = Transpose(b) {perm=[0,2,1]}\nm = MatMul(a, t)\ny = Mul(k, m)\n"
                  "output y\n",
              one);
  check_fused(step,
              head +
                  "s = Div(a, k)\nt = Transpose(b) {perm=[0,2,1]}\nm = MatMul(s, t)\n"
                  "y = Div(m, k)\noutput y\n",
              one);
  check_fused(step, head + "s = Transpose(a) {perm=[0,2,1]}\ny = MatMul(b, s)\noutput y\n", one);
  const char* rule = "runtime_fused_matmul";
  check_refused(step, rule,
                head +
                    "t = Transpose(b) {perm=[0,2,1]}\ny = MatMul(a, t)\noutput y\n"
                    "output t\n",
                "has other readers");
  check_refused(step, rule,
                "model ir=8 opset=13\ninput a: float32[2,3,4]\ninput b: float32[4,5,2]\n"
                "t = Transpose(b) {perm=[2,0,1]}\ny = MatMul(a, t)\noutput y\n",
                "");
  check_refused(step, rule,
                "model ir=8 opset=13\ninput a: float64[3,4]\ninput b: float64[5,4]\n"
                "t = Transpose(b)\ny = MatMul(a, t)\noutput y\n",
                "expected float32");
}

// Two heads of four elements; K's transposition in one step.
std::string attention(const std::string& mask, const std::string& scores, bool biases = true,
                      const std::string& dims = "[batch,length,8]") {
  std::string text = "model ir=8 opset=13\ninput x: float32" + dims + "\n" + mask +
                     "initializer cut: int64[4] = {0,0,2,4}\ninitializer join: int64[3] = {0,0,8}\n"
                     "initializer two: float32[] = {2}\n";
  for (const std::string name : {"q", "k", "v"}) {
    text += "initializer w" + name + ": float32[8,8] = random(" + std::to_string(name[0]) + ")\n";
    text += "initializer b" + name + ": float32[8] = random(" + std::to_string(name[0] + 1) + ")\n";
    text += name + "m = MatMul(x, w" + name + ")\n";
    text +=
        biases ? name + " = Add(" + name + "m, b" + name + ")\n" : name + " = Neg(" + name + "m)\n";
    text += name + "r = Reshape(" + name + ", cut)\n" + name + "t = Transpose(" + name +
            "r) {perm=" + (name == "k" ? "[0,2,3,1]" : "[0,2,1,3]") + "}\n";
  }
  return text + "d = MatMul(qt, kt)\n" + scores +
         "p = Softmax(s) {axis=-1}\no = MatMul(p, vt)\not = Transpose(o) {perm=[0,2,1,3]}\n"
         "y = Reshape(ot, join)\noutput y\n";
}

TEST_CASE("attention by heads becomes one operator") {
  const char* step = "runtime_attention{level=runtime}";
  const std::string scaled = "s = Div(d, two)\n";
  const std::string masked = "e = Div(d, two)\ns = Add(e, mask)\n";
  check_fused(step, attention("", scaled), "com.microsoft.Attention");
  check_fused(step, attention("", "s = Mul(two, d)\n"), "com.microsoft.Attention");
  check_fused(step, attention("", scaled, false),
              "MatMul Neg MatMul Neg MatMul Neg "
              "com.microsoft.MultiHeadAttention");
  check_fused(step, attention("input mask: float32[batch,1,length,length]\n", masked),
              "com.microsoft.Attention");
  check_fused(step, attention("input mask: float32[batch,1,1,length]\n", masked),
              "Shape Slice Concat Expand com.microsoft.Attention");
  check_fused(step, attention("input mask: float32[2,1,1,3]\n", masked, true, "[2,3,8]"),
              "Expand com.microsoft.Attention");

  const char* rule = "runtime_attention";
  check_refused(step, rule, attention("input mask: float32[length]\n", masked),
                "not known to fit the scores");
  check_refused(step, rule, attention("", scaled) + "output s\n", "is a graph output");
  check_refused(step, rule, attention("", scaled) + "z = Neg(p)\noutput z\n", "");
}

TEST_CASE("attention is recognised when its projections were merged before") {
  const std::string scaled = "s = Div(d, two)\n";
  const std::string separate = attention("", scaled);
  const PassRun merged = run_pass("merge_parallel", parse_model(separate));
  REQUIRE(merged.outcome.changed);
  const PassRun fused = run_pass("runtime_attention{level=runtime}", merged.after->clone());
  CHECK(operators_of(*fused.after) == "com.microsoft.Attention");

  // Keys before queries, and values wider than both.
  const std::string permuted = R"(model ir=8 opset=13
input x: float32[batch,length,8]
initializer w: float32[8,28] = random(1)
initializer b: float32[28] = random(2)
initializer sizes: int64[3] = {8,8,12}
initializer cut: int64[4] = {0,0,2,4}
initializer wide: int64[4] = {0,0,2,6}
initializer join: int64[3] = {0,0,12}
m = MatMul(x, w)
a = Add(b, m)
k, q, v = Split(a, sizes) {axis=2}
kr = Reshape(k, cut)
qr = Reshape(q, cut)
vr = Reshape(v, wide)
kt = Transpose(kr) {perm=[0,2,3,1]}
qt = Transpose(qr) {perm=[0,2,1,3]}
vt = Transpose(vr) {perm=[0,2,1,3]}
d = MatMul(qt, kt)
p = Softmax(d) {axis=-1}
o = MatMul(p, vt)
ot = Transpose(o) {perm=[0,2,1,3]}
y = Reshape(ot, join)
output y
)";
  const PassRun run =
      check_fused("runtime_attention{level=runtime}", permuted, "com.microsoft.Attention");
  CHECK(run.after->graph.nodes()[0]->attribute("qkv_hidden_sizes") != nullptr);
  // Read elsewhere too, they stay merged.
  const PassRun shared =
      run_pass("runtime_attention{level=runtime}", permuted + "z = Neg(v)\noutput z\n");
  CHECK(operators_of(*shared.after).find("MultiHeadAttention") != std::string::npos);
}

std::string embeddings(const std::string& positions, const std::string& sum,
                       const std::string& ids = "int64[batch,length]") {
  return "model ir=8 opset=17\ninput ids: " + ids +
         "\ninitializer zero: int64[] = {0}\ninitializer one: int64[] = {1}\n" + positions +
         "initializer tokens: float32[20,8] = random(1)\n"
         "initializer places: float32[16,8] = random(2)\n"
         "initializer kinds: float32[2,8] = random(3)\n"
         "initializer g: float32[8] = random(4,0.5,2)\ninitializer h: float32[8] = random(5)\n"
         "w = Gather(tokens, ids)\np = Gather(places, at)\n" +
         sum + "y = LayerNormalization(s, g, h) {epsilon=0.001}\noutput y\n";
}

TEST_CASE("embeddings and their normalization become one operator") {
  const char* step = "runtime_embed_norm{level=runtime}";
  const std::string one = "com.microsoft.EmbedLayerNormalization";
  const std::string counted =
      "d = Shape(ids)\nn = Gather(d, one)\nat = Range(zero, n, one)\n";
  check_fused(step, embeddings(counted, "s = Add(w, p)\n"), "Cast " + one);
  check_fused(step, embeddings(counted, "s = Add(p, w)\n", "int32[batch,length]"), one);
  // Positions that are given, and segments.
  const std::string given = "input at: int64[1,length]\ninput kind: int64[batch,length]\n";
  check_fused(step,
              embeddings(given, "k = Gather(kinds, kind)\nu = Add(w, k)\ns = Add(u, p)\n"),
              "Cast Cast Cast " + one);
  check_fused(step,
              embeddings(counted + "kind = Sub(ids, ids)\n",
                         "k = Gather(kinds, kind)\nu = Add(p, k)\ns = Add(w, u)\n"),
              "Sub Cast Cast " + one);
  check_fused(step,
              embeddings("initializer at: int64[4] = {0,1,2,3}\n", "s = Add(w, p)\n", "int64[2,4]"),
              "Cast " + one);

  const char* rule = "runtime_embed_norm";
  check_refused(step, rule,
                embeddings("initializer at: int64[4] = {0,2,1,3}\n", "s = Add(w, p)\n", "int64[2,4]"),
                "by position");
  check_refused(step, rule, embeddings(counted, "s = Add(w, p)\n") + "output s\n", "graph output");
  check_refused(step, rule, embeddings(counted, "s = Add(w, p)\nz = Neg(p)\n") + "output z\n",
                "another reader");
  check_refused("runtime_embed_norm", rule, embeddings(counted, "s = Add(w, p)\n"), "");
}

}  // namespace
}  // namespace onnxpress
