#include "passes/fuse/tracer.h"

#include <algorithm>
#include <cmath>

#include "graph/ops/reduce.h"

namespace onnxpress {
namespace {

bool is_inside(const Region& region, const Node* node) {
  return std::ranges::find(region.nodes, node) != region.nodes.end();
}

bool is_scalar(const Tensor* tensor) { return tensor != nullptr && tensor->size() == 1; }

void add_node(std::vector<Node*>& nodes, Node* node) {
  if (std::ranges::find(nodes, node) == nodes.end()) nodes.push_back(node);
}

std::optional<Polynomial> product(const Polynomial& a, const Polynomial& b) {
  Polynomial result{};
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < b.size(); ++j) {
      if (a[i] == 0 || b[j] == 0) continue;
      if (i + j >= result.size()) return std::nullopt;
      result[i + j] += a[i] * b[j];
    }
  return result;
}

Polynomial sum(const Polynomial& a, const Polynomial& b, double sign) {
  Polynomial result{};
  for (std::size_t i = 0; i < a.size(); ++i) result[i] = a[i] + sign * b[i];
  return result;
}

}  // namespace

bool is_one_of(const Node& node, OpTypes ops) {
  return std::ranges::any_of(ops, [&](std::string_view op) { return node.is(op); });
}

double written_tolerance(DType type) {
  if (type == DType::bfloat16) return 4e-3;
  return type == DType::float16 ? 1e-3 : 5e-6;
}

Node* Tracer::maker(const Value* value, OpTypes ops) const {
  Node* node = value != nullptr ? value->producer() : nullptr;
  const bool fits = node != nullptr && &node->graph() == graph_ && value->output_index() == 0 &&
                    is_one_of(*node, ops);
  return fits ? node : nullptr;
}

std::optional<Use> Tracer::only_reader(const Node* node, OpTypes ops) const {
  const Value* value = node->output();
  if (value == nullptr || value->is_output() || value->uses().size() != 1) return std::nullopt;
  const Use use = value->uses()[0];
  if (&use.node->graph() != graph_ || !is_one_of(*use.node, ops)) return std::nullopt;
  return use;
}

std::vector<Use> Tracer::readers(const Node* node, OpTypes ops) const {
  std::vector<Use> found;
  if (node->output() == nullptr) return found;
  for (const Use& use : node->output()->uses())
    if (&use.node->graph() == graph_ && is_one_of(*use.node, ops)) found.push_back(use);
  return found;
}

std::optional<double> Tracer::number(const Value* value) const {
  const Tensor* tensor = value != nullptr ? known(value) : nullptr;
  if (!is_scalar(tensor) || tensor->dtype() == DType::string || is_complex(tensor->dtype()))
    return std::nullopt;
  return tensor->cast(DType::float64).data<double>()[0];
}

std::optional<double> Tracer::factor(const Value* value, const Value* beside) const {
  const Tensor* tensor = value != nullptr ? known(value) : nullptr;
  if (!is_scalar(tensor) || !onnxpress::is_float(tensor->dtype())) return std::nullopt;
  if (tensor->rank() > 0 && tensor->rank() > rank(beside).value_or(0)) return std::nullopt;
  return number(value);
}

bool Tracer::is_near(double value, double wanted, DType type) const {
  return std::abs(value - wanted) <= written_tolerance(type) * std::abs(wanted);
}

bool Tracer::is_factor(const Value* value, const Value* beside, double wanted) const {
  const auto found = factor(value, beside);
  return found && is_near(*found, wanted, known(value)->dtype());
}

const Shape* Tracer::shape(const Value* value) const {
  const Type& known_type = type(value);
  return known_type.is_tensor() && known_type.shape ? &*known_type.shape : nullptr;
}

std::optional<std::size_t> Tracer::rank(const Value* value) const {
  const Shape* found = shape(value);
  return found != nullptr ? std::optional(found->size()) : std::nullopt;
}

DType Tracer::dtype(const Value* value) const {
  const Type& known_type = type(value);
  return known_type.is_tensor() ? known_type.elem : DType::undefined;
}

bool Tracer::is_float(const Value* value) const { return onnxpress::is_float(dtype(value)); }

std::optional<std::string> Tracer::type_obstacle(const Value* x) const {
  const DType found = dtype(x);
  if (found == DType::float32 || found == DType::float16) return std::nullopt;
  if (found == DType::undefined) return fmt::format("the type of '{}' is not known", x->name());
  return fmt::format("'{}' is {}: ONNX Runtime has the operator for float32 and float16", x->name(),
                     name(found));
}

std::optional<std::int64_t> Tracer::reduced_axis(const Node& reduce) const {
  const ReduceAttrs attrs = ReduceAttrs::from(reduce);
  if (!attrs.axes || attrs.axes->size() != 1 || !attrs.keepdims) return std::nullopt;
  const std::int64_t axis = attrs.axes->front();
  if (axis < 0) return axis;
  const auto known_rank = rank(reduce.input(0));
  if (!known_rank) return std::nullopt;
  return axis - static_cast<std::int64_t>(*known_rank);
}

std::optional<Polynomial> Tracer::polynomial(const Value* value, const Value* x,
                                             std::vector<Node*>& nodes) const {
  return expand(value, x, nodes, 0);
}

std::optional<Polynomial> Tracer::expand(const Value* value, const Value* x,
                                         std::vector<Node*>& nodes, int depth) const {
  if (value == x) return Polynomial{0, 1};
  if (const auto constant = factor(value, x)) return Polynomial{*constant};
  if (depth > 8) return std::nullopt;
  Node* node = maker(value, {"Add", "Sub", "Mul", "Div", "Neg", "Pow"});
  if (node == nullptr) return std::nullopt;
  const auto left = expand(node->input(0), x, nodes, depth + 1);
  if (!left) return std::nullopt;
  std::optional<Polynomial> result;
  if (node->is("Neg")) {
    result = sum({}, *left, -1);
  } else if (node->is("Pow")) {
    const auto power = number(node->input(1));
    if (!power || (*power != 2 && *power != 3)) return std::nullopt;
    if (known(node->input(1))->rank() > rank(x).value_or(0)) return std::nullopt;
    result = product(*left, *left);
    if (result && *power == 3) result = product(*result, *left);
  } else {
    const auto right = expand(node->input(1), x, nodes, depth + 1);
    if (!right) return std::nullopt;
    if (node->is("Mul")) {
      result = product(*left, *right);
    } else if (node->is("Div")) {
      const bool is_number = factor(node->input(1), x).has_value() && (*right)[0] != 0;
      if (is_number) result = product(*left, {1 / (*right)[0]});
    } else {
      result = sum(*left, *right, node->is("Add") ? 1 : -1);
    }
  }
  if (result) add_node(nodes, node);
  return result;
}

std::vector<Tracer::Gated> Tracer::gated(Node* gate) const {
  std::vector<Gated> found;
  extend(gate, {.region = {.last = gate}}, found);
  std::ranges::stable_sort(found, std::greater(), [](const Gated& reading) {
    return reading.region.nodes.size() + (reading.x != nullptr ? 1 : 0);
  });
  return found;
}

void Tracer::extend(const Node* from, const Gated& so_far, std::vector<Gated>& found) const {
  constexpr std::size_t most_nodes = 4, most_readings = 32;
  if (so_far.region.nodes.size() >= most_nodes) return;
  for (const Use& reader : readers(from, {"Mul", "Div"}))
    if (found.size() < most_readings) take_factor(reader, from, so_far, found);
}

void Tracer::take_factor(const Use& reader, const Node* from, const Gated& so_far,
                         std::vector<Gated>& found) const {
  Node* const node = reader.node;
  Value* const other = node->input(1 - reader.index);
  if (other == nullptr || (node->is("Div") && reader.index != 0)) return;
  Gated next = so_far;
  next.region.nodes.push_back(node);
  next.region.last = node;
  if (const auto number = factor(other, from->output())) {
    if (node->is("Div") && *number == 0) return;
    next.number *= node->is("Div") ? 1 / *number : *number;
    found.push_back(next);
    extend(node, next, found);
    return;
  }
  if (so_far.x != nullptr || node->is("Div")) return;
  next.x = other;
  found.push_back(next);
  extend(node, next, found);
  // The other side may itself be x times a number.
  Node* const scaled = maker(other, {"Mul", "Div"});
  if (scaled == nullptr) return;
  for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
    const auto number = factor(scaled->input(1 - position), scaled->input(position));
    if (!number || (scaled->is("Div") && (position == 1 || *number == 0))) continue;
    Gated deeper = next;
    deeper.x = scaled->input(position);
    deeper.number *= scaled->is("Div") ? 1 / *number : *number;
    deeper.region.nodes.insert(deeper.region.nodes.end() - 1, scaled);
    found.push_back(deeper);
    extend(node, deeper, found);
  }
}

bool Tracer::is_private(const Region& region, const Value* value) const {
  return !value->is_output() && std::ranges::all_of(value->uses(), [&](const Use& use) {
    return is_inside(region, use.node);
  });
}

void Tracer::absorb_dims(Region& region, const Value* dims) const {
  std::vector<const Value*> pending{dims};
  // A node is looked at again for each of its readers that was taken in.
  while (!pending.empty()) {
    const Value* const value = pending.back();
    pending.pop_back();
    Node* const node = value != nullptr ? value->producer() : nullptr;
    if (node == nullptr || &node->graph() != graph_ || is_inside(region, node) ||
        node->output_count() != 1 || !node->subgraphs().empty() || !is_integer(dtype(value)) ||
        !is_private(region, value))
      continue;
    region.nodes.push_back(node);
    pending.insert(pending.end(), node->inputs().begin(), node->inputs().end());
  }
}

std::optional<std::string> Tracer::obstacle(const Region& region) const {
  for (const Node* node : region.nodes) {
    if (node == region.last) continue;
    for (const Value* output : node->outputs()) {
      if (output == nullptr) continue;
      const auto described = [&] {
        return fmt::format("'{}' (output of {})", output->name(), node->describe());
      };
      if (output->is_output()) return described() + " is a graph output";
      for (const Use& use : output->uses())
        if (!is_inside(region, use.node))
          return fmt::format("{} has another reader: {}", described(), use.node->describe());
    }
  }
  return std::nullopt;
}

void replace_region(Patch& patch, const Region& region, Patch::NodeTemplate node) {
  patch.replace(region.last->output(), patch.node(std::move(node)));
  for (Node* gone : region.nodes) patch.remove_if_unread(gone);
}

}  // namespace onnxpress
