// NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss, TfIdfVectorizer and operators of ai.onnx.ml.
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

// The example of the specification.
const std::string nll = R"(initializer x: float32[2,3,2] = {1,2,2,2,3,2,0,1,2,2,1,2}
initializer t: int64[2,2] = {2,1,0,2}
initializer w: float32[3] = {0.2,0.3,0.1}
)";

TEST_CASE("NegativeLogLikelihoodLoss reduces, weighs and ignores") {
  const std::string call = "y = NegativeLogLikelihoodLoss(x, t";
  check_y(nll + call + ") {reduction=\"none\"}\n", "float32[2,2]{-3,-2,0,-2}");
  check_y(nll + call + ", w) {reduction=\"sum\"}\n", "float32[]{-1.1}");
  check_y(nll + call + ", w)\n", "float32[]{-1.5714286}");
  check_y(nll + call + ") {ignore_index=2}\n", "float32[]{-1}", 12);
  check_y(nll + call + ", w) {ignore_index=2, reduction=\"none\"}\n", "float32[2,2]{0,-0.6,0,0}",
          22);
  check_y(R"(initializer x: float16[1,2] = {-1,-2}
initializer t: int32[1] = {-5}
y = NegativeLogLikelihoodLoss(x, t) {ignore_index=-5}
)",
          "float16[]{nan}");
  const auto refused = [](const std::string& text) {
    CAPTURE(text);
    CHECK_THROWS_AS(Computed(text, 17), Error);
  };
  refused(nll + call + ") {reduction=\"max\"}\n");
  refused(nll + "initializer s: int64[2,2] = {3,0,0,0}\ny = NegativeLogLikelihoodLoss(x, s)\n");
  refused(nll + "initializer s: int64[2,2] = {-1,0,0,0}\ny = NegativeLogLikelihoodLoss(x, s)\n");
  refused(nll + "initializer s: int64[2,3] = zeros\ny = NegativeLogLikelihoodLoss(x, s)\n");
  refused(nll + "initializer v: float32[2] = {1,1}\n" + call + ", v)\n");
  refused(
      "initializer x: float32[2] = {1,2}\ninitializer t: int64[2] = {0,0}\ny = "
      "NegativeLogLikelihoodLoss(x, t)\n");
}

TEST_CASE("SoftmaxCrossEntropyLoss gives losses and log probabilities") {
  const std::string x = R"(initializer x: float32[2,2] = {0,0,1000,998}
initializer t: int64[2] = {0,1}
initializer w: float32[2] = {3,1}
)";
  const double second = 2 + std::log1p(std::exp(-2.0));
  const Computed each(x + "y, p = SoftmaxCrossEntropyLoss(x, t) {reduction=\"none\"}\n", 13);
  check_close(each["y"],
              Tensor::of<float>({2}, std::vector<float>{static_cast<float>(std::log(2.0)),
                                                        static_cast<float>(second)}));
  CHECK(each["p"].to_floats()[0] == doctest::Approx(-std::log(2.0)));
  CHECK(each["p"].to_floats()[2] == doctest::Approx(2 - second));
  const Computed mean(x + "y = SoftmaxCrossEntropyLoss(x, t, w)\n", 13);
  CHECK(mean["y"].dims().empty());
  CHECK(mean["y"].to_floats()[0] == doctest::Approx((3 * std::log(2.0) + second) / 4));
  const Computed sum(x + "y = SoftmaxCrossEntropyLoss(x, t) {ignore_index=0, reduction=\"sum\"}\n",
                     12);
  CHECK(sum["y"].to_floats()[0] == doctest::Approx(second));
}

TEST_CASE("TfIdfVectorizer counts n-grams with skips") {
  const std::string attributes =
      "max_gram_length=2, max_skip_count=1, min_gram_length=1, ngram_counts=[0,2], "
      "ngram_indexes=[2,0,1], weights=[0.5,3.0,4.0]";
  const std::string x = "initializer x: int32[2,4] = {5,6,5,6,7,6,7,5}\n";
  const auto call = [&](const std::string& mode, const std::string& pool) {
    return "y = TfIdfVectorizer(x) {" + attributes + ", mode=\"" + mode + "\", " + pool + "}\n";
  };
  // 1-grams 5 and 6 (columns 2 and 0), 2-gram 5 6 (column 1): neighbours, or one apart.
  const std::string integers = "pool_int64s=[5,6,5,6]";
  check_y(x + call("TF", integers), "float32[2,3]{2,2,2,1,0,1}");
  check_y(x + call("IDF", integers), "float32[2,3]{3,4,0.5,3,0,0.5}");
  check_y(x + call("TFIDF", integers), "float32[2,3]{6,8,1,3,0,0.5}");
  check_y("initializer x: string[3] = {\"a\",\"c\",\"b\"}\n" +
              call("TF", "pool_strings=[\"a\",\"b\",\"a\",\"b\"]"),
          "float32[3]{1,1,1}");
  const auto refused = [&](const std::string& text) {
    CAPTURE(text);
    CHECK_THROWS_AS(Computed(text, 17), Error);
  };
  refused(x + call("BM25", integers));
  refused(x + call("TF", "pool_int64s=[5,6,5]"));
  refused(x + call("TF", "pool_strings=[\"a\",\"b\",\"a\",\"b\"]"));
  refused(x +
          "y = TfIdfVectorizer(x) {max_gram_length=1, max_skip_count=0, min_gram_length=1, "
          "mode=\"TF\", ngram_counts=[0], ngram_indexes=[-1], pool_int64s=[5]}\n");
  refused("initializer x: int32[1,1,1] = {1}\n" + call("TF", integers));
}

// y of a call of ai.onnx.ml with its inputs as initializers.
Tensor ml(const std::string& body) {
  const auto model = parse_model("model ir=8 opset=17 ai.onnx.ml=3\n" + body);
  const Node& node = *model->graph.nodes().front();
  const OpDef* op = operators().find(node);
  REQUIRE(op != nullptr);
  std::vector<const Tensor*> inputs;
  for (const Value* input : node.inputs()) inputs.push_back(input->constant());
  ThreadPool pool(2);
  TypeInference inference(*model);
  inference.run();
  const Tensor result = evaluate(*op, node, inputs, pool).at(0);
  Computed::check_type(inference.type(node.output(0)), Type::of(result), node.describe());
  return result;
}

TEST_CASE("ArrayFeatureExtractor and Binarizer") {
  const std::string x = "initializer x: float32[2,3] = {1,2,3,4,5,6}\n";
  check_close(ml(x + "initializer i: int64[1,2] = {2,0}\ny = ai.onnx.ml.ArrayFeatureExtractor(x, "
                     "i)\n"),
              parse_tensor("float32[2,2]{3,1,6,4}"));
  check_close(ml("initializer x: string[2] = {\"a\",\"b\"}\ninitializer i: int64[1] = {1}\ny = "
                 "ai.onnx.ml.ArrayFeatureExtractor(x, i)\n"),
              parse_tensor("string[1,1]{\"b\"}"));
  check_close(ml("initializer x: int64[3] = {-1,2,3}\ny = ai.onnx.ml.Binarizer(x) "
                 "{threshold=2.0}\n"),
              parse_tensor("int64[3]{0,0,1}"));
  check_close(ml("initializer x: float32[2] = {nan,0.1}\ny = ai.onnx.ml.Binarizer(x)\n"),
              parse_tensor("float32[2]{0,1}"));
  for (const char* index : {"{3}", "{-1}"})
    CHECK_THROWS_AS(ml(x + "initializer i: int64[1] = " + index +
                       "\ny = ai.onnx.ml.ArrayFeatureExtractor(x, i)\n"),
                    Error);
}

}  // namespace
}  // namespace onnxpress
