#include "passes/core/fingerprint.h"

#include <doctest/doctest.h>

#include <memory>

#include "graph/ir/parse.h"

namespace onnxpress {
namespace {

std::unique_ptr<Model> two_weights() {
  return parse_model(R"(model ir=8 opset=17
input x: float32[batch,16]
initializer v: float32[16,16] = random(1)
initializer w: float32[16,16] = random(1)
a = MatMul(x, v)
y: float32[batch,16] = MatMul(a, w)
output y: float32[batch,16]
)");
}

void set_element(Model& model, const char* name, float number) {
  Value* value = model.graph.find(name);
  Tensor tensor = *value->constant();
  tensor.mutable_data<float>().back() = number;
  model.graph.set_initializer(value, tensor);
}

TEST_CASE("a clone has the form and the contents of its original") {
  const auto model = two_weights();
  const auto clone = model->clone();
  CHECK(form_hash(*model) == form_hash(*clone));
  CHECK(same_contents(*model, *clone));
  CHECK(fingerprint(*model) == fingerprint(*clone));
}

TEST_CASE("another number in a large tensor is another content of the same form") {
  const auto model = two_weights();
  const auto other = model->clone();
  set_element(*other, "w", 3);
  CHECK(form_hash(*model) == form_hash(*other));
  CHECK_FALSE(same_contents(*model, *other));
  CHECK_FALSE(fingerprint(*model) == fingerprint(*other));
}

TEST_CASE("equal numbers in other memory are the same contents") {
  const auto model = two_weights(), other = two_weights();
  CHECK(model->graph.find("w")->constant()->bytes().data() != other->graph.find("w")->constant()->bytes().data());
  CHECK(same_contents(*model, *other));
  CHECK(fingerprint(*model) == fingerprint(*other));
  set_element(*model, "v", 2);
  set_element(*other, "v", 2);
  CHECK(same_contents(*model, *other));
}

TEST_CASE("names, types and small tensors are the form") {
  const auto model = two_weights();
  const auto renamed = model->clone();
  renamed->graph.nodes().front()->name = "another";
  CHECK_FALSE(form_hash(*model) == form_hash(*renamed));
  const auto typed = model->clone();
  typed->graph.set_initializer(typed->graph.find("w"), typed->graph.find("w")->constant()->cast(DType::float16));
  CHECK_FALSE(form_hash(*model) == form_hash(*typed));
  const auto small = [](float number) {
    const auto made = two_weights();
    made->graph.add_initializer("s", Tensor::scalar(number));
    return form_hash(*made);
  };
  CHECK(small(1) == small(1));
  CHECK_FALSE(small(1) == small(2));
}

}  // namespace
}  // namespace onnxpress
