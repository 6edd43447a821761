#include "graph/ops/rotary_embedding.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// The operator of ai.onnx takes (X, cos, sin, positions), that of com.microsoft (X, positions, cos,
// sin); there `heads` may be left to the caches' width.
struct RotaryAttrs {
  std::int64_t heads = 0;  // 0: not given
  std::int64_t width = 0;  // rotated elements of a head; 0: all
  bool interleaved = false;
  bool contrib = false;

  static RotaryAttrs from(const Node& node) {
    const RotaryAttrs attrs{.heads = get_int(node, "num_heads", 0),
                            .width = get_int(node, "rotary_embedding_dim", 0),
                            .interleaved = get_bool(node, "interleaved", false),
                            .contrib = node.domain() == "com.microsoft"};
    require(attrs.heads >= 0, "attribute 'num_heads': expected at least 0, found {}", attrs.heads);
    require(attrs.width >= 0 && attrs.width % 2 == 0,
            "attribute 'rotary_embedding_dim': expected an even number, found {}", attrs.width);
    require(!get_bool(node, "is_packed_batching", false),
            "attribute 'is_packed_batching' is not supported");
    return attrs;
  }

  std::size_t cosines() const { return contrib ? 2 : 1; }
  std::size_t positions() const { return contrib ? 1 : 3; }
};

// Rows of the caches, flattened to two axes, for every row of the batch.
std::vector<std::int64_t> cache_rows(const Tensor* positions, const Tensor& cosines,
                                     std::int64_t batch, std::int64_t rows, bool contrib) {
  std::vector<std::int64_t> found;
  if (positions == nullptr) {
    require(cosines.rank() == 3 && cosines.dim(0) == batch && cosines.dim(1) == rows,
            "expected caches [{},{},width] without position ids, found {}", batch, rows,
            to_string(cosines.dims()));
    for (std::int64_t i = 0; i < batch * rows; ++i) found.push_back(i);
    return found;
  }
  require(cosines.rank() == 2, "expected caches of 2 axes, found {}", to_string(cosines.dims()));
  found = positions->to_ints();
  if (contrib && positions->size() == 1 && positions->rank() <= 1) {
    const std::int64_t first = found.front();
    require(0 <= first && first <= cosines.dim(0), "position {} is out of range for {} rows", first,
            cosines.dim(0));
    found.clear();
    for (std::int64_t i = 0; i < batch * rows; ++i) found.push_back(first + i % rows);
    return found;
  }
  require(positions->dims() == Dims({batch, rows}), "expected position ids [{},{}], found {}",
          batch, rows, to_string(positions->dims()));
  return found;
}

Kernel prepare_rotary_embedding(const PrepareContext& prepare) {
  return [attrs = RotaryAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& cosines = inner.required_input(attrs.cosines());
      const Tensor& sines = inner.required_input(attrs.cosines() + 1);
      require(x.rank() == 3 || x.rank() == 4, "expected an input of 3 or 4 axes, found {}",
              to_string(x.dims()));
      require(cosines.rank() >= 2 && cosines.dims() == sines.dims(),
              "expected caches of equal dims, found {} and {}", to_string(cosines.dims()),
              to_string(sines.dims()));
      require(attrs.width == 0 || cosines.dims().back() * 2 == attrs.width,
              "expected caches with {} columns, found {}", attrs.width / 2, cosines.dims().back());
      const bool packed = x.rank() == 3;
      RotaryTask task{.batch = x.dim(0), .interleaved = attrs.interleaved};
      task.rows = x.dim(packed ? 1 : 2);
      if (packed) {
        require(attrs.heads > 0 || (attrs.contrib && cosines.dims().back() > 0),
                "expected num_heads for an input of 3 axes");
        task.heads =
            attrs.heads > 0 ? attrs.heads : head_width(x.dim(2), cosines.dims().back() * 2);
        task.width = head_width(x.dim(2), task.heads);
      } else {
        task.heads = x.dim(1);
        task.width = x.dim(3);
      }
      require(attrs.width != 0 || cosines.dims().back() * 2 == task.width,
              "expected caches with {} columns, found {}", task.width / 2, cosines.dims().back());
      task.cache_rows =
          cache_rows(inner.input(attrs.positions()), cosines, task.batch, task.rows, attrs.contrib);
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const HeadsView<const T> from = packed ? rows_first<T>(x, task.heads) : heads_first<T>(x);
        rotate<T>(
            inner.pool(), task, cosines, sines, from,
            {y.mutable_data<T>().data(), from.batch_stride, from.head_stride, from.row_stride});
      });
    });
  };
}

}  // namespace

template <class T>
void rotate(ThreadPool& pool, const RotaryTask& task, const Tensor& cosines, const Tensor& sines,
            HeadsView<const T> x, HeadsView<T> y) {
  const std::int64_t half = cosines.dims().back();
  const std::int64_t positions = element_count(std::span(cosines.dims()).first(cosines.rank() - 1));
  require(2 * half <= task.width, "expected caches with at most {} columns, found {}",
          task.width / 2, half);
  for (const std::int64_t row : task.cache_rows)
    require(0 <= row && row < positions, "position {} is out of range for {} rows", row, positions);
  const T* const c = cosines.data<T>().data();
  const T* const s = sines.data<T>().data();
  const std::int64_t step = task.interleaved ? 2 : 1;
  const std::int64_t apart = task.interleaved ? 1 : half;
  pool.parallel_for(task.batch * task.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t at = task.cache_rows[static_cast<std::size_t>(i)] * half;
      for (std::int64_t head = 0; head < task.heads; ++head) {
        const T* const from = x.at(i / task.rows, head, i % task.rows);
        T* const to = y.at(i / task.rows, head, i % task.rows);
        for (std::int64_t k = 0; k < half; ++k) {
          const T real = from[k * step], imaginary = from[k * step + apart];
          to[k * step] = c[at + k] * real - s[at + k] * imaginary;
          to[k * step + apart] = s[at + k] * real + c[at + k] * imaginary;
        }
        std::copy(from + 2 * half, from + task.width, to + 2 * half);
      }
    }
  });
}

#define ONNXPRESS_INSTANTIATE(T)                                                        \
  template void rotate<T>(ThreadPool&, const RotaryTask&, const Tensor&, const Tensor&, \
                          HeadsView<const T>, HeadsView<T>);
ONNXPRESS_INSTANTIATE(float)
ONNXPRESS_INSTANTIATE(double)
#undef ONNXPRESS_INSTANTIATE

OPERATORS(rotary_embedding) {
  registry.add(OpDef{.name = "RotaryEmbedding",
                     .since = 23,
                     .infer = infer_same_as_first,
                     .prepare = prepare_rotary_embedding});
  registry.add(OpDef{.name = "RotaryEmbedding",
                     .domain = "com.microsoft",
                     .infer = infer_same_as_first,
                     .prepare = prepare_rotary_embedding});
}

}  // namespace onnxpress
