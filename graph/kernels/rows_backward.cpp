// Gradients of Softmax, LogSoftmax and layer normalization of float32 rows.
#include <algorithm>
#include <optional>
#include <vector>

#include "graph/kernels/float_rows.h"
#include "graph/kernels/normalization_loops.h"
#include "graph/kernels/primitive_kernel.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

template <bool is_logarithm>
BackwardKernel prepare_softmax(const PrepareContext& context) {
  return [size = *softmax_row_size(context)](BackwardContext& call) {
    const float* const y = call.required_output(0).data<float>().data();
    const Tensor& dy = call.required_gradient(0);
    const std::int64_t rows = dy.size() / size;
    const float* const g = dy.data<float>().data();
    float* const dx = call.gradient(0).mutable_data<float>().data();
    call.pool().parallel_for(rows, row_block(size), [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * size;
      softmax_gradient_loop(y + at, g + at, dx + at, end - begin, size, is_logarithm);
    });
  };
}

// Sums of blocks of rows, put together in the order of the blocks.
class ColumnSums {
 public:
  ColumnSums(bool is_wanted, std::int64_t blocks, std::int64_t columns)
      : columns_(columns), sums_(static_cast<std::size_t>(is_wanted ? blocks * columns : 0), 0) {}

  double* of(std::int64_t block) { return sums_.empty() ? nullptr : sums_.data() + block * columns_; }

  void put(ThreadPool& pool, float* target) const {
    const std::int64_t blocks = std::ssize(sums_) / columns_;
    pool.parallel_for(columns_, 256, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = begin; c < end; ++c) {
        double total = 0;
        for (std::int64_t block = 0; block < blocks; ++block)
          total += sums_[static_cast<std::size_t>(block * columns_ + c)];
        target[c] = static_cast<float>(total);
      }
    });
  }

 private:
  std::int64_t columns_;
  std::vector<double> sums_;
};

template <bool is_rms>
BackwardKernel prepare_layer_norm(const PrepareContext& context) {
  const LayerNormAttrs attrs = LayerNormAttrs::from(context.node());
  const std::int64_t size = element_count(layer_norm_row(context));
  return [size, epsilon = static_cast<float>(attrs.epsilon)](BackwardContext& call) {
    const Tensor& dy = call.required_gradient(0);
    const float* const g = dy.data<float>().data();
    const float* const x = call.required_input(0).data<float>().data();
    const float* const scale = call.required_input(1).data<float>().data();
    const std::int64_t rows = dy.size() / size;
    // At most 64 blocks: what they sum is small beside the rows.
    const std::int64_t block = std::max(row_block(size), (rows + 63) / 64);
    const std::int64_t blocks = (rows + block - 1) / block;
    ColumnSums dscale(call.wants_gradient(1), blocks, size), dbias(call.wants_gradient(2), blocks, size);
    float* const dx =
        call.wants_gradient(0) ? call.gradient(0).mutable_data<float>().data() : nullptr;
    call.pool().parallel_for(rows, block, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * size;
      layer_norm_gradient_loop(x + at, scale, g + at, dx != nullptr ? dx + at : nullptr,
                               dscale.of(begin / block), dbias.of(begin / block), end - begin, size,
                               epsilon, is_rms);
    });
    if (call.wants_gradient(1)) dscale.put(call.pool(), call.gradient(1).mutable_data<float>().data());
    if (call.wants_gradient(2)) dbias.put(call.pool(), call.gradient(2).mutable_data<float>().data());
  };
}

}  // namespace

OPERATORS(row_gradients) {
  registry.add(GradientDef{.name = "Softmax",
                           .backend = "vector",
                           .supports = has_softmax_rows,
                           .prepare = prepare_softmax<false>,
                           .reads_inputs = 0,
                           .reads_outputs = bits_of(0)});
  registry.add(GradientDef{.name = "LogSoftmax",
                           .backend = "vector",
                           .supports = has_softmax_rows,
                           .prepare = prepare_softmax<true>,
                           .reads_inputs = 0,
                           .reads_outputs = bits_of(0)});
  registry.add(GradientDef{.name = "LayerNormalization",
                           .backend = "vector",
                           .supports = has_layer_norm_rows,
                           .prepare = prepare_layer_norm<false>,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0});
  registry.add(GradientDef{.name = "RMSNormalization",
                           .backend = "vector",
                           .supports = has_layer_norm_rows,
                           .prepare = prepare_layer_norm<true>,
                           .reads_inputs = bits_of(0, 1),
                           .reads_outputs = 0});
}

}  // namespace onnxpress
