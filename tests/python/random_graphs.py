"""Random models for property tests: the builder. What it builds is in random_motifs*.py.

`generate(seed)` gives a model that ONNX Runtime runs, with its inputs. The same seed gives the same model.
"""

import contextlib
import dataclasses
import random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSIONS = {9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10}
OPSETS = tuple(IR_VERSIONS)
MOST_ELEMENTS = 6000
BATCH = 2
OTHER_BATCH = 3


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the model under construction; `shape` is what it has for a batch of BATCH."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    moved: bool = False
    """Elements of inputs and constants, only moved: what a comparison may read without turning a last bit into a difference."""

    @property
    def rank(self):
        return len(self.shape)

    @property
    def size(self):
        return int(np.prod(self.shape))


class Unsuitable(Exception):
    """A motif found no value that it can work on."""


def element_type(dtype):
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class Builder:
    """Nodes, initializers and the pool of values that motifs choose from."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.opset = self.rng.choice(OPSETS)
        self.dynamic = self.rng.random() < 0.4
        self.nodes, self.initializers, self.arrays = [], [], {}
        self.inputs, self.feeds, self.functions = [], {}, []
        self.pool, self.count, self.depth = [], 0, 0

    # Choices

    def chance(self, probability):
        return self.rng.random() < probability

    def choose(self, *options):
        return self.rng.choice(options)

    def pick(self, condition=lambda value: True, dtype="float32"):
        """A value of the pool, newer ones more often."""
        found = [value for value in self.pool if value.dtype == dtype and condition(value)]
        if not found:
            raise Unsuitable
        return found[max(self.rng.randrange(len(found)), self.rng.randrange(len(found)))]

    # Making values

    def name(self, stem):
        self.count += 1
        return f"{stem}{self.count}"

    def input(self, shape, dtype="float32", low=0, high=None):
        name = self.name("x")
        if high is not None:
            array = self.numbers.integers(low, high, shape).astype(dtype)
        else:
            array = self.numbers.standard_normal(shape).astype(dtype)
        declared = ["N", *shape[1:]] if self.dynamic and shape and shape[0] == BATCH else list(shape)
        self.inputs.append(helper.make_tensor_value_info(name, element_type(dtype), declared))
        self.feeds[name] = array
        self.pool.append(Value(name, dtype, tuple(shape), moved=True))
        return self.pool[-1]

    def constant(self, array, dtype=None):
        """An initializer of the graph or of the body under construction, or a Constant node; now and then one that is there."""
        array = np.ascontiguousarray(array, dtype=dtype).reshape(np.shape(array))
        if self.chance(0.3):
            for name, there in self.arrays.items():
                if there.dtype == array.dtype and there.shape == array.shape and np.array_equal(there, array):
                    return Value(name, str(array.dtype), array.shape, moved=True)
        name = self.name("c")
        if self.chance(0.25):
            self.nodes.append(helper.make_node("Constant", [], [name], name=self.name("n"), value=numpy_helper.from_array(array, name)))
        else:
            self.initializers.append(numpy_helper.from_array(array, name))
        self.arrays[name] = array
        return Value(name, str(array.dtype), array.shape, moved=True)

    def integers(self, values):
        return self.constant(np.array(values, np.int64))

    def scalar(self, value, dtype="float32"):
        return self.constant(np.array(value, dtype) if self.chance(0.7) else np.array([value], dtype))

    def weight(self, *shape, scale=None):
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        values = self.numbers.standard_normal(shape) * (1.2 / np.sqrt(max(fan, 1)) if scale is None else scale)
        return self.constant(values.astype(np.float32))

    def op(self, operator, inputs, outputs=1, shape=None, dtype=None, domain="", **attributes):
        """Adds a node. Its outputs' types are inferred, unless the only output's is given."""
        attributes = {key: value for key, value in attributes.items() if value is not None}
        names = [self.name("t") for _ in range(outputs)]
        node = helper.make_node(operator, ["" if value is None else value.name for value in inputs], names,
                                name=self.name("n"), domain=domain, **attributes)  # fmt: skip
        moved = operator in MOVES and all(value is None or value.moved for value in inputs)
        if shape is not None:
            made = [Value(names[0], dtype or inputs[0].dtype, tuple(shape), moved)]
        else:
            made = [Value(name, dtype, shape, moved) for name, (dtype, shape) in zip(names, self.infer(node, inputs))]
        if any(value.size > MOST_ELEMENTS or min(value.shape, default=0) < 0 for value in made):
            raise Unsuitable
        self.nodes.append(node)
        return made[0] if outputs == 1 else made

    def infer(self, node, inputs):
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        present = [value for value in inputs if value is not None]
        types = {value.name: helper.make_tensor_type_proto(element_type(value.dtype), value.shape) for value in present}
        data = {value.name: numpy_helper.from_array(self.arrays[value.name], value.name) for value in present if value.name in self.arrays}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR_VERSIONS[self.opset])
        except onnx.shape_inference.InferenceError as error:
            raise Unsuitable from error
        for name in node.output:
            tensor = found[name].tensor_type if name in found else TensorProto()
            if not isinstance(tensor, TensorProto) and tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                yield str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(dim.dim_value for dim in tensor.shape.dim)
            else:
                raise Unsuitable

    def add(self, *values):
        self.pool += values

    @contextlib.contextmanager
    def undo_on_failure(self):
        """A motif that fails half-way leaves nothing."""
        saved = len(self.nodes), len(self.initializers), len(self.pool), dict(self.arrays)
        outer = self.nodes, self.initializers
        try:
            yield
        except Unsuitable:
            self.nodes, self.initializers = outer
            del self.nodes[saved[0]:], self.initializers[saved[1]:], self.pool[saved[2]:]
            self.arrays = saved[3]
            raise

    def body(self, build, inputs=(), name="body"):
        """A subgraph: `build` is called with its nodes going there and returns its output values."""
        outer, pool, arrays = (self.nodes, self.initializers), list(self.pool), dict(self.arrays)
        self.nodes, self.initializers = [], []
        self.depth += 1
        self.pool += inputs
        results = build()
        nodes, initializers = self.nodes, self.initializers
        (self.nodes, self.initializers), self.pool, self.arrays = outer, pool, arrays
        self.depth -= 1
        return helper.make_graph(
            nodes, self.name(name),
            [helper.make_tensor_value_info(value.name, element_type(value.dtype), [None] * value.rank) for value in inputs],
            [helper.make_tensor_value_info(value.name, element_type(value.dtype), [None] * value.rank) for value in results], initializers)

    # Operators whose form depends on the opset

    def with_axes(self, operator, x, axes, since, **attributes):
        if axes is None or self.opset < since:
            return self.op(operator, [x], axes=axes, **attributes)
        return self.op(operator, [x, self.integers(axes)], **attributes)

    def squeeze(self, x, axes):
        return self.with_axes("Squeeze", x, axes, 13)

    def unsqueeze(self, x, axes):
        return self.with_axes("Unsqueeze", x, axes, 13)

    def reduce(self, operator, x, axes=None, keepdims=1):
        return self.with_axes(operator, x, axes, 13 if operator == "ReduceSum" else 18, keepdims=keepdims)

    def slice(self, x, starts, ends, axes, steps=None):
        if self.opset >= 10:
            inputs = [x, self.integers(starts), self.integers(ends), self.integers(axes)]
            return self.op("Slice", inputs + ([self.integers(steps)] if steps else []))
        if steps and set(steps) != {1}:
            raise Unsuitable
        return self.op("Slice", [x], starts=starts, ends=ends, axes=axes)

    def pad(self, x, pads, mode="constant", value=None):
        if self.opset >= 11:
            return self.op("Pad", [x, self.integers(pads)] + ([self.constant(np.float32(value))] if value is not None else []), mode=mode)
        return self.op("Pad", [x], pads=pads, mode=mode, value=value)

    def clip(self, x, low, high):
        if self.opset >= 11:
            bounds = [None if bound is None else self.constant(np.float32(bound)) for bound in (low, high)]
            return self.op("Clip", [x, *bounds])
        return self.op("Clip", [x], min=low, max=high)

    def split(self, x, sizes, axis):
        if self.opset >= 13:
            return self.op("Split", [x, self.integers(sizes)], outputs=len(sizes), axis=axis)
        return self.op("Split", [x], outputs=len(sizes), axis=axis, split=sizes)

    def reshape(self, x, dims):
        return self.op("Reshape", [x, self.integers(dims)])

    def cast(self, x, dtype):
        return self.op("Cast", [x], to=element_type(dtype))

    # The model

    def model(self):
        made = [value for value in self.pool if value.name not in self.feeds]
        if not made:
            raise Unsuitable
        chosen = {value.name: value for value in (made[-1], *self.rng.sample(made, min(len(made), self.choose(0, 1, 1, 2, 3))))}
        for tensor in self.initializers:
            if self.chance(0.01):
                array = numpy_helper.to_array(tensor)
                chosen[tensor.name] = Value(tensor.name, str(array.dtype), array.shape)
        outputs = []
        for value in chosen.values():
            known = value.name in self.arrays or (not self.dynamic and self.chance(0.6))
            declared = value.shape if known else [None] * value.rank
            outputs.append(helper.make_tensor_value_info(value.name, element_type(value.dtype), declared))
        inputs = list(self.inputs)
        if self.chance(0.1):  # the habit of IR 3: initializers that are inputs too
            inputs += [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in self.initializers]
        imports = [helper.make_opsetid("", self.opset)]
        if self.functions:
            imports.append(helper.make_opsetid("local", 1))
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.initializers)
        ir_version = max(IR_VERSIONS[self.opset], 8 if self.functions else 0)
        model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=self.functions)
        if self.chance(0.3):
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return model


MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Concat", "Split", "Identity", "Flatten", "Gather", "Expand", "Tile"}


def generate(seed, steps=(3, 6, 10, 16)):
    """(ModelProto, feeds). Raises Unsuitable for the few seeds that give nothing."""
    from random_motifs import MOTIFS  # noqa: PLC0415 (they need the builder)

    builder = Builder(seed)
    first = builder.choose((BATCH, 4, 6, 6), (BATCH, 3, 8), (BATCH, 6), (BATCH, 5, 8), (BATCH, 2, 4, 8), (BATCH, 4, 3, 4, 4), (BATCH, 8))
    builder.input(first)
    if builder.chance(0.5):
        builder.input(builder.choose(first, first[:1] + (1,) * (len(first) - 1), first, (BATCH, 6), (1,)))
    if builder.chance(0.25):
        builder.input((BATCH, 4), "int64", low=0, high=4)
    names, weights = zip(*MOTIFS.items())
    for _ in range(builder.choose(*steps)):
        for motif in builder.rng.choices(names, weights, k=8):
            try:
                with builder.undo_on_failure():
                    motif(builder)
                break
            except Unsuitable:
                continue
    return builder.model(), builder.feeds
