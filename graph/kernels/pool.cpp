// MaxPool, AveragePool and their global forms on oneDNN.
#include "graph/ops/pool.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <span>
#include <utility>

#include "graph/kernels/conv_layouts.h"
#include "graph/ops/pool_walk.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using onednn::dims_of;
using onednn::is_float_operand;
using onednn::stored;

bool is_image(const PrepareContext& context, bool (*is_operand)(const Type*)) {
  if (!is_operand(context.input_type(0)) || !is_operand(context.output_type(0))) return false;
  const std::size_t rank = dims_of(context.input_type(0)).size();
  return rank >= 3 && rank <= 5;
}

bool is_float_image(const PrepareContext& context) { return is_image(context, is_float_operand); }
bool is_code_image(const PrepareContext& context) {
  return is_image(context, onednn::is_code_operand);
}

// Where windows lie, the padding at the end stretched or cut to the cells that windows reach.
struct PoolSpatial {
  Dims begin, end;         // padding
  bool is_plain = true;    // the end's padding is as the node has it
  bool is_covered = true;  // every window has a cell of the input

  PoolSpatial(const Window& window, const Dims& x, const Dims& y) {
    const Dims input(x.begin() + 2, x.end());
    const Dims pads = window.resolved_pads(input);
    for (std::size_t axis = 0; axis < window.rank(); ++axis) {
      const std::int64_t start = (y[axis + 2] - 1) * window.strides[axis] - pads[axis];
      const std::int64_t needed = start + window.extent(axis) - input[axis];
      const std::int64_t given = pads[axis + window.rank()];
      begin.push_back(pads[axis]);
      end.push_back(std::max<std::int64_t>(needed, 0));
      is_plain = is_plain && needed <= given;
      is_covered = is_covered && start < input[axis] && pads[axis] < window.extent(axis) &&
                   window.dilations[axis] == 1;
    }
  }
};

bool supports_pool(const PrepareContext& context) {
  const bool is_code_maximum = context.node().is("MaxPool") && is_code_image(context);
  if (!(is_float_image(context) || is_code_maximum) || context.output_type(1)) return false;
  const PoolAttrs attrs = PoolAttrs::from(context.node());
  const PoolSpatial spatial(attrs.window, dims_of(context.input_type(0)),
                            dims_of(context.output_type(0)));
  return spatial.is_covered && (spatial.is_plain || !attrs.count_include_pad);
}

// oneDNN's maxima begin at the lowest number that is finite, and pass NaN over: windows without anything larger
// hold -infinity, NaN or that number.
class LowestWindows {
 public:
  LowestWindows(const PrepareContext& context, const Window& window)
      : geometry_(WindowGeometry::of(window, onednn::spatial_of(dims_of(context.input_type(0))),
                                     onednn::spatial_of(dims_of(context.output_type(0))))),
        channels_(dims_of(context.input_type(0))[1]),
        x_is_last_(context.input_layout(0) == Layout::channels_last),
        y_is_last_(context.output_layout() == Layout::channels_last) {}

  void put_right(const float* x, std::span<float> y) const {
    for (std::size_t i = 0; i < y.size(); ++i)
      if (y[i] == std::numeric_limits<float>::lowest()) y[i] = maximum(x, static_cast<std::int64_t>(i));
  }

 private:
  float maximum(const float* x, std::int64_t index) const {
    const std::int64_t cells = geometry_.output_size(), image = index / (cells * channels_);
    const std::int64_t within = index % (cells * channels_);
    const std::int64_t channel = y_is_last_ ? within % channels_ : within / cells;
    const std::int64_t cell = y_is_last_ ? within / channels_ : within % cells;
    const std::int64_t row = geometry_.output[2], plane = geometry_.output[1] * row;
    const std::int64_t at[3] = {cell / plane, cell % plane / row, cell % row};
    const float* const from = x + image * channels_ * geometry_.input_size();
    float best = -std::numeric_limits<float>::infinity();
    for_each_tap(geometry_, at, [&](std::int64_t i) {
      const float value = from[x_is_last_ ? i * channels_ + channel : channel * geometry_.input_size() + i];
      if (value > best || value != value) best = value;
    });
    return best;
  }

  WindowGeometry geometry_;
  std::int64_t channels_;
  bool x_is_last_, y_is_last_;
};

using Finish = std::function<void(KernelContext&, Tensor&)>;

// For make_kernel(); nothing for codes.
Finish lowest_windows(const PrepareContext& context, const Window& window) {
  if (context.input_type(0)->elem != DType::float32) return nullptr;
  return [windows = LowestWindows(context, window)](KernelContext& call, Tensor& output) {
    windows.put_right(call.required_input(0).data<float>().data(), output.mutable_data<float>());
  };
}

Kernel make_kernel(const PrepareContext& context, dnnl::algorithm algorithm, const Dims& kernel,
                   const onednn::Spatial& spatial, Finish finish) {
  return onednn::guarded([&]() -> Kernel {
    const Dims x = dims_of(context.input_type(0)), y = dims_of(context.output_type(0));
    const DType type = context.input_type(0)->elem;
    const auto element = onednn::data_type(type);
    const onednn::memory::desc given = onednn::image(x, context.input_layout(0), element);
    const onednn::memory::desc target = onednn::image(y, context.output_layout(), element);
    const onednn::memory::desc source = onednn::image(x, context.output_layout(), element);
    const auto descriptor = onednn::pooling(algorithm, source, target, kernel, spatial);
    onednn::PrimitiveKernel result(onednn::pooling_forward(descriptor),
                                   descriptor.scratchpad_desc(), type,
                                   stored(y, context.output_layout()));
    result.add_input(DNNL_ARG_SRC, 0, given, descriptor.src_desc(), nullptr);
    result.set_output(target, descriptor.dst_desc());
    result.set_finish(std::move(finish));
    return result;
  });
}

Kernel prepare_pool(const PrepareContext& context, dnnl::algorithm algorithm,
                    Finish finish = nullptr) {
  const Window window = PoolAttrs::from(context.node()).window;
  const Dims x = dims_of(context.input_type(0)), y = dims_of(context.output_type(0));
  PoolSpatial spatial(window, x, y);
  return make_kernel(context, algorithm, window.kernel,
                     {.strides = window.strides,
                      .dilations = Dims(window.rank(), 0),
                      .pads_begin = std::move(spatial.begin),
                      .pads_end = std::move(spatial.end)},
                     std::move(finish));
}

Kernel prepare_max(const PrepareContext& context) {
  return prepare_pool(context, dnnl::algorithm::pooling_max,
                      lowest_windows(context, PoolAttrs::from(context.node()).window));
}

Kernel prepare_average(const PrepareContext& context) {
  const bool include = PoolAttrs::from(context.node()).count_include_pad;
  return prepare_pool(context, include ? dnnl::algorithm::pooling_avg_include_padding
                                       : dnnl::algorithm::pooling_avg_exclude_padding);
}

Kernel prepare_global(const PrepareContext& context, dnnl::algorithm algorithm,
                      Finish finish = nullptr) {
  const Dims x = dims_of(context.input_type(0));
  const Dims kernel(x.begin() + 2, x.end());
  const Dims zeros(kernel.size(), 0);
  return make_kernel(context, algorithm, kernel,
                     {.strides = Dims(kernel.size(), 1),
                      .dilations = zeros,
                      .pads_begin = zeros,
                      .pads_end = zeros},
                     std::move(finish));
}

Kernel prepare_global_average(const PrepareContext& context) {
  return prepare_global(context, dnnl::algorithm::pooling_avg_exclude_padding);
}

Kernel prepare_global_max(const PrepareContext& context) {
  Window window;
  window.kernel = onednn::spatial_of(dims_of(context.input_type(0)));
  window.strides = window.dilations = std::vector<std::int64_t>(window.kernel.size(), 1);
  window.pads.assign(2 * window.kernel.size(), 0);
  return prepare_global(context, dnnl::algorithm::pooling_max, lowest_windows(context, window));
}

}  // namespace

OPERATORS(onednn_pool) {
  registry.add(KernelDef{.name = "MaxPool",
                         .backend = "onednn",
                         .supports = supports_pool,
                         .prepare = prepare_max,
                         .channels_last = true});
  registry.add(KernelDef{.name = "AveragePool",
                         .backend = "onednn",
                         .supports = supports_pool,
                         .prepare = prepare_average,
                         .channels_last = true});
  registry.add(KernelDef{.name = "GlobalAveragePool",
                         .backend = "onednn",
                         .supports = is_float_image,
                         .prepare = prepare_global_average,
                         .channels_last = true});
  registry.add(KernelDef{.name = "GlobalMaxPool",
                         .backend = "onednn",
                         .supports = is_float_image,
                         .prepare = prepare_global_max,
                         .channels_last = true});
}

}  // namespace onnxpress
