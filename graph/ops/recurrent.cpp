// RNN, GRU and LSTM.
#include "graph/ops/recurrent.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

namespace in = recurrent_input;
using Kind = GateActivation::Kind;

struct ActivationRow {
  std::string_view name;  // in lower case
  Kind kind;
  bool has_alpha, has_beta;  // takes the next of activation_alpha, activation_beta
  float alpha, beta;         // when there is none left
};

constexpr ActivationRow activation_rows[] = {
    {"relu", Kind::relu, false, false, 0, 0},
    {"tanh", Kind::tanh, false, false, 0, 0},
    {"sigmoid", Kind::sigmoid, false, false, 0, 0},
    {"affine", Kind::affine, true, true, 1, 0},
    {"leakyrelu", Kind::leaky_relu, true, false, 0.01f, 0},
    {"thresholdedrelu", Kind::thresholded_relu, true, false, 1, 0},
    {"scaledtanh", Kind::scaled_tanh, true, true, 1, 1},
    {"hardsigmoid", Kind::hard_sigmoid, true, true, 0.2f, 0.5f},
    {"elu", Kind::elu, true, false, 1, 0},
    {"softsign", Kind::softsign, false, false, 0, 0},
    {"softplus", Kind::softplus, false, false, 0, 0},
};

const ActivationRow& activation_row(const std::string& name) {
  std::string lower = name;
  for (char& c : lower)
    if ('A' <= c && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  const auto* found = std::ranges::find(activation_rows, lower, &ActivationRow::name);
  require(found != std::end(activation_rows), "activation function '{}' is not known", name);
  return *found;
}

RecurrentCell cell_of(const Node& node) {
  if (node.op_type() == "LSTM" || node.op_type() == "DynamicQuantizeLSTM") return RecurrentCell::lstm;
  return node.op_type() == "GRU" ? RecurrentCell::gru : RecurrentCell::rnn;
}

std::vector<std::string> default_activations(RecurrentCell cell) {
  switch (cell) {
    case RecurrentCell::rnn:
      return {"Tanh"};
    case RecurrentCell::gru:
      return {"Sigmoid", "Tanh"};
    case RecurrentCell::lstm:
      break;
  }
  return {"Sigmoid", "Tanh", "Tanh"};
}

std::vector<GateActivation> read_activations(const Node& node, RecurrentCell cell,
                                             std::size_t directions) {
  const std::vector<std::string> defaults = default_activations(cell);
  std::vector<std::string> names = get_strings(node, "activations");
  if (names.empty())
    for (std::size_t d = 0; d < directions; ++d)
      names.insert(names.end(), defaults.begin(), defaults.end());
  const std::size_t count = defaults.size() * directions;
  // The default of the schema names two for RNN whatever the direction.
  if (cell == RecurrentCell::rnn && names.size() == 2) names.resize(count);
  require(names.size() == count, "expected {} activations, found {}", count, names.size());
  const std::vector<float> alphas = get_floats(node, "activation_alpha");
  const std::vector<float> betas = get_floats(node, "activation_beta");
  auto alpha = alphas.begin(), beta = betas.begin();
  std::vector<GateActivation> activations;
  for (const std::string& name : names) {
    const ActivationRow& row = activation_row(name);
    GateActivation activation{.kind = row.kind, .alpha = row.alpha, .beta = row.beta};
    if (row.has_alpha && alpha != alphas.end()) activation.alpha = *alpha++;
    if (row.has_beta && beta != betas.end()) activation.beta = *beta++;
    activations.push_back(activation);
  }
  return activations;
}

std::vector<const Shape*> known_shapes(const InferContext& context) {
  std::vector<const Shape*> shapes(in::count, nullptr);
  for (std::size_t i = 0; i < in::count; ++i) shapes[i] = context.input_shape(i);
  return shapes;
}

void infer_recurrent(InferContext& context) {
  const RecurrentAttrs attrs = RecurrentAttrs::from(context.node());
  const RecurrentSizes sizes = RecurrentSizes::of(attrs, known_shapes(context));
  const DType type = context.input_dtype(in::x);
  for (const std::size_t index : {in::w, in::r, in::b, in::initial_h, in::initial_c, in::peepholes})
    require(context.input_dtype(index) == type || type == DType::undefined ||
                context.input_dtype(index) == DType::undefined,
            "expected {} for input {}, found {}", name(type), index,
            name(context.input_dtype(index)));
  const std::size_t outputs = std::min<std::size_t>(context.node().output_count(),
                                                    attrs.cell == RecurrentCell::lstm ? 3 : 2);
  for (std::size_t i = 0; i < outputs; ++i)
    context.set_output(i, type, i == 0 ? sizes.sequence_output(attrs) : sizes.state(attrs));
}

// Products with W and R of every step; gates are elementwise.
Cost recurrent_cost(const PrepareContext& context) {
  const RecurrentAttrs attrs = RecurrentAttrs::from(context.node());
  std::vector<const Shape*> shapes(in::count, nullptr);
  for (std::size_t i = 0; i < in::count; ++i)
    if (const Type* type = context.input_type(i); type != nullptr && type->shape)
      shapes[i] = &*type->shape;
  const RecurrentSizes sizes = RecurrentSizes::of(attrs, shapes);
  const std::int64_t hidden = sizes.hidden.value();
  const Dims factors{attrs.directions(), sizes.steps.value(), sizes.batch.value(),
                     attrs.gates() * hidden, sizes.input.value() + hidden};
  return {.macs = element_count(factors)};
}

}  // namespace

RecurrentAttrs RecurrentAttrs::from(const Node& node) {
  RecurrentAttrs attrs;
  attrs.cell = cell_of(node);
  const std::string direction = get_string(node, "direction", "forward");
  const bool is_forward =
      direction == "forward" ||
      // As GRU of opset 1 spells its default.
      (direction == "foward" && attrs.cell == RecurrentCell::gru && node.opset() < 3);
  attrs.reverse = direction == "reverse";
  attrs.bidirectional = direction == "bidirectional";
  require(is_forward || attrs.reverse || attrs.bidirectional,
          "expected direction forward, reverse or bidirectional, found '{}'", direction);
  if (const auto hidden = find_int(node, "hidden_size")) {
    require(*hidden >= 1, "expected a positive hidden_size, found {}", *hidden);
    attrs.hidden_size = *hidden;
  }
  attrs.activations =
      read_activations(node, attrs.cell, static_cast<std::size_t>(attrs.directions()));
  attrs.clip = get_float(node, "clip", 0);
  require(attrs.clip >= 0, "expected a clip threshold that is not negative, found {}", attrs.clip);
  attrs.input_forget = attrs.cell == RecurrentCell::lstm && get_bool(node, "input_forget", false);
  attrs.linear_before_reset = attrs.cell == RecurrentCell::gru && node.opset() >= 3 &&
                              get_int(node, "linear_before_reset", 0) != 0;
  if (node.opset() >= 14) attrs.batch_first = get_bool(node, "layout", false);
  return attrs;
}

std::int64_t RecurrentAttrs::gates() const {
  if (cell == RecurrentCell::lstm) return 4;
  return cell == RecurrentCell::gru ? 3 : 1;
}

std::span<const GateActivation> RecurrentAttrs::of_direction(std::int64_t direction) const {
  const std::size_t count = activations.size() / static_cast<std::size_t>(directions());
  return std::span(activations).subspan(count * static_cast<std::size_t>(direction), count);
}

RecurrentSizes RecurrentSizes::of(const RecurrentAttrs& attrs,
                                  const std::vector<const Shape*>& input_shapes) {
  const std::int64_t directions = attrs.directions(), gates = attrs.gates();
  RecurrentSizes sizes;
  if (attrs.hidden_size > 0) sizes.hidden = attrs.hidden_size;
  const auto shape = [&](std::size_t index, std::string_view what, std::size_t rank) {
    const Shape* found = index < input_shapes.size() ? input_shapes[index] : nullptr;
    if (found != nullptr)
      require(found->size() == rank, "expected {} of {} axes, found {}", what, rank,
              to_string(*found));
    return found;
  };
  const auto expect = [](const Dim& found, const Dim& wanted, std::string_view what) {
    return unify(wanted, found, what);
  };
  if (const Shape* x = shape(in::x, "X", 3)) {
    sizes.steps = (*x)[attrs.batch_first ? 1 : 0];
    sizes.batch = (*x)[attrs.batch_first ? 0 : 1];
    sizes.input = (*x)[2];
  }
  const Shape* const w = shape(in::w, "W", 3);
  const Shape* const r = shape(in::r, "R", 3);
  if (r != nullptr) sizes.hidden = expect((*r)[2], sizes.hidden, "hidden size of R");
  if (w != nullptr && !sizes.hidden.is_known() && (*w)[1].is_known())
    sizes.hidden = (*w)[1].value() / gates;
  Dim rows;  // of W and R
  if (sizes.hidden.is_known()) {
    const std::int64_t hidden = sizes.hidden.value();
    require(1 <= hidden && hidden <= std::int64_t{1} << 30, "a hidden size of {} is out of range",
            hidden);
    rows = gates * hidden;
  }
  const Dim biases = rows.is_known() ? Dim(2 * rows.value()) : Dim();
  const Dim peepholes = rows.is_known() ? Dim(3 * sizes.hidden.value()) : Dim();
  if (w != nullptr) {
    expect((*w)[0], directions, "directions of W");
    expect((*w)[1], rows, "gates times hidden size of W");
    sizes.input = expect((*w)[2], sizes.input, "input size of W");
  }
  if (r != nullptr) {
    expect((*r)[0], directions, "directions of R");
    expect((*r)[1], rows, "gates times hidden size of R");
  }
  if (const Shape* b = shape(in::b, "B", 2)) {
    expect((*b)[0], directions, "directions of B");
    expect((*b)[1], biases, "biases of B");
  }
  if (const Shape* lengths = shape(in::sequence_lens, "sequence_lens", 1))
    sizes.batch = expect((*lengths)[0], sizes.batch, "batch size of sequence_lens");
  const auto check_state = [&](std::size_t index, std::string_view what) {
    const Shape* state = shape(index, what, 3);
    if (state == nullptr) return;
    expect((*state)[attrs.batch_first ? 1 : 0], directions, fmt::format("directions of {}", what));
    sizes.batch = expect((*state)[attrs.batch_first ? 0 : 1], sizes.batch,
                         fmt::format("batch size of {}", what));
    sizes.hidden = expect((*state)[2], sizes.hidden, fmt::format("hidden size of {}", what));
  };
  check_state(in::initial_h, "initial_h");
  if (attrs.cell != RecurrentCell::lstm) return sizes;
  check_state(in::initial_c, "initial_c");
  if (const Shape* p = shape(in::peepholes, "P", 2)) {
    expect((*p)[0], directions, "directions of P");
    expect((*p)[1], peepholes, "weights of P");
  }
  return sizes;
}

Shape RecurrentSizes::sequence_output(const RecurrentAttrs& attrs) const {
  if (attrs.batch_first) return {batch, steps, attrs.directions(), hidden};
  return {steps, attrs.directions(), batch, hidden};
}

Shape RecurrentSizes::state(const RecurrentAttrs& attrs) const {
  if (attrs.batch_first) return {batch, attrs.directions(), hidden};
  return {attrs.directions(), batch, hidden};
}

RecurrentCall RecurrentCall::of(const RecurrentAttrs& attrs, const KernelContext& context) {
  return of(attrs, [&](std::size_t index) {
    return index < context.input_count() ? context.input(index) : nullptr;
  });
}

RecurrentCall RecurrentCall::of(const RecurrentAttrs& attrs,
                                const std::function<const Tensor*(std::size_t)>& input) {
  std::array<Shape, in::count> shapes;
  std::vector<const Shape*> given(in::count, nullptr);
  for (const std::size_t index : {in::x, in::w, in::r})
    require(input(index) != nullptr, "input {} is required", index);
  const Tensor& x = *input(in::x);
  for (std::size_t i = 0; i < in::count; ++i) {
    const Tensor* tensor = input(i);
    if (tensor == nullptr) continue;
    shapes[i] = to_shape(tensor->dims());
    given[i] = &shapes[i];
    require(i == in::sequence_lens || tensor->dtype() == x.dtype(),
            "expected {} for input {}, found {}", name(x.dtype()), i, name(tensor->dtype()));
  }
  const RecurrentSizes sizes = RecurrentSizes::of(attrs, given);
  RecurrentCall call{.steps = sizes.steps.value(),
                     .batch = sizes.batch.value(),
                     .input = sizes.input.value(),
                     .hidden = sizes.hidden.value(),
                     .lengths = {}};
  constexpr std::int64_t most_empty = 1 << 24;  // sequences that take no memory of X
  require(call.batch <= std::max(x.size(), most_empty),
          "a batch of {} empty sequences is too large", call.batch);
  call.lengths.assign(static_cast<std::size_t>(call.batch), call.steps);
  if (given[in::sequence_lens] == nullptr) return call;
  const Tensor lengths = input(in::sequence_lens)->cast(DType::int64);
  for (std::size_t b = 0; b < call.lengths.size(); ++b) {
    call.lengths[b] = lengths.data<std::int64_t>()[b];
    require(0 <= call.lengths[b] && call.lengths[b] <= call.steps,
            "expected sequence lengths from 0 to {}, found {}", call.steps, call.lengths[b]);
  }
  return call;
}

std::int64_t RecurrentCall::x_row(const RecurrentAttrs& attrs, std::int64_t t,
                                  std::int64_t b) const {
  return attrs.batch_first ? b * steps + t : t * batch + b;
}

std::int64_t RecurrentCall::y_row(const RecurrentAttrs& attrs, std::int64_t t, std::int64_t d,
                                  std::int64_t b) const {
  if (attrs.batch_first) return (b * steps + t) * attrs.directions() + d;
  return (t * attrs.directions() + d) * batch + b;
}

std::int64_t RecurrentCall::state_row(const RecurrentAttrs& attrs, std::int64_t d,
                                      std::int64_t b) const {
  return attrs.batch_first ? b * attrs.directions() + d : d * batch + b;
}

Dims RecurrentCall::y_dims(const RecurrentAttrs& attrs) const {
  return concrete(RecurrentSizes{steps, batch, input, hidden}.sequence_output(attrs)).value();
}

Dims RecurrentCall::state_dims(const RecurrentAttrs& attrs) const {
  return concrete(RecurrentSizes{steps, batch, input, hidden}.state(attrs)).value();
}

OPERATORS(recurrent) {
  for (const char* name : {"RNN", "GRU", "LSTM"})
    registry.add(OpDef{.name = name,
                       .infer = infer_recurrent,
                       .prepare = prepare_recurrent,
                       .cost = recurrent_cost});
}

}  // namespace onnxpress
