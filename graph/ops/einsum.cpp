#include "graph/ops/einsum.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <type_traits>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/matrix_product.h"

namespace onnxpress {
namespace {

using Label = EinsumLabel;
using Labels = EinsumLabels;
using Equation = EinsumEquation;
using Sizes = std::map<Label, std::int64_t>;

Sizes concrete_sizes(const Equation& equation, std::span<const Dims> dims) {
  std::vector<Shape> shapes;
  for (const Dims& one : dims) shapes.push_back(to_shape(one));
  Sizes sizes;
  for (const auto& [label, dim] : equation.sizes(shapes)) sizes[label] = dim.value();
  return sizes;
}

bool contains(const Labels& labels, Label label) {
  return std::ranges::find(labels, label) != labels.end();
}

std::int64_t size_of(const Labels& labels, const Sizes& sizes) {
  Dims dims;
  for (const Label label : labels) dims.push_back(sizes.at(label));
  return element_count(dims);
}

Labels joined(Labels a, const Labels& b) {
  for (const Label label : b)
    if (!contains(a, label)) a.push_back(label);
  return a;
}

// The labels of an operand, each once, without axes of 1 that stretch.
Labels reduced_labels(const Labels& labels, const Dims& dims, const Sizes& sizes) {
  Labels result;
  for (std::size_t axis = 0; axis < labels.size(); ++axis)
    if (dims[axis] == sizes.at(labels[axis]) && !contains(result, labels[axis]))
      result.push_back(labels[axis]);
  return result;
}

// How two operands meet: labels of both that stay, of both that are summed over, of one only.
struct Pair {
  std::size_t first = 0, second = 1;
  Labels batch, contracted, rows, columns;

  Pair(const std::vector<Labels>& operands, std::size_t a, std::size_t b, const Labels& output)
      : first(a), second(b) {
    const auto needed = [&](Label label) {
      if (contains(output, label)) return true;
      for (std::size_t i = 0; i < operands.size(); ++i)
        if (i != a && i != b && contains(operands[i], label)) return true;
      return false;
    };
    for (const Label label : operands[a]) {
      if (contains(operands[b], label))
        (needed(label) ? batch : contracted).push_back(label);
      else if (needed(label))
        rows.push_back(label);
    }
    for (const Label label : operands[b])
      if (!contains(operands[a], label) && needed(label)) columns.push_back(label);
  }

  Labels result() const { return joined(joined(batch, rows), columns); }
  std::int64_t macs(const Sizes& sizes) const {
    return size_of(joined(result(), contracted), sizes);
  }
};

// The pair that takes the fewest multiplications, of operands that are many.
Pair next_pair(const std::vector<Labels>& operands, const Labels& output, const Sizes& sizes) {
  std::optional<Pair> best;
  for (std::size_t a = 0; a < operands.size(); ++a)
    for (std::size_t b = a + 1; b < operands.size(); ++b) {
      Pair pair(operands, a, b, output);
      if (!best || pair.macs(sizes) < best->macs(sizes)) best = std::move(pair);
    }
  return *best;
}

template <class T>
struct Operand {
  Labels labels;  // each once
  std::vector<std::int64_t> strides;
  const T* data = nullptr;
  Tensor owned;
};

// The operand with axes in the order of `labels`, summed over all others; row-major.
template <class T>
void arrange(ThreadPool& pool, const Operand<T>& operand, const Labels& labels, const Sizes& sizes,
             T* out) {
  Labels summed;
  for (const Label label : operand.labels)
    if (!contains(labels, label)) summed.push_back(label);
  const auto offsets = [&](const Labels& which) {
    std::vector<std::int64_t> found{0};
    for (const Label label : which) {
      const auto axis = std::ranges::find(operand.labels, label) - operand.labels.begin();
      const std::int64_t stride = operand.strides[static_cast<std::size_t>(axis)];
      std::vector<std::int64_t> next;
      next.reserve(found.size() * static_cast<std::size_t>(sizes.at(label)));
      for (const std::int64_t offset : found)
        for (std::int64_t i = 0; i < sizes.at(label); ++i) next.push_back(offset + i * stride);
      found = std::move(next);
    }
    return found;
  };
  const std::vector<std::int64_t> kept = offsets(labels);
  const std::vector<std::int64_t> dropped = offsets(summed);
  const std::int64_t block =
      std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, std::ssize(dropped)));
  pool.parallel_for(std::ssize(kept), block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* const from = operand.data + kept[static_cast<std::size_t>(i)];
      // Integers wrap around.
      std::conditional_t<std::is_floating_point_v<T>, double, std::uint64_t> sum = 0;
      for (const std::int64_t offset : dropped) sum += static_cast<decltype(sum)>(from[offset]);
      out[i] = static_cast<T>(sum);
    }
  });
}

template <class T>
Operand<T> owning(Labels labels, Tensor values, const Sizes& sizes) {
  Operand<T> result{.labels = std::move(labels), .owned = std::move(values)};
  Dims dims;
  for (const Label label : result.labels) dims.push_back(sizes.at(label));
  result.strides = row_strides(dims);
  result.data = result.owned.template data<T>().data();
  return result;
}

// As a stack of matrix products.
template <class T>
Operand<T> contract(ThreadPool& pool, const Operand<T>& a, const Operand<T>& b, const Pair& pair,
                    const Sizes& sizes) {
  const std::int64_t stack = size_of(pair.batch, sizes);
  const std::int64_t rows = size_of(pair.rows, sizes);
  const std::int64_t columns = size_of(pair.columns, sizes);
  const std::int64_t depth = size_of(pair.contracted, sizes);
  const Labels a_labels = joined(joined(pair.batch, pair.rows), pair.contracted);
  const Labels b_labels = joined(joined(pair.batch, pair.contracted), pair.columns);
  const auto room = [&](const Labels& labels) {
    return Tensor(dtype_of<T>, {size_of(labels, sizes)});
  };
  Tensor left_room = room(a_labels), right_room = room(b_labels), result = room(pair.result());
  T* const left = left_room.mutable_data<T>().data();
  T* const right = right_room.mutable_data<T>().data();
  T* const out = result.mutable_data<T>().data();
  arrange<T>(pool, a, a_labels, sizes, left);
  arrange<T>(pool, b, b_labels, sizes, right);
  const auto one = [&](std::int64_t i, auto&&... where) {
    add_product<T>(where..., rows, columns, depth, {left + i * rows * depth, depth},
                   {right + i * depth * columns, columns}, {out + i * rows * columns, columns});
  };
  if (stack == 1)
    one(0, pool);
  else
    pool.parallel_for(stack, 1, [&](std::int64_t i, std::int64_t) { one(i); });
  return owning<T>(pair.result(), std::move(result), sizes);
}

// Diagonals of repeated labels are read through strides.
template <class T>
Operand<T> operand_of(const Tensor& tensor, const Labels& labels, const Sizes& sizes) {
  Operand<T> operand{.labels = reduced_labels(labels, tensor.dims(), sizes)};
  operand.data = tensor.data<T>().data();
  const std::vector<std::int64_t> strides = row_strides(tensor.dims());
  for (const Label label : operand.labels) {
    std::int64_t stride = 0;
    for (std::size_t axis = 0; axis < labels.size(); ++axis)
      if (labels[axis] == label && tensor.dim(axis) != 1) stride += strides[axis];
    operand.strides.push_back(stride);
  }
  return operand;
}

Kernel prepare_einsum(const PrepareContext& prepare) {
  return [attrs = EinsumAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      std::vector<std::size_t> ranks;
      std::vector<Dims> dims;
      for (std::size_t i = 0; i < attrs.terms.size(); ++i) {
        dims.push_back(inner.required_input(i).dims());
        ranks.push_back(dims.back().size());
      }
      const Equation equation(attrs, ranks);
      const Sizes sizes = concrete_sizes(equation, dims);
      Dims result;
      for (const Label label : equation.output) result.push_back(sizes.at(label));
      Tensor& y = inner.output(0, inner.required_input(0).dtype(), result);
      dispatch_numbers(y.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        std::vector<Operand<T>> operands;
        std::vector<Labels> labels;
        for (std::size_t i = 0; i < dims.size(); ++i) {
          operands.push_back(operand_of<T>(inner.required_input(i), equation.operands[i], sizes));
          labels.push_back(operands.back().labels);
        }
        while (operands.size() > 1) {
          const Pair pair = next_pair(labels, equation.output, sizes);
          const auto second = static_cast<std::ptrdiff_t>(pair.second);
          operands[pair.first] =
              contract<T>(inner.pool(), operands[pair.first], operands[pair.second], pair, sizes);
          labels[pair.first] = operands[pair.first].labels;
          operands.erase(operands.begin() + second);
          labels.erase(labels.begin() + second);
        }
        arrange<T>(inner.pool(), operands.front(), equation.output, sizes,
                   y.mutable_data<T>().data());
      });
    });
  };
}

void infer_einsum(InferContext& context) {
  const EinsumAttrs attrs = EinsumAttrs::from(context.node());
  std::vector<std::size_t> ranks;
  std::vector<Shape> shapes;
  for (std::size_t i = 0; i < attrs.terms.size(); ++i) {
    const Shape* shape = context.input_shape(i);
    if (shape == nullptr) return context.set_output(0, Type::tensor(context.input_dtype(0)));
    shapes.push_back(*shape);
    ranks.push_back(shape->size());
  }
  const Equation equation(attrs, ranks);
  const std::map<Label, Dim> sizes = equation.sizes(shapes);
  Shape result;
  for (const Label label : equation.output) result.push_back(sizes.at(label));
  context.set_output(0, context.input_dtype(0), std::move(result));
}

Cost einsum_cost(const PrepareContext& context) {
  const EinsumAttrs attrs = EinsumAttrs::from(context.node());
  std::vector<std::size_t> ranks;
  std::vector<Dims> dims;
  for (std::size_t i = 0; i < attrs.terms.size(); ++i) {
    dims.push_back(concrete(*context.input_type(i)->shape).value());
    ranks.push_back(dims.back().size());
  }
  const Equation equation(attrs, ranks);
  const Sizes sizes = concrete_sizes(equation, dims);
  std::vector<Labels> labels;
  for (std::size_t i = 0; i < dims.size(); ++i)
    labels.push_back(reduced_labels(equation.operands[i], dims[i], sizes));
  Cost cost;
  while (labels.size() > 1) {
    const Pair pair = next_pair(labels, equation.output, sizes);
    cost.macs += pair.macs(sizes);
    labels[pair.first] = pair.result();
    labels.erase(labels.begin() + static_cast<std::ptrdiff_t>(pair.second));
  }
  return cost;
}

// An axis whose label is in one axis of the operand only; those of 1 stretch.
OperandAxes einsum_axes(const Node& node) {
  const EinsumAttrs attrs = EinsumAttrs::from(node);
  OperandAxes axes(node.input_count());
  std::vector<std::size_t> ranks;
  for (const Value* input : node.inputs()) {
    if (input == nullptr || !input->type.shape) return axes;
    ranks.push_back(input->type.shape->size());
  }
  const Equation equation(attrs, ranks);
  for (std::size_t i = 0; i < axes.size(); ++i)
    for (std::size_t axis = 0; axis < ranks[i]; ++axis) {
      const Label label = equation.operands[i][axis];
      const Dim& dim = (*node.input(i)->type.shape)[axis];
      const auto found = std::ranges::find(equation.output, label);
      AxisRole role;
      if (std::ranges::count(equation.operands[i], label) == 1 && dim.value() != 1) {
        if (found == equation.output.end())
          role.kind = AxisRole::Kind::reduced;
        else
          role = {.kind = AxisRole::Kind::output, .output_axis = found - equation.output.begin()};
      }
      axes[i].push_back(role);
    }
  return axes;
}

}  // namespace

EinsumTerm EinsumTerm::parse(std::string_view text) {
  EinsumTerm term;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 3) == "...") {
      require(!term.has_ellipsis, "equation term '{}' has two ellipses", text);
      term.has_ellipsis = true;
      i += 2;
      continue;
    }
    require(std::isalpha(static_cast<unsigned char>(text[i])) != 0,
            "expected letters and '...' in equation term '{}', found '{}'", text, text[i]);
    (term.has_ellipsis ? term.after : term.before) += text[i];
  }
  return term;
}

EinsumLabels EinsumTerm::labels(std::size_t ellipsis_rank) const {
  EinsumLabels result(before.begin(), before.end());
  for (std::size_t k = has_ellipsis ? ellipsis_rank : 0; k-- > 0;)
    result.push_back(einsum_ellipsis + static_cast<EinsumLabel>(k));
  result.insert(result.end(), after.begin(), after.end());
  return result;
}

EinsumAttrs EinsumAttrs::from(const Node& node) {
  std::string text = get_string(node, "equation", "");
  std::erase_if(text, [](unsigned char c) { return std::isspace(c) != 0; });
  require(!text.empty(), "expected an equation, found none");
  EinsumAttrs attrs;
  const std::size_t arrow = text.find("->");
  if (arrow != std::string::npos) {
    attrs.output = EinsumTerm::parse(std::string_view(text).substr(arrow + 2));
    text.resize(arrow);
  }
  for (std::size_t begin = 0;;) {
    const std::size_t comma = text.find(',', begin);
    attrs.terms.push_back(EinsumTerm::parse(std::string_view(text).substr(
        begin, comma == std::string::npos ? std::string::npos : comma - begin)));
    if (comma == std::string::npos) break;
    begin = comma + 1;
  }
  require(attrs.terms.size() == node.input_count(), "expected {} operands, found {}",
          attrs.terms.size(), node.input_count());
  return attrs;
}

EinsumEquation::EinsumEquation(const EinsumAttrs& attrs, std::span<const std::size_t> ranks) {
  std::size_t widest = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const EinsumTerm& term = attrs.terms[i];
    const std::size_t named = term.before.size() + term.after.size();
    require(term.has_ellipsis ? ranks[i] >= named : ranks[i] == named,
            "operand {}: expected {}{} axes, found {}", i, term.has_ellipsis ? "at least " : "",
            named, ranks[i]);
    operands.push_back(term.labels(ranks[i] - named));
    widest = std::max(widest, ranks[i] - named);
  }
  if (attrs.output) {
    output = attrs.output->labels(widest);
  } else {
    std::map<EinsumLabel, int> counts;
    for (const EinsumLabels& labels : operands)
      for (const EinsumLabel label : labels) ++counts[label];
    output = EinsumTerm{.before = {}, .after = {}, .has_ellipsis = true}.labels(widest);
    for (const auto& [label, count] : counts)
      if (label < einsum_ellipsis && count == 1) output.push_back(label);
  }
  std::set<EinsumLabel> known, seen;
  for (const EinsumLabels& labels : operands) known.insert(labels.begin(), labels.end());
  for (const EinsumLabel label : output) {
    require(known.contains(label), "output label '{}' is in no operand",
            static_cast<char>(label));
    require(seen.insert(label).second, "output label '{}' is there twice",
            static_cast<char>(label));
  }
}

std::map<EinsumLabel, Dim> EinsumEquation::sizes(std::span<const Shape> shapes) const {
  std::map<EinsumLabel, Dim> found;
  for (std::size_t i = 0; i < operands.size(); ++i)
    for (std::size_t axis = 0; axis < operands[i].size(); ++axis) {
      const Dim& dim = shapes[i][axis];
      const auto [entry, fresh] = found.try_emplace(operands[i][axis], dim);
      if (!fresh) entry->second = broadcast(Shape{entry->second}, Shape{dim}).front();
    }
  return found;
}

OPERATORS(einsum) {
  registry.add(OpDef{.name = "Einsum",
                     .since = 12,
                     .infer = infer_einsum,
                     .prepare = prepare_einsum,
                     .axes = einsum_axes,
                     .cost = einsum_cost});
}

}  // namespace onnxpress
