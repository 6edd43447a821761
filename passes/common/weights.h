// The weights of a model: constants that its linear, recurrent and lookup operators read.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "graph/ir/model.h"
#include "passes/core/pass.h"
#include "passes/core/selector.h"

namespace onnxpress {

// One floating-point constant that is a weight. A constant that several nodes read is one weight;
// `node` and `operand` are the first of them that makes it one.
struct Weight {
  Value* value = nullptr;
  Node* node = nullptr;
  std::size_t operand = 0;
  // Axis of the tensor whose slices belong to output channels (rows of an embedding); nothing when
  // the operator does not say.
  std::optional<std::int64_t> channel_axis;
  // The axis that the operator sums over, the longest of several (along the rows of an embedding);
  // nothing when it does not say.
  std::optional<std::int64_t> input_axis;
};

// Which operators' weights are wanted.
enum class WeightKinds {
  linear,  // operands that the operator contracts over: Conv, ConvTranspose, Gemm, MatMul, ...
  all,     // and embedding tables (Gather), recurrent weights (LSTM, GRU, RNN) and those that
           // operators of com.microsoft read
};

// An input of an operator that would be a weight if it were a constant.
struct OperandWeight {
  std::size_t operand = 0;
  std::optional<std::int64_t> channel_axis, input_axis;  // as those of Weight
};
// Of a node whose inputs' types are known as far as inference knows them.
std::vector<OperandWeight> weight_operands(const Node& node, WeightKinds kinds);

// Selected weights of the main graph and its subgraphs in node order. Weights that cannot be had
// (made by a Constant node, already quantized, not floating-point) are told to `near_misses` as
// `pass`. Throws Error when a glob of the selector matches nothing.
std::vector<Weight> collect_weights(const Model& model, WeightKinds kinds, const Selector& selector,
                                    std::string_view pass, std::vector<NearMiss>* near_misses);

}  // namespace onnxpress
