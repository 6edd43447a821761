#include "graph/kernels/onednn.h"

namespace onnxpress::onednn {

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& cpu_stream() {
  thread_local dnnl::stream stream(cpu_engine());
  return stream;
}

const dnnl::primitive_attr& scratchpad_given() {
  static const dnnl::primitive_attr attributes = [] {
    dnnl::primitive_attr result;
    result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return result;
  }();
  return attributes;
}

memory::desc plain(const Dims& dims) {
  Dims strides(dims.size(), 1);
  for (std::size_t i = dims.size(); i-- > 1;) strides[i - 1] = strides[i] * dims[i];
  return strided(dims, strides);
}

memory::desc any_layout(const Dims& dims) {
  return {dims, memory::data_type::f32, memory::format_tag::any};
}

memory::desc strided(const Dims& dims, const Dims& strides) {
  return {dims, memory::data_type::f32, strides};
}

}  // namespace onnxpress::onednn
