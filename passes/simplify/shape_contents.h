// What the elements of shape computations are: numbers, dims of tensors, and what is computed from
// these.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "graph/ops/infer.h"

namespace onnxpress {

// One element. Two with equal keys are equal whatever the model's inputs are.
struct ShapeElement {
  std::optional<std::int64_t> number;
  std::string key;
  // The dim it is, where it was read from a Shape; for elements whose key is a symbol too.
  const Value* of = nullptr;
  std::size_t axis = 0;
};

struct ShapeContents {
  std::size_t rank = 1;  // 0 (one element) or 1
  std::vector<ShapeElement> elements;

  bool all_numbers() const;
};

// Follows shape computations back to the tensors they come from, in the main graph and the graphs
// nested in it. The types must be those of the model's rules alone (use_declared = false), and
// they and the model must outlive this and stay as they are.
//
// A dim goes by its number, else by its symbol where the main graph's inputs declare that (symbols
// that inputs of nested graphs declare too may change from step to step, and say nothing), else by
// the tensor it was read from, through operators that keep it.
class ShapeTracer {
 public:
  ShapeTracer(const Model& model, const TypeInference& types);

  // Of an integer tensor of rank 0 or 1 with a known number of elements; nothing for others.
  const std::optional<ShapeContents>& contents(const Value* value) { return contents(value, 0); }
  // One dim of a tensor.
  ShapeElement dim(const Value* value, std::size_t axis) { return dim(value, axis, 0); }
  // Nothing when it is not known.
  std::optional<std::size_t> rank(const Value* value) const;

 private:
  const std::optional<ShapeContents>& contents(const Value* value, int depth);
  std::optional<ShapeContents> trace(const Value* value, int depth);
  std::optional<std::vector<ShapeElement>> follow(const Node& node, int depth);
  std::optional<std::vector<ShapeElement>> combine(const Node& node, int depth);
  std::optional<std::vector<ShapeElement>> choose(const Node& node, int depth);
  ShapeElement dim(const Value* value, std::size_t axis, int depth);

  const TypeInference& types_;
  std::set<std::string> symbols_;  // that mean one number throughout
  std::unordered_map<const Value*, std::optional<ShapeContents>> known_;
};

}  // namespace onnxpress
