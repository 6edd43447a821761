"""What random models are made of: convolutions, products, movement of data, shape computations. More is in random_motifs_composed.py."""

import numpy as np
from random_graphs import Unsuitable

MOTIFS = {}


def motif(weight):
    """Registers a function of the builder that adds a piece to the model, or raises Unsuitable."""

    def register(function):
        MOTIFS[function] = weight
        return function

    return register


# Elementwise


def activate(b, x):
    kind = b.choose("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", "Abs", "Neg", "Erf", "Clip", "PRelu",
                    "HardSwish", "Mish", "Gelu", "ThresholdedRelu", "Selu", "Celu", "Softsign", "Identity", "Dropout", "Sqrt", "Exp")  # fmt: skip
    if {"ThresholdedRelu": 10, "HardSwish": 14, "Mish": 18, "Gelu": 20, "Celu": 12}.get(kind, 0) > b.opset:
        raise Unsuitable
    if kind == "Clip":
        low, high = b.choose((0.0, 6.0), (-1.0, 1.0), (None, 0.5), (-0.5, None), (None, None), (0.0, None), (0.25, 0.25))
        return b.clip(x, low, high)
    if kind == "PRelu":
        return b.op(kind, [x, b.weight(*b.choose((1,), x.shape[1:], (x.shape[1],) + (1,) * (x.rank - 2) if x.rank > 1 else (1,)), scale=0.5)])
    if kind == "Sqrt":
        return b.op("Sqrt", [b.op("Abs", [x])])
    if kind == "Exp":
        return b.op("Exp", [b.clip(x, -3.0, 1.0)])
    attributes = {"LeakyRelu": {"alpha": b.choose(0.01, 0.2, 1.5)}, "HardSigmoid": {"alpha": b.choose(0.2, 1 / 6), "beta": 0.5},
                  "Gelu": {"approximate": b.choose("none", "tanh")}}  # fmt: skip
    return b.op(kind, [x], **attributes.get(kind, {}))


@motif(6)
def activation(b):
    b.add(activate(b, b.pick()))


@motif(2)
def activations_in_a_row(b):
    x = b.pick()
    kinds = b.choose(("Relu", "Relu"), ("Neg", "Neg"), ("Abs", "Abs"), ("Relu", "Abs"), ("Sigmoid", "Relu"), ("Relu", "Clip"), ("Clip", "Relu"),
                     ("Clip", "Clip"), ("Identity", "Identity"), ("Neg", "Abs"), ("Exp", "Log"), ("Sqrt", "Reciprocal"))  # fmt: skip
    if kinds[0] in ("Exp", "Sqrt"):
        x = b.op("Add", [b.op("Sigmoid", [x]), b.scalar(0.5)])
    for kind in kinds:
        x = b.clip(x, b.choose(-1.0, 0.0), b.choose(0.5, 6.0)) if kind == "Clip" else b.op(kind, [x])
    b.add(x)


def constant_beside(b, x, value=None):
    """A constant that broadcasts to x (or makes it larger by ones)."""
    shape = b.choose((), (1,), x.shape[-1:], (1,) * x.rank, x.shape[1:], (1, *x.shape[1:2], *(1,) * (x.rank - 2)), (1,) * (x.rank + 1))
    if x.rank > 2 and b.chance(0.4):
        shape = (x.shape[1],) + (1,) * (x.rank - 2)
    array = np.full(shape, value, np.float32) if value is not None else b.numbers.standard_normal(shape) * 0.5 + 0.8
    return b.constant(array, np.float32)


def in_any_order(b, x, y):
    return [x, y] if b.chance(0.6) else [y, x]


@motif(6)
def arithmetic_with_constant(b):
    x = b.pick()
    for _ in range(b.choose(1, 1, 2, 3)):
        operator = b.choose("Add", "Mul", "Sub", "Div", "Add", "Mul", "Max", "Min")
        other = constant_beside(b, x)
        if operator == "Div":
            other = constant_beside(b, x, b.choose(0.5, 2.0, 3.0))
        x = b.op(operator, [x, other] if operator == "Div" else in_any_order(b, x, other))
    b.add(x)


@motif(3)
def arithmetic_without_effect(b):
    x = b.pick()
    operator, value = b.choose(("Add", 0.0), ("Mul", 1.0), ("Sub", 0.0), ("Div", 1.0), ("Pow", 1.0), ("Pow", 2.0), ("Add", -0.0), ("Mul", 0.0), ("Mul", -1.0))
    if operator == "Pow":
        b.add(b.op(operator, [x, b.scalar(value)]))
    else:
        commutes = operator in ("Add", "Mul")
        other = constant_beside(b, x, value)
        b.add(b.op(operator, in_any_order(b, x, other) if commutes else [x, other]))


@motif(4)
def combine(b):
    x = b.pick()
    y = b.pick(lambda value: value.rank == x.rank and all(p == q or q == 1 for p, q in zip(x.shape, value.shape)))
    z = b.op(b.choose("Add", "Add", "Add", "Mul", "Sub", "Max"), in_any_order(b, x, y))
    b.add(activate(b, z) if b.chance(0.3) else z)


@motif(1)
def variadic(b):
    x = b.pick()
    same = [value for value in b.pool if value.dtype == x.dtype and value.shape == x.shape]
    b.add(b.op(b.choose("Sum", "Max", "Min", "Mean"), [b.rng.choice(same) for _ in range(b.choose(1, 2, 3))]))


# Convolutions and products


def batch_norm(b, x):
    channels = x.shape[1]
    variance = b.constant(np.abs(b.numbers.standard_normal(channels)) + 0.3, np.float32)
    return b.op("BatchNormalization", [x, b.weight(channels, scale=1.0), b.weight(channels), b.weight(channels), variance],
                epsilon=b.choose(1e-5, 1e-3))  # fmt: skip


def per_channel(b, x, operator):
    shape = b.choose((1, x.shape[1]), (x.shape[1],)) + (1,) * (x.rank - 2)
    return b.op(operator, in_any_order(b, x, b.weight(*shape, scale=1.0)) if operator in ("Add", "Mul") else [x, b.weight(*shape, scale=1.0)])


def convolve(b, x):
    dims = x.rank - 2
    channels = x.shape[1]
    kind = b.choose("plain", "plain", "plain", "depthwise", "grouped", "pointwise", "transposed", "same")
    kernel = [1] * dims if kind == "pointwise" else [b.choose(1, 2, 3, 3) for _ in range(dims)]
    strides = [b.choose(1, 1, 1, 2) for _ in range(dims)]
    group = {"depthwise": channels, "grouped": 2}.get(kind, 1)
    if channels % group:
        raise Unsuitable
    out = group * b.choose(1, 2, 3, 4)
    bias = [b.weight(out)] if b.chance(0.5) else []
    if kind == "transposed":
        pads = [b.choose(0, 0, 1) if size > 1 else 0 for size in kernel]
        return b.op("ConvTranspose", [x, b.weight(channels, out, *kernel), *bias], kernel_shape=kernel, strides=strides, pads=pads + pads)
    pads = [b.choose(0, size // 2) for size in kernel]
    placed = {"auto_pad": b.choose("SAME_UPPER", "SAME_LOWER", "VALID")} if kind == "same" else {"pads": pads + pads}
    return b.op("Conv", [x, b.weight(out, channels // group, *kernel), *bias], kernel_shape=kernel, strides=strides, group=group, **placed)


@motif(9)
def convolution(b):
    x = b.pick(lambda value: value.rank in (3, 4, 5) and min(value.shape) > 0)
    if b.chance(0.2):
        x = b.pad(x, [0, 0, *(b.choose(0, 1) for _ in range(2 * (x.rank - 2)))][: x.rank] * 2, value=b.choose(None, 0.0, 0.5))
    x = convolve(b, x)
    for _ in range(b.choose(0, 1, 1, 2)):
        x = b.rng.choice([lambda: batch_norm(b, x), lambda: per_channel(b, x, "Mul"), lambda: per_channel(b, x, "Add"), lambda: convolve(b, x)])()
        if b.chance(0.1):
            b.add(x)
    b.add(activate(b, x) if b.chance(0.5) else x)


@motif(2)
def residual_block(b):
    x = b.pick(lambda value: value.rank in (3, 4) and min(value.shape) > 0)
    channels, dims = x.shape[1], x.rank - 2
    y = x
    for _ in range(b.choose(1, 2)):
        y = b.op("Conv", [y, b.weight(channels, channels, *[3] * dims)], pads=[1] * 2 * dims)
        y = b.op("Relu", [batch_norm(b, y)])
    b.add(b.op("Add", in_any_order(b, x, y)))


@motif(2)
def norm_before_convolution(b):
    x = b.pick(lambda value: value.rank in (3, 4) and min(value.shape) > 0)
    x = b.rng.choice([lambda: batch_norm(b, x), lambda: per_channel(b, x, "Mul"), lambda: per_channel(b, x, "Add")])()
    if b.chance(0.2):
        x = b.op("Relu", [x])
    b.add(convolve(b, x))


@motif(2)
def pooling(b):
    x = b.pick(lambda value: value.rank in (3, 4, 5) and min(value.shape[2:]) > 2)
    dims = x.rank - 2
    if b.chance(0.3):
        pads = [0, 0] + [b.choose(0, 1)] * dims
        x = b.pad(x, pads * 2)
    kind = b.choose("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
    if kind.startswith("Global"):
        b.add(b.op(kind, [x]))
        return
    pads = [b.choose(0, 1)] * dims
    extra = {"count_include_pad": b.choose(0, 1)} if kind == "AveragePool" else {}
    b.add(b.op(kind, [x], kernel_shape=[b.choose(2, 3)] * dims, strides=[b.choose(1, 2)] * dims, pads=pads * 2, **extra))


def linear(b, x, columns=None):
    """MatMul + Add, or Gemm, over the last axis."""
    rows, columns = x.shape[-1], columns or b.choose(1, 3, 4, 6, 8)
    if x.rank == 2 and b.chance(0.5):
        transposed = b.choose(0, 1)
        scales = b.choose({}, {}, {"alpha": 0.5}, {"beta": 2.0, "alpha": 1.5})
        bias = [b.weight(*b.choose((columns,), (1, columns), (1,), (x.shape[0], columns) if not b.dynamic else (columns,)))]
        if b.opset >= 11 and b.chance(0.3):
            bias = []
        weight = b.weight(columns, rows) if transposed else b.weight(rows, columns)
        return b.op("Gemm", [x, weight, *bias], transB=transposed or None, **scales)
    x = b.op("MatMul", [x, b.weight(rows, columns)])
    return b.op("Add", in_any_order(b, x, b.weight(columns))) if b.chance(0.7) else x


@motif(6)
def product(b):
    x = b.pick(lambda value: value.rank >= 2 and value.shape[-1] > 0)
    for _ in range(b.choose(1, 1, 2)):
        x = linear(b, x)
    for _ in range(b.choose(0, 0, 1, 2)):
        x = b.rng.choice([lambda: b.op("Mul", in_any_order(b, x, b.weight(x.shape[-1], scale=1.0))), lambda: b.op("Add", [x, b.weight(x.shape[-1])]),
                          lambda: b.op("Div", [x, b.scalar(2.0)]), lambda: batch_norm(b, x) if x.rank == 2 else activate(b, x)])()  # fmt: skip
    b.add(x)


@motif(2)
def parallel_products(b):
    x = b.pick(lambda value: value.rank >= 2 and value.shape[-1] > 0)
    columns = b.choose(4, 6)
    parts = [linear(b, x, columns) for _ in range(b.choose(2, 3))]
    kind = b.choose("apart", "sum", "concat", "attention")
    if kind == "sum":
        b.add(b.op("Add", parts[:2]))
    elif kind == "concat":
        b.add(b.op("Concat", parts, axis=-1 if b.opset >= 11 else x.rank - 1))
    elif kind == "attention" and x.rank == 3:
        keys = b.op("Transpose", [parts[-1]], perm=[0, 2, 1])
        scores = b.op("Div", [b.op("MatMul", [parts[0], keys]), b.scalar(2.0)])
        b.add(b.op("MatMul", [b.op("Softmax", [scores], axis=-1 if b.opset >= 11 else 2), parts[1]]))
    else:
        b.add(*parts)


@motif(2)
def transposed_product(b):
    x = b.pick(lambda value: value.rank >= 2 and min(value.shape) > 0)
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    if b.dynamic and x.rank == 2:
        raise Unsuitable
    x = b.op("MatMul", [b.op("Transpose", [x], perm=order), b.weight(x.shape[-2], b.choose(2, 5))])
    b.add(b.op("Transpose", [x], perm=order) if b.chance(0.5) else x)


# Movement


def permutation(b, rank):
    order = list(range(rank))
    b.rng.shuffle(order)
    return order


@motif(6)
def transposes(b):
    x = b.pick(lambda value: value.rank >= 2)
    order = permutation(b, x.rank)
    y = b.op("Transpose", [x], perm=order)
    middle = b.choose("nothing", "unary", "constant", "reduce", "softmax", "concat", "binary", "split", "slice", "pad")
    if middle == "unary":
        y = b.op(b.choose("Relu", "Sigmoid", "Neg", "Tanh"), [y])
    elif middle == "constant":
        y = b.op(b.choose("Add", "Mul"), in_any_order(b, y, constant_beside(b, y)))
    elif middle == "reduce":
        y = b.reduce(b.choose("ReduceMean", "ReduceSum", "ReduceMax"), y, [b.rng.randrange(y.rank)], 1)
    elif middle == "softmax" and b.opset >= 13:
        y = b.op("Softmax", [y], axis=b.choose(-1, 1))
    elif middle == "concat":
        y = b.op("Concat", [y, b.op("Transpose", [x], perm=order)], axis=b.rng.randrange(y.rank))
    elif middle == "binary":
        y = b.op("Add", [y, b.op("Transpose", [b.op("Sigmoid", [x])], perm=order)])
    elif middle == "split":
        even = [axis for axis, size in enumerate(y.shape) if size % 2 == 0 and order[axis] > 0]
        if even:
            axis = b.rng.choice(even)
            parts = b.split(y, [y.shape[axis] // 2] * 2, axis)
            y = b.op("Concat", [parts[1], b.op("Relu", [parts[0]])], axis=axis)
    elif middle == "slice":
        wide = [axis for axis, size in enumerate(y.shape) if size > 1 and order[axis] > 0]
        if wide:
            y = b.slice(y, [0], [1], [b.rng.choice(wide)])
    elif middle == "pad":
        y = b.pad(y, [0] * y.rank + [b.choose(0, 1)] * y.rank) if not b.dynamic else y
    back = [order.index(axis) for axis in range(x.rank)]
    if b.chance(0.8):
        y = b.op("Transpose", [y], perm=back if b.chance(0.7) else permutation(b, x.rank))
    b.add(y)


@motif(4)
def reshapes(b):
    x = b.pick(lambda value: value.rank >= 1 and value.size > 0)
    for _ in range(b.choose(1, 2, 3)):
        kind = b.choose("flat", "zero", "unsqueeze", "flatten", "same", "split", "squeeze")
        if kind == "flat":
            x = b.reshape(x, [-1] if not b.dynamic else [0, -1])
        elif kind == "zero" and x.rank >= 2:
            x = b.reshape(x, [0, -1])
        elif kind == "unsqueeze" and x.rank < 5:
            axis = b.rng.randrange(x.rank + 1)
            x = b.unsqueeze(x, [axis])
            if b.chance(0.5):
                x = b.squeeze(x, [axis])
        elif kind == "flatten" and x.rank >= 2:
            x = b.op("Flatten", [x], axis=1)
        elif kind == "same" and not b.dynamic:
            x = b.reshape(x, list(x.shape))
        elif kind == "split" and x.rank >= 2 and x.shape[1] % 2 == 0 and x.rank < 5:
            x = b.reshape(x, [0, 2, x.shape[1] // 2, *x.shape[2:]])
        elif kind == "squeeze" and 1 in x.shape[1:]:
            x = b.squeeze(x, [x.shape.index(1, 1)])
    b.add(x)


@motif(5)
def computed_reshape(b):
    """Reshape to dims that Shape, Gather, Concat and arithmetic on them give."""
    x = b.pick(lambda value: value.rank >= 2 and value.size > 0)
    shape = b.op("Shape", [x])

    def dim(axis):
        if b.chance(0.5):
            return b.slice(shape, [axis], [axis + 1], [0])
        one = b.op("Gather", [shape, b.constant(np.array(axis, np.int64))], axis=0)
        return b.unsqueeze(one, [0])

    kind = b.choose("flatten", "heads", "same", "product", "cast")
    if kind == "flatten":
        parts, out = [dim(0), b.integers([-1])], (x.shape[0], x.size // x.shape[0])
    elif kind == "heads" and x.shape[-1] % 2 == 0 and x.rank < 5:
        parts = [*(dim(axis) for axis in range(x.rank - 1)), b.integers([2]), b.integers([x.shape[-1] // 2])]
        out = (*x.shape[:-1], 2, x.shape[-1] // 2)
    elif kind == "same":
        parts, out = [dim(axis) for axis in range(x.rank)], x.shape
    elif kind == "product" and x.rank >= 3:
        parts = [dim(0), b.op("Mul", [dim(1), dim(2)]), *(dim(axis) for axis in range(3, x.rank))]
        out = (x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])
    else:
        parts, out = [b.cast(b.cast(dim(0), "float32"), "int64"), b.integers([-1])], (x.shape[0], x.size // x.shape[0])
    y = b.op("Reshape", [x, b.op("Concat", parts, axis=0, shape=(len(parts),), dtype="int64")], shape=out)
    b.add(b.op("Transpose", [y], perm=permutation(b, y.rank)) if b.chance(0.3) else y)


@motif(4)
def slices(b):
    x = b.pick(lambda value: any(size > 2 for size in value.shape[1:]))
    axis = b.rng.choice([axis for axis, size in enumerate(x.shape) if axis and size > 2])
    size = x.shape[axis]
    kind = b.choose("none", "chain", "parts", "reverse", "steps", "empty", "gather")
    whole = b.choose(size, 2**31 - 1, 2**63 - 1)
    if kind == "none":
        x = b.slice(x, [0], [whole], [axis])
    elif kind == "chain":
        x = b.slice(b.slice(x, [1], [whole], [axis]), [0], [b.choose(-1, 1)], [axis if b.opset < 10 or b.chance(0.5) else axis - x.rank])
    elif kind == "parts":
        cut = b.rng.randrange(1, size)
        x = b.op("Concat", [b.slice(x, [0], [cut], [axis]), b.slice(x, [cut], [whole], [axis])], axis=axis)
    elif kind == "reverse":
        x = b.slice(b.slice(x, [-1], [-(2**31)], [axis], [-1]), [-1], [-(2**31)], [axis], [-1])
    elif kind == "steps":
        x = b.slice(x, [0], [whole], [axis], [2])
    elif kind == "empty":
        x = b.op("Concat", [x, b.slice(x, [1], [1], [axis])], axis=axis)
    else:
        x = b.op("Gather", [x, b.rng.choice([lambda: b.integers([0, size - 1]), lambda: b.constant(np.array(1, np.int64)), lambda: b.integers(range(size))])()],
                 axis=axis)  # fmt: skip
    b.add(x)


@motif(3)
def splits(b):
    x = b.pick(lambda value: any(size > 1 for size in value.shape[1:]))
    axis = b.rng.choice([axis for axis, size in enumerate(x.shape) if axis and size > 1])
    cut = b.rng.randrange(1, x.shape[axis])
    parts = b.split(x, [cut, x.shape[axis] - cut], axis)
    kind = b.choose("back", "swap", "one", "all", "work")
    if kind == "back":
        b.add(b.op("Concat", parts, axis=axis))
    elif kind == "swap":
        b.add(b.op("Concat", parts[::-1], axis=axis))
    elif kind == "work":
        b.add(b.op("Concat", [activate(b, parts[0]), parts[1]], axis=axis))
    else:
        b.add(*(parts if kind == "all" else parts[:1]))


@motif(3)
def concats(b):
    x = b.pick(lambda value: value.rank >= 2)
    axis = b.rng.randrange(1, x.rank)
    y = b.op("Concat", [x] * b.choose(1, 2), axis=axis)
    if b.chance(0.6):
        y = b.op("Concat", in_any_order(b, y, activate(b, x)), axis=axis)
    b.add(y)


@motif(2)
def parts_of_concats(b):
    x = b.pick(lambda value: value.rank >= 2)
    axis = b.rng.randrange(1, x.rank)
    size = x.shape[axis]
    y = b.op("Concat", [activate(b, x), x], axis=axis)
    kind = b.choose("slices", "split", "pieces", "across")
    if kind == "split":
        b.add(*b.split(y, [size, size], axis))
    else:
        first, second = {"slices": (size, 0), "pieces": (max(1, size - 1), min(1, size - 1)), "across": (size + 1, 0)}[kind]
        b.add(b.slice(y, [0], [first], [axis]), b.slice(y, [size + second], [2**31 - 1], [axis]))


@motif(2)
def pads(b):
    x = b.pick(lambda value: value.rank >= 2)
    for _ in range(b.choose(1, 2)):
        amounts = [0] + [b.choose(0, 0, 1) for _ in range(x.rank - 1)]
        after = [0] + [b.choose(0, 1) for _ in range(x.rank - 1)]
        mode = b.choose("constant", "constant", "edge")
        x = b.pad(x, amounts + after, mode, b.choose(None, 0.0, 0.5) if mode == "constant" else None)
    b.add(x)


@motif(2)
def broadcasts(b):
    x = b.pick(lambda value: value.rank >= 2 and value.size < 500)
    kind = b.choose("expand", "expand none", "tile", "tile none", "shape")
    if kind == "expand":
        b.add(b.op("Expand", [b.unsqueeze(x, [1]), b.integers([1, 3] + [1] * (x.rank - 1))]))
    elif kind == "expand none":
        b.add(b.op("Expand", [x, b.integers(b.choose([1], [1] * x.rank, list(x.shape[1:])))]))
    elif kind == "tile":
        b.add(b.op("Tile", [x, b.integers([1] * (x.rank - 1) + [2])]))
    elif kind == "tile none":
        b.add(b.op("Tile", [x, b.integers([1] * x.rank)]))
    else:
        b.add(b.op("Mul", [x, b.op("Expand", [b.scalar(1.5), b.op("Shape", [x])], shape=x.shape, dtype="float32")]))


@motif(3)
def casts(b):
    x = b.pick()
    chain = b.choose(("float32",), ("float64", "float32"), ("float64", "float64", "float32"), ("float32", "float32"), ("float16", "float32"))
    for dtype in chain:
        x = b.cast(x, dtype)
    b.add(x)


@motif(3)
def reductions(b):
    x = b.pick(lambda value: value.rank >= 2 and min(value.shape) > 0)
    axes = sorted(b.rng.sample(range(1, x.rank), b.rng.randrange(1, x.rank)))
    y = b.reduce(b.choose("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"), x, axes, b.choose(0, 1))
    if y.rank == x.rank and b.chance(0.5):
        y = b.op(b.choose("Sub", "Mul"), [x, y])
    elif b.chance(0.4):
        y = b.unsqueeze(y, axes) if y.rank < x.rank else b.squeeze(y, axes)
    b.add(y)


@motif(2)
def integer_input(b):
    x = b.pick(lambda value: value.moved, dtype="int64")
    kind = b.choose("lookup", "onehot", "cast", "where", "equal")
    if kind == "lookup":
        b.add(b.op("Gather", [b.weight(4, 6), x]))
    elif kind == "onehot":
        b.add(b.op("OneHot", [x, b.integers([4]), b.constant(np.array([0, 1], np.float32))], shape=(*x.shape, 4), dtype="float32"))
    elif kind == "cast":
        b.add(b.cast(b.cast(x, b.choose("int32", "int64")), "float32"))
    elif kind == "where":
        b.add(b.op("Where", [b.op("Less", [x, b.integers([2])]), b.constant(np.array(b.choose([0.0], [1.0]), np.float32)), b.scalar(-3.0)]))
    else:
        b.add(b.cast(b.op("Equal", [x, b.integers([1])]), "float32"))


@motif(1)
def comparison(b):
    x = b.pick(lambda value: value.moved)
    mask = b.op(b.choose("Less", "Greater"), [x, b.scalar(0.25)])
    if b.chance(0.4):
        mask = b.op("Not", [b.op("Not", [mask])] if b.chance(0.5) else [mask])
    y = b.pick(lambda value: value.shape == x.shape)
    b.add(b.op("Where", [mask, y, b.choose(x, y)]))


@motif(1)
def channel_shuffle(b):
    x = b.pick(lambda value: value.rank == 4 and value.shape[1] % 2 == 0)
    _, channels, height, width = x.shape
    y = b.op("Transpose", [b.reshape(x, [0, 2, channels // 2, height, width])], perm=[0, 2, 1, 3, 4])
    b.add(b.reshape(y, [0, channels, height, width]))


@motif(1)
def resizes(b):
    x = b.pick(lambda value: value.rank == 4 and 0 < value.size < 800)
    scales = b.constant(np.array([1, 1, *b.choose((1, 1), (2, 2), (1, 2))], np.float32))
    mode = b.choose("nearest", "linear")
    if b.opset == 9:
        b.add(b.op("Upsample", [x, scales], mode=mode))
    elif b.opset == 10:
        b.add(b.op("Resize", [x, scales], mode=mode))
    else:
        b.add(b.op("Resize", [x, None if b.opset >= 13 else b.constant(np.array([], np.float32)), scales], mode=mode,
                   coordinate_transformation_mode="asymmetric", nearest_mode="floor" if mode == "nearest" else None))  # fmt: skip


import random_motifs_composed  # noqa: E402, F401 (registers more)
