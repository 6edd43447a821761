// Gradient of Einsum: for each operand the sum of products of the output's gradient and the other
// operands, with the operand's labels as output.
#include <algorithm>
#include <string>
#include <vector>

#include "graph/ops/broadcasting.h"
#include "graph/ops/einsum.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/gradient_tools.h"

namespace onnxpress {
namespace {

bool contains(const EinsumLabels& labels, EinsumLabel label) {
  return std::ranges::find(labels, label) != labels.end();
}

// Letters for all labels, those of ellipses included.
class Letters {
 public:
  explicit Letters(const EinsumEquation& equation) {
    for (const EinsumLabels& labels : equation.operands)
      for (const EinsumLabel label : labels)
        if (!contains(known_, label)) known_.push_back(label);
  }
  std::string operator()(const EinsumLabels& labels) const {
    static constexpr std::string_view alphabet =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    std::string text;
    for (const EinsumLabel label : labels) {
      const auto at = static_cast<std::size_t>(std::ranges::find(known_, label) - known_.begin());
      require(at < alphabet.size(), "expected at most {} labels", alphabet.size());
      text += alphabet[at];
    }
    return text;
  }

 private:
  EinsumLabels known_;
};

// `equation` of the given operands.
Tensor einsum(ThreadPool& pool, const std::string& equation,
              const std::vector<const Tensor*>& operands) {
  const OpsetImports opsets = {{"", 12}};
  Graph graph(&opsets);
  NodeSpec spec{.op_type = "Einsum"};
  spec.attributes["equation"] = equation;
  for (std::size_t i = 0; i < operands.size(); ++i)
    spec.inputs.push_back(
        graph.add_input(fmt::format("operand{}", i), Type::of(*operands[i])));
  const Node& node = *graph.add_node(std::move(spec));
  return evaluate(*operators().find(node), node, operands, pool).front();
}

// The gradient of operand `index`.
Tensor operand_gradient(BackwardContext& context, const EinsumEquation& equation,
                        std::size_t index) {
  const Letters letters(equation);
  const EinsumLabels& own = equation.operands[index];
  const Dims& dims = context.input_dims(index);
  const auto is_stretched = [&](std::size_t axis) {
    if (dims[axis] != 1) return false;
    for (std::size_t i = 0; i < equation.operands.size(); ++i)
      for (std::size_t k = 0; k < equation.operands[i].size(); ++k)
        if (equation.operands[i][k] == own[axis] && context.input_dims(i)[k] != 1) return true;
    return false;
  };
  std::string terms = letters(equation.output);
  std::vector<const Tensor*> operands = {&context.required_gradient(0)};
  EinsumLabels available = equation.output;
  for (std::size_t i = 0; i < equation.operands.size(); ++i) {
    if (i == index) continue;
    (terms += ',') += letters(equation.operands[i]);
    operands.push_back(&context.required_input(i));
    available.insert(available.end(), equation.operands[i].begin(), equation.operands[i].end());
  }
  // Labels of the operand that others have too, each once; it is constant along the rest.
  EinsumLabels kept;
  Dims shape;
  for (std::size_t axis = 0; axis < own.size(); ++axis)
    if (!is_stretched(axis) && contains(available, own[axis]) && !contains(kept, own[axis])) {
      kept.push_back(own[axis]);
      shape.push_back(dims[axis]);
    }
  (terms += "->") += letters(kept);
  const Tensor sum = einsum(context.pool(), terms, operands);
  // A label that occurs twice is a diagonal: elements beside it get nothing.
  const std::vector<std::int64_t> strides = row_strides(sum.dims());
  const std::vector<std::int64_t> own_strides = row_strides(dims);
  Tensor result(sum.dtype(), dims);
  dispatch_floats(sum.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* const from = sum.data<T>().data();
    T* const to = result.mutable_data<T>().data();
    for_elements(context.pool(), result.size(), [&](std::int64_t element) {
      std::vector<std::int64_t> position(kept.size(), -1);
      std::int64_t at = 0;
      for (std::size_t axis = 0; axis < own.size(); ++axis) {
        const std::int64_t i = element / own_strides[axis] % dims[axis];
        for (std::size_t other = 0; other < axis; ++other)
          if (own[other] == own[axis] && element / own_strides[other] % dims[other] != i) return;
        const auto found = std::ranges::find(kept, own[axis]);
        if (found == kept.end() || is_stretched(axis)) continue;
        const auto label = static_cast<std::size_t>(found - kept.begin());
        if (position[label] < 0) at += (position[label] = i) * strides[label];
      }
      to[element] = from[at];
    });
  });
  return result;
}

BackwardKernel prepare_einsum(const PrepareContext& plan) {
  return [attrs = EinsumAttrs::from(plan.node())](BackwardContext& context) {
    std::vector<std::size_t> ranks;
    for (std::size_t i = 0; i < context.input_count(); ++i)
      ranks.push_back(context.input_dims(i).size());
    const EinsumEquation equation(attrs, ranks);
    for (std::size_t i = 0; i < context.input_count(); ++i)
      if (context.wants_gradient(i))
        context.forward_gradient(i, operand_gradient(context, equation, i));
  };
}

// Every gradient reads the other operands.
std::uint64_t others(std::uint64_t wanted) {
  const bool is_one = (wanted & (wanted - 1)) == 0;
  return is_one ? ~wanted : all_values;
}

}  // namespace

OPERATORS(einsum_gradient) {
  registry.add(GradientDef{
      .name = "Einsum", .prepare = prepare_einsum, .reads_outputs = 0, .reads_for = others});
}

}  // namespace onnxpress
