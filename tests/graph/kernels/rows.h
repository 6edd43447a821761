// One node on a fast row and on the reference row.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
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

// Which output is compared, and how the fast row runs.
struct RowOptions {
  std::size_t output = 0;
  int threads = 1;
  std::string backend = {};           // of the row; empty: the first
  std::vector<PostOp> post_ops = {};  // behind the node
  Layout input = Layout::row_major;   // of input 0
  Layout layout = Layout::row_major;  // of the output, and of what is added to it
  bool may_approximate = false;
  // What inputs hold instead of random numbers, those that are not constants in their order; more
  // than the node has: operands of post-ops, of the output's dims.
  std::vector<Tensor> given = {};
};

// The same image with the channels last, or back.
inline Tensor with_channels_moved(const Tensor& image, Layout to) {
  if (image.rank() < 3) return image;
  Dims dims = image.dims();
  const bool is_last = to == Layout::channels_last;
  if (is_last)
    std::rotate(dims.begin() + 1, dims.begin() + 2, dims.end());
  else
    std::rotate(dims.begin() + 1, dims.end() - 1, dims.end());
  Tensor result(image.dtype(), dims);
  const auto width = static_cast<std::int64_t>(packed_bytes(image.dtype(), 1));
  const std::int64_t channels = is_last ? dims.back() : dims[1];
  const std::int64_t cells = element_count(dims) / dims[0] / channels;
  const std::byte* from = image.aligned_bytes();
  std::byte* target = result.mutable_bytes().data();
  for (std::int64_t n = 0; n < dims[0]; ++n)
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t i = 0; i < cells; ++i) {
        const std::int64_t first = (n * channels + c) * cells + i;
        const std::int64_t last = (n * cells + i) * channels + c;
        std::copy_n(from + (is_last ? first : last) * width, width,
                    target + (is_last ? last : first) * width);
      }
  return result;
}

// Normal floats, or integers from the whole range of their type.
inline Tensor random_tensor(DType type, const Dims& dims, std::uint64_t seed) {
  Tensor tensor(type, dims);
  Random random(seed);
  if (type == DType::float32)
    for (float& value : tensor.mutable_data<float>()) value = static_cast<float>(random.normal());
  else
    for (std::byte& value : tensor.mutable_bytes()) value = static_cast<std::byte>(random.next());
  return tensor;
}

// The node of a one-node model with what a plan would know of it.
class Case {
 public:
  // `text` is what follows "model ir=8 opset=17 com.microsoft=1"; constants are its initializers.
  explicit Case(const std::string& text, int opset = 17, RowOptions options = {})
      : model_(parse_model(fmt::format("model ir=8 opset={} com.microsoft=1\n{}", opset, text))),
        inference_(*model_),
        options_(std::move(options)) {
    inference_.run();
    std::uint64_t seed = 1;
    auto given = options_.given.begin();
    for (const Value* input : node().inputs()) {
      if (!input || input->constant()) {
        inputs_.push_back(input ? *input->constant() : Tensor());
        continue;
      }
      if (given != options_.given.end()) {
        inputs_.push_back(*given++);
        continue;
      }
      const auto dims = concrete(*input->type.shape);
      // Not concrete: cannot run.
      const DType type = dims ? input->type.elem : DType::float32;
      inputs_.push_back(random_tensor(type, dims.value_or(Dims{}), seed++));
    }
    inputs_.insert(inputs_.end(), given, options_.given.end());
  }

  const Node& node() const { return *model_->graph.nodes().back(); }

  bool is_supported() const {
    const Preparation preparation(*this);
    const KernelDef* row = fast();
    return row && row->supports(preparation);
  }

  // Whether the row takes `op` behind the post-ops of the options.
  bool fuses(const PostOp& op) const {
    const Preparation preparation(*this);
    return fast()->fuses && fast()->fuses(preparation, op);
  }

  const std::vector<Tensor>& inputs() const { return inputs_; }

  Tensor run_fast() const {
    const Preparation preparation(*this);
    const Kernel kernel = fast()->prepare(preparation);
    Call call(*this);
    kernel(call);
    Call again(*this);
    std::thread([&] { kernel(again); }).join();
    CHECK(call.result.equals(again.result));  // a prepared kernel keeps no state, nor its thread
    return options_.layout == Layout::channels_last
               ? with_channels_moved(again.result, Layout::row_major)
               : again.result;
  }

  // The same with the output in the memory of input `index`.
  Tensor run_fast_in_place(std::size_t index) const {
    const Preparation preparation(*this);
    Call call(*this);
    call.place_over(index);
    fast()->prepare(preparation)(call);
    return options_.layout == Layout::channels_last
               ? with_channels_moved(call.result, Layout::row_major)
               : call.result;
  }

  // Without the post-ops.
  Tensor run_reference() const {
    ThreadPool pool(1);
    return evaluate(*operators().find(node()), node(), pointers(), pool).at(options_.output);
  }

 private:
  const KernelDef* fast() const {
    for (const KernelDef* row : operators().kernels(node()))
      if (options_.backend.empty() || row->backend == options_.backend) return row;
    return nullptr;
  }

  std::vector<const Tensor*> pointers() const {
    std::vector<const Tensor*> result;
    for (std::size_t i = 0; i < node().input_count(); ++i)
      result.push_back(inputs_[i].defined() ? &inputs_[i] : nullptr);
    return result;
  }

  struct Preparation final : PrepareContext {
    explicit Preparation(const Case& of) : test(of) {}
    const Node& node() const override { return test.node(); }
    const Type* input_type(std::size_t i) const override {
      const Value* value = i < node().input_count() ? node().input(i) : nullptr;
      return value ? &test.inference_.type(value) : nullptr;
    }
    const Type* output_type(std::size_t i) const override {
      const Value* value = i < node().output_count() ? node().output(i) : nullptr;
      return value ? &test.inference_.type(value) : nullptr;
    }
    const Tensor* constant_input(std::size_t i) const override {
      const Value* value = i < node().input_count() ? node().input(i) : nullptr;
      return value ? value->constant() : nullptr;
    }
    int threads() const override { return test.options_.threads; }
    Layout input_layout(std::size_t i) const override {
      return i == 0 ? test.options_.input : Layout::row_major;
    }
    Layout output_layout() const override { return test.options_.layout; }
    std::span<const PostOp> post_ops() const override { return test.options_.post_ops; }
    bool may_approximate() const override { return test.options_.may_approximate; }
    const Case& test;
  };

  struct Call final : KernelContext {
    explicit Call(const Case& of) : test(of), inputs(of.inputs_), threads(of.options_.threads) {
      if (test.options_.input == Layout::channels_last)
        inputs[0] = with_channels_moved(inputs[0], Layout::channels_last);
      if (test.options_.layout == Layout::channels_last)
        for (std::size_t i = test.node().input_count(); i < inputs.size(); ++i)
          inputs[i] = with_channels_moved(inputs[i], Layout::channels_last);
    }
    void place_over(std::size_t index) {
      Tensor& input = inputs.at(index);
      const auto bytes = input.bytes();
      const auto memory = std::make_shared<std::vector<std::uint64_t>>(bytes.size() / 8 + 1);
      const std::span<std::byte> place(reinterpret_cast<std::byte*>(memory->data()), bytes.size());
      std::ranges::copy(bytes, place.begin());
      input = Tensor::over(input.dtype(), input.dims(), place, memory);
      in_place = Tensor::over(input.dtype(), input.dims(), place, memory);
    }
    std::size_t input_count() const override { return inputs.size(); }
    const Tensor* input(std::size_t i) const override {
      return i < inputs.size() && inputs[i].defined() ? &inputs[i] : nullptr;
    }
    bool wants_output(std::size_t i) const override { return i == test.options_.output; }
    Tensor& output(std::size_t, DType type, const Dims& dims) override {
      if (in_place.defined()) {
        REQUIRE(in_place.dtype() == type);
        REQUIRE(in_place.dims() == dims);
        return result = in_place;
      }
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
    std::vector<Tensor> inputs;
    Tensor in_place;
    Tensor result;
    ThreadPool threads;
  };

  std::unique_ptr<Model> model_;
  TypeInference inference_;
  RowOptions options_;
  std::vector<Tensor> inputs_;
};

// Equal types and dims, elements within `tolerance` of the largest finite magnitude; NaN and
// infinities where the other has them.
inline void check_floats(const Tensor& found, const Tensor& expected, double tolerance) {
  REQUIRE(found.dtype() == expected.dtype());
  REQUIRE(found.dims() == expected.dims());
  const auto a = found.data<float>(), b = expected.data<float>();
  double largest = 0;
  for (const float value : b)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(static_cast<double>(value)));
  int wrong = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    const bool close = std::isfinite(b[i]) ? difference <= tolerance * largest
                       : std::isnan(b[i])  ? std::isnan(a[i])
                                           : a[i] == b[i];
    if (!close && ++wrong == 1)
      MESSAGE("at ", i, ": expected ", b[i], ", found ", a[i], "; largest ", largest);
  }
  CHECK(wrong == 0);
}

// The fast row takes the node and gives what the reference row gives.
inline void check_rows(const std::string& text, double tolerance, int opset = 17,
                       RowOptions options = {}) {
  CAPTURE(text);
  const Case test(text, opset, std::move(options));
  REQUIRE(test.is_supported());
  check_floats(test.run_fast(), test.run_reference(), tolerance);
}

inline bool is_supported(const std::string& text, int opset = 17, RowOptions options = {}) {
  return Case(text, opset, std::move(options)).is_supported();
}

}  // namespace onnxpress::rows
