// Gradient of Attention without a cache. The probabilities are computed again by the operator
// itself, which gives them as its last output.
#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "graph/ops/attention_core.h"
#include "graph/ops/attributes.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/pieces.h"

namespace onnxpress {
namespace {

enum Input : std::size_t { query, key, value, mask, past_key, past_value, valid_keys, count };

// The node with its scores at one stage as an output.
class ScoredAttention {
 public:
  ScoredAttention(const Node& node, AttentionStage stage)
      : opsets_{{"", node.opset()}}, graph_(&opsets_) {
    NodeSpec spec{.op_type = "Attention",
                  .outputs = {"y", "", "", "scores"},
                  .omitted_outputs = {1, 2}};
    for (std::size_t i = 0; i < node.input_count(); ++i)
      spec.inputs.push_back(node.input(i) != nullptr ? graph_.add_input(fmt::format("input{}", i), Type())
                                                     : nullptr);
    for (const char* name : {"is_causal", "q_num_heads", "kv_num_heads"})
      if (const auto given = find_int(node, name)) spec.attributes[name] = *given;
    for (const char* name : {"scale", "softcap"})
      if (const auto given = find_float(node, name)) spec.attributes[name] = *given;
    spec.attributes["qk_matmul_output_mode"] = static_cast<std::int64_t>(stage);
    node_ = graph_.add_node(std::move(spec));
  }

  Tensor scores(BackwardContext& context) const {
    std::vector<const Tensor*> inputs;
    for (std::size_t i = 0; i < node_->input_count(); ++i) inputs.push_back(context.input(i));
    return evaluate(*operators().find(*node_), *node_, inputs, context.pool()).at(3);
  }

 private:
  OpsetImports opsets_;
  Graph graph_;
  Node* node_ = nullptr;
};

// [batch, heads, rows, width] of a tensor in either form, as matrices.
template <class T>
struct Heads {
  T* data;
  std::int64_t heads, rows, width;
  bool is_packed;

  static Heads of(T* data, const Dims& dims, std::int64_t heads) {
    if (dims.size() == 4) return {data, dims[1], dims[2], dims[3], false};
    return {data, heads, dims[1], dims[2] / heads, true};
  }
  MatrixView<T> at(std::int64_t batch, std::int64_t head, bool transposed = false) const {
    const std::int64_t offset = is_packed ? (batch * rows * heads + head) * width
                                          : (batch * heads + head) * rows * width;
    return {data + offset, is_packed ? heads * width : width, transposed};
  }
};

struct AttentionGradient {
  std::int64_t query_heads, heads;
  double scale, softcap;

  // Of the scores behind the mask: P (dP - sum dP P) by row, with dP = dY V'.
  template <class T>
  void differentiate_scores(const T* p, const T* dp, T* ds, std::int64_t rows,
                            std::int64_t keys) const {
    for (std::int64_t row = 0; row < rows; ++row, p += keys, dp += keys, ds += keys) {
      double sum = 0;
      for (std::int64_t k = 0; k < keys; ++k)
        sum += static_cast<double>(p[k]) * static_cast<double>(dp[k]);
      for (std::int64_t k = 0; k < keys; ++k) ds[k] = p[k] * (dp[k] - static_cast<T>(sum));
    }
  }

  template <class T>
  void run(BackwardContext& context, const Tensor& probabilities, const Tensor& capped) const {
    const Tensor& q = context.required_input(query);
    const Tensor& k = context.required_input(key);
    const Tensor& v = context.required_input(value);
    const Tensor& dy = context.required_gradient(0);
    const auto read = [](const Tensor& tensor, std::int64_t of) {
      return Heads<const T>::of(tensor.data<T>().data(), tensor.dims(), of);
    };
    const auto written = [&](std::size_t index, std::int64_t of) {
      T* data = nullptr;
      if (context.wants_gradient(index)) {
        const auto values = context.gradient(index).template mutable_data<T>();
        std::ranges::fill(values, T(0));
        data = values.data();
      }
      return Heads<T>::of(data, context.input_dims(index), of);
    };
    const Heads<const T> Q = read(q, query_heads), K = read(k, heads), V = read(v, heads),
                         dY = read(dy, query_heads);
    const Heads<T> dQ = written(query, query_heads), dK = written(key, heads),
                   dV = written(value, heads);
    const std::int64_t batch = q.dim(0), group = query_heads / heads;
    const std::int64_t queries = Q.rows, keys = K.rows, area = queries * keys;
    Tensor masked;  // gradients of the scores behind the mask, when it is trained
    if (context.wants_gradient(mask)) masked = Tensor::uninitialized(q.dtype(), probabilities.dims());
    T* const kept = masked.defined() ? masked.mutable_data<T>().data() : nullptr;
    const T* const p = probabilities.data<T>().data();
    const T* const c = capped.defined() ? capped.data<T>().data() : nullptr;
    // Heads of queries that share keys are summed in one task.
    context.pool().parallel_for(batch * heads, 1, [&](std::int64_t task, std::int64_t) {
      const std::int64_t b = task / heads, h = task % heads;
      std::vector<T> dp(static_cast<std::size_t>(area)), ds(static_cast<std::size_t>(area));
      for (std::int64_t g = h * group; g < (h + 1) * group; ++g) {
        const std::int64_t at = (b * query_heads + g) * area;
        const MatrixView<const T> P{p + at, keys}, Pt{p + at, keys, true};
        if (dV.data != nullptr)
          add_product<T>(keys, V.width, queries, Pt, dY.at(b, g), dV.at(b, h));
        std::ranges::fill(dp, T(0));
        add_product<T>(queries, keys, V.width, dY.at(b, g), V.at(b, h, true), {dp.data(), keys});
        differentiate_scores(P.data, dp.data(), ds.data(), queries, keys);
        if (kept != nullptr) std::ranges::copy(ds, kept + at);
        const T factor = static_cast<T>(scale);
        for (std::int64_t i = 0; i < area; ++i) {
          T& score = ds[static_cast<std::size_t>(i)];
          if (c != nullptr) {
            const T share = c[at + i] / static_cast<T>(softcap);
            score *= 1 - share * share;
          }
          score *= factor;
        }
        if (dQ.data != nullptr)
          add_product<T>(queries, Q.width, keys, {ds.data(), keys}, K.at(b, h), dQ.at(b, g));
        if (dK.data != nullptr)
          add_product<T>(keys, Q.width, queries, {ds.data(), keys, true}, Q.at(b, g), dK.at(b, h));
      }
    });
    if (!masked.defined()) return;
    const std::int64_t masked_keys = context.input_dims(mask).back();
    const bool is_shorter = masked_keys != keys && masked_keys != 1;
    put_sum(context, mask, is_shorter ? take(masked, 3, 0, masked_keys) : masked);
  }
};

BackwardKernel prepare_attention(const PrepareContext& plan) {
  const Node& node = plan.node();
  const auto scored = std::make_shared<const ScoredAttention>(node, AttentionStage::softmax);
  const double softcap = double{get_float(node, "softcap", 0)};
  std::shared_ptr<const ScoredAttention> capped;
  if (softcap > 0) capped = std::make_shared<const ScoredAttention>(node, AttentionStage::capped);
  return [=, scale = find_float(node, "scale"), query_heads = find_int(node, "q_num_heads"),
          heads = find_int(node, "kv_num_heads")](BackwardContext& context) {
    require(context.input(past_key) == nullptr && context.input(past_value) == nullptr,
            "no gradient goes through a cache of keys and values");
    for (std::size_t i = 1; i < 4; ++i)
      require(context.output_gradient(i) == nullptr, "no gradient goes through output {}", i);
    const Dims& q = context.input_dims(query);
    const Dims& k = context.input_dims(key);
    AttentionGradient gradient{.query_heads = q.size() == 4 ? q[1] : query_heads.value_or(1),
                               .heads = k.size() == 4 ? k[1] : heads.value_or(1),
                               .softcap = softcap};
    const std::int64_t width = q.size() == 4 ? q[3] : q[2] / gradient.query_heads;
    gradient.scale = scale ? double{*scale} : 1 / std::sqrt(static_cast<double>(width));
    const Tensor probabilities = scored->scores(context);
    const Tensor scores = capped ? capped->scores(context) : Tensor();
    dispatch_floats(context.input_dtype(query), [&]<class T>(std::type_identity<T>) {
      gradient.run<T>(context, probabilities, scores);
    });
  };
}

}  // namespace

OPERATORS(attention_gradient) {
  registry.add(
      GradientDef{.name = "Attention", .prepare = prepare_attention, .reads_outputs = 0});
}

}  // namespace onnxpress
