// SequenceConstruct, SequenceEmpty, SequenceAt, SequenceInsert, SequenceErase, SequenceLength,
// SplitToSequence, ConcatFromSequence, SequenceMap.
#include <algorithm>
#include <utility>

#include "graph/ops/attributes.h"
#include "graph/ops/pieces.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Type sequence_of(Type element) {
  return {.kind = Type::Kind::sequence, .inner = std::make_shared<const Type>(std::move(element))};
}

// What is known of the elements of sequence `index`.
Type element_type(const InferContext& context, std::size_t index) {
  const Type* type = context.input_type(index);
  if (type == nullptr || type->kind == Type::Kind::unknown) return {};
  require(type->kind == Type::Kind::sequence, "expected a sequence, found {}", to_string(*type));
  return type->inner ? *type->inner : Type();
}

// A type for both: what one knows and the other does not say is open.
Type common_element(const Type& a, const Type& b) {
  if (a.kind == Type::Kind::unknown || b.kind == Type::Kind::unknown) return {};
  if (a.is_tensor() && b.is_tensor() && is_known(a.elem) && is_known(b.elem))
    require(a.elem == b.elem, "expected elements of one type, found {} and {}", name(a.elem),
            name(b.elem));
  if (a.kind != b.kind || a.elem != b.elem) return {};
  Type result = a;
  if (!b.shape || !a.shape || a.shape->size() != b.shape->size()) {
    result.shape.reset();
    return result;
  }
  for (std::size_t i = 0; i < a.shape->size(); ++i)
    if (!same_dim((*a.shape)[i], (*b.shape)[i])) (*result.shape)[i] = Dim();
  return result;
}

void check_element(const std::vector<RuntimeValue>& elements, const RuntimeValue& next) {
  if (elements.empty()) return;
  const DType type = elements.front().tensor().dtype();
  require(next.tensor().dtype() == type, "expected elements of type {}, found {}", name(type),
          name(next.tensor().dtype()));
}

// The position an optional input says, in [-size, size); `otherwise` when it is omitted.
std::int64_t position(KernelContext& context, std::size_t index, std::size_t size,
                      std::int64_t otherwise) {
  const Tensor* given = context.input(index);
  if (given != nullptr)
    require(given->size() == 1, "expected one position, found {}", to_string(given->dims()));
  return checked_index(given != nullptr ? given->to_ints()[0] : otherwise,
                       static_cast<std::int64_t>(size));
}

// --- Making sequences ---

Kernel prepare_construct(const PrepareContext&) {
  return [](KernelContext& context) {
    std::vector<RuntimeValue> elements;
    for (std::size_t i = 0; i < context.input_count(); ++i) {
      RuntimeValue next = context.required_input(i);
      check_element(elements, next);
      elements.push_back(std::move(next));
    }
    context.forward_value(0, RuntimeValue::sequence(std::move(elements)));
  };
}

void infer_construct(InferContext& context) {
  Type element;
  for (std::size_t i = 0; i < context.node().input_count(); ++i) {
    const Type next = context.input_type(i) != nullptr ? *context.input_type(i) : Type();
    element = i == 0 ? next : common_element(element, next);
  }
  element.denotation.clear();
  context.set_output(0, sequence_of(std::move(element)));
}

Kernel prepare_empty(const PrepareContext&) {
  return [](KernelContext& context) { context.forward_value(0, RuntimeValue::sequence({})); };
}

void infer_empty(InferContext& context) {
  const auto type = static_cast<DType>(
      get_int(context.node(), "dtype", static_cast<std::int64_t>(DType::float32)));
  require(is_known(type), "attribute 'dtype': expected an element type, found {}",
          get_int(context.node(), "dtype", 0));
  context.set_output(0, sequence_of(Type::tensor(type)));
}

// --- Elements ---

Kernel prepare_at(const PrepareContext&) {
  return [](KernelContext& context) {
    const RuntimeValue sequence = context.required_input_value(0);
    const auto& elements = sequence.elements();
    context.required_input(1);
    const std::int64_t at = position(context, 1, elements.size(), 0);
    context.forward_value(0, elements[static_cast<std::size_t>(at)]);
  };
}

void infer_at(InferContext& context) { context.set_output(0, element_type(context, 0)); }

Kernel prepare_insert(const PrepareContext&) {
  return [](KernelContext& context) {
    const RuntimeValue sequence = context.required_input_value(0);
    std::vector<RuntimeValue> elements = sequence.elements();
    const auto size = static_cast<std::int64_t>(elements.size());
    std::int64_t at = size;
    if (const Tensor* given = context.input(2)) {
      require(given->size() == 1, "expected one position, found {}", to_string(given->dims()));
      at = given->to_ints()[0];
      require(-size <= at && at <= size, "position {} is out of range for {} elements", at, size);
      if (at < 0) at += size;
    }
    const RuntimeValue next = context.required_input(1);
    check_element(elements, next);
    elements.insert(elements.begin() + at, next);
    context.forward_value(0, RuntimeValue::sequence(std::move(elements)));
  };
}

void infer_insert(InferContext& context) {
  const Type element = element_type(context, 0);
  const Type* next = context.input_type(1);
  // Of an empty sequence only the element type is known: what is inserted may have any shape.
  context.set_output(0, sequence_of(next != nullptr ? common_element(element, *next) : Type()));
}

Kernel prepare_erase(const PrepareContext&) {
  return [](KernelContext& context) {
    const RuntimeValue sequence = context.required_input_value(0);
    std::vector<RuntimeValue> elements = sequence.elements();
    elements.erase(elements.begin() + position(context, 1, elements.size(), -1));
    context.forward_value(0, RuntimeValue::sequence(std::move(elements)));
  };
}

void infer_erase(InferContext& context) {
  context.set_output(0, sequence_of(element_type(context, 0)));
}

Kernel prepare_length(const PrepareContext&) {
  return [](KernelContext& context) {
    const RuntimeValue sequence = context.required_input_value(0);
    context.output(0, DType::int64, {}).mutable_data<std::int64_t>()[0] =
        static_cast<std::int64_t>(sequence.elements().size());
  };
}

void infer_length(InferContext& context) {
  element_type(context, 0);
  context.set_output(0, DType::int64, Shape{});
}

// --- Tensors to sequences and back ---

// Sizes of the parts: all of a scalar's size but perhaps the last, or as a list says.
std::vector<std::int64_t> part_sizes(const Tensor* split, std::int64_t size) {
  std::vector<std::int64_t> sizes;
  if (split != nullptr && split->rank() > 0) {
    require(split->rank() == 1, "expected sizes as a scalar or list, found {}",
            to_string(split->dims()));
    sizes = split->to_ints();
    std::int64_t rest = size;
    for (const std::int64_t part : sizes) {
      require(0 <= part && part <= rest, "expected sizes that add up to {}, found {}", size,
              to_string(sizes));
      rest -= part;
    }
    require(rest == 0, "expected sizes that add up to {}, found {}", size, to_string(sizes));
    return sizes;
  }
  const std::int64_t part = split != nullptr ? split->to_ints()[0] : 1;
  require(part > 0, "expected parts of at least 1 element, found {}", part);
  for (std::int64_t rest = size; rest > 0; rest -= sizes.back())
    sizes.push_back(std::min(part, rest));
  return sizes;
}

Kernel prepare_split(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return [given = get_int(node, "axis", 0),
          keep = get_bool(node, "keepdims", true)](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const auto axis = static_cast<std::size_t>(normalize_axis(given, x.rank()));
    const Tensor* split = context.input(1);
    std::vector<RuntimeValue> elements;
    std::int64_t begin = 0;
    for (const std::int64_t size : part_sizes(split, x.dim(axis))) {
      Tensor part = take(x, axis, begin, size);
      if (split == nullptr && !keep) {
        Dims dims = x.dims();
        dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(axis));
        part = part.reshaped(std::move(dims));
      }
      elements.push_back(std::move(part));
      begin += size;
    }
    context.forward_value(0, RuntimeValue::sequence(std::move(elements)));
  };
}

void infer_split(InferContext& context) {
  const Node& node = context.node();
  Type element = Type::tensor(context.input_dtype(0));
  if (const Shape* x = context.input_shape(0)) {
    const std::int64_t axis = normalize_axis(get_int(node, "axis", 0), x->size());
    element.shape = *x;
    const auto at = element.shape->begin() + axis;
    if (context.has_input(1))
      *at = Dim();
    else if (get_bool(node, "keepdims", true))
      *at = 1;
    else
      element.shape->erase(at);
  }
  context.set_output(0, sequence_of(std::move(element)));
}

Kernel prepare_concat(const PrepareContext& prepare) {
  const Node& node = prepare.node();
  return [given = require_int(node, "axis"),
          stacks = get_bool(node, "new_axis", false)](KernelContext& context) {
    const RuntimeValue sequence = context.required_input_value(0);
    const std::vector<Tensor> parts = to_tensors(sequence.elements());
    require(!parts.empty(), "expected at least one tensor to join, found none");
    const std::size_t rank = parts.front().rank();
    if (stacks)
      context.forward_output(
          0, stack(parts, static_cast<std::size_t>(normalize_axis(given, rank + 1))));
    else
      context.forward_output(0, join(parts, static_cast<std::size_t>(normalize_axis(given, rank))));
  };
}

void infer_concat(InferContext& context) {
  const Node& node = context.node();
  const Type element = element_type(context, 0);
  if (!element.is_tensor()) return;
  std::optional<Shape> shape = element.shape;
  if (shape && get_bool(node, "new_axis", false)) {
    const std::int64_t axis = normalize_axis(require_int(node, "axis"), shape->size() + 1);
    shape->insert(shape->begin() + axis, Dim());
  } else if (shape) {
    (*shape)[static_cast<std::size_t>(normalize_axis(require_int(node, "axis"), shape->size()))] =
        Dim();
  }
  context.set_output(0, element.elem, std::move(shape));
}

// --- SequenceMap ---

Kernel prepare_map(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const std::size_t outputs = require_graph(node, "body").outputs().size();
    std::vector<RuntimeValue> given;
    for (std::size_t i = 0; i < context.input_count(); ++i)
      given.push_back(context.required_input_value(i));
    require(!given.empty(), "expected a sequence, found no input");
    const std::size_t length = given.front().elements().size();
    for (const RuntimeValue& input : given)
      if (!input.is_tensor())
        require(input.elements().size() == length,
                "expected {} elements in every sequence, found {}", length,
                input.elements().size());
    std::vector<std::vector<RuntimeValue>> results(outputs);
    std::vector<RuntimeValue> inputs(given.size());
    for (std::size_t k = 0; k < length; ++k) {
      for (std::size_t i = 0; i < given.size(); ++i)
        inputs[i] = given[i].is_tensor() ? given[i] : given[i].elements()[k];
      std::vector<RuntimeValue> step = context.run_subgraph("body", inputs);
      for (std::size_t i = 0; i < outputs; ++i) results[i].push_back(std::move(step[i]));
    }
    for (std::size_t i = 0; i < outputs; ++i)
      if (context.wants_output(i))
        context.forward_value(i, RuntimeValue::sequence(std::move(results[i])));
  };
}

void infer_map(InferContext& context) {
  std::vector<Type> inputs;
  for (std::size_t i = 0; i < context.node().input_count(); ++i) {
    const Type* type = context.input_type(i);
    if (i == 0 || (type != nullptr && type->kind == Type::Kind::sequence))
      inputs.push_back(element_type(context, i));
    else
      inputs.push_back(type != nullptr ? *type : Type());
  }
  std::vector<Type> outputs = context.infer_subgraph("body", inputs);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    context.set_output(i, sequence_of(std::move(outputs[i])));
}

}  // namespace

OPERATORS(sequence) {
  const auto add = [&](const char* name, void (*infer)(InferContext&),
                       Kernel (*prepare)(const PrepareContext&), std::int64_t since = 11) {
    registry.add(OpDef{.name = name, .since = since, .infer = infer, .prepare = prepare});
  };
  add("SequenceConstruct", infer_construct, prepare_construct);
  add("SequenceEmpty", infer_empty, prepare_empty);
  add("SequenceAt", infer_at, prepare_at);
  add("SequenceInsert", infer_insert, prepare_insert);
  add("SequenceErase", infer_erase, prepare_erase);
  add("SequenceLength", infer_length, prepare_length);
  add("SplitToSequence", infer_split, prepare_split);
  add("ConcatFromSequence", infer_concat, prepare_concat);
  add("SequenceMap", infer_map, prepare_map, 17);
}

}  // namespace onnxpress
