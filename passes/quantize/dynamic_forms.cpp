#include "passes/quantize/dynamic_forms.h"

#include <numeric>

#include "graph/ops/conv.h"
#include "graph/ops/float_types.h"
#include "graph/ops/gather.h"
#include "graph/ops/gemm.h"
#include "graph/ops/quantize_linear.h"
#include "graph/ops/recurrent.h"
#include "graph/ops/recurrent_quantized.h"
#include "graph/ops/reshape.h"
#include "graph/ops/transpose.h"
#include "passes/common/rewriting.h"

namespace onnxpress {
namespace {

std::vector<std::int64_t> swap_last(std::size_t rank) {
  std::vector<std::int64_t> order(rank);
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[rank - 1], order[rank - 2]);
  return order;
}

// One number, or one per element of axis `axis` of `rank` axes, as it is broadcast.
Tensor along(const Tensor& numbers, std::size_t axis, std::size_t rank) {
  if (numbers.size() == 1 && numbers.rank() == 0) return numbers;
  Dims dims(rank, 1);
  dims[axis] = numbers.size();
  return numbers.reshaped(std::move(dims));
}

// Of all directions alike: [directions, ...].
Tensor per_direction(const Tensor& scale, std::int64_t directions) {
  const std::span<const float> one = scale.data<float>();
  std::vector<float> all;
  for (std::int64_t d = 0; d < directions; ++d) all.insert(all.end(), one.begin(), one.end());
  Dims dims{directions};
  if (scale.rank() > 0) dims.push_back(scale.size());
  return Tensor::of<float>(std::move(dims), all);
}

Tensor scaled(const Tensor& numbers, float factor) {
  Tensor result = numbers.cast(DType::float32);
  if (factor == 1) return result;
  for (float& number : result.mutable_data<float>()) number *= factor;
  return result;
}

}  // namespace

StoredCodes DynamicWriter::store(const DynamicWeight& weight, QuantizedTensor quantized, bool swapped) {
  Value* const value = weight.weight.value;
  Graph& graph = value->graph();
  StoredCodes stored{.swapped = swapped,
                     .scale = std::move(quantized.scale),
                     .zero_point = std::move(quantized.zero_point),
                     .rank = quantized.codes.rank(),
                     .type = value->constant()->dtype(),
                     .name = value->name()};
  if (quantized.granularity.kind == Granularity::Kind::channel) stored.axis = quantized.granularity.axis;
  Tensor codes = std::move(quantized.codes);
  if (swapped) codes = transposed(codes, swap_last(codes.rank()));
  stored.codes = graph.add_initializer(graph.unique_name(value->name() + "_quantized"), std::move(codes));
  return stored;
}


// The rewrite of one operator. New nodes are called as it is, with what they do behind it.
struct DynamicWriter::Edit {
  struct Quantized {
    Patch::Ref codes, scale, zero_point;
  };

  Edit(DynamicWriter& owner, Node& replaced)
      : writer(owner), node(replaced), graph(replaced.graph()), patch(graph), base(known_name(replaced)) {}

  Patch::Ref add(std::string op_type, std::vector<Patch::Ref> inputs, Attributes attributes = {}) {
    std::string name = base + "_" + op_type;
    return patch.node({.op_type = std::move(op_type),
                       .name = std::move(name),
                       .inputs = std::move(inputs),
                       .attributes = std::move(attributes)});
  }
  Patch::Ref add(OpCall call, std::vector<Patch::Ref> inputs) {
    std::string name = base + "_" + call.op_type;
    return add_call(patch, graph, std::move(call), std::move(inputs), std::move(name));
  }
  Patch::Ref cast(Patch::Ref value, DType to) { return add(make_cast(graph.opset(), to), {value}); }
  Patch::Ref constant(std::string_view suffix, const StoredCodes& weight, Tensor tensor) {
    return patch.constant(fmt::format("{}_{}", weight.name, suffix), std::move(tensor));
  }

  // A subgraph quantizes what it captures by itself, once per run of it.
  Quantized activation(Value* x, DType type) {
    const auto known = writer.activations_.find({&graph, x});
    if (known != writer.activations_.end())
      return {known->second.codes, known->second.scale, known->second.zero_point};
    Patch::Ref source = x;
    if (type != DType::float32) source = cast(x, DType::float32);
    const Patch::Ref codes = patch.node({.op_type = "DynamicQuantizeLinear",
                                         .name = x->name() + "_QuantizeLinear",
                                         .inputs = {source},
                                         .outputs = 3});
    quantized = x;
    made = {codes, patch.output(codes, 1), patch.output(codes, 2)};
    return made;
  }

  // The codes with the last two axes as they were, or swapped.
  Patch::Ref codes_as(const StoredCodes& weight, bool swapped) {
    if (swapped == weight.swapped) return weight.codes;
    return add(make_transpose(swap_last(weight.rank)), {weight.codes});
  }

  // Floats of the integer sums, scaled, with the bias, in the weight's type, in the node's place.
  void finish(const StoredCodes& weight, const Quantized& x, Patch::Ref sums, Tensor scale, Patch::Ref bias) {
    const Patch::Ref floats = cast(sums, DType::float32);
    const Patch::Ref scales = patch.node({.op_type = "Mul",
                                          .name = base + "_scales",
                                          .inputs = {x.scale, constant("scale", weight, std::move(scale))}});
    Patch::Ref result = add("Mul", {floats, scales});
    if (bias != Patch::Ref()) result = add("Add", {result, bias});
    if (weight.type != DType::float32) result = cast(result, weight.type);
    replace(result);
  }

  void replace(Patch::Ref result) {
    patch.replace(node.output(), result);
    apply();
  }

  void apply() {
    patch.remove(&node);
    patch.remove_unread_producers();
    const Graph* const where = &graph;
    patch.apply();
    if (quantized != nullptr)
      writer.activations_[{where, quantized}] = {patch.value(made.codes), patch.value(made.scale),
                                                 patch.value(made.zero_point)};
  }

  // An optional operand in float32, times a factor.
  Patch::Ref float_operand(Value* value, DType type, float factor) {
    if (value == nullptr || factor == 0) return {};
    if (const Tensor* known = value->constant(); known != nullptr && (type != DType::float32 || factor != 1))
      return patch.constant(value->name() + "_scaled", scaled(*known, factor));
    Patch::Ref result = value;
    if (type != DType::float32) result = cast(result, DType::float32);
    if (factor != 1) result = add("Mul", {result, patch.constant(base + "_beta", Tensor::scalar(factor))});
    return result;
  }

  DynamicWriter& writer;
  Node& node;
  Graph& graph;
  Patch patch;
  const std::string base;
  Value* quantized = nullptr;  // by this edit
  Quantized made;
};

void DynamicWriter::product(const DynamicSite& site, const StoredCodes& weight) {
  Node& node = *site.node;
  Edit edit(*this, node);
  const GemmAttrs attrs = node.is("Gemm") ? GemmAttrs::from(node) : GemmAttrs{};
  const Edit::Quantized x = edit.activation(node.input(0), weight.type);
  const Patch::Ref left = attrs.transpose_a ? edit.add(make_transpose({1, 0}), {x.codes}) : x.codes;
  std::vector<Patch::Ref> inputs{left, edit.codes_as(weight, site.transposed), x.zero_point};
  if (weight.zero_point.defined()) inputs.push_back(edit.constant("zero_point", weight, weight.zero_point));
  const Patch::Ref sums = edit.add("MatMulInteger", std::move(inputs));
  const Patch::Ref bias = edit.float_operand(node.input(2), weight.type, attrs.beta);
  edit.finish(weight, x, sums, scaled(weight.scale, attrs.alpha), bias);
}

void DynamicWriter::convolution(const DynamicSite& site, const StoredCodes& weight) {
  Node& node = *site.node;
  Edit edit(*this, node);
  const Edit::Quantized x = edit.activation(node.input(0), weight.type);
  // ONNX Runtime takes one zero point for all filters: theirs are equal, or there is one.
  const Tensor zero_point = Tensor::scalar(weight.zero_point.data<std::uint8_t>()[0]);
  const Patch::Ref sums =
      edit.add("ConvInteger",
               {x.codes, edit.codes_as(weight, false), x.zero_point, edit.constant("zero_point", weight, zero_point)},
               copy_attributes(node));
  // [channels, 1, ...]: as it is broadcast to [batch, channels, spatial...].
  const std::size_t rank = weight.rank - 1;
  Patch::Ref bias;
  if (Value* const given = node.input(2)) {
    if (const Tensor* known = given->constant()) {
      bias = edit.patch.constant(given->name() + "_by_channel", along(known->cast(DType::float32), 0, rank));
    } else {
      std::vector<std::int64_t> axes(rank - 1);
      std::iota(axes.begin(), axes.end(), 1);
      bias = edit.add(make_unsqueeze(edit.graph.opset(), std::move(axes)),
                      {edit.float_operand(given, weight.type, 1)});
    }
  }
  edit.finish(weight, x, sums, along(scaled(weight.scale, 1), 0, rank), bias);
}

void DynamicWriter::lookup(const DynamicSite& site, const StoredCodes& table) {
  Node& node = *site.node;
  Edit edit(*this, node);
  Value* const indices = node.input(1);
  const std::int64_t row_axis = site.channel_axis.value();
  const auto axis = static_cast<std::size_t>(row_axis);
  const auto gathered = [&](Patch::Ref data) { return edit.add(make_gather(row_axis), {data, indices}); };
  const Patch::Ref codes = gathered(edit.codes_as(table, false));
  if (table.axis != row_axis) {  // one scale
    std::vector<Patch::Ref> inputs{codes, edit.constant("scale", table, table.scale.cast(DType::float32))};
    // Without one ONNX Runtime takes codes for uint8 when it moves QuantizeLinear over what is behind.
    const Tensor zeros(table.codes->constant()->dtype(), table.scale.dims());
    inputs.push_back(edit.constant("zero_point", table, table.zero_point.defined() ? table.zero_point : zeros));
    Patch::Ref result = edit.add("DequantizeLinear", std::move(inputs));
    if (table.type != DType::float32) result = edit.cast(result, table.type);
    return edit.replace(result);
  }
  // DequantizeLinear has one scale for each element of one axis, and here there may be several or
  // none: rows bring their scales along.
  Patch::Ref result = edit.cast(codes, table.type);
  if (table.zero_point.defined()) {
    const Tensor zeros = along(table.zero_point, axis, table.rank).cast(table.type);
    result = edit.add("Sub", {result, gathered(edit.constant("zero_point", table, zeros))});
  }
  const Tensor scale = along(table.scale, axis, table.rank).cast(table.type);
  edit.replace(edit.add("Mul", {result, gathered(edit.constant("scale", table, scale))}));
}

void DynamicWriter::recurrent(Node& lstm, const StoredCodes& w, const StoredCodes& r) {
  namespace in = recurrent_input;
  Edit edit(*this, lstm);
  std::vector<Patch::Ref> inputs(lstm.inputs().begin(), lstm.inputs().end());
  inputs.resize(in::count);
  inputs[in::w] = edit.codes_as(w, true);
  inputs[in::r] = edit.codes_as(r, true);
  const std::int64_t directions = RecurrentAttrs::from(lstm).directions();
  for (const StoredCodes* weight : {&w, &r}) {
    const Tensor scale = per_direction(weight->scale.cast(DType::float32), directions);
    inputs.push_back(edit.constant("scale", *weight, scale));
    inputs.push_back(edit.constant("zero_point", *weight, Tensor(DType::int8, scale.dims())));
  }
  Patch::NodeTemplate made{.op_type = "DynamicQuantizeLSTM",
                           .domain = "com.microsoft",
                           .name = lstm.name,
                           .inputs = std::move(inputs),
                           .attributes = dynamic_lstm_attributes(lstm),
                           .outputs = lstm.output_count()};
  for (std::size_t i = 0; i < lstm.output_count(); ++i)
    if (lstm.output(i) == nullptr) made.omitted_outputs.push_back(i);
  const Patch::Ref first = edit.patch.node(std::move(made));
  for (std::size_t i = 0; i < lstm.output_count(); ++i)
    if (lstm.output(i) != nullptr) edit.patch.replace(lstm.output(i), edit.patch.output(first, i));
  edit.apply();
}

void DynamicWriter::dequantize(Value* weight, const StoredCodes& stored) {
  Graph& graph = weight->graph();
  Patch patch(graph);
  const std::string base = stored.name;
  Patch::Ref codes = stored.codes;
  if (stored.swapped)
    codes = add_call(patch, graph, make_transpose(swap_last(stored.rank)), {codes}, base + "_Transpose");
  std::vector<Patch::Ref> inputs{codes, patch.constant(base + "_scale", stored.scale.cast(DType::float32))};
  if (stored.zero_point.defined()) inputs.push_back(patch.constant(base + "_zero_point", stored.zero_point));
  const QuantizeAttrs attrs{.axis = stored.axis.value_or(QuantizeAttrs{}.axis)};
  Patch::Ref result = patch.node({.op_type = "DequantizeLinear",
                                  .name = base + "_DequantizeLinear",
                                  .inputs = std::move(inputs),
                                  .attributes = attrs.to_attributes()});
  if (stored.type != DType::float32)
    result = add_call(patch, graph, make_cast(graph.opset(), stored.type), {result}, base + "_Cast");
  patch.replace(weight, result);
  patch.apply();
}

}  // namespace onnxpress
