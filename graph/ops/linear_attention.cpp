// LinearAttention and CausalConvWithState (27): recurrent layers with an explicit state.
#include <algorithm>
#include <array>
#include <cmath>

#include "graph/ops/attention_core.h"
#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

struct LinearAttentionAttrs {
  std::int64_t query_heads = 0, heads = 0;
  float scale = 0;  // 0: 1 / sqrt(key width)
  bool gated = false, delta = false;

  static LinearAttentionAttrs from(const Node& node) {
    const std::string rule = get_string(node, "update_rule", "gated_delta");
    require(rule == "linear" || rule == "gated" || rule == "delta" || rule == "gated_delta",
            "attribute 'update_rule': expected linear, gated, delta or gated_delta, found '{}'",
            rule);
    const LinearAttentionAttrs attrs{.query_heads = require_int(node, "q_num_heads"),
                                     .heads = require_int(node, "kv_num_heads"),
                                     .scale = get_float(node, "scale", 0),
                                     .gated = rule.starts_with("gated"),
                                     .delta = rule.ends_with("delta")};
    require(attrs.heads > 0 && attrs.query_heads > 0 && attrs.query_heads % attrs.heads == 0,
            "expected q_num_heads a positive multiple of kv_num_heads, found {} and {}",
            attrs.query_heads, attrs.heads);
    require(attrs.gated == (node.input(4) != nullptr), "update rule {} {} input 'decay'", rule,
            attrs.gated ? "needs" : "has no");
    require(attrs.delta == (node.input(5) != nullptr), "update rule {} {} input 'beta'", rule,
            attrs.delta ? "needs" : "has no");
    return attrs;
  }
};

struct LinearAttentionSizes {
  std::int64_t batch, steps, key_width, value_width;

  static LinearAttentionSizes of(const LinearAttentionAttrs& attrs, const Dims& query,
                                 const Dims& key, const Dims& value) {
    require(query.size() == 3 && key.size() == 3 && value.size() == 3,
            "expected query, key and value of 3 axes, found {}, {} and {}", to_string(query),
            to_string(key), to_string(value));
    const LinearAttentionSizes size{query[0], query[1], head_width(query[2], attrs.query_heads),
                                    head_width(value[2], attrs.heads)};
    require(head_width(key[2], attrs.heads) == size.key_width && key[0] == query[0] &&
                value[0] == query[0] && key[1] == query[1] && value[1] == query[1],
            "query, key and value do not match: found {}, {} and {}", to_string(query),
            to_string(key), to_string(value));
    return size;
  }
};

// Read-only [batch, steps, columns] operands of the recurrence.
struct Gate {
  Tensor tensor;
  std::int64_t columns = 0;

  Gate(KernelContext& context, std::size_t index, const LinearAttentionSizes& size,
       std::initializer_list<std::int64_t> widths) {
    const Tensor* given = context.input(index);
    if (given == nullptr) return;
    tensor = given->cast(DType::float32);
    require(tensor.rank() == 3 && tensor.dim(0) == size.batch && tensor.dim(1) == size.steps &&
                std::ranges::find(widths, tensor.dim(2)) != widths.end(),
            "input {}: expected [{},{},{}], found {}", index, size.batch, size.steps,
            fmt::join(widths, " or "), to_string(tensor.dims()));
    columns = tensor.dim(2);
  }
  const float* row(std::int64_t index) const {
    return tensor.data<float>().data() + index * columns;
  }
};

Kernel prepare_linear_attention(const PrepareContext& prepare) {
  return [attrs = LinearAttentionAttrs::from(prepare.node())](KernelContext& context) {
    const DType type = context.required_input(0).dtype();
    const Tensor q = context.required_input(0).cast(DType::float32);
    const Tensor k = context.required_input(1).cast(DType::float32);
    const Tensor v = context.required_input(2).cast(DType::float32);
    const auto size = LinearAttentionSizes::of(attrs, q.dims(), k.dims(), v.dims());
    const std::int64_t dk = size.key_width, dv = size.value_width;
    const Dims state_dims{size.batch, attrs.heads, dk, dv};
    const Tensor* past = context.input(3);
    require(past == nullptr || past->dims() == state_dims, "expected a past state {}, found {}",
            to_string(state_dims), past == nullptr ? "" : to_string(past->dims()));
    Tensor states =
        past != nullptr ? past->cast(DType::float32) : Tensor(DType::float32, state_dims);
    const Gate decay(context, 4, size, {attrs.heads, attrs.heads * dk});
    const Gate beta(context, 5, size, {attrs.heads, 1});
    Tensor y =
        Tensor::uninitialized(DType::float32, {size.batch, size.steps, attrs.query_heads * dv});
    const float scale = attrs.scale != 0 ? attrs.scale : 1 / std::sqrt(static_cast<float>(dk));
    const auto queries = rows_first<float>(q, attrs.query_heads);
    const auto keys = rows_first<float>(k, attrs.heads);
    const auto values = rows_first<float>(v, attrs.heads);
    float* const state_data = states.mutable_data<float>().data();
    float* const out = y.mutable_data<float>().data();
    const std::int64_t group = attrs.query_heads / attrs.heads;
    context.pool().parallel_for(size.batch * attrs.heads, 1, [&](std::int64_t task, std::int64_t) {
      const std::int64_t b = task / attrs.heads, head = task % attrs.heads;
      float* const state = state_data + task * dk * dv;  // [dk, dv]
      std::vector<float> update(static_cast<std::size_t>(dv));
      for (std::int64_t t = 0; t < size.steps; ++t) {
        const std::int64_t row = b * size.steps + t;
        if (attrs.gated) {
          const bool by_key = decay.columns != attrs.heads;
          for (std::int64_t i = 0; i < dk; ++i) {
            const float factor = std::exp(decay.row(row)[by_key ? head * dk + i : head]);
            for (std::int64_t j = 0; j < dv; ++j) state[i * dv + j] *= factor;
          }
        }
        const float* const key = keys.at(b, head, t);
        std::copy_n(values.at(b, head, t), dv, update.begin());
        if (attrs.delta) {
          for (std::int64_t i = 0; i < dk; ++i)
            for (std::int64_t j = 0; j < dv; ++j)
              update[static_cast<std::size_t>(j)] -= state[i * dv + j] * key[i];
          const float rate = beta.row(row)[beta.columns == 1 ? 0 : head];
          for (float& element : update) element *= rate;
        }
        for (std::int64_t i = 0; i < dk; ++i)
          for (std::int64_t j = 0; j < dv; ++j)
            state[i * dv + j] += key[i] * update[static_cast<std::size_t>(j)];
        for (std::int64_t g = 0; g < group; ++g) {
          const float* const query = queries.at(b, head * group + g, t);
          float* const to = out + (row * attrs.query_heads + head * group + g) * dv;
          std::fill_n(to, dv, 0.0f);
          for (std::int64_t i = 0; i < dk; ++i)
            for (std::int64_t j = 0; j < dv; ++j) to[j] += query[i] * state[i * dv + j];
          for (std::int64_t j = 0; j < dv; ++j) to[j] *= scale;
        }
      }
    });
    context.forward_output(0, y.cast(type));
    if (context.wants_output(1))
      context.forward_output(1, states.cast(past != nullptr ? past->dtype() : type));
  };
}

Dim width_of(const Shape& shape, std::int64_t heads) {
  require(shape.size() == 3, "expected 3 axes, found {}", to_string(shape));
  return shape[2].is_known() ? Dim(head_width(shape[2].value(), heads)) : Dim();
}

void infer_linear_attention(InferContext& context) {
  const LinearAttentionAttrs attrs = LinearAttentionAttrs::from(context.node());
  Shape y{Dim(), Dim(), Dim()};
  Shape state{Dim(), Dim(attrs.heads), Dim(), Dim()};
  if (const Shape* q = context.input_shape(0)) {
    state[2] = width_of(*q, attrs.query_heads);
    y[0] = state[0] = (*q)[0];
    y[1] = (*q)[1];
  }
  if (const Shape* v = context.input_shape(2)) {
    state[3] = width_of(*v, attrs.heads);
    if (state[3].is_known()) y[2] = Dim(state[3].value() * attrs.query_heads);
  }
  context.set_output(0, context.input_dtype(0), std::move(y));
  context.set_output(1, context.input_dtype(context.has_input(3) ? 3 : 0), std::move(state));
}

// A write and a read of the state for every step, and one more read for the delta rule.
Cost linear_attention_cost(const PrepareContext& context) {
  const LinearAttentionAttrs attrs = LinearAttentionAttrs::from(context.node());
  const auto dims = [&](std::size_t i) { return concrete(*context.input_type(i)->shape).value(); };
  const auto size = LinearAttentionSizes::of(attrs, dims(0), dims(1), dims(2));
  const std::int64_t uses = attrs.heads * (attrs.delta ? 2 : 1) + attrs.query_heads;
  return {.macs = element_count(
              std::array{size.batch, size.steps, uses, size.key_width, size.value_width})};
}

enum class Activation { none, silu };

Activation activation_of(const Node& node) {
  const std::string name = get_string(node, "activation", "none");
  require(name == "none" || name == "silu" || name == "swish",
          "attribute 'activation': expected none, silu or swish, found '{}'", name);
  return name == "none" ? Activation::none : Activation::silu;
}

Kernel prepare_causal_conv(const PrepareContext& prepare) {
  return [activation = activation_of(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Tensor& w = inner.required_input(1);
      const Tensor* bias = inner.input(2);
      const Tensor* past = inner.input(3);
      require(
          x.rank() == 3 && w.rank() == 3 && w.dim(0) == x.dim(1) && w.dim(1) == 1 && w.dim(2) >= 1,
          "expected an input [batch,channels,length] and weights [channels,1,k], found {} and "
          "{}",
          to_string(x.dims()), to_string(w.dims()));
      const std::int64_t channels = x.dim(1), length = x.dim(2), taps = w.dim(2);
      const Dims state_dims{x.dim(0), channels, taps - 1};
      require(bias == nullptr || bias->dims() == Dims{channels}, "expected {} biases, found {}",
              channels, bias == nullptr ? "" : to_string(bias->dims()));
      require(past == nullptr || past->dims() == state_dims, "expected a past state {}, found {}",
              to_string(state_dims), past == nullptr ? "" : to_string(past->dims()));
      const float* const in = x.data<float>().data();
      const float* const weights = w.data<float>().data();
      const float* const offsets = bias != nullptr ? bias->data<float>().data() : nullptr;
      const float* const before = past != nullptr ? past->data<float>().data() : nullptr;
      float* const out = inner.output(0, x.dtype(), x.dims()).mutable_data<float>().data();
      float* const state = inner.wants_output(1)
                               ? inner.output(1, x.dtype(), state_dims).mutable_data<float>().data()
                               : nullptr;
      inner.pool().parallel_for(x.dim(0) * channels, 1, [=](std::int64_t row, std::int64_t) {
        std::vector<float> padded(static_cast<std::size_t>(taps - 1 + length));
        if (before != nullptr) std::copy_n(before + row * (taps - 1), taps - 1, padded.begin());
        std::copy_n(in + row * length, length, padded.begin() + (taps - 1));
        const std::int64_t c = row % channels;
        for (std::int64_t i = 0; i < length; ++i) {
          float sum = offsets != nullptr ? offsets[c] : 0.0f;
          for (std::int64_t k = 0; k < taps; ++k)
            sum += weights[c * taps + k] * padded[static_cast<std::size_t>(i + k)];
          if (activation == Activation::silu) sum /= 1 + std::exp(-sum);
          out[row * length + i] = sum;
        }
        if (state != nullptr)
          std::copy(padded.begin() + length, padded.end(), state + row * (taps - 1));
      });
    });
  };
}

void infer_causal_conv(InferContext& context) {
  infer_same_as_first(context);
  Shape state{Dim(), Dim(), Dim()};
  if (const Shape* x = context.input_shape(0)) {
    require(x->size() == 3, "expected an input of 3 axes, found {}", to_string(*x));
    state[0] = (*x)[0];
    state[1] = (*x)[1];
  }
  if (const Shape* w = context.input_shape(1)) {
    require(w->size() == 3, "expected weights of 3 axes, found {}", to_string(*w));
    state[1] = unify(state[1], (*w)[0], "the channels");
    if ((*w)[2].is_known()) {
      require((*w)[2].value() >= 1, "expected at least 1 tap, found {}", (*w)[2].value());
      state[2] = Dim((*w)[2].value() - 1);
    }
  }
  context.set_output(1, context.input_dtype(0), std::move(state));
}

Cost causal_conv_cost(const PrepareContext& context) {
  const Dims x = concrete(*context.input_type(0)->shape).value();
  const Dims w = concrete(*context.input_type(1)->shape).value();
  return {.macs = element_count(x) * w.at(2)};
}

}  // namespace

OPERATORS(linear_attention) {
  registry.add(OpDef{.name = "LinearAttention",
                     .since = 27,
                     .infer = infer_linear_attention,
                     .prepare = prepare_linear_attention,
                     .cost = linear_attention_cost});
  registry.add(OpDef{.name = "CausalConvWithState",
                     .since = 27,
                     .infer = infer_causal_conv,
                     .prepare = prepare_causal_conv,
                     .cost = causal_conv_cost});
}

}  // namespace onnxpress
