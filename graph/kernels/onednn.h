// oneDNN 2.6 and 3.x behind one face: the only place that knows their differences.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <oneapi/dnnl/dnnl.hpp>
#include <span>
#include <string_view>
#include <utility>

#include "graph/base/error.h"
#include "graph/ops/kernel.h"

namespace onnxpress::onednn {

using dnnl::memory;

// The process's CPU engine, and the calling thread's stream on it.
const dnnl::engine& cpu_engine();
dnnl::stream& cpu_stream();

// For primitives that take their scratchpad as an argument. oneDNN's own belongs to the thread that
// made the primitive, and is missing in others that execute it.
const dnnl::primitive_attr& scratchpad_given();

// The same with operations behind the primitive; an `add` adds to what the destination holds.
dnnl::primitive_attr attributes(std::span<const PostOp> post_ops);
// Whether `op` can come behind what the context has: anything elementwise that oneDNN knows, and
// one addition, since that goes to the destination.
bool fuses_post_op(const PrepareContext& context, const PostOp& op);

// Runs `body`; a dnnl::error that leaves it becomes an Error.
template <class Body>
decltype(auto) guarded(const Body& body) {
  try {
    return body();
  } catch (const dnnl::error& error) {
    fail("oneDNN: {} (status {})", error.what(), static_cast<int>(error.status));
  }
}

// Of the given dims: row-major, in a layout that oneDNN chooses, or with strides in elements.
using DataType = memory::data_type;
memory::desc plain(const Dims& dims, DataType type = DataType::f32);
memory::desc any_layout(const Dims& dims, DataType type = DataType::f32);
memory::desc image(const Dims& dims, Layout layout, DataType type = DataType::f32);
memory::desc strided(const Dims& dims, const Dims& strides, DataType type = DataType::f32);
// float32, uint8 or int8.
DataType data_type(DType type);

// Spatial geometry as oneDNN takes it: `dilations` are ONNX's less one.
struct Spatial {
  Dims strides, dilations, pads_begin, pads_end;
};

// Whether oneDNN's implementation of this name is wanted.
using SuitsName = std::function<bool(std::string_view)>;

// Of the implementations that oneDNN offers for what `make()` describes, the first whose name suits,
// else the first. What the descriptor was made of must live until then.
template <class Make>
auto first_suited(const Make& make, const SuitsName& suits) {
  if (suits) {
    auto offered = make();
    do {
      if (suits(offered.impl_info_str())) return offered;
    } while (offered.next_impl());
  }
  return make();
}

// Descriptors for inference; `bias` may be a zero descriptor (memory::desc()). The attributes must
// come from scratchpad_given() or attributes().
#if DNNL_VERSION_MAJOR >= 3

using pooling_forward = dnnl::pooling_forward;

inline auto convolution(dnnl::algorithm algorithm, const memory::desc& src,
                        const memory::desc& weights, const memory::desc& bias,
                        const memory::desc& dst, const Spatial& s,
                        const dnnl::primitive_attr& attributes, const SuitsName& suits = nullptr) {
  return first_suited(
      [&] {
        return dnnl::convolution_forward::primitive_desc(
            cpu_engine(), dnnl::prop_kind::forward_inference, algorithm, src, weights, bias, dst,
            s.strides, s.dilations, s.pads_begin, s.pads_end, attributes);
      },
      suits);
}

inline auto deconvolution(const memory::desc& src, const memory::desc& weights,
                          const memory::desc& bias, const memory::desc& dst, const Spatial& s,
                          const dnnl::primitive_attr& attributes) {
  return dnnl::deconvolution_forward::primitive_desc(
      cpu_engine(), dnnl::prop_kind::forward_inference, dnnl::algorithm::deconvolution_direct, src,
      weights, bias, dst, s.strides, s.dilations, s.pads_begin, s.pads_end, attributes);
}

inline auto pooling(dnnl::algorithm algorithm, const memory::desc& src, const memory::desc& dst,
                    const Dims& kernel, const Spatial& s) {
  return pooling_forward::primitive_desc(cpu_engine(), dnnl::prop_kind::forward_inference,
                                         algorithm, src, dst, s.strides, kernel, s.dilations,
                                         s.pads_begin, s.pads_end, scratchpad_given());
}

inline auto matmul(const memory::desc& src, const memory::desc& weights, const memory::desc& bias,
                   const memory::desc& dst, const dnnl::primitive_attr& attributes) {
  return dnnl::matmul::primitive_desc(cpu_engine(), src, weights, bias, dst, attributes);
}

#else

using pooling_forward = dnnl::pooling_v2_forward;

inline auto convolution(dnnl::algorithm algorithm, const memory::desc& src,
                        const memory::desc& weights, const memory::desc& bias,
                        const memory::desc& dst, const Spatial& s,
                        const dnnl::primitive_attr& attributes, const SuitsName& suits = nullptr) {
  const dnnl::convolution_forward::desc described(
      dnnl::prop_kind::forward_inference, algorithm, src, weights, bias, dst, s.strides,
      s.dilations, s.pads_begin, s.pads_end);
  return first_suited(
      [&] {
        return dnnl::convolution_forward::primitive_desc(described, attributes, cpu_engine());
      },
      suits);
}

inline auto deconvolution(const memory::desc& src, const memory::desc& weights,
                          const memory::desc& bias, const memory::desc& dst, const Spatial& s,
                          const dnnl::primitive_attr& attributes) {
  return dnnl::deconvolution_forward::primitive_desc(
      {dnnl::prop_kind::forward_inference, dnnl::algorithm::deconvolution_direct, src, weights,
       bias, dst, s.strides, s.dilations, s.pads_begin, s.pads_end},
      attributes, cpu_engine());
}

inline auto pooling(dnnl::algorithm algorithm, const memory::desc& src, const memory::desc& dst,
                    const Dims& kernel, const Spatial& s) {
  return pooling_forward::primitive_desc({dnnl::prop_kind::forward_inference, algorithm, src, dst,
                                          s.strides, kernel, s.dilations, s.pads_begin, s.pads_end},
                                         scratchpad_given(), cpu_engine());
}

inline auto matmul(const memory::desc& src, const memory::desc& weights, const memory::desc& bias,
                   const memory::desc& dst, const dnnl::primitive_attr& attributes) {
  return dnnl::matmul::primitive_desc({src, weights, bias, dst}, attributes, cpu_engine());
}

#endif

}  // namespace onnxpress::onednn
