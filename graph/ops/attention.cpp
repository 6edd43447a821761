// Attention of ai.onnx (23, 24): scaled dot-product attention with a cache.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "graph/ops/attention_core.h"
#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

struct AttentionAttrs {
  bool causal = false;
  std::optional<std::int64_t> query_heads, heads;  // needed for inputs of 3 axes
  std::optional<float> scale;                      // nothing: 1 / sqrt(head width)
  float softcap = 0;
  AttentionStage stage = AttentionStage::product;  // of output qk_matmul_output

  static AttentionAttrs from(const Node& node) {
    const std::int64_t mode = get_int(node, "qk_matmul_output_mode", 0);
    require(0 <= mode && mode <= 3, "attribute 'qk_matmul_output_mode': expected 0 to 3, found {}",
            mode);
    // Softmax is computed in float32 at least, which is as precise as any of these asks for.
    if (const auto precision = find_int(node, "softmax_precision")) {
      const auto type = static_cast<DType>(*precision);
      require(type == DType::float32 || type == DType::float64 || type == DType::float16 ||
                  type == DType::bfloat16,
              "attribute 'softmax_precision': expected a floating-point type, found {}",
              *precision);
    }
    const float softcap = get_float(node, "softcap", 0);
    require(softcap >= 0, "attribute 'softcap': expected at least 0, found {}", softcap);
    return {.causal = get_bool(node, "is_causal", false),
            .query_heads = find_int(node, "q_num_heads"),
            .heads = find_int(node, "kv_num_heads"),
            .scale = find_float(node, "scale"),
            .softcap = softcap,
            .stage = static_cast<AttentionStage>(mode)};
  }
};

enum Input { query, key, value, mask, past_key, past_value, valid_keys };

// [batch, heads, rows, width] of Q, K or V, in either of its forms.
Shape by_heads(const Shape& shape, std::optional<std::int64_t> heads) {
  require(shape.size() == 3 || shape.size() == 4, "expected 3 or 4 axes, found {}",
          to_string(shape));
  if (shape.size() == 4) {
    if (heads) unify(shape[1], Dim(*heads), "the number of heads");
    return shape;
  }
  require(heads.has_value(), "expected q_num_heads and kv_num_heads for inputs of 3 axes");
  const Dim& hidden = shape[2];
  return {shape[0], Dim(*heads), shape[1],
          hidden.is_known() ? Dim(head_width(hidden.value(), *heads)) : Dim()};
}

Dim sum(const Dim& a, const Dim& b) {
  if (a.is_known() && b.is_known()) return {a.value() + b.value()};
  if (a.is_known() && a.value() == 0) return b;
  return b.is_known() && b.value() == 0 ? a : Dim();
}

// Shapes by heads with the cache in front; throws Error for what does not fit.
struct AttentionShapes {
  Shape query, key, value;  // [batch, heads, rows, width]

  AttentionShapes(const AttentionAttrs& attrs, const Shape& q, const Shape& k, const Shape& v,
                  const Shape* past_k, const Shape* past_v) {
    require(q.size() == k.size() && k.size() == v.size(),
            "expected Q, K and V of as many axes, found {}, {} and {}", to_string(q), to_string(k),
            to_string(v));
    query = by_heads(q, attrs.query_heads);
    key = by_heads(k, attrs.heads);
    value = by_heads(v, attrs.heads);
    query[0] = unify(unify(query[0], key[0], "the batch"), value[0], "the batch");
    key[1] = unify(key[1], value[1], "heads of keys and values");
    key[2] = unify(key[2], value[2], "rows of keys and values");
    unify(query[3], key[3], "widths of queries and keys");
    if (query[1].is_known() && key[1].is_known())
      require(key[1].value() > 0 && query[1].value() % key[1].value() == 0,
              "expected query heads divisible by {} heads of keys, found {}", key[1].value(),
              query[1].value());
    const auto grow = [](Shape& now, const Shape* past) {
      if (past == nullptr) return;
      require(past->size() == 4, "expected a past state of 4 axes, found {}", to_string(*past));
      unify((*past)[0], now[0], "the batch of the past state");
      unify((*past)[1], now[1], "heads of the past state");
      unify((*past)[3], now[3], "widths of the past state");
      now[2] = sum((*past)[2], now[2]);
    };
    value[2] = key[2];
    grow(key, past_k);
    grow(value, past_v);
    key[2] = unify(key[2], value[2], "rows of keys and values");
  }
};

AttentionSizes sizes_of(const Dims& query, const Dims& key, const Dims& value) {
  return {.batch = query[0],
          .query_heads = query[1],
          .heads = key[1],
          .queries = query[2],
          .keys = key[2],
          .width = query[3],
          .value_width = value[3]};
}

// The mask as numbers of T to be added; booleans become 0 and -infinity.
template <class T>
Tensor additive_mask(const Tensor& mask) {
  if (mask.dtype() != DType::boolean) return mask.cast(dtype_of<T>);
  Tensor result = Tensor::uninitialized(dtype_of<T>, mask.dims());
  const auto in = mask.data<bool>();
  const auto out = result.mutable_data<T>();
  for (std::size_t i = 0; i < in.size(); ++i)
    out[i] = in[i] ? T(0) : -std::numeric_limits<T>::infinity();
  return result;
}

template <class T>
std::function<void(const ScoreBlock&, T*)> masking(const AttentionSizes& size, bool causal,
                                                   std::int64_t past, const Tensor* given,
                                                   const Tensor* valid) {
  Tensor bias;
  std::int64_t masked_keys = size.keys;
  if (given != nullptr) {
    require(given->rank() >= 1 && given->rank() <= 4, "expected a mask of 1 to 4 axes, found {}",
            to_string(given->dims()));
    bias = additive_mask<T>(*given);
    masked_keys = bias.dims().back();
    const Dims target{size.batch, size.query_heads, size.queries, masked_keys};
    require(masked_keys <= size.keys && broadcast(bias.dims(), target) == target,
            "expected a mask that broadcasts to [{},{},{},{}], found {}", size.batch,
            size.query_heads, size.queries, size.keys, to_string(bias.dims()));
  }
  std::vector<std::int64_t> lengths;
  if (valid != nullptr) {
    lengths = valid->to_ints();
    require(std::ssize(lengths) == size.batch, "expected {} lengths in nonpad_kv_seqlen, found {}",
            size.batch, lengths.size());
    for (const std::int64_t length : lengths)
      require(0 <= length && length <= size.keys,
              "expected lengths of 0 to {} in nonpad_kv_seqlen, found {}", size.keys, length);
  }
  return [=](const ScoreBlock& block, T* scores) {
    constexpr T none = -std::numeric_limits<T>::infinity();
    if (bias.defined()) add_bias<T>(block, bias, masked_keys, size.keys, scores);
    for (std::int64_t q = block.begin; q < block.end; ++q, scores += size.keys) {
      std::int64_t end = masked_keys;
      if (causal) end = std::min(end, past + q + 1);
      if (!lengths.empty()) end = std::min(end, lengths[static_cast<std::size_t>(block.batch)]);
      std::fill(scores + end, scores + size.keys, none);
    }
  };
}

Kernel prepare_attention(const PrepareContext& prepare) {
  return [attrs = AttentionAttrs::from(prepare.node())](KernelContext& context) {
    const DType given = context.required_input(Input::query).dtype();
    const DType given_value = context.required_input(Input::value).dtype();
    const DType type = float_compute_type(given);
    const auto wide = [&](std::size_t index) {
      const Tensor* tensor = context.input(index);
      return tensor != nullptr ? tensor->cast(type) : Tensor();
    };
    const Tensor q = wide(Input::query), k = wide(Input::key), v = wide(Input::value);
    const Tensor past_k = wide(Input::past_key), past_v = wide(Input::past_value);
    require(past_k.defined() == past_v.defined(),
            "expected past_key and past_value together, found one of them");
    const auto shape_of = [](const Tensor& tensor) { return to_shape(tensor.dims()); };
    const Shape past_shapes[] = {shape_of(past_k), shape_of(past_v)};
    const bool cached = past_k.defined();
    const AttentionShapes shapes(attrs, shape_of(q), shape_of(k), shape_of(v),
                                 cached ? &past_shapes[0] : nullptr,
                                 cached ? &past_shapes[1] : nullptr);
    const AttentionSizes size =
        sizes_of(*concrete(shapes.query), *concrete(shapes.key), *concrete(shapes.value));
    const Tensor all_k = append_to_cache(cached ? &past_k : nullptr, k, size.heads);
    const Tensor all_v = append_to_cache(cached ? &past_v : nullptr, v, size.heads);
    const bool packed = q.rank() == 3;
    Tensor y = Tensor::uninitialized(
        type, packed ? Dims{size.batch, size.queries, size.query_heads * size.value_width}
                     : Dims{size.batch, size.query_heads, size.queries, size.value_width});
    Tensor scores;
    if (context.wants_output(3))
      scores = Tensor::uninitialized(type, {size.batch, size.query_heads, size.queries, size.keys});
    dispatch_floats(type, [&](auto tag) {
      using T = typename decltype(tag)::type;
      AttentionCall<T> call{.sizes = size};
      call.query = packed ? rows_first<T>(q, size.query_heads) : heads_first<T>(q);
      call.key = heads_first<T>(all_k);
      call.value = heads_first<T>(all_v);
      const HeadsView<const T> out =
          packed ? rows_first<T>(y, size.query_heads) : heads_first<T>(y);
      call.output = {y.mutable_data<T>().data(), out.batch_stride, out.head_stride, out.row_stride};
      call.scale =
          attrs.scale ? static_cast<T>(*attrs.scale) : 1 / std::sqrt(static_cast<T>(size.width));
      call.softcap = static_cast<T>(attrs.softcap);
      call.mask = masking<T>(size, attrs.causal, cached ? past_k.dim(2) : 0,
                             context.input(Input::mask), context.input(Input::valid_keys));
      call.scores = scores.defined() ? scores.mutable_data<T>().data() : nullptr;
      call.stage = attrs.stage;
      attend(context.pool(), call);
    });
    context.forward_output(0, y.cast(given));
    if (context.wants_output(1)) context.forward_output(1, all_k.cast(given));
    if (context.wants_output(2)) context.forward_output(2, all_v.cast(given_value));
    if (scores.defined()) context.forward_output(3, scores.cast(given));
  };
}

void infer_attention(InferContext& context) {
  const AttentionAttrs attrs = AttentionAttrs::from(context.node());
  const DType type = context.input_dtype(Input::query);
  const DType value_type = context.input_dtype(Input::value);
  require(context.has_input(Input::past_key) == context.has_input(Input::past_value),
          "expected past_key and past_value together, found one of them");
  const Shape* q = context.input_shape(Input::query);
  const Shape* k = context.input_shape(Input::key);
  const Shape* v = context.input_shape(Input::value);
  const Shape* past_k = context.input_shape(Input::past_key);
  const Shape* past_v = context.input_shape(Input::past_value);
  const bool known = q != nullptr && k != nullptr && v != nullptr &&
                     context.has_input(Input::past_key) == (past_k != nullptr) &&
                     context.has_input(Input::past_value) == (past_v != nullptr);
  if (!known) {
    context.set_output(0, Type::tensor(type));
    context.set_output(1, Type::tensor(type));
    context.set_output(2, Type::tensor(value_type));
    context.set_output(3, Type::tensor(type));
    return;
  }
  const AttentionShapes shapes(attrs, *q, *k, *v, past_k, past_v);
  const Dim hidden = product(std::array{shapes.query[1], shapes.value[3]});
  context.set_output(
      0, type,
      q->size() == 3 ? Shape{shapes.query[0], shapes.query[2], hidden}
                     : Shape{shapes.query[0], shapes.query[1], shapes.query[2], shapes.value[3]});
  context.set_output(1, type, shapes.key);
  context.set_output(2, value_type, shapes.value);
  context.set_output(3, type,
                     Shape{shapes.query[0], shapes.query[1], shapes.query[2], shapes.key[2]});
}

Cost attention_cost(const PrepareContext& context) {
  const auto shape = [&](std::size_t index) {
    const Type* type = context.input_type(index);
    return type != nullptr ? &*type->shape : nullptr;
  };
  const AttentionShapes shapes(AttentionAttrs::from(context.node()), *shape(Input::query),
                               *shape(Input::key), *shape(Input::value), shape(Input::past_key),
                               shape(Input::past_value));
  return {.macs = sizes_of(concrete(shapes.query).value(), concrete(shapes.key).value(),
                           concrete(shapes.value).value())
                      .macs()};
}

}  // namespace

OPERATORS(attention) {
  registry.add(OpDef{.name = "Attention",
                     .since = 23,
                     .infer = infer_attention,
                     .prepare = prepare_attention,
                     .cost = attention_cost});
}

}  // namespace onnxpress
