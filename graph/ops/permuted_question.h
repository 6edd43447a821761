// What the forms of the operators (permuted_form.cpp) ask of a node and the order of one operand's axes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "graph/ir/clone.h"
#include "graph/ops/attributes.h"
#include "graph/ops/permuted_form.h"

namespace onnxpress {

// One question, and the answer as far as it is the same for all operators.
class PermutedQuestion {
 public:
  using Axes = std::vector<std::int64_t>;

  PermutedQuestion(const Node& asked, const PermutedOperand& asked_operand, const TypeInference& known)
      : node(asked), operand(asked_operand), p(asked_operand.permutation), types(known) {
    answer.inputs.resize(node.input_count());
    answer.outputs.resize(node.output_count());
    ValueMap map;
    answer.attributes = clone_attributes(node, &node.graph(), map);
  }

  const Node& node;
  const PermutedOperand& operand;
  const Permutation& p;
  const TypeInference& types;
  PermutedForm answer;

  std::size_t rank() const { return p.size(); }
  bool is_input(std::size_t index) const { return !operand.is_output && operand.index == index; }
  const Shape* shape(std::size_t input) const {
    const Value* value = node.input(input);
    if (value == nullptr) return nullptr;
    const Type& type = types.type(value);
    return type.is_tensor() && type.shape ? &*type.shape : nullptr;
  }
  bool has_rank(std::size_t input, std::size_t wanted) const {
    const Shape* known = shape(input);
    return known != nullptr && known->size() == wanted;
  }
  // Where an axis is found after the permutation.
  std::int64_t position(std::int64_t axis) const {
    return std::ranges::find(p, normalize_axis(axis, rank())) - p.begin();
  }
  Axes positions(const Axes& axes) const {
    Axes found;
    for (const std::int64_t axis : axes) found.push_back(position(axis));
    return found;
  }
  // The permutation of what is left without `axes`.
  Permutation without(const Axes& axes) const {
    const Axes gone = normalize_axes(axes, rank());
    Permutation left;
    for (const std::int64_t axis : p) {
      if (std::ranges::binary_search(gone, axis)) continue;
      left.push_back(axis - (std::ranges::lower_bound(gone, axis) - gone.begin()));
    }
    return left;
  }
  // Values of one entry per axis, in the new order.
  template <class T>
  std::vector<T> reordered(const std::vector<T>& values) const {
    std::vector<T> result;
    for (const std::int64_t axis : p) result.push_back(values[static_cast<std::size_t>(axis)]);
    return result;
  }
  void argument(std::size_t index, Tensor tensor) {
    answer.arguments.emplace_back(index, std::move(tensor));
  }
  PermutedForm all_outputs() {
    for (std::size_t i = 0; i < answer.outputs.size(); ++i) answer.outputs[i] = p;
    return std::move(answer);
  }
  PermutedForm input_and_outputs() {
    answer.inputs[0] = p;
    return all_outputs();
  }
};

}  // namespace onnxpress
