#include "graph/ops/reshape.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/constant.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

Tensor int_vector(const std::vector<std::int64_t>& values) {
  return Tensor::of<std::int64_t>({static_cast<std::int64_t>(values.size())}, values);
}

template <class D>
std::vector<D> squeezed(const std::vector<D>& dims, std::vector<std::int64_t> axes) {
  axes = normalize_axes(std::move(axes), dims.size());
  std::vector<D> result;
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (!std::ranges::binary_search(axes, static_cast<std::int64_t>(i))) result.push_back(dims[i]);
  return result;
}

template <class D>
std::vector<D> unsqueezed(const std::vector<D>& dims, std::vector<std::int64_t> axes) {
  const std::size_t rank = dims.size() + axes.size();
  axes = normalize_axes(std::move(axes), rank);
  std::vector<D> result = dims;
  for (const std::int64_t axis : axes) result.insert(result.begin() + axis, D(1));
  return result;
}

// Contents of a shape computation stay the same under other dims.
void pass_contents(InferContext& context) {
  if (auto contents = context.input_symbolic(0))
    context.set_output_symbolic(0, std::move(*contents));
}

// --- Reshape ---

// A product of numbers and symbols.
struct Factors {
  std::int64_t number = 1;
  std::vector<std::string> symbols;  // sorted
  bool complete = true;              // no unknown factor

  void multiply(const Dim& dim) {
    if (dim.is_known())
      complete = !__builtin_mul_overflow(number, dim.value(), &number) && complete;
    else if (dim.is_symbol())
      symbols.insert(std::ranges::lower_bound(symbols, dim.symbol()), dim.symbol());
    else
      complete = false;
  }
};

// total / rest, where that is one number or one symbol.
Dim quotient(Factors total, const Factors& rest) {
  if (!total.complete || !rest.complete || rest.number == 0) return {};
  std::vector<std::string> left;
  std::ranges::set_difference(total.symbols, rest.symbols, std::back_inserter(left));
  const bool divides = left.size() + rest.symbols.size() == total.symbols.size();
  if (!divides || total.number % rest.number != 0) return {};
  total.number /= rest.number;
  if (left.empty()) return total.number;
  return left.size() == 1 && total.number == 1 ? Dim(left[0]) : Dim();
}

Shape reshape_to(const Shape* input, Shape target, bool allow_zero) {
  if (!allow_zero)
    for (std::size_t i = 0; i < target.size(); ++i)
      if (target[i].value() == 0) {
        require(input == nullptr || i < input->size(), "a 0 at {} copies no dim of {}", i,
                input == nullptr ? "" : to_string(*input));
        target[i] = input != nullptr ? (*input)[i] : Dim();
      }
  // At most one dim is not given: -1, or a number that is not known. Both follow from the rest.
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < target.size(); ++i)
    if (!target[i].is_known() && !target[i].is_symbol()) open.push_back(i);
  if (open.size() == 1 && input != nullptr) {
    Factors total;
    Factors rest;
    for (const Dim& dim : *input) total.multiply(dim);
    for (const Dim& dim : target)
      if (dim.is_known() || dim.is_symbol()) rest.multiply(dim);
    target[open[0]] = quotient(std::move(total), rest);
  }
  return target;
}

std::optional<std::vector<std::int64_t>> attribute_shape(const Node& node) {
  return node.opset() < 5 ? std::optional(require_ints(node, "shape")) : std::nullopt;
}

Kernel prepare_reshape(const PrepareContext& prepare) {
  return [shape = attribute_shape(prepare.node()),
          allow_zero = reshape_allows_zero(prepare.node())](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const auto target = shape ? *shape : context.required_input(1).to_ints();
    context.forward_output(0, x.reshaped(reshaped_dims(x.dims(), target, allow_zero)));
  };
}

void infer_reshape(InferContext& context) {
  const Node& node = context.node();
  const bool allow_zero = reshape_allows_zero(node);
  auto target = attribute_shape(node);
  if (!target) target = context.input_ints(1);
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (const auto dims = context.input_dims(0); dims && target) {
    shape = to_shape(reshaped_dims(*dims, *target, allow_zero));
  } else if (target) {
    const auto dim = [](std::int64_t value) { return value < 0 ? Dim() : Dim(value); };
    Shape given;
    for (const std::int64_t value : *target) given.push_back(dim(value));
    shape = reshape_to(x, std::move(given), allow_zero);
  } else if (auto contents = context.input_symbolic(1)) {
    shape = reshape_to(x, std::move(*contents), allow_zero);
  } else if (const Shape* length = context.input_shape(1);
             length != nullptr && length->size() == 1 && (*length)[0].is_known()) {
    shape = Shape(static_cast<std::size_t>((*length)[0].value()));
  }
  const bool flat = shape && shape->size() <= 1;
  context.set_output(0, context.input_dtype(0), std::move(shape));
  if (flat) pass_contents(context);
}

// --- Flatten ---

Kernel prepare_flatten(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const std::span<const std::int64_t> dims = x.dims();
    const std::size_t axis = flatten_axis(node, dims.size());
    context.forward_output(
        0, x.reshaped({element_count(dims.first(axis)), element_count(dims.subspan(axis))}));
  };
}

void infer_flatten(InferContext& context) {
  Shape shape(2);
  if (const Shape* x = context.input_shape(0)) {
    const std::span<const Dim> dims = *x;
    const std::size_t axis = flatten_axis(context.node(), dims.size());
    shape = {product(dims.first(axis)), product(dims.subspan(axis))};
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

// --- Squeeze, Unsqueeze ---

std::optional<std::vector<std::int64_t>> given_axes(const KernelContext& context,
                                                    const Node& node) {
  if (const Tensor* axes = context.input(1)) return axes->to_ints();
  return find_ints(node, "axes");
}

Kernel prepare_squeeze(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    Dims dims;
    if (const auto axes = given_axes(context, node))
      dims = squeezed(x.dims(), *axes);
    else
      std::ranges::copy_if(x.dims(), std::back_inserter(dims),
                           [](std::int64_t dim) { return dim != 1; });
    context.forward_output(0, x.reshaped(std::move(dims)));
  };
}

Kernel prepare_unsqueeze(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    const Tensor& x = context.required_input(0);
    const auto axes = given_axes(context, node);
    require(axes.has_value(), "axes are required");
    context.forward_output(0, x.reshaped(unsqueezed(x.dims(), *axes)));
  };
}

void infer_squeeze(InferContext& context) {
  const Shape* x = context.input_shape(0);
  auto axes = find_ints(context.node(), "axes");
  if (context.has_input(1)) axes = context.input_ints(1);
  std::optional<Shape> shape;
  if (x != nullptr && axes) {
    for (const std::int64_t axis : normalize_axes(*axes, x->size())) {
      const Dim& dim = (*x)[static_cast<std::size_t>(axis)];
      require(!dim.is_known() || dim.value() == 1, "expected a dim of 1 at axis {}, found {}", axis,
              dim.value());
    }
    shape = squeezed(*x, *axes);
  } else if (x != nullptr && !context.has_input(1)) {
    // Without axes all 1s go, and a dim that is not known may be one.
    const bool all = std::ranges::all_of(*x, [](const Dim& dim) { return dim.is_known(); });
    if (all) {
      shape.emplace();
      std::ranges::copy_if(*x, std::back_inserter(*shape),
                           [](const Dim& dim) { return dim.value() != 1; });
    }
  }
  const bool flat = shape && shape->size() <= 1;
  context.set_output(0, context.input_dtype(0), std::move(shape));
  if (flat) pass_contents(context);
}

void infer_unsqueeze(InferContext& context) {
  const Shape* x = context.input_shape(0);
  auto axes = find_ints(context.node(), "axes");
  if (context.has_input(1)) axes = context.input_ints(1);
  std::optional<Shape> shape;
  if (x != nullptr && axes) shape = unsqueezed(*x, *axes);
  const bool flat = shape && shape->size() <= 1;
  context.set_output(0, context.input_dtype(0), std::move(shape));
  if (flat) pass_contents(context);
}

OpCall with_axes(std::string op_type, std::int64_t opset, std::vector<std::int64_t> axes) {
  OpCall call{.op_type = std::move(op_type)};
  if (opset >= 13)
    call.constants.push_back(int_vector(axes));
  else
    call.attributes["axes"] = std::move(axes);
  return call;
}

}  // namespace

bool reshape_allows_zero(const Node& node) { return get_bool(node, "allowzero", false); }

Dims reshaped_dims(const Dims& input, const std::vector<std::int64_t>& target, bool allow_zero) {
  Dims dims = target;
  std::optional<std::size_t> open;
  std::int64_t rest = 1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 0 && !allow_zero) {
      require(i < input.size(), "a 0 at {} copies no dim of {}", i, to_string(input));
      dims[i] = input[i];
    }
    require(dims[i] >= -1, "expected dims of at least -1, found {}", to_string(target));
    if (dims[i] == -1) {
      require(!open, "expected at most one -1, found {}", to_string(target));
      open = i;
    } else {
      require(!__builtin_mul_overflow(rest, dims[i], &rest), "product of dims overflows: {}",
              to_string(target));
    }
  }
  const std::int64_t count = element_count(input);
  if (open) {
    require(rest != 0 && count % rest == 0, "{} elements of {} cannot become {}", count,
            to_string(input), to_string(target));
    dims[*open] = count / rest;
  } else {
    require(rest == count, "{} elements of {} cannot become {}", count, to_string(input),
            to_string(target));
  }
  return dims;
}

std::optional<ReshapeTarget> ReshapeTarget::from(const Node& reshape) {
  auto dims = attribute_shape(reshape);
  if (!dims) dims = constant_ints(reshape.input(1));
  if (!dims) return std::nullopt;
  return ReshapeTarget{std::move(*dims), get_bool(reshape, "allowzero", false)};
}

std::size_t flatten_axis(const Node& flatten, std::size_t rank) {
  const std::int64_t axis = get_int(flatten, "axis", 1);
  return static_cast<std::size_t>(
      axis == static_cast<std::int64_t>(rank) ? axis : normalize_axis(axis, rank));
}

std::optional<std::vector<std::int64_t>> axes_argument(const Node& node) {
  if (node.input(1) != nullptr) return constant_ints(node.input(1));
  return find_ints(node, "axes");
}

OpCall make_reshape(std::int64_t opset, Dims target) {
  OpCall call{.op_type = "Reshape"};
  if (opset >= 5)
    call.constants.push_back(int_vector(target));
  else
    call.attributes["shape"] = std::move(target);
  return call;
}

OpCall make_squeeze(std::int64_t opset, std::vector<std::int64_t> axes) {
  return with_axes("Squeeze", opset, std::move(axes));
}

OpCall make_unsqueeze(std::int64_t opset, std::vector<std::int64_t> axes) {
  return with_axes("Unsqueeze", opset, std::move(axes));
}

OPERATORS(reshape) {
  registry.add(OpDef{.name = "Reshape", .infer = infer_reshape, .prepare = prepare_reshape});
  registry.add(OpDef{.name = "Flatten", .infer = infer_flatten, .prepare = prepare_flatten});
  registry.add(OpDef{.name = "Squeeze", .infer = infer_squeeze, .prepare = prepare_squeeze});
  registry.add(OpDef{.name = "Unsqueeze", .infer = infer_unsqueeze, .prepare = prepare_unsqueeze});
}

}  // namespace onnxpress
