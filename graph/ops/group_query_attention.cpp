// GroupQueryAttention of com.microsoft: causal attention over a cache whose rows in use differ by
// batch element.
#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/attention_core.h"
#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/registry.h"
#include "graph/ops/rotary_embedding.h"

namespace onnxpress {
namespace {

enum Input {
  query,
  key,
  value,
  past_key,
  past_value,
  last_keys,
  total_length,
  cosines,
  sines,
  position_ids,
  attention_bias,
  head_sink,
  key_scale,
  value_scale,
  query_norm,
  key_norm
};

struct GroupQueryAttrs {
  std::int64_t query_heads = 0, heads = 0;
  float scale = 0;  // 0: 1 / sqrt(head width)
  float softcap = 0;
  std::int64_t window = -1;  // keys that a query sees, up to its own; -1: all
  bool causal = true, rotary = false, interleaved = false, smooth = false;
  float norm_epsilon = 1e-6f;

  static GroupQueryAttrs from(const Node& node) {
    const GroupQueryAttrs attrs{.query_heads = require_int(node, "num_heads"),
                                .heads = require_int(node, "kv_num_heads"),
                                .scale = get_float(node, "scale", 0),
                                .softcap = get_float(node, "softcap", 0),
                                .window = get_int(node, "local_window_size", -1),
                                .causal = get_bool(node, "causal", true),
                                .rotary = get_bool(node, "do_rotary", false),
                                .interleaved = get_bool(node, "rotary_interleaved", false),
                                .smooth = get_int(node, "smooth_softmax", 0) == 1,
                                .norm_epsilon = get_float(node, "qk_norm_epsilon", 1e-6f)};
    require(attrs.heads > 0 && attrs.query_heads > 0 && attrs.query_heads <= most_heads &&
                attrs.query_heads % attrs.heads == 0,
            "expected num_heads a positive multiple of kv_num_heads, found {} and {}",
            attrs.query_heads, attrs.heads);
    require(attrs.window == -1 || (attrs.window > 0 && attrs.causal),
            "attribute 'local_window_size': expected -1, or at least 1 with causal attention, "
            "found {}",
            attrs.window);
    require(node.input(Input::key_scale) == nullptr && node.input(Input::value_scale) == nullptr,
            "quantized caches are not supported");
    for (const char* name : {"sliding_window_cache", "qk_output"})
      require(get_int(node, name, 0) == 0, "attribute '{}' is not supported", name);
    require((node.input(Input::query_norm) == nullptr) == (node.input(Input::key_norm) == nullptr),
            "expected q_norm_weight and k_norm_weight together, found one of them");
    return attrs;
  }
};

// Q, K and V [batch, rows, hidden]; packed: all of them in one.
struct GroupQueryOperands {
  Tensor query, key, value;

  GroupQueryOperands(const GroupQueryAttrs& attrs, const KernelContext& context, DType type) {
    query = context.required_input(Input::query).cast(type);
    require(query.rank() == 3, "expected queries of 3 axes, found {}", to_string(query.dims()));
    const bool packed = context.input(Input::key) == nullptr;
    require(packed == (context.input(Input::value) == nullptr),
            "expected key and value together, found one of them");
    if (packed) {
      const std::int64_t width = head_width(query.dim(2), attrs.query_heads + 2 * attrs.heads);
      const Tensor all = query;
      query = columns(all, 0, attrs.query_heads * width);
      key = columns(all, attrs.query_heads * width, attrs.heads * width);
      value = columns(all, (attrs.query_heads + attrs.heads) * width, attrs.heads * width);
      return;
    }
    key = context.required_input(Input::key).cast(type);
    value = context.required_input(Input::value).cast(type);
    const Dims expected{query.dim(0), query.dim(1),
                        attrs.heads * head_width(query.dim(2), attrs.query_heads)};
    require(key.dims() == expected && value.dims() == expected,
            "expected keys and values {}, found {} and {}", to_string(expected),
            to_string(key.dims()), to_string(value.dims()));
  }

 private:
  static Tensor columns(const Tensor& all, std::int64_t first, std::int64_t width) {
    Tensor result = Tensor::uninitialized(all.dtype(), {all.dim(0), all.dim(1), width});
    dispatch_floats(all.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* const in = all.data<T>().data() + first;
      T* const out = result.mutable_data<T>().data();
      for (std::int64_t row = 0; row < all.dim(0) * all.dim(1); ++row)
        std::copy_n(in + row * all.dim(2), width, out + row * width);
    });
    return result;
  }
};

// Rows of the cache by batch element: in use before the call, and in all.
struct CacheRows {
  std::vector<std::int64_t> past, total;
  std::int64_t most = 0, size = 0;  // in use at most, of the cache
  bool prompt = false;              // no rows in use before the call

  CacheRows(const KernelContext& context, std::int64_t batch, std::int64_t rows,
            const Tensor* past_cache) {
    const std::vector<std::int64_t> last = context.required_input(Input::last_keys).to_ints();
    const Tensor& length = context.required_input(Input::total_length);
    require(length.size() == 1, "expected one total_sequence_length, found {}",
            to_string(length.dims()));
    const std::int64_t longest = length.to_ints().front();
    require(std::ssize(last) == batch, "expected {} lengths in seqlens_k, found {}", batch,
            last.size());
    const std::int64_t capacity = past_cache != nullptr ? past_cache->dim(2) : 0;
    require(rows <= longest && longest <= capacity + rows,
            "expected a total_sequence_length of {} to {}, found {}", rows, capacity + rows,
            longest);
    size = std::max(capacity, longest);
    prompt = rows == longest;
    for (const std::int64_t index : last) {
      require(0 <= index && index < longest && (prompt || index + 1 >= rows),
              "seqlens_k {} does not fit {} new rows of {}", index, rows, longest);
      total.push_back(index + 1);
      past.push_back(prompt ? 0 : index + 1 - rows);
      require(past.back() <= capacity, "seqlens_k {} needs {} rows of the cache, found {}", index,
              past.back(), capacity);
      most = std::max(most, past.back() + rows);
    }
  }
};

// The cache with the new rows after those in use. Rows beyond are zero.
Tensor extend(const CacheRows& rows, const Tensor* past, const Tensor& added, std::int64_t heads) {
  const std::int64_t width = head_width(added.dim(2), heads);
  const Dims dims{added.dim(0), heads, rows.size, width};
  Tensor result(added.dtype(), dims);
  dispatch_floats(added.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto from = rows_first<T>(added, heads);
    T* const out = result.mutable_data<T>().data();
    for (std::int64_t b = 0; b < dims[0]; ++b)
      for (std::int64_t h = 0; h < heads; ++h) {
        T* const to = out + (b * heads + h) * rows.size * width;
        const std::int64_t before = rows.past[static_cast<std::size_t>(b)];
        if (past != nullptr) std::copy_n(heads_first<T>(*past).at(b, h, 0), before * width, to);
        for (std::int64_t row = 0; row < added.dim(1); ++row)
          std::copy_n(from.at(b, h, row), width, to + (before + row) * width);
      }
  });
  return result;
}

// Heads of [batch, rows, heads * width] normalized by their root mean square.
Tensor normalized(ThreadPool& pool, const Tensor& rows, std::int64_t heads, const Tensor& weight,
                  double epsilon) {
  const Tensor split =
      rows.reshaped({rows.dim(0), rows.dim(1), heads, head_width(rows.dim(2), heads)});
  return NormalizedRows::of(pool, split, -1, epsilon, false, weight, Tensor())
      .y.reshaped(rows.dims());
}

Tensor rotated(KernelContext& context, const GroupQueryAttrs& attrs, const CacheRows& cache,
               const Tensor& rows, std::int64_t heads) {
  RotaryTask task{.batch = rows.dim(0),
                  .heads = heads,
                  .rows = rows.dim(1),
                  .width = head_width(rows.dim(2), heads),
                  .interleaved = attrs.interleaved};
  const Tensor* positions = context.input(Input::position_ids);
  if (positions != nullptr) {
    require(positions->dims() == Dims({task.batch, task.rows}),
            "expected position ids [{},{}], found {}", task.batch, task.rows,
            to_string(positions->dims()));
    task.cache_rows = positions->to_ints();
    const std::int64_t start = task.cache_rows.empty() ? 0 : task.cache_rows.front();
    require(0 <= start && start <= context.required_input(Input::cosines).size(),
            "position {} is out of range", start);
    if (cache.prompt)  // the first position is where all rows begin, as ONNX Runtime reads them
      for (std::size_t i = task.cache_rows.size(); i-- > 0;)
        task.cache_rows[i] = start + static_cast<std::int64_t>(i) % task.rows;
  } else {
    for (const std::int64_t first : cache.past)
      for (std::int64_t row = 0; row < task.rows; ++row) task.cache_rows.push_back(first + row);
  }
  const Tensor cosines = context.required_input(Input::cosines).cast(rows.dtype());
  const Tensor sines = context.required_input(Input::sines).cast(rows.dtype());
  require(cosines.rank() == 2 && cosines.dims() == sines.dims(),
          "expected caches of 2 axes and equal dims, found {} and {}", to_string(cosines.dims()),
          to_string(sines.dims()));
  Tensor result = Tensor::uninitialized(rows.dtype(), rows.dims());
  dispatch_floats(rows.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto from = rows_first<T>(rows, heads);
    rotate<T>(
        context.pool(), task, cosines, sines, from,
        {result.mutable_data<T>().data(), from.batch_stride, from.head_stride, from.row_stride});
  });
  return result;
}

Kernel prepare_group_query(const PrepareContext& prepare) {
  return [attrs = GroupQueryAttrs::from(prepare.node())](KernelContext& context) {
    const DType given = context.required_input(Input::query).dtype();
    const DType type = float_compute_type(given);
    const auto wide = [&](std::size_t index) {
      const Tensor* tensor = context.input(index);
      return tensor != nullptr ? tensor->cast(type) : Tensor();
    };
    GroupQueryOperands in(attrs, context, type);
    const std::int64_t batch = in.query.dim(0), rows = in.query.dim(1);
    const std::int64_t width = head_width(in.query.dim(2), attrs.query_heads);
    require(width > 0, "expected heads of at least 1 element, found {}",
            to_string(in.query.dims()));
    const Tensor past_k = wide(Input::past_key), past_v = wide(Input::past_value);
    const bool cached = past_k.defined();
    require(cached == past_v.defined(), "expected past_key and past_value together, found one");
    if (cached)
      require(past_k.rank() == 4 && past_k.dims() == past_v.dims() &&
                  past_k.dims() == Dims({batch, attrs.heads, past_k.dim(2), width}),
              "expected past states [{},{},rows,{}], found {} and {}", batch, attrs.heads, width,
              to_string(past_k.dims()), to_string(past_v.dims()));
    const CacheRows cache(context, batch, rows, cached ? &past_k : nullptr);
    if (context.input(Input::query_norm) != nullptr) {
      in.query = normalized(context.pool(), in.query, attrs.query_heads,
                            context.required_input(Input::query_norm), attrs.norm_epsilon);
      in.key = normalized(context.pool(), in.key, attrs.heads,
                          context.required_input(Input::key_norm), attrs.norm_epsilon);
    }
    if (attrs.rotary) {
      in.query = rotated(context, attrs, cache, in.query, attrs.query_heads);
      in.key = rotated(context, attrs, cache, in.key, attrs.heads);
    }
    const Tensor all_k = extend(cache, cached ? &past_k : nullptr, in.key, attrs.heads);
    const Tensor all_v = extend(cache, cached ? &past_v : nullptr, in.value, attrs.heads);
    const AttentionSizes size{.batch = batch,
                              .query_heads = attrs.query_heads,
                              .heads = attrs.heads,
                              .queries = rows,
                              .keys = cache.most,
                              .width = width,
                              .value_width = width};
    const Tensor bias = wide(Input::attention_bias);
    if (bias.defined()) {
      require(bias.rank() == 4 && bias.dim(3) >= cache.most,
              "expected an attention bias with {} columns, found {}", cache.most,
              to_string(bias.dims()));
      const Dims target{batch, attrs.query_heads, rows, bias.dim(3)};
      require(broadcast(bias.dims(), target) == target,
              "expected an attention bias that broadcasts to {}, found {}", to_string(target),
              to_string(bias.dims()));
    }
    Tensor sinks = wide(Input::head_sink);
    if (!sinks.defined() && attrs.smooth) sinks = Tensor(type, {attrs.query_heads});
    require(!sinks.defined() || sinks.dims() == Dims{attrs.query_heads},
            "expected {} head sinks, found {}", attrs.query_heads, to_string(sinks.dims()));
    Tensor y = Tensor::uninitialized(type, {batch, rows, attrs.query_heads * width});
    dispatch_floats(type, [&](auto tag) {
      using T = typename decltype(tag)::type;
      AttentionCall<T> call{.sizes = size,
                            .query = rows_first<T>(in.query, attrs.query_heads),
                            .key = heads_first<T>(all_k),
                            .value = heads_first<T>(all_v)};
      call.output = {y.mutable_data<T>().data(), rows * y.dim(2), width, y.dim(2)};
      call.scale =
          attrs.scale != 0 ? static_cast<T>(attrs.scale) : 1 / std::sqrt(static_cast<T>(width));
      call.softcap = static_cast<T>(attrs.softcap);
      if (sinks.defined()) call.sinks = sinks.data<T>();
      call.mask = [&](const ScoreBlock& block, T* scores) {
        constexpr T none = -std::numeric_limits<T>::infinity();
        const auto b = static_cast<std::size_t>(block.batch);
        if (bias.defined()) add_bias<T>(block, bias, size.keys, size.keys, scores);
        for (std::int64_t q = block.begin; q < block.end; ++q, scores += size.keys) {
          std::int64_t end = cache.total[b], begin = 0;
          if (attrs.causal) {
            const std::int64_t seen = cache.past[b] + q + 1;
            if (attrs.window > 0) begin = std::max<std::int64_t>(0, seen - attrs.window);
            end = std::max(begin, std::min(end, seen));
          }
          std::fill(scores, scores + begin, none);
          std::fill(scores + end, scores + size.keys, none);
        }
      };
      attend(context.pool(), call);
    });
    context.forward_output(0, y.cast(given));
    if (context.wants_output(1)) context.forward_output(1, all_k.cast(given));
    if (context.wants_output(2)) context.forward_output(2, all_v.cast(given));
  };
}

// Rows of the cache after the call, where the inputs' shapes and values say so.
Dim cache_size(InferContext& context) {
  Dim past(0);
  if (context.has_input(Input::past_key)) {
    const Shape* shape = context.input_shape(Input::past_key);
    past = shape != nullptr && shape->size() == 4 ? (*shape)[2] : Dim();
  }
  const auto total = context.input_ints(Input::total_length);
  if (!past.is_known() || !total || total->size() != 1) return {};
  return Dim(std::max(past.value(), total->front()));
}

void infer_group_query(InferContext& context) {
  const GroupQueryAttrs attrs = GroupQueryAttrs::from(context.node());
  const DType type = context.input_dtype(Input::query);
  Shape y{Dim(), Dim(), Dim()};
  Dim width;
  if (const Shape* q = context.input_shape(Input::query)) {
    require(q->size() == 3, "expected queries of 3 axes, found {}", to_string(*q));
    y = *q;
    const bool packed = !context.has_input(Input::key);
    if (y[2].is_known()) {
      width = Dim(head_width(y[2].value(), attrs.query_heads + (packed ? 2 * attrs.heads : 0)));
      y[2] = Dim(width.value() * attrs.query_heads);
    } else if (packed) {
      y[2] = Dim();
    }
  }
  const Shape present{y[0], Dim(attrs.heads), cache_size(context), width};
  context.set_output(0, type, std::move(y));
  context.set_output(1, type, present);
  context.set_output(2, type, present);
}

// Over all rows of the cache, of which fewer may be in use.
Cost group_query_cost(const PrepareContext& context) {
  const GroupQueryAttrs attrs = GroupQueryAttrs::from(context.node());
  const Dims q = concrete(*context.input_type(Input::query)->shape).value();
  const bool packed = context.input_type(Input::key) == nullptr;
  const Type* past = context.input_type(Input::past_key);
  const std::int64_t before = past != nullptr ? concrete(*past->shape).value().at(2) : 0;
  const std::int64_t width =
      head_width(q.at(2), attrs.query_heads + (packed ? 2 * attrs.heads : 0));
  const AttentionSizes size{.batch = q[0],
                            .query_heads = attrs.query_heads,
                            .heads = attrs.heads,
                            .queries = q[1],
                            .keys = std::max(before, q[1]),
                            .width = width,
                            .value_width = width};
  return {.macs = size.macs()};
}

}  // namespace

OPERATORS(group_query_attention) {
  registry.add(OpDef{.name = "GroupQueryAttention",
                     .domain = "com.microsoft",
                     .infer = infer_group_query,
                     .prepare = prepare_group_query,
                     .cost = group_query_cost});
}

}  // namespace onnxpress
