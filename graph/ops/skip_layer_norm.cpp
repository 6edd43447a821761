// Layer normalization as ONNX Runtime has it: fused with a skip connection, with embeddings, or
// without mean (SimplifiedLayerNormalization, in the domain of ai.onnx there).
#include "graph/ops/skip_layer_norm.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/layer_norm.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// `tensor` broadcast to the sum's dims and added to it, in place.
void add_broadcast(ThreadPool& pool, Tensor& sum, const Tensor& tensor) {
  require(broadcast(tensor.dims(), sum.dims()) == sum.dims(), "{} does not broadcast to {}",
          to_string(tensor.dims()), to_string(sum.dims()));
  const Tensor addend = tensor.cast(sum.dtype());
  const Dims operands[] = {addend.dims()};
  const BroadcastPlan plan(sum.dims(), operands);
  dispatch_floats(sum.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const in = addend.data<T>().data();
    T* const out = sum.mutable_data<T>().data();
    const std::int64_t step = plan.inner_stride(0);
    plan.run(pool, [=](std::int64_t start, const std::int64_t* offsets, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i) out[start + i] += in[offsets[0] + i * step];
    });
  });
}

// Inputs (input, skip, gamma, beta, bias), or (input, skip, gamma, bias) when simplified; outputs
// (output, mean, inv_std_var, input_skip_bias_sum).
Kernel prepare_skip_norm(const PrepareContext& prepare) {
  return [attrs = SkipNormAttrs::from(prepare.node())](KernelContext& context) {
    const Tensor& input = context.required_input(0);
    require(input.rank() == 2 || input.rank() == 3, "expected an input of 2 or 3 axes, found {}",
            to_string(input.dims()));
    const Tensor& gamma = context.required_input(2);
    const Tensor* beta = attrs.simplified ? nullptr : context.input(3);
    const Tensor* bias = context.input(attrs.simplified ? 3 : 4);
    const Dims width{input.dims().back()};
    for (const Tensor* vector : {&gamma, beta, bias})
      require(vector == nullptr || vector->dims() == width, "expected a vector {}, found {}",
              to_string(width), vector == nullptr ? "" : to_string(vector->dims()));
    Tensor sum = copy_as(input, float_compute_type(input.dtype()));
    add_broadcast(context.pool(), sum, context.required_input(1));
    if (bias != nullptr) add_broadcast(context.pool(), sum, *bias);
    const NormalizedRows rows =
        NormalizedRows::of(context.pool(), sum, -1, attrs.epsilon, !attrs.simplified, gamma,
                           beta != nullptr ? *beta : Tensor());
    context.forward_output(0, rows.y.cast(input.dtype()));
    if (context.wants_output(1)) context.forward_output(1, rows.means.cast(DType::float32));
    if (context.wants_output(2)) context.forward_output(2, rows.inverses.cast(DType::float32));
    if (context.wants_output(3)) context.forward_output(3, sum.cast(input.dtype()));
  };
}

std::optional<Shape> row_shape(const Shape* x, std::int64_t axis) {
  if (x == nullptr) return std::nullopt;
  Shape shape = *x;
  std::fill(shape.begin() + normalize_axis(axis, shape.size()), shape.end(), Dim(1));
  return shape;
}

void infer_skip_norm(InferContext& context) {
  infer_same_as_first(context);
  const Shape* x = context.input_shape(0);
  for (const std::size_t index : {1, 2})
    context.set_output(index, DType::float32, row_shape(x, -1));
  context.set_output(3, context.input_dtype(0), x != nullptr ? std::optional(*x) : std::nullopt);
}

// Scale and output have a type that may be another than the input's.
Kernel prepare_simplified_norm(const PrepareContext& prepare) {
  return [attrs = LayerNormAttrs::from(prepare.node())](KernelContext& context) {
    const Tensor& input = context.required_input(0);
    const Tensor& scale = context.required_input(1);
    const NormalizedRows rows =
        NormalizedRows::of(context.pool(), input.cast(float_compute_type(input.dtype())),
                           attrs.axis, attrs.epsilon, false, scale, Tensor());
    context.forward_output(0, rows.y.cast(scale.dtype()));
    if (context.wants_output(1)) context.forward_output(1, rows.inverses.cast(DType::float32));
  };
}

void infer_simplified_norm(InferContext& context) {
  const Shape* x = context.input_shape(0);
  const auto axis = LayerNormAttrs::from(context.node()).axis;
  context.set_output(0, context.input_dtype(1), x != nullptr ? std::optional(*x) : std::nullopt);
  context.set_output(1, DType::float32, row_shape(x, axis));
}

enum EmbedInput { ids, segments, words, positions, segment_words, gamma, beta, mask, position_ids };

// Adds table[row(i)] to the i-th row of `sum`.
void add_rows(Tensor& sum, const Tensor& table, std::string_view what,
              const std::function<std::int64_t(std::int64_t)>& row) {
  const std::int64_t width = sum.dims().back();
  require(table.rank() == 2 && table.dim(1) == width, "expected a {} embedding [rows,{}], found {}",
          what, width, to_string(table.dims()));
  const Tensor wide = table.cast(sum.dtype());
  dispatch_floats(sum.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const in = wide.data<T>().data();
    T* const out = sum.mutable_data<T>().data();
    for (std::int64_t i = 0; i < sum.dim(0) * sum.dim(1); ++i) {
      const std::int64_t at = row(i);
      require(0 <= at && at < table.dim(0), "{} id {} is out of range for {} rows", what, at,
              table.dim(0));
      for (std::int64_t j = 0; j < width; ++j) out[i * width + j] += in[at * width + j];
    }
  });
}

Kernel prepare_embed_norm(const PrepareContext& prepare) {
  return [epsilon = get_float(prepare.node(), "epsilon", 1e-12f)](KernelContext& context) {
    const Tensor& tokens = context.required_input(EmbedInput::ids);
    require(tokens.rank() == 2, "expected input ids [batch,length], found {}",
            to_string(tokens.dims()));
    const std::int64_t batch = tokens.dim(0), length = tokens.dim(1);
    const Tensor& table = context.required_input(EmbedInput::words);
    require(table.rank() == 2, "expected a word embedding of 2 axes, found {}",
            to_string(table.dims()));
    const DType type = table.dtype();
    const auto indices = [&](std::size_t index, bool shared) {
      const Tensor& tensor = context.required_input(index);
      require(tensor.dims() == tokens.dims() || (shared && tensor.dims() == Dims{1, length}),
              "input {}: expected {}, found {}", index, to_string(tokens.dims()),
              to_string(tensor.dims()));
      return tensor.to_ints();
    };
    Tensor sum(float_compute_type(type), {batch, length, table.dim(1)});
    const std::vector<std::int64_t> words = tokens.to_ints();
    add_rows(sum, table, "word",
             [&](std::int64_t i) { return words[static_cast<std::size_t>(i)]; });
    std::vector<std::int64_t> places;
    if (context.input(EmbedInput::position_ids) != nullptr)
      places = indices(EmbedInput::position_ids, true);
    add_rows(sum, context.required_input(EmbedInput::positions), "position", [&](std::int64_t i) {
      if (places.empty()) return i % length;
      return places[static_cast<std::size_t>(i % std::ssize(places))];
    });
    if (context.input(EmbedInput::segments) != nullptr) {
      const std::vector<std::int64_t> segments = indices(EmbedInput::segments, false);
      add_rows(sum, context.required_input(EmbedInput::segment_words), "segment",
               [&](std::int64_t i) { return segments[static_cast<std::size_t>(i)]; });
    }
    const NormalizedRows rows = NormalizedRows::of(context.pool(), sum, -1, epsilon, true,
                                                   context.required_input(EmbedInput::gamma),
                                                   context.required_input(EmbedInput::beta));
    context.forward_output(0, rows.y.cast(type));
    if (context.wants_output(1)) {  // how many elements of the mask are 1
      Tensor counts(DType::int32, {batch});
      if (context.input(EmbedInput::mask) != nullptr) {
        const std::vector<std::int64_t> mask = indices(EmbedInput::mask, false);
        const auto out = counts.mutable_data<std::int32_t>();
        for (std::size_t i = 0; i < mask.size(); ++i)
          out[i / static_cast<std::size_t>(length)] += mask[i] == 1;
      }
      context.forward_output(1, counts);
    }
    if (context.wants_output(2)) context.forward_output(2, sum.cast(type));
  };
}

void infer_embed_norm(InferContext& context) {
  Shape shape{Dim(), Dim(), Dim()};
  if (const Shape* tokens = context.input_shape(EmbedInput::ids)) {
    require(tokens->size() == 2, "expected input ids [batch,length], found {}", to_string(*tokens));
    std::copy(tokens->begin(), tokens->end(), shape.begin());
  }
  if (const Shape* table = context.input_shape(EmbedInput::words)) {
    require(table->size() == 2, "expected a word embedding of 2 axes, found {}", to_string(*table));
    shape[2] = (*table)[1];
  }
  const DType type = context.input_dtype(EmbedInput::words);
  context.set_output(1, DType::int32, Shape{shape[0]});
  context.set_output(2, type, shape);
  context.set_output(0, type, std::move(shape));
}

}  // namespace

SkipNormAttrs SkipNormAttrs::from(const Node& node) {
  return {.epsilon = get_float(node, "epsilon", 1e-12f),
          .simplified = node.is("SkipSimplifiedLayerNormalization", "com.microsoft")};
}

OpCall SkipNormAttrs::to_call() const {
  OpCall call{.op_type =
                  simplified ? "SkipSimplifiedLayerNormalization" : "SkipLayerNormalization"};
  call.attributes["epsilon"] = epsilon;
  return call;
}

OPERATORS(skip_layer_norm) {
  for (const char* name : {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})
    registry.add(OpDef{.name = name,
                       .domain = "com.microsoft",
                       .infer = infer_skip_norm,
                       .prepare = prepare_skip_norm});
  registry.add(OpDef{.name = "SimplifiedLayerNormalization",
                     .infer = infer_simplified_norm,
                     .prepare = prepare_simplified_norm});
  registry.add(OpDef{.name = "EmbedLayerNormalization",
                     .domain = "com.microsoft",
                     .infer = infer_embed_norm,
                     .prepare = prepare_embed_norm});
}

}  // namespace onnxpress
