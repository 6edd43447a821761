#include "graph/ops/recurrent_quantized.h"

#include <array>
#include <utility>

#include "graph/ir/clone.h"
#include "graph/ops/quantized.h"
#include "graph/ops/recurrent.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

namespace in = recurrent_input;
constexpr std::size_t w_scale = 8, r_scale = 10;  // each with its zero point behind it

// The last two axes the other way round.
template <class D>
D swapped(D dims) {
  if (dims.size() == 3) std::swap(dims[1], dims[2]);
  return dims;
}

// [directions] or [directions, columns] numbers as [directions, columns].
std::vector<float> by_column(const Tensor& numbers, std::int64_t directions, std::int64_t columns,
                             std::string_view what) {
  const bool is_whole = numbers.dims() == Dims{directions, columns};
  require(is_whole || numbers.dims() == Dims{directions}, "expected {} [{}] or [{},{}], found {}", what,
          directions, directions, columns, to_string(numbers.dims()));
  const std::vector<float> given = numbers.to_floats();
  if (is_whole) return given;
  std::vector<float> all;
  for (const float number : given) all.insert(all.end(), static_cast<std::size_t>(columns), number);
  return all;
}

// The weight of LSTM [directions, columns, depth] that the codes [directions, depth, columns] stand for.
Tensor weight_of(const Tensor& codes, const Tensor& scale, const Tensor& zero) {
  codes_of(codes);  // checks the type
  require(codes.rank() == 3, "expected codes of 3 axes, found {}", to_string(codes.dims()));
  require(zero.dtype() == codes.dtype(), "expected zero points of type {}, found {}", name(codes.dtype()),
          name(zero.dtype()));
  const std::int64_t depth = codes.dim(1), columns = codes.dim(2);
  const auto scales = by_column(scale, codes.dim(0), columns, "scales");
  const auto zeros = by_column(zero, codes.dim(0), columns, "zero points");
  const Tensor numbers = codes.cast(DType::float32);
  Tensor weight = Tensor::uninitialized(DType::float32, swapped(codes.dims()));
  const std::span<const float> from = numbers.data<float>();
  const std::span<float> to = weight.mutable_data<float>();
  for (std::size_t row = 0; row < scales.size(); ++row)
    for (std::int64_t i = 0; i < depth; ++i) {
      const auto d = static_cast<std::int64_t>(row) / columns, column = static_cast<std::int64_t>(row) % columns;
      to[row * static_cast<std::size_t>(depth) + static_cast<std::size_t>(i)] =
          (from[static_cast<std::size_t>((d * depth + i) * columns + column)] - zeros[row]) * scales[row];
    }
  return weight;
}

// LSTM's inputs in place of those of the quantized operator.
class FloatInputs final : public KernelContext {
 public:
  // Undefined weights are made of the codes of the call.
  FloatInputs(KernelContext& inner, const Tensor& w, const Tensor& r) : inner_(inner) {
    const Tensor& x = inner.required_input(in::x);
    replaced_[in::x] = rounded(inner.pool(), x);
    const auto made = [&](std::size_t index, std::size_t scale) {
      return weight_of(inner.required_input(index), inner.required_input(scale), inner.required_input(scale + 1));
    };
    replaced_[in::w] = w.defined() ? w : made(in::w, w_scale);
    replaced_[in::r] = r.defined() ? r : made(in::r, r_scale);
  }

  std::size_t input_count() const override { return std::min(inner_.input_count(), in::count); }
  const Tensor* input(std::size_t index) const override {
    if (index < replaced_.size()) return &replaced_[index];
    return index < input_count() ? inner_.input(index) : nullptr;
  }
  bool wants_output(std::size_t index) const override { return inner_.wants_output(index); }
  Tensor& output(std::size_t index, DType type, const Dims& dims) override {
    return inner_.output(index, type, dims);
  }
  void forward_output(std::size_t index, Tensor tensor) override {
    inner_.forward_output(index, std::move(tensor));
  }
  ThreadPool& pool() override { return inner_.pool(); }
  std::vector<RuntimeValue> run_subgraph(std::string_view attribute,
                                         std::span<const RuntimeValue> inputs) override {
    return inner_.run_subgraph(attribute, inputs);
  }

 private:
  static Tensor rounded(ThreadPool& pool, const Tensor& x) {
    const DynamicRange range = DynamicRange::of(x.data<float>());
    const Tensor codes = quantized(pool, x, range);
    Tensor result = Tensor::uninitialized(DType::float32, x.dims());
    const std::span<const std::uint8_t> from = codes.data<std::uint8_t>();
    const std::span<float> to = result.mutable_data<float>();
    for (std::size_t i = 0; i < from.size(); ++i)
      to[i] = static_cast<float>(int{from[i]} - int{range.zero_point}) * range.scale;
    return result;
  }

  KernelContext& inner_;
  std::array<Tensor, 3> replaced_;
};

// The products are those of the codes, up to the order of summation of floats.
Kernel prepare(const PrepareContext& prepare) {
  RecurrentAttrs attrs = RecurrentAttrs::from(prepare.node());
  attrs.rounds_state = true;
  const auto made = [&](std::size_t index, std::size_t scale) {
    const Tensor* const codes = prepare.constant_input(index);
    const Tensor* const scales = prepare.constant_input(scale);
    const Tensor* const zeros = prepare.constant_input(scale + 1);
    return codes && scales && zeros ? weight_of(*codes, *scales, *zeros) : Tensor();
  };
  return [attrs, w = made(in::w, w_scale), r = made(in::r, r_scale)](KernelContext& context) {
    FloatInputs inputs(context, w, r);
    run_recurrent(inputs, attrs);
  };
}

void infer(InferContext& context) {
  const RecurrentAttrs attrs = RecurrentAttrs::from(context.node());
  std::vector<const Shape*> shapes(in::count, nullptr);
  for (std::size_t i = 0; i < in::count; ++i) shapes[i] = context.input_shape(i);
  std::array<Shape, 2> weights;
  for (const std::size_t i : {in::w, in::r}) {
    if (shapes[i] == nullptr) continue;
    weights[i - in::w] = swapped(*shapes[i]);
    shapes[i] = &weights[i - in::w];
  }
  const RecurrentSizes sizes = RecurrentSizes::of(attrs, shapes);
  for (std::size_t i = 0; i < std::min<std::size_t>(context.node().output_count(), 3); ++i)
    context.set_output(i, DType::float32, i == 0 ? sizes.sequence_output(attrs) : sizes.state(attrs));
}

Cost cost(const PrepareContext& context) {
  const RecurrentAttrs attrs = RecurrentAttrs::from(context.node());
  const Dims x = concrete(*context.input_type(in::x)->shape).value();
  const Dims w = concrete(*context.input_type(in::w)->shape).value();
  const Dims r = concrete(*context.input_type(in::r)->shape).value();
  return {.macs = element_count(Dims{x.at(0), x.at(1), attrs.directions(), w.at(2), w.at(1) + r.at(1)})};
}

}  // namespace

Attributes dynamic_lstm_attributes(const Node& lstm) {
  Attributes attributes;
  ValueMap none;  // these attributes hold no subgraphs
  for (const char* name : {"activation_alpha", "activation_beta", "activations", "clip", "direction",
                           "hidden_size", "input_forget"})
    if (const Attribute* attribute = lstm.attribute(name))
      attributes.emplace(name, clone_attribute(*attribute, &lstm.graph(), none));
  return attributes;
}

OPERATORS(recurrent_quantized) {
  registry.add(OpDef{.name = "DynamicQuantizeLSTM",
                     .domain = "com.microsoft",
                     .infer = infer,
                     .prepare = prepare,
                     .cost = cost});
}

}  // namespace onnxpress
