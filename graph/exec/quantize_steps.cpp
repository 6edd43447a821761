// Operators between DequantizeLinear and QuantizeLinear, as the integer operators they stand for.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/exec/plan.h"
#include "graph/exec/post_ops.h"
#include "graph/exec/prepare.h"
#include "graph/exec/step_index.h"
#include "graph/ir/clone.h"
#include "graph/ops/gemm.h"
#include "graph/ops/quantize_linear.h"
#include "graph/ops/resize.h"

namespace onnxpress {
namespace {

// A tensor of codes with its scale and zero point: slots.
struct Codes {
  std::size_t tensor = no_slot, scale = no_slot, zero_point = no_slot;
};

class Quantizer {
 public:
  explicit Quantizer(GraphPlan& plan) : plan_(plan), index_(plan) {}

  void run() {
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      const PlanStep& step = plan_.steps[i];
      if (!step.node || !is_executed(plan_, step) || step.outputs.size() != 1) continue;
      const Node& node = *step.node;
      if (node.is("Conv")) convolution(i);
      if (node.is("Gemm")) product(i);
      if (node.is("MatMul")) matrix_product(i);
      if (node.is("Add")) sum(i);
      if (node.is("Sigmoid")) table(i, "QLinearSigmoid");
      if (node.is("LeakyRelu")) table(i, "QLinearLeakyRelu");
      if (node.is("GlobalAveragePool")) global_average(i);
      if (moves_elements(node)) movement(i);
    }
    std::erase_if(plan_.steps, [](const PlanStep& step) { return step.node == nullptr; });
    drop_unneeded_steps(plan_, true);
  }

 private:
  static bool moves_elements(const Node& node) {
    static constexpr std::string_view names[] = {
        "MaxPool", "Reshape", "Flatten",        "Transpose", "Squeeze",      "Unsqueeze", "Slice",
        "Gather",  "Expand",  "GatherElements", "Tile",      "DepthToSpace", "SpaceToDepth"};
    return std::ranges::any_of(names, [&](std::string_view name) { return node.is(name); }) ||
           (node.is("Resize") && resizes_by_picking(node));
  }

  const PlanStep& step(std::size_t i) const { return plan_.steps[i]; }
  const Tensor* constant(std::size_t slot) const {
    const bool is_constant = slot != no_slot && plan_.slots[slot].source == Slot::Source::constant;
    return is_constant ? &plan_.slots[slot].constant : nullptr;
  }
  static std::size_t input(const PlanStep& step, std::size_t position) {
    return position < step.inputs.size() ? step.inputs[position] : no_slot;
  }

  // The operands of a QuantizeLinear or DequantizeLinear with one constant scale.
  std::optional<Codes> scalar_codes(const PlanStep& step) const {
    const Codes codes{input(step, 0), input(step, 1), input(step, 2)};
    const Tensor* scale = constant(codes.scale);
    const Tensor* zero = constant(codes.zero_point);
    const bool fits = scale && scale->size() == 1 && scale->dtype() == DType::float32 && zero &&
                      zero->size() == 1 &&
                      (zero->dtype() == DType::uint8 || zero->dtype() == DType::int8) &&
                      QuantizeAttrs::from(*step.node).block_size == 0;
    return fits ? std::optional(codes) : std::nullopt;
  }

  // What a value is dequantized from.
  std::optional<Codes> dequantized(std::size_t slot) const {
    const auto producer = index_.producer(slot);
    if (!producer || !step(*producer).node || !step(*producer).node->is("DequantizeLinear"))
      return std::nullopt;
    return scalar_codes(step(*producer));
  }

  // What a value is quantized to by its only reader: the step, and its scale and zero point. An
  // activation between them that the saturation of the codes does anyway is left out.
  struct Target {
    std::size_t step;
    Codes codes;
    std::vector<std::size_t> passed;  // steps in between
  };
  std::optional<Target> quantized(std::size_t slot) const {
    Target target{};
    for (;;) {
      const auto reader = index_.only_reader(slot);
      if (!reader || reader->input != 0 || !step(reader->step).node) return std::nullopt;
      target.step = reader->step;
      if (step(reader->step).node->is("QuantizeLinear")) break;
      if (!target.passed.empty()) return std::nullopt;
      target.passed.push_back(reader->step);
      slot = step(reader->step).outputs[0];
    }
    const auto codes = scalar_codes(step(target.step));
    if (!codes) return std::nullopt;
    target.codes = *codes;
    if (!target.passed.empty() && !is_saturation(target.passed[0], *codes)) return std::nullopt;
    return target;
  }

  bool is_saturation(std::size_t i, const Codes& codes) const {
    const auto as = as_post_op(plan_, step(i), 0);
    const float scale = constant(codes.scale)->data<float>()[0];
    const Tensor& zero = *constant(codes.zero_point);
    const auto zero_point = static_cast<float>(zero.to_ints()[0]);
    const bool is_signed = zero.dtype() == DType::int8;
    const float least = scale * ((is_signed ? -128.0f : 0.0f) - zero_point);
    const float most = scale * ((is_signed ? 127.0f : 255.0f) - zero_point);
    if (!as || as->other) return false;
    if (as->op.kind == PostOp::Kind::relu) return least >= 0;
    return as->op.kind == PostOp::Kind::clip && least >= as->op.alpha && most <= as->op.beta;
  }

  // The constant codes that a step dequantizes, of the given type.
  std::optional<Codes> quantized_constant(std::size_t slot, DType type) const {
    const auto producer = slot == no_slot ? std::nullopt : index_.producer(slot);
    if (!producer || !step(*producer).node || !step(*producer).node->is("DequantizeLinear"))
      return std::nullopt;
    const PlanStep& source = step(*producer);
    const Codes codes{input(source, 0), input(source, 1), input(source, 2)};
    const Tensor* tensor = constant(codes.tensor);
    const Tensor* scale = constant(codes.scale);
    const bool fits = tensor && scale && tensor->dtype() == type &&
                      scale->dtype() == DType::float32 &&
                      (codes.zero_point == no_slot || constant(codes.zero_point)) &&
                      QuantizeAttrs::from(*source.node).block_size == 0;
    return fits ? std::optional(codes) : std::nullopt;
  }

  // The axis of the scales of such a constant.
  std::int64_t scale_axis(std::size_t slot) const {
    return QuantizeAttrs::from(*step(*index_.producer(slot)).node).axis;
  }

  // A bias of `channels` numbers, constant or dequantized from int32.
  std::optional<std::vector<double>> bias_values(std::size_t slot, std::int64_t channels) const {
    std::vector<double> values;
    if (const Tensor* bias = constant(slot); bias && bias->dtype() == DType::float32) {
      for (const float value : bias->data<float>()) values.push_back(value);
    } else if (const auto codes = quantized_constant(slot, DType::int32)) {
      const auto scale = constant(codes->scale)->data<float>();
      const Tensor* zero = constant(codes->zero_point);
      if (zero && std::ranges::any_of(zero->to_ints(), [](auto code) { return code != 0; }))
        return std::nullopt;
      const auto given = constant(codes->tensor)->data<std::int32_t>();
      if (scale.size() != 1 && scale.size() != given.size()) return std::nullopt;
      for (std::size_t c = 0; c < given.size(); ++c)
        values.push_back(static_cast<double>(given[c]) * scale[scale.size() > 1 ? c : 0]);
    }
    if (std::ssize(values) != channels) return std::nullopt;
    return values;
  }

  // The bias in units of the integer sums, as a slot like that of the weights.
  std::size_t quantized_bias(const std::vector<double>& values, const Codes& x, const Codes& w) {
    const float x_scale = constant(x.scale)->data<float>()[0];
    const auto w_scale = constant(w.scale)->data<float>();
    Tensor result = Tensor::uninitialized(DType::int32, {std::ssize(values)});
    for (std::size_t c = 0; c < values.size(); ++c) {
      const double unit = static_cast<double>(x_scale) * w_scale[w_scale.size() > 1 ? c : 0];
      result.mutable_data<std::int32_t>()[c] = static_cast<std::int32_t>(std::clamp<double>(
          std::nearbyint(values[c] / unit), std::numeric_limits<std::int32_t>::min(),
          std::numeric_limits<std::int32_t>::max()));
    }
    return add_constant(*plan_.slots[w.tensor].value, std::move(result));
  }

  void convolution(std::size_t i) {
    const auto x = dequantized(input(step(i), 0));
    const auto y = x ? quantized(step(i).outputs[0]) : std::nullopt;
    const auto w = y ? quantized_constant(input(step(i), 1), DType::int8) : std::nullopt;
    if (!w) return;
    const Tensor weights = *constant(w->tensor);  // constants that are added move the others
    const auto scales = constant(w->scale)->size();
    if (weights.rank() < 1 ||
        (scales != 1 && (scale_axis(input(step(i), 1)) != 0 || scales != weights.dim(0))))
      return;
    std::vector<std::size_t> inputs{x->tensor, x->scale,      x->zero_point,  w->tensor,
                                    w->scale,  w->zero_point, y->codes.scale, y->codes.zero_point};
    if (w->zero_point == no_slot)
      inputs[5] = add_constant(*plan_.slots[w->tensor].value, Tensor::scalar(std::int8_t{0}));
    if (const std::size_t bias = input(step(i), 2); bias != no_slot) {
      const auto values = bias_values(bias, weights.dim(0));
      if (!values) return;
      inputs.push_back(quantized_bias(*values, *x, *w));
    }
    replace(i, y, "QLinearConv", "", Copied::convolution, std::move(inputs));
  }

  void product(std::size_t i) {
    const GemmAttrs attrs = GemmAttrs::from(*step(i).node);
    if (attrs.alpha != 1 || attrs.beta != 1 || attrs.transpose_a) return;
    const auto a = dequantized(input(step(i), 0));
    const auto y = a ? quantized(step(i).outputs[0]) : std::nullopt;
    const auto b = a ? quantized_constant(input(step(i), 1), DType::int8) : std::nullopt;
    const auto dims = plan_.dims(step(i).outputs[0]);
    if (!b || !dims) return;
    const std::int64_t channels = dims->at(1);
    const auto scales = constant(b->scale)->size();
    const std::int64_t given = scale_axis(input(step(i), 1));
    const std::int64_t axis = attrs.transpose_b ? 0 : 1;
    if (scales != 1 && ((given < 0 ? given + 2 : given) != axis || scales != channels)) return;
    std::size_t c = no_slot;
    if (const std::size_t bias = input(step(i), 2); bias != no_slot) {
      const auto values = bias_values(bias, channels);
      if (!values) return;
      c = quantized_bias(*values, *a, *b);
    }
    std::vector<std::size_t> inputs{a->tensor, a->scale, a->zero_point, b->tensor, b->scale, b->zero_point, c};
    if (y) {
      inputs.push_back(y->codes.scale);
      inputs.push_back(y->codes.zero_point);
    }
    replace(i, y, "QGemm", "com.microsoft", Copied::product, std::move(inputs));
  }

  // Of codes and a constant matrix with one scale, or one per column; to codes or floats.
  void matrix_product(std::size_t i) {
    const auto a = dequantized(input(step(i), 0));
    const auto b = a ? quantized_constant(input(step(i), 1), DType::int8) : std::nullopt;
    if (!b || constant(b->tensor)->rank() != 2) return;
    const auto scales = constant(b->scale)->size();
    const std::int64_t axis = scale_axis(input(step(i), 1));
    if (scales != 1 && ((axis < 0 ? axis + 2 : axis) != 1 || scales != constant(b->tensor)->dim(1))) return;
    if (const auto y = quantized(step(i).outputs[0])) {
      replace(i, y, "QLinearMatMul", "", Copied::nothing,
              {a->tensor, a->scale, a->zero_point, b->tensor, b->scale, b->zero_point, y->codes.scale, y->codes.zero_point});
      return;
    }
    replace(i, std::nullopt, "MatMulIntegerToFloat", "com.microsoft", Copied::nothing,
            {a->tensor, b->tensor, a->scale, b->scale, a->zero_point, b->zero_point});
  }

  // A function of single codes: a table of 256, which the plain kernel looks up.
  void table(std::size_t i, std::string op_type) {
    const auto x = dequantized(step(i).inputs[0]);
    const auto y = x ? quantized(step(i).outputs[0]) : std::nullopt;
    if (!y || !y->passed.empty() || !same_type(x->zero_point, y->codes.zero_point)) return;
    replace(i, y, std::move(op_type), "com.microsoft", Copied::function,
            {x->tensor, x->scale, x->zero_point, y->codes.scale, y->codes.zero_point}, true);
  }

  bool same_type(std::size_t a, std::size_t b) const {
    return constant(a)->dtype() == constant(b)->dtype();
  }

  void sum(std::size_t i) {
    if (step(i).inputs.size() != 2) return;
    const auto a = dequantized(step(i).inputs[0]), b = dequantized(step(i).inputs[1]);
    const auto y = a && b ? quantized(step(i).outputs[0]) : std::nullopt;
    if (!y) return;
    replace(i, y, "QLinearAdd", "com.microsoft", Copied::nothing,
            {a->tensor, a->scale, a->zero_point, b->tensor, b->scale, b->zero_point, y->codes.scale,
             y->codes.zero_point});
  }

  void global_average(std::size_t i) {
    const auto x = dequantized(step(i).inputs[0]);
    const auto y = x ? quantized(step(i).outputs[0]) : std::nullopt;
    if (!y) return;
    replace(i, y, "QLinearGlobalAveragePool", "com.microsoft", Copied::nothing,
            {x->tensor, x->scale, x->zero_point, y->codes.scale, y->codes.zero_point});
  }

  // The same quantization before and after: the codes move as the values do.
  void movement(std::size_t i) {
    const auto x = dequantized(step(i).inputs[0]);
    const auto y = x ? quantized(step(i).outputs[0]) : std::nullopt;
    if (!y || !y->passed.empty()) return;
    if (!constant(x->scale)->equals(*constant(y->codes.scale)) ||
        !constant(x->zero_point)->equals(*constant(y->codes.zero_point)))
      return;
    PlanStep& moved = plan_.steps[i];
    index_.forget(i, moved.inputs);
    index_.forget(y->step, step(y->step).inputs);
    moved.inputs[0] = x->tensor;
    moved.outputs = step(y->step).outputs;
    plan_.steps[y->step] = PlanStep{};
    index_.add(moved, i);
  }

  enum class Copied { nothing, convolution, product, function };  // attributes

  // `target`: nothing for an operator whose result is float. `plain`: also where only the plain
  // kernel has it.
  void replace(std::size_t i, const std::optional<Target>& target, std::string op_type,
               std::string domain, Copied copied, std::vector<std::size_t> inputs,
               bool plain = false) {
    const Node& node = *step(i).node;
    PlanStep made;
    Attributes attributes;
    ValueMap none;  // these attributes hold no subgraphs
    const auto copy = [&](std::string_view name) {
      if (const Attribute* attribute = node.attribute(name))
        attributes.insert_or_assign(std::string(name),
                                    clone_attribute(*attribute, made_up(), none));
    };
    if (copied == Copied::convolution)
      for (const char* name : {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"})
        copy(name);
    if (copied == Copied::product) copy("transB");
    if (copied == Copied::function) copy("alpha");
    made.node = made_up()->add_node({.op_type = std::move(op_type),
                                     .domain = std::move(domain),
                                     .name = node.name,
                                     .attributes = std::move(attributes)});
    made.inputs = std::move(inputs);
    made.outputs = target ? step(target->step).outputs : step(i).outputs;
    const StepPreparation context(plan_, made, 1);
    const auto rows = operators().kernels(*made.node);
    if (!plain && std::ranges::none_of(rows, [&](const KernelDef* row) { return row->supports(context); }))
      return;  // in float then
    index_.forget(i, step(i).inputs);
    if (target) {
      index_.forget(target->step, step(target->step).inputs);
      for (const std::size_t passed : target->passed) {
        index_.forget(passed, step(passed).inputs);
        plan_.steps[passed] = PlanStep{};
      }
      plan_.steps[target->step] = PlanStep{};
    }
    plan_.steps[i] = std::move(made);
    index_.add(plan_.steps[i], i);
  }

  Graph* made_up() { return plan_.made_up_graph(); }

  std::size_t add_constant(const Value& like, Tensor tensor) {
    plan_.slots.push_back({.value = &like,
                           .source = Slot::Source::constant,
                           .type = Type::of(tensor),
                           .constant = std::move(tensor)});
    return plan_.slots.size() - 1;
  }

  GraphPlan& plan_;
  StepIndex index_;
};

}  // namespace

void quantize_steps(GraphPlan& plan) { Quantizer(plan).run(); }

}  // namespace onnxpress
