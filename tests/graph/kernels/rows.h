// One node on a fast row and on the reference row.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "graph/base/random.h"
#include "graph/ir/parse.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/infer.h"
#include "graph/ops/registry.h"

namespace onnxpress::rows {

// Largest difference relative to the largest magnitude of the reference: sums in another order.
inline constexpr double reassociated = 2e-6;
// The same operations in the same order.
inline constexpr double exact = 0;

// Which output is compared, and on how many threads the fast row runs.
struct RowOptions {
  std::size_t output = 0;
  int threads = 1;
};

// The node of a one-node model with what a plan would know of it.
class Case {
 public:
  // `text` is what follows "model ir=8 opset=17"; constants are its initializers.
  explicit Case(const std::string& text, int opset = 17, RowOptions options = {})
      : model_(parse_model(fmt::format("model ir=8 opset={}\n{}", opset, text))),
        inference_(*model_),
        options_(options) {
    inference_.run();
    std::uint64_t seed = 1;
    for (const Value* input : node().inputs()) {
      if (!input || input->constant()) {
        inputs_.push_back(input ? *input->constant() : Tensor());
        continue;
      }
      const auto dims = concrete(*input->type.shape);
      Tensor tensor(DType::float32, dims.value_or(Dims{}));  // not concrete: cannot run
      Random random(seed++);
      for (float& value : tensor.mutable_data<float>()) value = static_cast<float>(random.normal());
      inputs_.push_back(std::move(tensor));
    }
  }

  const Node& node() const { return *model_->graph.nodes().back(); }

  bool is_supported() const {
    const Preparation preparation(*this);
    const KernelDef* row = fast();
    return row && row->supports(preparation);
  }

  Tensor run_fast() const {
    const Preparation preparation(*this);
    const Kernel kernel = fast()->prepare(preparation);
    Call call(*this);
    kernel(call);
    Call again(*this);
    std::thread([&] { kernel(again); }).join();
    CHECK(call.result.equals(again.result));  // a prepared kernel keeps no state, nor its thread
    return again.result;
  }

  Tensor run_reference() const {
    ThreadPool pool(1);
    return evaluate(*operators().find(node()), node(), pointers(), pool).at(options_.output);
  }

 private:
  const KernelDef* fast() const {
    const auto found = operators().kernels(node());
    return found.empty() ? nullptr : found[0];
  }

  std::vector<const Tensor*> pointers() const {
    std::vector<const Tensor*> result;
    for (const Tensor& tensor : inputs_) result.push_back(tensor.defined() ? &tensor : nullptr);
    return result;
  }

  struct Preparation final : PrepareContext {
    explicit Preparation(const Case& of) : test(of) {}
    const Node& node() const override { return test.node(); }
    const Type* input_type(std::size_t i) const override {
      const Value* value = node().input(i);
      return value ? &test.inference_.type(value) : nullptr;
    }
    const Type* output_type(std::size_t i) const override {
      const Value* value = node().output(i);
      return value ? &test.inference_.type(value) : nullptr;
    }
    const Tensor* constant_input(std::size_t i) const override {
      const Value* value = node().input(i);
      return value ? value->constant() : nullptr;
    }
    int threads() const override { return test.options_.threads; }
    const Case& test;
  };

  struct Call final : KernelContext {
    explicit Call(const Case& of) : test(of), threads(of.options_.threads) {}
    std::size_t input_count() const override { return test.inputs_.size(); }
    const Tensor* input(std::size_t i) const override {
      return i < test.inputs_.size() && test.inputs_[i].defined() ? &test.inputs_[i] : nullptr;
    }
    bool wants_output(std::size_t i) const override { return i == test.options_.output; }
    Tensor& output(std::size_t, DType type, const Dims& dims) override {
      result = Tensor(type, dims);
      std::ranges::fill(result.mutable_bytes(), std::byte{0xff});  // NaN: all must be written
      return result;
    }
    void forward_output(std::size_t, Tensor tensor) override { result = std::move(tensor); }
    ThreadPool& pool() override { return threads; }
    std::vector<RuntimeValue> run_subgraph(std::string_view,
                                           std::span<const RuntimeValue>) override {
      fail("no subgraph");
    }
    const Case& test;
    Tensor result;
    ThreadPool threads;
  };

  std::unique_ptr<Model> model_;
  TypeInference inference_;
  RowOptions options_;
  std::vector<Tensor> inputs_;
};

// The fast row takes the node and gives what the reference row gives.
inline void check_rows(const std::string& text, double tolerance, int opset = 17,
                       RowOptions options = {}) {
  CAPTURE(text);
  const Case test(text, opset, options);
  REQUIRE(test.is_supported());
  const Tensor fast = test.run_fast(), reference = test.run_reference();
  REQUIRE(fast.dtype() == reference.dtype());
  REQUIRE(fast.dims() == reference.dims());
  const auto a = fast.data<float>(), b = reference.data<float>();
  double largest = 0, difference = 0;
  bool finite = true;
  for (std::size_t i = 0; i < a.size(); ++i) {
    finite = finite && std::isfinite(a[i]);
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
    difference =
        std::max(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  CHECK(finite);
  CHECK(difference <= tolerance * largest);
}

inline bool is_supported(const std::string& text, int opset = 17) {
  return Case(text, opset).is_supported();
}

}  // namespace onnxpress::rows
