// Shape and type rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "graph/ir/model.h"
#include "graph/ir/type.h"

namespace onnxpress {

// What a shape rule sees and sets. Types of inputs may be partly or wholly unknown; a rule sets
// what follows from what is known and throws Error for contradictions ("expected 4 channels, found 3").
class InferContext {
 public:
  virtual ~InferContext() = default;

  virtual const Node& node() const = 0;
  // nullptr when omitted. Kind unknown when nothing is known.
  virtual const Type* input_type(std::size_t index) const = 0;
  // The input's contents when known: a constant, or the result of a shape computation whose
  // elements are all known. nullptr otherwise.
  virtual const Tensor* input_value(std::size_t index) const = 0;
  // The contents of a 0- or 1-D integer input as dims, some of which may be symbols or unknown.
  virtual std::optional<Shape> input_symbolic(std::size_t index) const = 0;

  virtual void set_output(std::size_t index, Type type) = 0;
  // Contents of an integer output known at inference time (shape computations); rank 0 or 1.
  virtual void set_output_symbolic(std::size_t index, Shape contents) = 0;

  // Conveniences over the above.
  DType input_dtype(std::size_t index) const;               // undefined when unknown
  const Shape* input_shape(std::size_t index) const;        // nullptr when rank unknown
  std::optional<Dims> input_dims(std::size_t index) const;  // when all are known
  void set_output(std::size_t index, DType type, Shape shape) {
    set_output(index, Type::tensor(type, std::move(shape)));
  }
};

// ONNX multidirectional broadcasting; throws Error when the shapes do not match.
Shape broadcast(const Shape& a, const Shape& b);
Dims broadcast(const Dims& a, const Dims& b);
// `axis` in [-rank, rank) made non-negative; throws Error naming both otherwise.
std::int64_t normalize_axis(std::int64_t axis, std::size_t rank);

// Fills in types of all values of the model (subgraphs and functions included) from declared
// inputs, initializers and the rules; what no rule covers keeps its declared type. Throws Error
// (with the node's context) when a rule finds a contradiction. Returns values left without a shape.
std::size_t infer_types(Model& model);

}  // namespace onnxpress
