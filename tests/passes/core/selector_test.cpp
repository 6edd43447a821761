#include "passes/core/selector.h"

#include <doctest/doctest.h>

#include "fake_pass.h"
#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

TEST_CASE("globs") {
  CHECK(glob_match("conv*", "conv1"));
  CHECK(glob_match("*", ""));
  CHECK(glob_match("*.weight", "fc1.weight"));
  CHECK(glob_match("fc?.weight", "fc1.weight"));
  CHECK(glob_match("a*b*c", "a__b_b__c"));
  CHECK(glob_match("[a-c]x[!0-9]", "bxz"));
  CHECK(glob_match("[]]", "]"));
  CHECK(glob_match("a\\*b", "a*b"));
  CHECK(glob_match("a[b", "a[b"));
  CHECK_FALSE(glob_match("conv", "conv1"));
  CHECK_FALSE(glob_match("", "x"));
  CHECK_FALSE(glob_match("?", ""));
  CHECK_FALSE(glob_match("[a-c]", "d"));
  CHECK_FALSE(glob_match("[!a-c]", "b"));
  CHECK_FALSE(glob_match("a\\*b", "axb"));
  const std::string long_text(20000, 'a');
  CHECK_FALSE(glob_match("*a*a*a*a*a*a*a*a*b", long_text));
}

struct SelectorFixture {
  std::unique_ptr<Model> model = parse_model(R"(model ir=8 opset=17 com.microsoft=1
input x: float32[2,2]
initializer fc1.weight: float32[2,2] = ones
initializer fc2.weight: float32[2,2] = ones
a = MatMul(x, fc1.weight) "fc1"
b = com.microsoft.Gelu(a)
y = MatMul(b, fc2.weight) "fc2"
output y
)");
  const Node* fc1 = model->graph.nodes()[0];
  const Node* gelu = model->graph.nodes()[1];
  const Node* fc2 = model->graph.nodes()[2];
  const Value* weight = model->graph.find("fc1.weight");
};

TEST_CASE_FIXTURE(SelectorFixture, "what selectors select") {
  CHECK(Selector("").selects_everything());
  CHECK(Selector("").matches(*fc1));
  CHECK(Selector("fc1").matches(*fc1));
  CHECK_FALSE(Selector("fc1").matches(*fc2));
  CHECK(Selector("op:MatMul").matches(*fc2));
  CHECK_FALSE(Selector("name:MatMul").matches(*fc2));
  CHECK(Selector("op:Gelu").matches(*gelu));
  CHECK(Selector("op:com.microsoft.*").matches(*gelu));
  CHECK(Selector("b").matches(*gelu));  // by its output
  CHECK(Selector("tensor:*.weight").matches(*fc1, *weight));
  CHECK_FALSE(Selector("tensor:*.weight").matches(*fc1));
  CHECK(Selector("fc1.weight").matches(*fc1, *weight));
  CHECK(Selector("fc2; fc1").matches(*fc1));
  CHECK(Selector("!fc1").matches(*fc2));
  CHECK_FALSE(Selector("!fc1").matches(*fc1));
  CHECK_FALSE(Selector("op:MatMul;!fc1").matches(*fc1));
  CHECK_FALSE(Selector("op:MatMul;!fc1").matches(*gelu));
  CHECK(Selector("op:MatMul;!fc1").matches(*fc2));
}

TEST_CASE_FIXTURE(SelectorFixture, "globs that match nothing are errors") {
  const auto refused = [&](std::string_view text) {
    return error_of([&] { Selector(text).require_all_match(*model); });
  };
  CHECK(refused("") == "none");
  CHECK(refused("fc*;op:Gelu;tensor:x") == "none");
  CHECK(refused("fc3") == "selector 'fc3' matches nothing in the model; did you mean 'fc1'?");
  CHECK(refused("fc1;op:MatMil") ==
        "selector 'MatMil' matches nothing in the model; did you mean 'MatMul'?");
  CHECK(refused("!tensor:fc3.weight") ==
        "selector 'fc3.weight' matches nothing in the model; did you mean 'fc1.weight'?");
  CHECK(refused("op:qqqqqqqqqqq") == "selector 'qqqqqqqqqqq' matches nothing in the model");
  CHECK(refused("op:") == "selector 'op:' has an empty glob");
}

}  // namespace
}  // namespace onnxpress
