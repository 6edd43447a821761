"""More of what random models are made of: operators written out, repeated work, constants, control flow, functions."""

import numpy as np
from onnx import TensorProto, helper
from random_graphs import BATCH, Unsuitable, Value
from random_motifs import activate, in_any_order, linear, motif


def last_axis(b, x):
    return -1 if b.opset >= 11 else x.rank - 1


# Operators written out


@motif(4)
def written_activation(b):
    x = b.pick()
    kind = b.choose("gelu", "gelu half first", "gelu tanh", "swish", "hard swish", "hard sigmoid", "mish", "softplus", "sigmoid", "relu", "quick gelu")
    mul = lambda p, q: b.op("Mul", in_any_order(b, p, q))  # noqa: E731
    add = lambda p, q: b.op("Add", in_any_order(b, p, q))  # noqa: E731
    if kind.startswith("gelu tanh"):
        cube = b.op("Pow", [x, b.scalar(3.0)]) if b.chance(0.5) else mul(mul(x, x), x)
        inner = mul(add(x, mul(cube, b.scalar(0.044715))), b.scalar(0.7978845608))
        y = mul(mul(x, b.scalar(0.5)), add(b.op("Tanh", [inner]), b.scalar(1.0)))
    elif kind.startswith("gelu"):
        scaled = b.op("Div", [x, b.scalar(np.sqrt(2.0))]) if b.chance(0.6) else mul(x, b.scalar(np.sqrt(0.5)))
        one = add(b.op("Erf", [scaled]), b.scalar(1.0))
        y = mul(mul(x, b.scalar(0.5)), one) if kind == "gelu half first" else mul(mul(x, one), b.scalar(0.5))
    elif kind == "swish":
        y = mul(x, b.op("Sigmoid", [x]))
    elif kind == "quick gelu":
        y = mul(x, b.op("Sigmoid", [mul(x, b.scalar(1.702))]))
    elif kind in ("hard swish", "hard sigmoid"):
        gate = b.clip(add(x, b.scalar(3.0)), 0.0, b.choose(6.0, 6.0, 5.0))
        if kind == "hard swish" and b.chance(0.5):
            y = b.op("Div", [mul(x, gate), b.scalar(6.0)])
        else:
            gate = b.op("Div", [gate, b.scalar(6.0)])
            y = mul(x, gate) if kind == "hard swish" else gate
    elif kind == "mish":
        y = mul(x, b.op("Tanh", [b.op("Softplus", [x])]))
    elif kind == "softplus":
        y = b.op("Log", [add(b.op("Exp", [b.clip(x, -20.0, 20.0)]), b.scalar(1.0))])
    elif kind == "sigmoid":
        y = b.op("Div" if b.chance(0.5) else "Div", [b.scalar(1.0), add(b.op("Exp", [b.op("Neg", [b.clip(x, -20.0, 20.0)])]), b.scalar(1.0))])
    else:
        y = b.op("Max", [x, b.scalar(0.0)])
    b.add(y)


@motif(4)
def written_normalization(b):
    x = b.pick(lambda value: value.rank >= 2 and value.shape[-1] > 1 and min(value.shape) > 0)
    axes = b.choose([x.rank - 1], [x.rank - 1], [-1] if b.opset >= 11 else [x.rank - 1], list(range(2, x.rank)) or [x.rank - 1])
    width = x.shape[axes[0]] if len(axes) == 1 else None
    epsilon = b.scalar(b.choose(1e-5, 1e-3, 1e-2))
    root_mean_square = b.chance(0.3)
    centred = x if root_mean_square else b.op("Sub", [x, b.reduce("ReduceMean", x, axes)])
    if b.chance(0.1):
        b.add(centred)
    again = centred if root_mean_square or b.chance(0.8) else b.op("Sub", [x, b.reduce("ReduceMean", x, axes)])
    square = b.op("Pow", [again, b.scalar(2.0)]) if b.chance(0.6) else b.op("Mul", [again, again])
    deviation = b.op("Sqrt", [b.op("Add", in_any_order(b, b.reduce("ReduceMean", square, axes), epsilon))])
    if b.chance(0.7):
        y = b.op("Div", [centred, deviation])
    else:
        inverse = b.op("Reciprocal", [deviation]) if b.chance(0.5) else b.op("Div", [b.scalar(1.0), deviation])
        y = b.op("Mul", in_any_order(b, centred, inverse))
    if width and b.chance(0.8):
        y = b.op("Mul", in_any_order(b, y, b.weight(width, scale=1.0)))
    if width and b.chance(0.8):
        y = b.op("Add", in_any_order(b, y, b.weight(width)))
    b.add(y)


@motif(2)
def written_softmax(b):
    x = b.pick(lambda value: value.rank >= 2 and value.shape[-1] > 1)
    axis = [b.rng.randrange(1, x.rank)]
    if b.chance(0.7):
        x = b.op("Sub", [x, b.reduce("ReduceMax", x, axis)])
    else:
        x = b.clip(x, -4.0, 4.0)
    e = b.op("Exp", [x])
    y = b.op("Div", [e, b.reduce("ReduceSum", e, axis)])
    b.add(b.op("Log", [y]) if b.chance(0.2) else y)


@motif(2)
def written_l2_norm(b):
    x = b.pick(lambda value: value.rank >= 2 and value.shape[-1] > 1)
    axes = [b.rng.randrange(1, x.rank)]
    if b.chance(0.5):
        length = b.reduce("ReduceL2", x, axes)
    else:
        length = b.op("Sqrt", [b.reduce("ReduceSum", b.op("Mul", [x, x]), axes)])
    if b.chance(0.7):
        length = b.clip(length, b.choose(1e-12, 1e-2), None) if b.chance(0.5) else b.op("Max", [length, b.scalar(1e-6)])
    else:
        length = b.op("Add", [length, b.scalar(1e-3)])
    if b.chance(0.4):
        length = b.op("Expand", [length, b.op("Shape", [x])], shape=x.shape)
    b.add(b.op("Div", [x, length]))


@motif(2)
def normalization(b):
    x = b.pick(lambda value: value.rank >= 2 and min(value.shape) > 0)
    kind = b.choose("softmax", "log softmax", "layer", "instance", "residual layer")
    if kind.endswith("softmax"):
        b.add(b.op("LogSoftmax" if kind.startswith("log") else "Softmax", [x], axis=b.choose(1, x.rank - 1)))
    elif kind.endswith("layer") and b.opset >= 17:
        if kind == "residual layer":
            x = b.op("Add", [x, activate(b, x)])
        width = x.shape[-1]
        b.add(b.op("LayerNormalization", [x, b.weight(width, scale=1.0), *([b.weight(width)] if b.chance(0.8) else [])], axis=-1, epsilon=1e-3))
    elif x.rank >= 3:
        channels = x.shape[1]
        y = b.op("InstanceNormalization", [x, b.weight(channels, scale=1.0), b.weight(channels)], epsilon=1e-3)
        b.add(y)


@motif(1)
def written_group_norm(b):
    x = b.pick(lambda value: value.rank == 4 and value.shape[1] % 2 == 0 and min(value.shape) > 0)
    _, channels, height, width = x.shape
    y = b.reshape(x, [0, 2, -1])
    y = b.op("InstanceNormalization", [y, b.constant(np.ones(2, np.float32)), b.constant(np.zeros(2, np.float32))], epsilon=1e-3)
    y = b.reshape(y, [0, channels, height, width])
    b.add(b.op("Add", [b.op("Mul", [y, b.weight(channels, 1, 1, scale=1.0)]), b.weight(channels, 1, 1)]))


# Repeated work and constants


@motif(4)
def repeated_node(b):
    """The same work twice, with the same constants or with equal ones."""
    x = b.pick(lambda value: value.rank >= 2 and value.shape[-1] > 0)
    array = b.numbers.standard_normal((x.shape[-1], 3)).astype(np.float32)
    first = b.op("MatMul", [x, b.constant(array)])
    other = b.constant(array)
    if b.chance(0.3):  # the tensor and its transpose
        other = b.op("Transpose", [b.constant(array.T)], perm=[1, 0])
    second = b.op("MatMul", [x, other])
    kind = b.choose("add", "concat", "apart")
    if kind == "add":
        b.add(b.op("Add", [activate(b, first), second]))
    elif kind == "concat":
        b.add(b.op("Concat", [first, second], axis=x.rank - 1))
    else:
        b.add(first, second)


@motif(2)
def repeated_unary(b):
    x = b.pick()
    operator = b.choose("Relu", "Sigmoid", "Tanh", "Exp", "Neg")
    x = b.clip(x, -3.0, 2.0) if operator == "Exp" else x
    first, second = b.op(operator, [x]), b.op(operator, [x])
    b.add(first, b.op("Mul", [first, second]))


@motif(3)
def constant_arithmetic(b):
    x = b.pick(lambda value: value.rank >= 1 and value.shape[-1] > 0)
    width = x.shape[-1]
    kind = b.choose("sum", "shape", "range", "large", "cast", "matmul")
    if kind == "sum":
        c = b.op("Add", [b.weight(width), b.op("Mul", [b.weight(1), b.scalar(2.0)])])
    elif kind == "shape":
        c = b.op("ConstantOfShape", [b.integers([width])], shape=(width,), dtype="float32",
                 value=helper.make_tensor("value", TensorProto.FLOAT, [1], [0.5]))  # fmt: skip
    elif kind == "range" and b.opset >= 11:
        c = b.cast(b.op("Range", [b.constant(np.array(v, np.int64)) for v in (0, width, 1)]), "float32")
    elif kind == "large":
        c = b.op("ConstantOfShape", [b.integers([600, width])], shape=(600, width), dtype="float32",
                 value=helper.make_tensor("value", TensorProto.FLOAT, [1], [0.25]))  # fmt: skip
        c = b.reduce("ReduceMean", c, [0], 0) if b.chance(0.5) else b.op("Gather", [c, b.constant(np.array(7, np.int64))])
    elif kind == "cast":
        c = b.cast(b.constant(np.arange(width), "int32"), "float32")
    else:
        c = b.squeeze(b.op("MatMul", [b.weight(1, 3), b.weight(3, width)]), [0])
    b.add(b.op(b.choose("Add", "Mul"), in_any_order(b, x, c)))


@motif(1)
def dequantized_weight(b):
    x = b.pick(lambda value: value.rank >= 2 and value.shape[-1] > 0)
    if b.opset < 10:
        raise Unsuitable
    raw = b.constant(b.numbers.integers(-20, 20, (x.shape[-1], 4)), np.int8)
    weight = b.op("DequantizeLinear", [raw, b.constant(np.float32(0.03)), b.constant(np.int8(1))])
    b.add(b.op("MatMul", [x, weight]))


# Control flow and functions


def within(b, x):
    """A few operators on x, with captured values now and then."""
    y = x
    for _ in range(b.choose(1, 1, 2, 3)):
        kind = b.choose("activate", "linear", "capture", "transpose", "identity", "add zero")
        if kind == "linear" and y.rank >= 2 and y.shape[-1] > 0:
            y = linear(b, y, y.shape[-1])
        elif kind == "capture":
            other = b.pick(lambda value: value.shape == y.shape)
            y = b.op("Add", [y, other])
        elif kind == "transpose" and y.rank >= 2:
            order = [*range(y.rank - 2), y.rank - 1, y.rank - 2]
            y = b.op("Transpose", [b.op("Transpose", [y], perm=order)], perm=order)
        elif kind == "identity":
            y = b.op("Identity", [y])
        elif kind == "add zero":
            y = b.op("Add", [y, b.scalar(0.0)]) if y.rank else y
        else:
            y = activate(b, y)
    return y if y is not x else b.op("Identity", [x])


@motif(4)
def conditional(b):
    x = b.pick(lambda value: value.size > 0)
    if b.depth > 1:
        raise Unsuitable
    if b.chance(0.4):
        condition = b.constant(np.array(b.choose(True, False)))
    elif b.chance(0.3):
        rank = b.op("Size", [b.op("Shape", [x])], shape=(), dtype="int64")
        condition = b.op("Equal", [rank, b.constant(np.array(x.rank, np.int64))])
    else:
        total = b.reduce("ReduceSum", b.pick(lambda value: value.moved and value.size > 0), None, 0)
        condition = b.op("Greater", [total, b.constant(np.float32(0.1))])
    nested = b.depth == 0 and b.chance(0.2)

    def branch():
        if nested and b.chance(0.5):
            conditional(b)
            inner = b.pool[-1]
            if inner.shape == x.shape and inner.name not in b.feeds:
                return [inner]
        return [within(b, x)]

    bodies = {"then_branch": b.body(branch, name="then"), "else_branch": b.body(branch, name="else")}
    b.add(b.op("If", [condition], shape=x.shape, dtype=x.dtype, **bodies))


@motif(2)
def loop(b):
    x = b.pick(lambda value: 0 < value.size < 500)
    if b.depth > 1:
        raise Unsuitable
    trips = b.constant(np.array(b.choose(0, 1, 1, 2, 3), np.int64))
    state = Value(b.name("s"), x.dtype, x.shape)
    step, going = Value(b.name("i"), "int64", ()), Value(b.name("g"), "bool", ())

    def build():
        y = within(b, state)
        return [b.op("Identity", [going]), b.op("Tanh", [y]) if b.chance(0.7) else y]

    body = b.body(build, [step, going, state])
    b.add(b.op("Loop", [trips, b.constant(np.array(True)) if b.chance(0.5) else None, x], shape=x.shape, dtype=x.dtype, body=body))


@motif(3)
def function_call(b):
    """A model-local function, called once or twice."""
    if b.depth:
        raise Unsuitable
    x = b.pick(lambda value: value.rank >= 2)
    name = b.name("Function")
    kind = b.choose("swish", "scale", "norm", "double transpose")
    node = helper.make_node
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    bodies = {
        "swish": [node("Sigmoid", ["p"], ["s"], name="a"), node("Mul", ["p", "s"], ["q"], name="b")],
        "scale": [node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.FLOAT, [], [1.5])), node("Mul", ["p", "c"], ["m"]),
                  node("Identity", ["m"], ["q"])],
        "norm": [node("Softmax", ["p"], ["m"], axis=x.rank - 1), node("Add", ["m", "p"], ["q"])],
        "double transpose": [node("Transpose", ["p"], ["m"], perm=order), node("Relu", ["m"], ["r"]), node("Transpose", ["r"], ["q"], perm=order)],
    }  # fmt: skip
    y = x
    for _ in range(b.choose(1, 2)):
        y = b.op(name, [y], shape=y.shape, domain="local")
        b.add(y)
    b.functions.append(helper.make_function("local", name, ["p"], ["q"], bodies[kind], [helper.make_opsetid("", b.opset)]))


# Sequences


@motif(1)
def recurrent(b):
    x = b.pick(lambda value: value.rank == 3 and value.shape[0] == BATCH and min(value.shape) > 0)
    kind, gates = b.choose(("LSTM", 4), ("GRU", 3))
    hidden, width = b.choose(2, 4), x.shape[2]
    sequence = b.op("Transpose", [x], perm=[1, 0, 2])
    inputs = [sequence, b.weight(1, gates * hidden, width), b.weight(1, gates * hidden, hidden), b.weight(1, 2 * gates * hidden)]
    if b.chance(0.6):
        rows = b.slice(b.op("Shape", [x]), [0], [1], [0])
        state = b.op("ConstantOfShape", [b.op("Concat", [b.integers([1]), rows, b.integers([hidden])], axis=0, shape=(3,), dtype="int64")],
                     shape=(1, BATCH, hidden), dtype="float32")  # fmt: skip
        inputs += [None, state] + ([state] if kind == "LSTM" else [])
    y = b.op(kind, inputs, outputs=2, hidden_size=hidden)
    b.add(b.op("Transpose", [b.squeeze(y[0], [1])], perm=[1, 0, 2]), b.squeeze(y[1], [0]))
