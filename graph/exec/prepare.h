// Plan-time views of a node: internal to graph/exec.
#pragma once

#include <functional>
#include <limits>
#include <utility>

#include "graph/exec/plan.h"
#include "graph/ops/kernel.h"

namespace onnxpress {

// Over tables of types and constants by value.
class NodePreparation : public PrepareContext {
 public:
  using TypeOf = std::function<const Type*(const Value&)>;
  using ConstantOf = std::function<const Tensor*(const Value&)>;

  NodePreparation(const Node& node, TypeOf type_of, ConstantOf constant_of, int threads)
      : node_(node),
        type_of_(std::move(type_of)),
        constant_of_(std::move(constant_of)),
        threads_(threads) {}

  const Node& node() const override { return node_; }
  const Type* input_type(std::size_t index) const override {
    const Value* value = node_.input(index);
    return value ? type_of_(*value) : nullptr;
  }
  const Type* output_type(std::size_t index) const override {
    const Value* value = node_.output(index);
    return value ? type_of_(*value) : nullptr;
  }
  const Tensor* constant_input(std::size_t index) const override {
    const Value* value = node_.input(index);
    return value ? constant_of_(*value) : nullptr;
  }
  int threads() const override { return threads_; }

 private:
  const Node& node_;
  TypeOf type_of_;
  ConstantOf constant_of_;
  int threads_;
};

// Over the slots of a step. Elementwise steps see the dims in the order of memory: that is all they
// need to know of layouts.
class StepPreparation : public PrepareContext {
 public:
  // Floating-point constants of more than `most_bytes` are shown as values that only a run knows, so
  // that kernels keep no copies of them.
  StepPreparation(const GraphPlan& plan, const PlanStep& step, int threads,
                  std::size_t most_bytes = std::numeric_limits<std::size_t>::max())
      : plan_(plan), step_(step), threads_(threads), most_bytes_(most_bytes) {}

  const Node& node() const override { return *step_.node; }
  const Type* input_type(std::size_t index) const override { return type(step_.inputs, index); }
  const Type* output_type(std::size_t index) const override { return type(step_.outputs, index); }
  const Tensor* constant_input(std::size_t index) const override {
    const Slot* slot = find(step_.inputs, index);
    if (!slot || slot->source != Slot::Source::constant) return nullptr;
    return is_hidden(slot->constant) ? nullptr : &slot->constant;
  }
  int threads() const override { return threads_; }
  Layout input_layout(std::size_t index) const override {
    const Slot* slot = find(step_.inputs, index);
    return slot ? slot->layout : Layout::row_major;
  }
  Layout output_layout() const override {
    const Slot* slot = find(step_.outputs, 0);
    return slot ? slot->layout : Layout::row_major;
  }
  std::span<const PostOp> post_ops() const override { return step_.post_ops; }
  bool may_approximate() const override { return plan_.is_fused; }
  void packed(std::size_t index) const override {
    const Slot* slot = find(step_.inputs, index);
    if (slot && !is_hidden(slot->constant)) packed_.push_back(index);
  }

  // Constant inputs that the prepared kernel does not read.
  const std::vector<std::size_t>& packed_inputs() const { return packed_; }

 private:
  bool is_hidden(const Tensor& constant) const {
    return constant.defined() && is_float(constant.dtype()) && constant.byte_size() > most_bytes_;
  }
  const Slot* find(const std::vector<std::size_t>& indices, std::size_t index) const {
    const bool is_there = index < indices.size() && indices[index] != no_slot;
    return is_there ? &plan_.slots[indices[index]] : nullptr;
  }
  const Type* type(const std::vector<std::size_t>& indices, std::size_t index) const {
    const Slot* slot = find(indices, index);
    if (!slot) return nullptr;
    return step_.is_layout_blind ? &slot->stored_type() : &slot->type;
  }

  const GraphPlan& plan_;
  const PlanStep& step_;
  int threads_;
  std::size_t most_bytes_;
  mutable std::vector<std::size_t> packed_;
};

}  // namespace onnxpress
