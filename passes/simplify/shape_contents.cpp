#include "passes/simplify/shape_contents.h"

#include <algorithm>
#include <array>

#include "graph/ops/shape_of.h"
#include "graph/ops/slice.h"
#include "graph/ops/transpose.h"

namespace onnxpress {
namespace {

constexpr int deepest = 64;                // nodes followed back
constexpr std::size_t most_elements = 64;  // of a shape computation
constexpr std::size_t longest_key = 256;

// Operators whose first output has the shape of their first input.
bool keeps_shape(const Node& node) {
  constexpr std::array<std::string_view, 26> operators = {"Abs",
                                                          "BatchNormalization",
                                                          "Cast",
                                                          "Clip",
                                                          "Dropout",
                                                          "Elu",
                                                          "Erf",
                                                          "Exp",
                                                          "Gelu",
                                                          "HardSigmoid",
                                                          "HardSwish",
                                                          "Identity",
                                                          "Log",
                                                          "LogSoftmax",
                                                          "InstanceNormalization",
                                                          "LeakyRelu",
                                                          "LayerNormalization",
                                                          "Neg",
                                                          "Not",
                                                          "Reciprocal",
                                                          "Relu",
                                                          "Sigmoid",
                                                          "Softmax",
                                                          "Softplus",
                                                          "Sqrt",
                                                          "Tanh"};
  return node.domain().empty() && std::ranges::find(operators, node.op_type()) != operators.end();
}

ShapeElement number(std::int64_t value) {
  return {.number = value, .key = std::to_string(value), .of = nullptr};
}

std::string address(const Value* value) {
  return fmt::format("{}", static_cast<const void*>(value));
}

// Of two operands of an elementwise operator, broadcast.
const ShapeElement& element_of(const ShapeContents& contents, std::size_t index) {
  return contents.elements[contents.elements.size() == 1 ? 0 : index];
}

// Their number of elements together; nothing where they do not fit.
std::optional<std::size_t> broadcast_count(std::initializer_list<const ShapeContents*> operands) {
  std::size_t count = 1;
  for (const ShapeContents* operand : operands) {
    const std::size_t size = operand->elements.size();
    if (size == 0 || (size != 1 && count != 1 && size != count)) return std::nullopt;
    count = std::max(count, size);
  }
  return count;
}

// Whether two elements are equal, where that is known. No dim is negative.
std::optional<bool> known_equal(const ShapeElement& a, const ShapeElement& b) {
  if (a.number && b.number) return a.number == b.number;
  if (a.key == b.key) return true;
  const auto is_dim = [](const ShapeElement& each) {
    return each.key.starts_with('$') || each.key.starts_with('@');
  };
  if ((a.number.value_or(0) < 0 && is_dim(b)) || (b.number.value_or(0) < 0 && is_dim(a)))
    return false;
  return std::nullopt;
}

void collect_symbols(const Value& input, std::set<std::string>& symbols) {
  if (!input.type.shape) return;
  for (const Dim& dim : *input.type.shape)
    if (dim.is_symbol()) symbols.insert(dim.symbol());
}

}  // namespace

bool ShapeContents::all_numbers() const {
  return std::ranges::all_of(elements,
                             [](const ShapeElement& each) { return each.number.has_value(); });
}

ShapeTracer::ShapeTracer(const Model& model, const TypeInference& types) : types_(types) {
  std::set<std::string> inner;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (const Value* input : graph.inputs())
      collect_symbols(*input, graph.parent() ? inner : symbols_);
  });
  for (const std::string& symbol : inner) symbols_.erase(symbol);
}

std::optional<std::size_t> ShapeTracer::rank(const Value* value) const {
  const Type& type = types_.type(value);
  return type.is_tensor() && type.shape ? std::optional(type.shape->size()) : std::nullopt;
}

ShapeElement ShapeTracer::dim(const Value* value, std::size_t axis, int depth) {
  const Type& type = types_.type(value);
  ShapeElement found{.number = std::nullopt, .key = {}, .of = value, .axis = axis};
  if (type.is_tensor() && type.shape && axis < type.shape->size()) {
    const Dim& known = (*type.shape)[axis];
    if (known.is_known()) {
      found.number = known.value();
      found.key = std::to_string(known.value());
      return found;
    }
    if (known.is_symbol() && symbols_.contains(known.symbol())) {
      found.key = "$" + known.symbol();
      return found;
    }
  }
  found.key = fmt::format("@{}.{}", address(value), axis);
  const Node* node = value->producer();
  if (!node || value->output_index() != 0 || depth >= deepest) return found;
  if (keeps_shape(*node)) {
    found.key = dim(node->input(0), axis, depth + 1).key;
  } else if (node->is("Transpose") && rank(value)) {
    const auto from = transpose_permutation(*node, *rank(value));
    found.key = dim(node->input(0), static_cast<std::size_t>(from.at(axis)), depth + 1).key;
  } else if (node->is("Reshape") && node->input(1)) {
    const auto& target = contents(node->input(1), depth + 1);
    if (target && axis < target->elements.size() && !target->elements[axis].number)
      found.key = target->elements[axis].key;
  }
  return found;
}

const std::optional<ShapeContents>& ShapeTracer::contents(const Value* value, int depth) {
  if (const auto found = known_.find(value); found != known_.end()) return found->second;
  std::optional<ShapeContents> traced = trace(value, depth);
  return known_.insert_or_assign(value, std::move(traced)).first->second;
}

std::optional<ShapeContents> ShapeTracer::trace(const Value* value, int depth) {
  const Type& type = types_.type(value);
  if (!type.is_tensor() || !type.shape || type.shape->size() > 1) return std::nullopt;
  if (type.elem != DType::int64 && type.elem != DType::int32) return std::nullopt;
  const std::optional<Dims> dims = concrete(*type.shape);
  if (!dims || element_count(*dims) > static_cast<std::int64_t>(most_elements)) return std::nullopt;
  const auto count = static_cast<std::size_t>(element_count(*dims));
  ShapeContents result{.rank = dims->size(), .elements = {}};
  if (const Tensor* tensor = types_.known_value(value)) {
    for (const std::int64_t element : tensor->to_ints()) result.elements.push_back(number(element));
    return result;
  }
  if (value->producer() && value->output_index() == 0 && depth < deepest) {
    if (auto followed = follow(*value->producer(), depth + 1);
        followed && followed->size() == count) {
      result.elements = std::move(*followed);
      return result;
    }
  }
  for (std::size_t i = 0; i < count; ++i)
    result.elements.push_back(
        {.number = std::nullopt, .key = fmt::format("#{}.{}", address(value), i), .of = nullptr});
  return result;
}

std::optional<std::vector<ShapeElement>> ShapeTracer::follow(const Node& node, int depth) {
  if (!node.domain().empty() || node.input_count() == 0) return std::nullopt;
  const std::string& op = node.op_type();
  std::vector<ShapeElement> elements;
  if (op == "Shape") {
    const std::optional<std::size_t> axes = rank(node.input(0));
    if (!axes) return std::nullopt;
    const ShapeBounds bounds = ShapeBounds::of(node, *axes);
    for (std::size_t i = bounds.first; i < bounds.last; ++i)
      elements.push_back(dim(node.input(0), i, depth));
    return elements;
  }
  if (op == "Concat") {
    for (const Value* input : node.inputs()) {
      const auto& part = contents(input, depth);
      if (!part) return std::nullopt;
      elements.insert(elements.end(), part->elements.begin(), part->elements.end());
    }
    return elements;
  }
  if (op == "Where") return choose(node, depth);
  const auto& data = contents(node.input(0), depth);
  if (!data) return std::nullopt;
  if (op == "Identity" || op == "Squeeze" || op == "Unsqueeze" || op == "Reshape")
    return data->elements;
  if (op == "Cast")
    return types_.type(node.input(0)).elem == types_.type(node.output()).elem
               ? std::optional(data->elements)
               : std::nullopt;
  if (op == "Gather" && data->rank == 1) {
    const Tensor* indices = node.input(1) ? types_.known_value(node.input(1)) : nullptr;
    if (!indices) return std::nullopt;
    const auto size = static_cast<std::int64_t>(data->elements.size());
    for (const std::int64_t index : indices->to_ints())
      elements.push_back(data->elements[static_cast<std::size_t>(checked_index(index, size))]);
    return elements;
  }
  if (op == "Slice" && data->rank == 1) {
    const std::optional<SliceAttrs> slice = SliceAttrs::from(node);
    if (!slice || slice->starts.size() != 1) return std::nullopt;
    const SliceAttrs::Range range = slice->range(0, std::ssize(data->elements));
    for (std::int64_t i = 0; i < range.count; ++i)
      elements.push_back(data->elements[static_cast<std::size_t>(range.first + i * range.step)]);
    return elements;
  }
  return combine(node, depth);
}

// Arithmetic of elements: an element of its own, equal where operator and operands are.
std::optional<std::vector<ShapeElement>> ShapeTracer::combine(const Node& node, int depth) {
  const std::string& op = node.op_type();
  if (op != "Add" && op != "Sub" && op != "Mul" && op != "Div") return std::nullopt;
  const auto& a = contents(node.input(0), depth);
  const auto& b = contents(node.input(1), depth);
  if (!a || !b) return std::nullopt;
  const std::optional<std::size_t> count = broadcast_count({&*a, &*b});
  if (!count) return std::nullopt;
  const std::int64_t neutral = op == "Mul" || op == "Div" ? 1 : 0;
  std::vector<ShapeElement> elements;
  for (std::size_t i = 0; i < *count; ++i) {
    const ShapeElement& left = element_of(*a, i);
    const ShapeElement& right = element_of(*b, i);
    if (right.number == neutral) {
      elements.push_back(left);
      continue;
    }
    if (left.number == neutral && (op == "Mul" || op == "Add")) {
      elements.push_back(right);
      continue;
    }
    std::string key = fmt::format("({} {} {} {})", left.key, op,
                                  name(types_.type(node.output()).elem), right.key);
    if (key.size() > longest_key) return std::nullopt;
    elements.push_back({.number = std::nullopt, .key = std::move(key), .of = nullptr});
  }
  return elements;
}

// Exporters replace the -1 of an Expand's target so: Where(Equal(target, -1), ones, target).
std::optional<std::vector<ShapeElement>> ShapeTracer::choose(const Node& node, int depth) {
  const Node* equal = node.input(0) ? node.input(0)->producer() : nullptr;
  if (!equal || !equal->is("Equal") || !node.input(1) || !node.input(2)) return std::nullopt;
  const auto& a = contents(equal->input(0), depth);
  const auto& b = contents(equal->input(1), depth);
  const auto& yes = contents(node.input(1), depth);
  const auto& no = contents(node.input(2), depth);
  if (!a || !b || !yes || !no) return std::nullopt;
  const std::optional<std::size_t> count = broadcast_count({&*a, &*b, &*yes, &*no});
  if (!count) return std::nullopt;
  std::vector<ShapeElement> elements;
  for (std::size_t i = 0; i < *count; ++i) {
    const std::optional<bool> chosen = known_equal(element_of(*a, i), element_of(*b, i));
    if (!chosen) return std::nullopt;
    elements.push_back(element_of(*chosen ? *yes : *no, i));
  }
  return elements;
}

}  // namespace onnxpress
