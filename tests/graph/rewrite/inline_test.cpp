#include "graph/rewrite/inline.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "graph/base/error.h"
#include "graph/ir/parse.h"
#include "graph/rewrite/pattern.h"

namespace onnxpress {
namespace {

std::string inlined(const std::string& text) {
  const auto model = parse_model(text);
  inline_functions(*model);
  verify(*model);
  CHECK(model->functions.empty());
  return to_text(*model);
}

std::string error_of(const std::string& text) {
  const auto model = parse_model(text);
  try {
    inline_functions(*model);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("attributes come from the call, the default, or are left out") {
  const std::string found = inlined(R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.F(x) {alpha=0.5, to=1} "one"
b = local.F(a) {to=1} "two"
output b
function local.F(to, alpha=0.25) opset=17 {
  input v
  r = LeakyRelu(v) {alpha=@alpha(float)}
  s = Cast(r) {to=@to(int), saturate=@saturate(int)}
  output s
}
)");
  CHECK_MESSAGE(contains(found, "alpha=0.5"), found);
  CHECK(contains(found, "alpha=0.25"));
  CHECK(contains(found, "one/r"));
  CHECK(contains(found, "two/r"));
  CHECK_FALSE(contains(found, "saturate"));
}

TEST_CASE("calls inside bodies, subgraphs and names that are taken") {
  const std::string found = inlined(R"(model ir=8 opset=17 local=1
input c: bool[]
input x: float32[2]
r = Neg(x)
y = If(c) {then_branch=graph {
  t = local.Outer(r) "call"
  output t
}, else_branch=graph {
  u = local.Outer(x)
  output u
}}
z = local.Outer(y) "call2"
output y
output z
function local.Inner() opset=17 {
  input v
  r = Relu(v)
  output r
}
function local.Outer() opset=17 local=1 {
  input v
  w = local.Inner(v)
  r = Exp(w)
  output r
}
)");
  CHECK_FALSE(contains(found, "local."));
  CHECK(contains(found, "Relu(r)"));
  CHECK(contains(found, "output z"));
}

TEST_CASE("nodes of calls without names get names of their own") {
  const auto model = parse_model(R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.F(x)
y = local.F(a)
output y
function local.F() opset=17 {
  input v
  r = Exp(v) "inner"
  s = Neg(r)
  output s
}
)");
  inline_functions(*model);
  std::set<std::string> names;
  for (const Node* node : model->graph.nodes()) CHECK(names.insert(node->name).second);
  CHECK(names.size() == 4);
}

TEST_CASE("an output that is an input, and one that the call leaves out") {
  const std::string found = inlined(R"(model ir=8 opset=17 local=1
input x: float32[2]
a, _ = local.Two(x)
b = Neg(a)
output b
function local.Two() opset=17 {
  input v
  r = Relu(v)
  output v
  output r
}
)");
  CHECK_MESSAGE(contains(found, "Neg(x)"), found);
}

TEST_CASE("what cannot be inlined is an error") {
  CHECK(error_of(R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.A(x)
output a
function local.A() opset=17 local=1 {
  input v
  r = local.B(v)
  output r
}
function local.B() opset=17 local=1 {
  input v
  r = local.A(v)
  output r
}
)") == "function 'A' (local) calls itself: A -> B -> A");
  CHECK(error_of(R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.A(x) "call"
output a
function local.A(alpha) opset=17 {
  input v
  r = LeakyRelu(v) {alpha=@alpha(float)}
  output r
}
)") == "node 'call' (local.A): attribute 'alpha' is required, found none");
  CHECK(contains(error_of(R"(model ir=8 opset=17 local=1
input x: float32[2]
a = local.A(x)
output a
function local.A() opset=11 {
  input v
  r = ReduceSum(v) {axes=[0]}
  output r
}
)"),
                 "is of operator set '' 11, expected the model's 17"));
}

}  // namespace
}  // namespace onnxpress
