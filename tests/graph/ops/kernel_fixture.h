// Computing small text models with the reference kernels, for the tests of this folder.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/ir/parse.h"
#include "graph/ops/evaluate.h"

namespace onnxpress {

// A model from text whose constants are all known: every node evaluated, types checked on the way.
class Computed {
 public:
  // `body` is model text without its first line.
  explicit Computed(const std::string& body, std::int64_t opset = 17)
      : model_(parse_model(fmt::format("model ir=10 opset={} com.microsoft=1\n{}", opset, body))) {
    TypeInference inference(*model_);
    inference.run();
    for (const Node* node : model_->graph.nodes()) {
      const OpDef* op = operators().find(*node);
      REQUIRE_MESSAGE(op != nullptr, node->describe());
      std::vector<const Tensor*> inputs;
      for (const Value* input : node->inputs())
        inputs.push_back(input != nullptr ? find(input) : nullptr);
      std::vector<Tensor> outputs = evaluate(*op, *node, inputs, serial_);
      const std::vector<Tensor> again = evaluate(*op, *node, inputs, parallel_);
      for (std::size_t i = 0; i < outputs.size(); ++i) {
        const Value* value = node->output(i);
        if (value == nullptr || !outputs[i].defined()) continue;
        CHECK(outputs[i].equals(again[i]));
        check_type(inference.type(value), Type::of(outputs[i]), node->describe());
        if (const Tensor* known = inference.known_value(value)) CHECK(known->equals(outputs[i]));
        values_[value] = std::move(outputs[i]);
      }
    }
  }

  const Tensor& operator[](const std::string& name) const {
    return *find(model_->graph.find(name));
  }
  const Model& model() const { return *model_; }

  // What was inferred must hold for what was computed.
  static void check_type(const Type& inferred, const Type& actual, const std::string& where) {
    CHECK_MESSAGE(inferred.elem == actual.elem, where, ": ", to_string(inferred), " and ",
                  to_string(actual));
    if (!inferred.shape) return;
    REQUIRE_MESSAGE(inferred.shape->size() == actual.shape->size(), where, ": ",
                    to_string(inferred), " and ", to_string(actual));
    for (std::size_t i = 0; i < inferred.shape->size(); ++i)
      CHECK_MESSAGE((!(*inferred.shape)[i].is_known() ||
                     (*inferred.shape)[i].value() == (*actual.shape)[i].value()),
                    where, ": ", to_string(inferred), " and ", to_string(actual));
  }

 private:
  const Tensor* find(const Value* value) const {
    REQUIRE(value != nullptr);
    if (const Tensor* constant = value->constant()) return constant;
    const auto found = values_.find(value);
    REQUIRE_MESSAGE(found != values_.end(), value->name());
    return &found->second;
  }

  std::unique_ptr<Model> model_;
  std::map<const Value*, Tensor> values_;
  ThreadPool serial_{1}, parallel_{3};
};

// Equal type and dims, elements within `tolerance` relative to 1 or the larger one.
inline void check_close(const Tensor& found, const Tensor& expected, double tolerance = 1e-5) {
  REQUIRE(name(found.dtype()) == name(expected.dtype()));
  REQUIRE(to_string(found.dims()) == to_string(expected.dims()));
  if (found.dtype() == DType::string) {
    CHECK(found.strings() == expected.strings());
    return;
  }
  const Tensor a = found.cast(DType::float64);
  const Tensor b = expected.cast(DType::float64);
  for (std::size_t i = 0; i < a.data<double>().size(); ++i) {
    const double x = a.data<double>()[i];
    const double y = b.data<double>()[i];
    const bool close = x == y || (std::isnan(x) && std::isnan(y)) ||
                       std::abs(x - y) <= tolerance * std::max(1.0, std::abs(y));
    CHECK_MESSAGE(close, "element ", i, ": expected ", y, ", found ", x);
  }
}

// Value `y` of the model is `expected` (text of a tensor).
inline void check_y(const std::string& body, std::string_view expected, std::int64_t opset = 17) {
  CAPTURE(body);
  check_close(Computed(body, opset)["y"], parse_tensor(expected));
}

}  // namespace onnxpress
