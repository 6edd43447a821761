// Descriptors of oneDNN's gradients, 2.6 and 3.x, and their calls.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "graph/kernels/onednn.h"
#include "graph/ops/gradient.h"

namespace onnxpress::onednn {

// One gradient computed by a kernel: its inputs are the given tensors, its output the gradient of
// input `index`.
class GradientCall final : public KernelContext {
 public:
  GradientCall(BackwardContext& context, std::vector<const Tensor*> inputs, std::size_t index)
      : context_(context), inputs_(std::move(inputs)), index_(index) {}

  std::size_t input_count() const override { return inputs_.size(); }
  const Tensor* input(std::size_t index) const override {
    return index < inputs_.size() ? inputs_[index] : nullptr;
  }
  bool wants_output(std::size_t index) const override { return index == 0; }
  Tensor& output(std::size_t, DType, const Dims&) override { return context_.gradient(index_); }
  void forward_output(std::size_t, Tensor tensor) override {
    context_.forward_gradient(index_, std::move(tensor));
  }
  ThreadPool& pool() override { return context_.pool(); }
  std::vector<RuntimeValue> run_subgraph(std::string_view, std::span<const RuntimeValue>) override {
    fail("a gradient runs no subgraph");
  }

 private:
  BackwardContext& context_;
  std::vector<const Tensor*> inputs_;
  std::size_t index_;
};

// Of y = x * w: dx from dy and w, and dw from x and dy.
#if DNNL_VERSION_MAJOR >= 3

inline auto convolution_training(const memory::desc& x, const memory::desc& w,
                                 const memory::desc& y, const Spatial& s) {
  return dnnl::convolution_forward::primitive_desc(
      cpu_engine(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, x, w, y,
      s.strides, s.dilations, s.pads_begin, s.pads_end, scratchpad_given());
}

inline auto convolution_data_gradient(const memory::desc& dx, const memory::desc& w,
                                      const memory::desc& dy, const Spatial& s) {
  return dnnl::convolution_backward_data::primitive_desc(
      cpu_engine(), dnnl::algorithm::convolution_direct, dx, w, dy, s.strides, s.dilations,
      s.pads_begin, s.pads_end, convolution_training(dx, w, dy, s), scratchpad_given());
}

inline auto convolution_weights_gradient(const memory::desc& x, const memory::desc& dw,
                                         const memory::desc& dy, const Spatial& s) {
  return dnnl::convolution_backward_weights::primitive_desc(
      cpu_engine(), dnnl::algorithm::convolution_direct, x, dw, dy, s.strides, s.dilations,
      s.pads_begin, s.pads_end, convolution_training(x, dw, dy, s), scratchpad_given());
}

#else

inline auto convolution_training(const memory::desc& x, const memory::desc& w,
                                 const memory::desc& y, const Spatial& s) {
  return dnnl::convolution_forward::primitive_desc(
      {dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, x, w, y, s.strides,
       s.dilations, s.pads_begin, s.pads_end},
      scratchpad_given(), cpu_engine());
}

inline auto convolution_data_gradient(const memory::desc& dx, const memory::desc& w,
                                      const memory::desc& dy, const Spatial& s) {
  return dnnl::convolution_backward_data::primitive_desc(
      {dnnl::algorithm::convolution_direct, dx, w, dy, s.strides, s.dilations, s.pads_begin,
       s.pads_end},
      scratchpad_given(), cpu_engine(), convolution_training(dx, w, dy, s));
}

inline auto convolution_weights_gradient(const memory::desc& x, const memory::desc& dw,
                                         const memory::desc& dy, const Spatial& s) {
  return dnnl::convolution_backward_weights::primitive_desc(
      {dnnl::algorithm::convolution_direct, x, dw, dy, s.strides, s.dilations, s.pads_begin,
       s.pads_end},
      scratchpad_given(), cpu_engine(), convolution_training(x, dw, dy, s));
}

#endif

}  // namespace onnxpress::onednn
