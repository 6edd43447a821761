#include "passes/common/loss_text.h"

#include <doctest/doctest.h>

#include "graph/base/error.h"
#include "graph/ir/parse.h"
#include "passes/common/selected_number.h"

namespace onnxpress {
namespace {

std::string failure(std::string_view text) {
  try {
    parse_losses(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("losses are read with weights, outputs and settings") {
  const auto specs =
      parse_losses("0.7*cross_entropy(logits, label_smoothing=0.1) + 0.3 * huber(recon,target=x,delta=2)");
  REQUIRE(specs.size() == 2);
  CHECK(specs[0].weight == 0.7);
  CHECK(specs[0].name == "cross_entropy");
  CHECK(specs[0].values == std::vector<std::string>{"logits"});
  CHECK(specs[0].number("label_smoothing", 0) == 0.1);
  CHECK(specs[1].weight == 0.3);
  CHECK(specs[1].text("target", "") == "x");
  CHECK(specs[1].number("delta", 1) == 2);
  CHECK(specs[1].number("none", 5) == 5);
  const auto bound = parse_losses("elbo(recon,mu,logvar,beta=4)");
  CHECK(bound[0].values.size() == 3);
  CHECK(parse_losses("bce")[0].name == "binary_cross_entropy");
  CHECK(parse_losses("auto")[0].name == "auto");
}

TEST_CASE("text that is no loss is refused with what was meant") {
  CHECK(failure("cross_entropi") == "unknown loss 'cross_entropi'; did you mean 'cross_entropy'?");
  CHECK(failure("mse(y,delta=1)").find("loss 'mse' has no setting 'delta'") == 0);
  CHECK(failure("mse(a,b)") == "loss 'mse': expected at most 1 value, found 2");
  CHECK(failure("-1*mse") == "expected a weight above 0, found '-1*mse'");
  CHECK(failure("0*mse") == "expected a weight above 0, found '0*mse'");
  CHECK(failure("x*mse") == "expected NUMBER*LOSS, found 'x*mse'");
  CHECK(failure("mse(y").find("expected ')'") != std::string::npos);
  CHECK(failure("mse+") == "expected a loss, found 'mse+'");
  CHECK(failure("elbo(recon)").find("expected (reconstruction, mean, log_variance), found 1 names") !=
        std::string::npos);
  CHECK(failure("huber(delta=x)") == "loss 'huber': delta: expected a number above 0, found 'x'");
  CHECK(failure("huber(delta=0)") == "loss 'huber': delta: expected a number above 0, found '0'");
  CHECK(failure("elbo(beta=-1)") == "loss 'elbo': beta: expected a number of at least 0, found '-1'");
  CHECK(failure("cross_entropy(label_smoothing=1)") ==
        "loss 'cross_entropy': label_smoothing: expected a number from 0 to 0.999, found '1'");
  CHECK(failure("cross_entropy(ignore=0.5)") == "loss 'cross_entropy': ignore: expected a whole number, found '0.5'");
  CHECK(failure("ctc(blank=-1)") == "loss 'ctc': blank: expected a whole number of at least 0, found '-1'");
}

TEST_CASE("numbers by selector: the last that fits decides") {
  const auto model = parse_model(R"(model ir=8 opset=17
input x: float32[n,2]
initializer w: float32[2,3] = random(1)
initializer bias: float32[3] = zeros
y: float32[n,3] = Gemm(x, w, bias) "fc"
output y: float32[n,3]
)");
  const Value &w = *model->graph.find("w"), &bias = *model->graph.find("bias");
  const auto decay = SelectedNumber::parse("weight_decay", "0.01;op:Gemm=0.5;tensor:*bias=0", 0, 0, 10);
  CHECK(decay.of(w) == 0.5);
  CHECK(decay.of(bias) == 0);
  CHECK(SelectedNumber::parse("l2", "", 3, 0, 10).of(w) == 3);
  CHECK(SelectedNumber::parse("l2", "0.25", 3, 0, 10).of(w) == 0.25);
  CHECK_NOTHROW(decay.require_all_match(*model));
  CHECK_THROWS(SelectedNumber::parse("l2", "fd=1", 0, 0, 10).require_all_match(*model));
  CHECK_THROWS(SelectedNumber::parse("l2", "11", 0, 0, 10));
  CHECK_THROWS(SelectedNumber::parse("l2", "=1", 0, 0, 10));
  CHECK_THROWS(SelectedNumber::parse("l2", "fc=much", 0, 0, 10));
}

}  // namespace
}  // namespace onnxpress
