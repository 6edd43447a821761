// Shape and type rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "graph/ir/model.h"
#include "graph/ir/type.h"

namespace onnxpress {

// What a shape rule sees and sets. Types of inputs may be partly or wholly unknown; a rule sets
// what follows from what is known and throws Error for contradictions ("expected 4 channels, found
// 3").
class InferContext {
 public:
  virtual ~InferContext() = default;

  virtual const Node& node() const = 0;
  // nullptr when omitted. Kind unknown when nothing is known.
  virtual const Type* input_type(std::size_t index) const = 0;
  // The input's contents when known: a constant, or the result of a shape computation whose
  // elements are all known. nullptr otherwise.
  virtual const Tensor* input_value(std::size_t index) const = 0;
  // The contents of a 0- or 1-D integer input as dims, some of which may be symbols or unknown
  // (negative numbers are unknown dims).
  virtual std::optional<Shape> input_symbolic(std::size_t index) const = 0;

  virtual void set_output(std::size_t index, Type type) = 0;
  // Contents of an integer output known at inference time (shape computations); rank 0 or 1. Call
  // after set_output, whose element type and rank it takes.
  virtual void set_output_symbolic(std::size_t index, Shape contents) = 0;
  // Contents of an output that are known as they are (Constant).
  virtual void set_output_value(std::size_t index, Tensor value) = 0;
  // Types of the outputs of the subgraph under `attribute` (If, Loop, Scan) when its inputs have
  // the given types; kind unknown stands for the declared type.
  virtual std::vector<Type> infer_subgraph(std::string_view attribute,
                                           std::span<const Type> inputs) = 0;

  // Conveniences over the above.
  bool has_input(std::size_t index) const { return input_type(index) != nullptr; }
  DType input_dtype(std::size_t index) const;               // undefined when unknown
  const Shape* input_shape(std::size_t index) const;        // nullptr when rank unknown
  std::optional<Dims> input_dims(std::size_t index) const;  // when all are known
  // Contents of a known integer input.
  std::optional<std::vector<std::int64_t>> input_ints(std::size_t index) const;
  void set_output(std::size_t index, DType type, Shape shape) {
    set_output(index, Type::tensor(type, std::move(shape)));
  }
  // With the shape where it is known.
  void set_output(std::size_t index, DType type, std::optional<Shape> shape) {
    set_output(index, Type{.kind = Type::Kind::tensor, .elem = type, .shape = std::move(shape)});
  }
};

// ONNX multidirectional broadcasting; throws Error when the shapes do not match. A dim that is not
// known against a number greater than 1 is that number.
Shape broadcast(const Shape& a, const Shape& b);
Dims broadcast(const Dims& a, const Dims& b);
// `axis` in [-rank, rank) made non-negative; throws Error naming both otherwise.
std::int64_t normalize_axis(std::int64_t axis, std::size_t rank);
// The same for each, sorted; throws Error when one is there twice.
std::vector<std::int64_t> normalize_axes(std::vector<std::int64_t> axes, std::size_t rank);
// `index` in [-size, size) made non-negative; throws Error otherwise.
std::int64_t checked_index(std::int64_t index, std::int64_t size);
// Same number or same symbol.
bool same_dim(const Dim& a, const Dim& b);
// What is known of a dim that both describe; throws Error naming `what` for two different numbers.
Dim unify(const Dim& a, const Dim& b, std::string_view what);
// Product where all are known, or the only factor that is not 1.
Dim product(std::span<const Dim> dims);

// Shape rules many families share.
void infer_same_as_first(InferContext& context);  // output 0 has the type of input 0
void infer_broadcast(InferContext& context);      // all inputs broadcast, element type of input 0

struct TypeInferenceOptions {
  // Types declared for interior values (value_info) fill in what no rule says. Without, only what
  // rules derive counts: for concrete input shapes that the declarations may not fit.
  bool use_declared = true;
  // Results of at most this many elements are computed with the reference kernels when all inputs
  // (at most as large) are known.
  std::int64_t value_limit = 1024;
};

// Propagates types, and contents of shape computations, through a model without changing it:
// main graph in node order, subgraphs with what they capture, function calls through their bodies.
// Values of subgraphs hold what the last visit found. The model must outlive it and stay as it is.
class TypeInference {
 public:
  explicit TypeInference(const Model& model, TypeInferenceOptions options = {});
  ~TypeInference();
  TypeInference(const TypeInference&) = delete;
  TypeInference& operator=(const TypeInference&) = delete;

  // Before run(): replaces the declared type of a graph input. Symbols of the declared type whose
  // dim is a number in `type` have that number throughout.
  void set_input(const Value* input, Type type);
  // Before run(): an input with known contents.
  void set_input_value(const Value* input, Tensor value);
  // Throws Error with the node's context when a rule finds a contradiction.
  void run();
  // The same for one subgraph of the model, its inputs and the values that it captures being set.
  void run(const Graph& subgraph);

  // After run(), for a model that is being edited: infers the outputs of a new node, or of one whose
  // inputs changed, from what is known of these. Values that read them keep what they have. Throws
  // Error as run() does.
  void update(const Node& node);
  // Drops what is known of a value that is gone or whose address is used anew.
  void forget(const Value* value);

  const Type& type(const Value* value) const;           // kind unknown when nothing is known
  const Tensor* known_value(const Value* value) const;  // constants included; nullptr: not known
  // Contents of a 0- or 1-D integer value as dims, when something of them is known.
  std::optional<Shape> symbolic(const Value* value) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Fills in types of all values of the model (subgraphs included) from declared inputs,
// initializers and the rules; what no rule covers keeps its declared type. Values inside functions
// have a type per call, hence none. Types of the main graph's inputs and outputs stay as
// declared. Throws Error (with the node's context) when a rule finds a contradiction.
// Returns values left without a shape.
std::size_t infer_types(Model& model);

}  // namespace onnxpress
