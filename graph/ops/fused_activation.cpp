// FusedGemm and FusedConv of com.microsoft: Gemm or Conv, a sum, an activation.
#include "graph/ops/fused_activation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "graph/ir/clone.h"
#include "graph/ops/activations.h"
#include "graph/ops/attributes.h"
#include "graph/ops/clip.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/gemm.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// Formulas are those of the ONNX operators of the same name; Clip is between alpha and beta.
struct FusedActivation {
  enum class Kind {
    none,
    relu,
    leaky_relu,
    thresholded_relu,
    elu,
    tanh,
    sigmoid,
    hard_sigmoid,
    hard_swish,
    softplus,
    softsign,
    clip
  };
  Kind kind = Kind::none;
  float alpha = 0, beta = 0;

  static FusedActivation from(const Node& node) {
    struct Row {
      Kind kind;
      std::string_view name;
      std::size_t parameters;
    };
    static constexpr Row rows[] = {{Kind::none, "", 0},
                                   {Kind::relu, "Relu", 0},
                                   {Kind::leaky_relu, "LeakyRelu", 1},
                                   {Kind::thresholded_relu, "ThresholdedRelu", 1},
                                   {Kind::elu, "Elu", 1},
                                   {Kind::tanh, "Tanh", 0},
                                   {Kind::sigmoid, "Sigmoid", 0},
                                   {Kind::hard_sigmoid, "HardSigmoid", 2},
                                   {Kind::hard_swish, "HardSwish", 0},
                                   {Kind::softplus, "Softplus", 0},
                                   {Kind::softsign, "Softsign", 0},
                                   {Kind::clip, "Clip", 2}};
    const std::string name = get_string(node, "activation", "");
    const auto row = std::ranges::find(rows, name, &Row::name);
    require(row != std::end(rows), "attribute 'activation': '{}' is not supported", name);
    std::vector<float> given = get_floats(node, "activation_params");
    if (const auto value = find_float(node, "activation_alpha")) given = {*value};
    if (const auto value = find_float(node, "activation_beta")) {
      given.resize(1);
      given.push_back(*value);
    }
    // ONNX Runtime takes parameters of HardSwish, and leaves them unused.
    if (row->kind == Kind::hard_swish) given = {1.0f / 6, 0.5f};
    require(given.size() >= row->parameters, "activation {}: expected {} parameters, found {}",
            name, row->parameters, given.size());
    given.resize(2);
    return {.kind = row->kind, .alpha = given[0], .beta = given[1]};
  }

  template <class T>
  T operator()(T x) const {
    const T a = static_cast<T>(alpha), b = static_cast<T>(beta);
    switch (kind) {
      case Kind::none:
        return x;
      case Kind::relu:
        return x < 0 ? T(0) : x;
      case Kind::leaky_relu:
        return x < 0 ? a * x : x;
      case Kind::thresholded_relu:
        return x > a ? x : T(0);
      case Kind::elu:
        return x < 0 ? a * std::expm1(x) : x;
      case Kind::tanh:
        return std::tanh(x);
      case Kind::sigmoid:
        return T(0.5) * (1 + std::tanh(x / 2));
      case Kind::hard_sigmoid:
        return std::fmax(T(0), std::fmin(T(1), a * x + b));
      case Kind::hard_swish:
        return x * std::fmax(T(0), std::fmin(T(1), a * x + b));
      case Kind::softplus:
        return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
      case Kind::softsign:
        return x / (1 + std::fabs(x));
      case Kind::clip:
        return std::fmin(b, std::fmax(a, x));
    }
    return x;
  }
};

// Keeps the first output of a kernel, to be worked on.
class KeptOutput final : public KernelContext {
 public:
  explicit KeptOutput(KernelContext& inner) : inner_(inner) {}

  std::size_t input_count() const override { return inner_.input_count(); }
  const Tensor* input(std::size_t index) const override { return inner_.input(index); }
  bool wants_output(std::size_t index) const override { return index == 0; }
  Tensor& output(std::size_t, DType type, const Dims& dims) override {
    return kept = Tensor::uninitialized(type, dims);
  }
  void forward_output(std::size_t, Tensor tensor) override { kept = std::move(tensor); }
  ThreadPool& pool() override { return inner_.pool(); }
  std::vector<RuntimeValue> run_subgraph(std::string_view attribute,
                                         std::span<const RuntimeValue> inputs) override {
    return inner_.run_subgraph(attribute, inputs);
  }

  Tensor kept;

 private:
  KernelContext& inner_;
};

const OpDef& base_operator(const Node& node) {
  return *operators().find("", node.op_type() == "FusedConv" ? "Conv" : "Gemm", 13);
}

// FusedConv's input 3 is added before the activation.
Kernel prepare_fused(const PrepareContext& prepare) {
  const bool sums = prepare.node().op_type() == "FusedConv";
  return [sums, activation = FusedActivation::from(prepare.node()),
          base = base_operator(prepare.node()).prepare(prepare)](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      KeptOutput kept(inner);
      base(kept);
      const Tensor& x = kept.kept;
      const Tensor* z = sums ? inner.input(3) : nullptr;
      require(z == nullptr || z->dims() == x.dims(), "expected a summand {}, found {}",
              to_string(x.dims()), z == nullptr ? "" : to_string(z->dims()));
      Tensor& y = inner.output(0, x.dtype(), x.dims());
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const in = x.data<T>().data();
        const T* const added = z != nullptr ? z->data<T>().data() : nullptr;
        T* const out = y.mutable_data<T>().data();
        inner.pool().parallel_for(x.size(), 16384, [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i)
            out[i] = activation(added != nullptr ? in[i] + added[i] : in[i]);
        });
      });
    });
  };
}

void infer_fused(InferContext& context) { base_operator(context.node()).infer(context); }

OperandAxes fused_axes(const Node& node) {
  OperandAxes axes = base_operator(node).axes(node);
  if (axes.size() > 3) axes[3] = {};
  return axes;
}

Cost fused_cost(const PrepareContext& context) {
  return base_operator(context.node()).cost(context);
}

// Parameters of an activation of ai.onnx, in the order of FusedConv's activation_params; nothing
// when `linear` cannot have it in ONNX Runtime.
std::optional<std::vector<float>> activation_parameters(const Node& linear,
                                                        const Node& activation) {
  const bool gemm = linear.is("Gemm");
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::ranges::any_of(names, [&](std::string_view name) { return activation.is(name); });
  };
  if (is_one_of({"Relu", "Sigmoid", "Tanh"})) return std::vector<float>{};
  if (activation.is("LeakyRelu")) return std::vector{LeakyReluAttrs::from(activation).alpha};
  if (activation.is("HardSigmoid")) {
    const HardSigmoidAttrs attrs = HardSigmoidAttrs::from(activation);
    return std::vector{attrs.alpha, attrs.beta};
  }
  if (gemm && is_one_of({"Softplus", "Softsign"})) return std::vector<float>{};
  if (gemm && is_one_of({"Elu", "ThresholdedRelu"}))
    return std::vector{get_float(activation, "alpha", 1)};
  if (gemm || !activation.is("Clip")) return std::nullopt;
  const auto bounds = ClipBounds::from(activation);
  if (!bounds) return std::nullopt;
  constexpr double largest = std::numeric_limits<float>::max();
  return std::vector{static_cast<float>(std::max(bounds->low, -largest)),
                     static_cast<float>(std::min(bounds->high, largest))};
}

}  // namespace

std::optional<OpCall> fused_activation_call(const Node& linear, const Node& activation) {
  const auto parameters = activation_parameters(linear, activation);
  if (!parameters) return std::nullopt;
  for (const Node* node : {&linear, &activation})
    for (const auto& [key, attribute] : node->attributes())
      if (!attribute.ref.empty()) return std::nullopt;
  OpCall call;
  if (linear.is("Gemm")) {
    constexpr std::int64_t without_broadcast_attribute = 7;
    call = {.op_type = "FusedGemm",
            .attributes = GemmAttrs::from(linear).to_attributes(without_broadcast_attribute)};
    constexpr const char* names[] = {"activation_alpha", "activation_beta"};
    for (std::size_t i = 0; i < parameters->size(); ++i)
      call.attributes[names[i]] = (*parameters)[i];
  } else {
    ValueMap nothing;
    call = {.op_type = "FusedConv", .attributes = clone_attributes(linear, nullptr, nothing)};
    if (!parameters->empty()) call.attributes["activation_params"] = *parameters;
  }
  call.attributes["activation"] = activation.op_type();
  return call;
}

OPERATORS(fused_activation) {
  for (const char* name : {"FusedGemm", "FusedConv"})
    registry.add(OpDef{.name = name,
                       .domain = "com.microsoft",
                       .infer = infer_fused,
                       .prepare = prepare_fused,
                       .axes = fused_axes,
                       .cost = fused_cost});
}

}  // namespace onnxpress
