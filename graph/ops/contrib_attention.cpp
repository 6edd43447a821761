#include "graph/ops/contrib_attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "graph/ops/attention_core.h"
#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

constexpr std::int64_t most_hidden = std::int64_t{1} << 40;

// Operands in the type computed in; queries [batch, rows, hidden], keys and values in that form or
// by heads.
struct ContribOperands {
  Tensor query, key, value;
  Tensor past_key, past_value;  // undefined: none
  const Tensor* mask = nullptr;
  Tensor bias;  // added to the scores; undefined: none
};

struct ContribResult {
  Tensor y, key, value, scores;
};

// Masks as ONNX Runtime takes them: the number of keys [batch], ends and starts of the keys
// [2 * batch], or what is 0 in [batch, keys], [batch, queries, keys] or [batch, 1, most, most].
template <class T>
void add_key_mask(const ScoreBlock& block, const AttentionSizes& size, std::int64_t past,
                  const Tensor& mask, T filter, T* scores) {
  const std::int32_t* const in = mask.data<std::int32_t>().data();
  const std::size_t rank = mask.rank();
  for (std::int64_t q = block.begin; q < block.end; ++q, scores += size.keys) {
    if (rank == 1) {
      const std::int64_t end = in[block.batch];
      const std::int64_t start = mask.size() > size.batch ? in[size.batch + block.batch] : 0;
      for (std::int64_t k = 0; k < size.keys; ++k)
        if (k < start || k >= end) scores[k] += filter;
      continue;
    }
    std::int64_t row = block.batch;
    if (rank == 3) row = block.batch * size.queries + q;
    if (rank == 4) row = block.batch * mask.dim(2) + past + q;
    const std::int32_t* const kept = in + row * mask.dims().back();
    for (std::int64_t k = 0; k < size.keys; ++k)
      if (kept[k] <= 0) scores[k] += filter;
  }
}

void check_mask(const Tensor& mask, const AttentionSizes& size) {
  const Dims& dims = mask.dims();
  const bool fits = dims == Dims{size.batch} || dims == Dims{2 * size.batch} ||
                    dims == Dims{size.batch, size.keys} ||
                    dims == Dims{size.batch, size.queries, size.keys} ||
                    (dims.size() == 4 && dims[0] == size.batch && dims[1] == 1 &&
                     dims[2] == dims[3] && dims[3] >= size.keys);
  require(fits && mask.dtype() == DType::int32,
          "expected a mask int32[{0}], [{1}], [{0},{2}], [{0},{3},{2}] or [{0},1,most,most], found "
          "{4}{5}",
          size.batch, 2 * size.batch, size.keys, size.queries, name(mask.dtype()), to_string(dims));
}

ContribResult run_attention(ThreadPool& pool, const ContribAttentionAttrs& attrs,
                            const ContribOperands& in, bool wants_scores) {
  require(in.query.rank() == 3, "expected queries of 3 axes, found {}", to_string(in.query.dims()));
  require(in.key.rank() == in.value.rank() && (in.key.rank() == 3 || in.key.rank() == 4),
          "expected keys and values of 3 or 4 axes, found {} and {}", to_string(in.key.dims()),
          to_string(in.value.dims()));
  require(in.past_key.defined() == in.past_value.defined(),
          "expected past keys and values together, found one of them");
  const auto cache = [&](const Tensor& past, const Tensor& rows) {
    return append_to_cache(past.defined() ? &past : nullptr, rows, attrs.heads);
  };
  ContribResult result{.key = cache(in.past_key, in.key), .value = cache(in.past_value, in.value)};
  const Dims& k = result.key.dims();
  const Dims& v = result.value.dims();
  const AttentionSizes size{.batch = in.query.dim(0),
                            .query_heads = attrs.heads,
                            .heads = attrs.heads,
                            .queries = in.query.dim(1),
                            .keys = k[2],
                            .width = head_width(in.query.dim(2), attrs.heads),
                            .value_width = v[3]};
  require(k == Dims({size.batch, size.heads, size.keys, size.width}) &&
              v == Dims({size.batch, size.heads, size.keys, size.value_width}),
          "keys {} and values {} do not fit queries {}", to_string(k), to_string(v),
          to_string(in.query.dims()));
  if (in.mask != nullptr) check_mask(*in.mask, size);
  const Dims score_dims{size.batch, size.query_heads, size.queries, size.keys};
  if (in.bias.defined())
    require(in.bias.rank() == 4 && broadcast(in.bias.dims(), score_dims) == score_dims,
            "expected an attention bias that broadcasts to {}, found {}", to_string(score_dims),
            to_string(in.bias.dims()));
  const std::int64_t past = in.past_key.defined() ? in.past_key.dim(2) : 0;
  require(in.mask == nullptr || in.mask->rank() != 4 || past + size.queries <= in.mask->dim(2),
          "expected a mask of at least {} rows, found {}", past + size.queries,
          in.mask == nullptr ? "" : to_string(in.mask->dims()));
  const DType type = in.query.dtype();
  result.y =
      Tensor::uninitialized(type, {size.batch, size.queries, attrs.heads * size.value_width});
  if (wants_scores) result.scores = Tensor::uninitialized(type, score_dims);
  dispatch_floats(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    AttentionCall<T> call{.sizes = size,
                          .query = rows_first<T>(in.query, attrs.heads),
                          .key = heads_first<T>(result.key),
                          .value = heads_first<T>(result.value)};
    call.output = {result.y.template mutable_data<T>().data(), size.queries * result.y.dim(2),
                   size.value_width, result.y.dim(2)};
    call.scale =
        attrs.scale != 0 ? static_cast<T>(attrs.scale) : 1 / std::sqrt(static_cast<T>(size.width));
    call.mask = [&](const ScoreBlock& block, T* scores) {
      if (in.mask != nullptr)
        add_key_mask(block, size, past, *in.mask, static_cast<T>(attrs.filter), scores);
      if (in.bias.defined()) add_bias<T>(block, in.bias, size.keys, size.keys, scores);
      if (!attrs.causal) return;
      for (std::int64_t q = block.begin; q < block.end; ++q) {
        T* const row = scores + (q - block.begin) * size.keys;
        for (std::int64_t key = past + q + 1; key < size.keys; ++key)
          row[key] = std::numeric_limits<T>::lowest();
      }
    };
    if (wants_scores) call.scores = result.scores.template mutable_data<T>().data();
    call.stage = AttentionStage::masked;
    attend(pool, call);
  });
  return result;
}

Tensor wide(const KernelContext& context, std::size_t index, DType type) {
  const Tensor* tensor = context.input(index);
  return tensor != nullptr ? tensor->cast(type) : Tensor();
}

// One of the parts of a tensor along axis 0 ([2, ...]), as a tensor of the other axes.
Tensor part_of(const Tensor& tensor, std::int64_t index) {
  const Dims dims(tensor.dims().begin() + 1, tensor.dims().end());
  const auto count = static_cast<std::size_t>(element_count(dims));
  Tensor part;
  dispatch_floats(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    part = Tensor::of<T>(dims,
                         tensor.data<T>().subspan(static_cast<std::size_t>(index) * count, count));
  });
  return part;
}

// Columns [first, first + width) of input * weights + bias, as [batch, rows, width].
Tensor project(ThreadPool& pool, const Tensor& input, const Tensor& weights, const Tensor& bias,
               std::int64_t first, std::int64_t width) {
  const std::int64_t rows = input.dim(0) * input.dim(1);
  Tensor result(input.dtype(), {input.dim(0), input.dim(1), width});
  dispatch_floats(input.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const out = result.mutable_data<T>().data();
    if (bias.defined())
      for (std::int64_t row = 0; row < rows; ++row)
        std::copy_n(bias.data<T>().data() + first, width, out + row * width);
    add_product<T>(pool, rows, width, input.dim(2), {input.data<T>().data(), input.dim(2)},
                   {weights.data<T>().data() + first, weights.dim(1)}, {out, width});
  });
  return result;
}

// Columns of Q, K and V in merged weights.
std::array<std::int64_t, 3> merged_sizes(const ContribAttentionAttrs& attrs, const Dims& input,
                                         const Dims& weights) {
  require(input.size() == 3 && weights.size() == 2 && input[2] == weights[0],
          "expected an input [batch,rows,width] and weights [width,hidden], found {} and {}",
          to_string(input), to_string(weights));
  if (attrs.hidden.empty()) {
    const std::int64_t third = weights[1] / 3;
    require(third * 3 == weights[1], "expected weights with 3 equal parts, found {}",
            to_string(weights));
    head_width(third, attrs.heads);
    return {third, third, third};
  }
  require(attrs.hidden[0] + attrs.hidden[1] + attrs.hidden[2] == weights[1],
          "expected weights with {} columns, found {}",
          attrs.hidden[0] + attrs.hidden[1] + attrs.hidden[2], to_string(weights));
  return {attrs.hidden[0], attrs.hidden[1], attrs.hidden[2]};
}

// Inputs (input, weights, bias, mask_index, past, attention_bias), outputs (output, present).
Kernel prepare_merged_attention(const PrepareContext& prepare) {
  return [attrs = ContribAttentionAttrs::from(prepare.node())](KernelContext& context) {
    const DType given = context.required_input(0).dtype();
    const DType type = float_compute_type(given);
    const Tensor input = wide(context, 0, type);
    const Tensor weights = context.required_input(1).cast(type);
    const Tensor bias = wide(context, 2, type);
    const auto [q, k, v] = merged_sizes(attrs, input.dims(), weights.dims());
    require(!bias.defined() || bias.dims() == Dims{q + k + v}, "expected {} biases, found {}",
            q + k + v, to_string(bias.dims()));
    ContribOperands in{.query = project(context.pool(), input, weights, bias, 0, q),
                       .key = project(context.pool(), input, weights, bias, q, k),
                       .value = project(context.pool(), input, weights, bias, q + k, v),
                       .mask = context.input(3),
                       .bias = wide(context, 5, type)};
    const Tensor past = wide(context, 4, type);
    const bool present = context.wants_output(1);
    require((!past.defined() && !present) || k == v,
            "expected keys and values of one size with a past state, found {} and {}", k, v);
    if (past.defined()) {
      require(past.rank() == 5 && past.dim(0) == 2,
              "expected a past state [2,batch,heads,rows,width], found {}", to_string(past.dims()));
      in.past_key = part_of(past, 0);
      in.past_value = part_of(past, 1);
    }
    const ContribResult result = run_attention(context.pool(), attrs, in, false);
    context.forward_output(0, result.y.cast(given));
    if (!present) return;
    Dims dims = result.key.dims();
    dims.insert(dims.begin(), 2);
    Tensor both = Tensor::uninitialized(type, dims);
    const auto out = both.mutable_bytes();
    std::ranges::copy(result.key.bytes(), out.begin());
    std::ranges::copy(result.value.bytes(),
                      out.begin() + static_cast<std::ptrdiff_t>(result.key.byte_size()));
    context.forward_output(1, both.cast(given));
  };
}

Dim known_sum(const Dim& a, const Dim& b) {
  return a.is_known() && b.is_known() ? Dim(a.value() + b.value()) : Dim();
}

void infer_merged_attention(InferContext& context) {
  const ContribAttentionAttrs attrs = ContribAttentionAttrs::from(context.node());
  Shape y{Dim(), Dim(), Dim()};
  if (!attrs.hidden.empty()) y[2] = Dim(attrs.hidden[2]);
  if (const Shape* x = context.input_shape(0)) {
    require(x->size() == 3, "expected an input of 3 axes, found {}", to_string(*x));
    y[0] = (*x)[0];
    y[1] = (*x)[1];
  }
  if (const Shape* w = context.input_shape(1)) {
    require(w->size() == 2, "expected weights of 2 axes, found {}", to_string(*w));
    if (attrs.hidden.empty() && (*w)[1].is_known()) y[2] = Dim((*w)[1].value() / 3);
  }
  Shape present{Dim(2), y[0], Dim(attrs.heads), y[1], Dim()};
  if (y[2].is_known()) present[4] = Dim(head_width(y[2].value(), attrs.heads));
  if (context.has_input(4)) {
    const Shape* past = context.input_shape(4);
    present[3] = past != nullptr && past->size() == 5 ? known_sum((*past)[3], y[1]) : Dim();
  }
  const DType type = context.input_dtype(0);
  context.set_output(0, type, std::move(y));
  context.set_output(1, type, std::move(present));
}

Cost merged_attention_cost(const PrepareContext& context) {
  const ContribAttentionAttrs attrs = ContribAttentionAttrs::from(context.node());
  const Dims x = concrete(*context.input_type(0)->shape).value();
  const Dims w = concrete(*context.input_type(1)->shape).value();
  const auto sizes = merged_sizes(attrs, x, w);
  std::int64_t keys = x[1];
  if (const Type* past = context.input_type(4)) keys += concrete(*past->shape).value().at(3);
  const AttentionSizes size{.batch = x[0],
                            .query_heads = attrs.heads,
                            .heads = attrs.heads,
                            .queries = x[1],
                            .keys = keys,
                            .width = head_width(sizes[0], attrs.heads),
                            .value_width = head_width(sizes[2], attrs.heads)};
  return {.macs = element_count(x) * w[1] + size.macs()};
}

// `rows` [batch, rows, hidden] with elements [first, first + hidden) of `bias` added to every
// row.
Tensor with_bias(const Tensor& rows, const Tensor& bias, std::int64_t first) {
  Tensor tensor = copy_as(rows, rows.dtype());
  dispatch_floats(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const added = bias.data<T>().data() + first;
    const auto out = tensor.mutable_data<T>();
    const auto width = static_cast<std::size_t>(tensor.dim(2));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += added[i % width];
  });
  return tensor;
}

// Part `index` of [batch, rows, heads, parts, width], as [batch, rows, heads * width].
Tensor unpack(const Tensor& packed, std::int64_t index) {
  const Dims& dims = packed.dims();
  Tensor result = Tensor::uninitialized(packed.dtype(), {dims[0], dims[1], dims[2] * dims[4]});
  dispatch_floats(packed.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const in = packed.data<T>().data();
    T* const out = result.mutable_data<T>().data();
    for (std::int64_t i = 0; i < dims[0] * dims[1] * dims[2]; ++i)
      std::copy_n(in + (i * dims[3] + index) * dims[4], dims[4], out + i * dims[4]);
  });
  return result;
}

void check_packed(const Dims& dims, std::int64_t heads, std::int64_t parts) {
  require(dims.size() == 5 && dims[2] == heads && dims[3] == parts,
          "expected a packed input [batch,rows,{},{},width], found {}", heads, parts,
          to_string(dims));
}

// Inputs (query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value), outputs
// (output, present_key, present_value, qk).
Kernel prepare_multi_head_attention(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  require(node.input(8) == nullptr && node.input(9) == nullptr,
          "past_sequence_length and cache_indirection are not supported");
  return [attrs = ContribAttentionAttrs::from(node)](KernelContext& context) {
    const DType given = context.required_input(0).dtype();
    const DType type = float_compute_type(given);
    const Tensor bias = wide(context, 3, type);
    ContribOperands in{.query = wide(context, 0, type),
                       .key = wide(context, 1, type),
                       .value = wide(context, 2, type),
                       .past_key = wide(context, 6, type),
                       .past_value = wide(context, 7, type),
                       .mask = context.input(4),
                       .bias = wide(context, 5, type)};
    if (!in.key.defined()) {
      const Tensor packed = in.query;
      check_packed(packed.dims(), attrs.heads, 3);
      in.query = unpack(packed, 0);
      in.key = unpack(packed, 1);
      in.value = unpack(packed, 2);
    } else if (!in.value.defined()) {
      const Tensor packed = in.key;
      check_packed(packed.dims(), attrs.heads, 2);
      in.key = unpack(packed, 0);
      in.value = unpack(packed, 1);
    }
    require(in.query.rank() == 3, "expected queries of 3 axes, found {}",
            to_string(in.query.dims()));
    if (bias.defined()) {
      const bool cross = in.key.rank() == 4;  // keys and values are projected already
      const std::int64_t hidden = in.query.dim(2);
      const std::int64_t value_hidden =
          in.value.rank() == 4 ? in.value.dim(1) * in.value.dim(3) : in.value.dims().back();
      require(bias.dims() == Dims{2 * hidden + value_hidden} && (cross || in.key.rank() == 3),
              "expected {} biases, found {}", 2 * hidden + value_hidden, to_string(bias.dims()));
      require(cross || in.key.dim(2) == hidden, "expected keys of {} elements, found {}", hidden,
              to_string(in.key.dims()));
      in.query = with_bias(in.query, bias, 0);
      if (!cross) {
        in.key = with_bias(in.key, bias, hidden);
        in.value = with_bias(in.value, bias, 2 * hidden);
      }
    }
    const ContribResult result = run_attention(context.pool(), attrs, in, context.wants_output(3));
    context.forward_output(0, result.y.cast(given));
    const Tensor* others[] = {&result.key, &result.value, &result.scores};
    for (std::size_t i = 0; i < 3; ++i)
      if (context.wants_output(i + 1)) context.forward_output(i + 1, others[i]->cast(given));
  };
}

// Shapes of queries, keys and values by heads: [batch, heads, rows, width]; nothing where not
// known.
struct MultiHeadShapes {
  Shape query{Dim(), Dim(), Dim(), Dim()}, key = query, value = query;

  MultiHeadShapes(const ContribAttentionAttrs& attrs, const Shape* q, const Shape* k,
                  const Shape* v) {
    set(attrs, q, query);
    set(attrs, k != nullptr ? k : q, key);
    set(attrs, v != nullptr ? v : k != nullptr ? k : q, value);
  }

 private:
  static void set(const ContribAttentionAttrs& attrs, const Shape* shape, Shape& out) {
    if (shape == nullptr) return;
    require(3 <= shape->size() && shape->size() <= 5, "expected 3 to 5 axes, found {}",
            to_string(*shape));
    if (shape->size() == 4) {
      out = *shape;
      return;
    }
    out = {(*shape)[0], Dim(attrs.heads), (*shape)[1], Dim()};
    if (shape->size() == 5)
      out[3] = (*shape)[4];
    else if ((*shape)[2].is_known())
      out[3] = Dim(head_width((*shape)[2].value(), attrs.heads));
  }
};

void infer_multi_head_attention(InferContext& context) {
  const ContribAttentionAttrs attrs = ContribAttentionAttrs::from(context.node());
  const DType type = context.input_dtype(0);
  // An input that is there with a shape that is not known must not pass for one that is packed.
  const auto known = [&](std::size_t index) {
    return !context.has_input(index) || context.input_shape(index) != nullptr;
  };
  if (!known(0) || !known(1) || !known(2)) {
    for (std::size_t i = 0; i < 4; ++i) context.set_output(i, Type::tensor(type));
    return;
  }
  MultiHeadShapes shapes(attrs, context.input_shape(0), context.input_shape(1),
                         context.input_shape(2));
  if (context.has_input(6)) {
    const Shape* past = context.input_shape(6);
    const Dim keys =
        past != nullptr && past->size() == 4 ? known_sum((*past)[2], shapes.key[2]) : Dim();
    shapes.key[2] = shapes.value[2] = keys;
  }
  const Shape& q = shapes.query;
  context.set_output(0, type,
                     Shape{q[0], q[2], product(std::array{Dim(attrs.heads), shapes.value[3]})});
  context.set_output(1, type, shapes.key);
  context.set_output(2, type, shapes.value);
  context.set_output(3, type, Shape{q[0], Dim(attrs.heads), q[2], shapes.key[2]});
}

Cost multi_head_attention_cost(const PrepareContext& context) {
  const ContribAttentionAttrs attrs = ContribAttentionAttrs::from(context.node());
  const auto shape = [&](std::size_t index) {
    const Type* type = context.input_type(index);
    return type != nullptr ? &*type->shape : nullptr;
  };
  const MultiHeadShapes shapes(attrs, shape(0), shape(1), shape(2));
  const Dims q = concrete(shapes.query).value(), k = concrete(shapes.key).value();
  const Shape* past = shape(6);
  const AttentionSizes size{.batch = q[0],
                            .query_heads = attrs.heads,
                            .heads = attrs.heads,
                            .queries = q[2],
                            .keys = k[2] + (past != nullptr ? past->at(2).value() : 0),
                            .width = q[3],
                            .value_width = concrete(shapes.value).value()[3]};
  return {.macs = size.macs()};
}

}  // namespace

ContribAttentionAttrs ContribAttentionAttrs::from(const Node& node) {
  ContribAttentionAttrs attrs{.heads = require_int(node, "num_heads"),
                              .scale = get_float(node, "scale", 0),
                              .filter = get_float(node, "mask_filter_value", -10000),
                              .causal = get_bool(node, "unidirectional", false),
                              .hidden = get_ints(node, "qkv_hidden_sizes")};
  require(0 < attrs.heads && attrs.heads <= most_heads,
          "attribute 'num_heads': expected 1 to {}, found {}", most_heads, attrs.heads);
  require(attrs.hidden.empty() || attrs.hidden.size() == 3,
          "attribute 'qkv_hidden_sizes': expected 3 sizes, found {}", attrs.hidden.size());
  for (const std::int64_t size : attrs.hidden) {
    head_width(size, attrs.heads);
    require(size <= most_hidden, "attribute 'qkv_hidden_sizes': expected at most {}, found {}",
            most_hidden, size);
  }
  require(attrs.hidden.empty() ||
              (attrs.hidden[0] == attrs.hidden[1] && attrs.hidden[0] > 0 && attrs.hidden[2] > 0),
          "attribute 'qkv_hidden_sizes': expected equal positive sizes of Q and K");
  for (const char* name : {"do_rotary", "past_present_share_buffer"})
    require(!get_bool(node, name, false), "attribute '{}' is not supported", name);
  return attrs;
}

Attributes ContribAttentionAttrs::to_attributes() const {
  Attributes attributes;
  attributes["num_heads"] = heads;
  if (scale != 0) attributes["scale"] = scale;
  if (filter != -10000) attributes["mask_filter_value"] = filter;
  if (causal) attributes["unidirectional"] = 1;
  if (!hidden.empty()) attributes["qkv_hidden_sizes"] = hidden;
  return attributes;
}

OPERATORS(contrib_attention) {
  registry.add(OpDef{.name = "Attention",
                     .domain = "com.microsoft",
                     .infer = infer_merged_attention,
                     .prepare = prepare_merged_attention,
                     .cost = merged_attention_cost});
  registry.add(OpDef{.name = "MultiHeadAttention",
                     .domain = "com.microsoft",
                     .infer = infer_multi_head_attention,
                     .prepare = prepare_multi_head_attention,
                     .cost = multi_head_attention_cost});
}

}  // namespace onnxpress
