"""Small float models, one per way in which operators are put around codes, for test_quantize_static.py."""

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclasses.dataclass
class Family:
    """A model, and what ONNX Runtime's optimizer makes of it once it is quantized for ort-cpu."""

    nodes: list
    inputs: dict  # name -> dims, 'n' being the batch
    outputs: list
    constants: dict = dataclasses.field(default_factory=dict)
    fused: dict = dataclasses.field(default_factory=dict)  # operator -> count in ONNX Runtime
    integers: dict = dataclasses.field(default_factory=dict)  # name -> limit: inputs that are indices
    opset: int = 17
    functions: list = dataclasses.field(default_factory=list)
    output_dims: list = None  # None: as inferred

    def model(self):
        infos = [
            helper.make_tensor_value_info(name, INT64 if name in self.integers else FLOAT, dims)
            for name, dims in self.inputs.items()
        ]
        outputs = [helper.make_tensor_value_info(name, FLOAT, self.output_dims) for name in self.outputs]
        graph = helper.make_graph(
            self.nodes, "g", infos, outputs,
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", self.opset)] + ([helper.make_opsetid("local", 1)] if self.functions else [])
        model = helper.make_model(graph, opset_imports=opsets, functions=self.functions)
        model.ir_version = 8
        return onnx.shape_inference.infer_shapes(model)

    def samples(self, count, seed):
        """Arrays of `count` samples; every model takes them in batches."""
        source = np.random.default_rng(seed)
        arrays = {}
        for name, dims in self.inputs.items():
            shape = [count, *dims[1:]]
            if name in self.integers:
                arrays[name] = source.integers(0, self.integers[name], shape)
            else:
                arrays[name] = source.standard_normal(shape).astype(np.float32)
        return arrays


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attributes)


def random(seed, *shape, scale=None):
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
    return (np.random.default_rng(seed).standard_normal(shape) * (scale or 1 / np.sqrt(fan_in))).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


IMAGE = {"x": ["n", 8, 12, 12]}


def conv(name, source, result, constants, channels=(16, 8), kernel=3, seed=1, bias=True, **attributes):
    """A convolution that keeps the size; its weights are made here."""
    constants[f"{name}_w"] = random(seed, channels[0], channels[1], kernel, kernel)
    if bias:
        constants[f"{name}_b"] = random(seed + 50, channels[0], scale=0.3)
    pads = [kernel // 2] * 4
    return node("Conv", [source, f"{name}_w"] + ([f"{name}_b"] if bias else []), [result], pads=pads, **attributes)


def between(*middle, fused=None, constants=None, channels=16, opset=17, outputs=("m",)):
    """`middle`, which makes m (or what `outputs` says) of a, between two convolutions."""
    given = dict(constants or {})
    nodes = [conv("first", "x", "p", given), node("Relu", ["p"], ["a"]), *middle]
    results = []
    for i, name in enumerate(outputs):
        nodes.append(conv(f"last{i}", name, f"y{i}", given, channels=(8, channels), kernel=1, seed=9 + i))
        results.append(f"y{i}")
    expected = {"QLinearConv": 1 + len(outputs), "Conv": 0} if fused is None else fused
    return Family(nodes, IMAGE, results, given, expected, opset=opset)


def chain():
    constants = {}
    nodes = [
        conv("a", "x", "a1", constants), node("Relu", ["a1"], ["a2"]),
        conv("b", "a2", "b1", constants, channels=(16, 1), group=16, seed=2), node("Clip", ["b1", "low", "high"], ["b2"]),
        conv("c", "b2", "c1", constants, channels=(24, 16), kernel=1, seed=3, bias=False),
        node("MaxPool", ["c1"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["m"], ["g"]), node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w", "v"], ["y"], transB=1),
    ]
    constants.update(low=np.float32(0), high=np.float32(6), w=random(5, 10, 24), v=random(6, 10))
    return Family(nodes, IMAGE, ["y"], constants,
                  {"QLinearConv": 3, "QGemm": 1, "QLinearGlobalAveragePool": 1, "Conv": 0, "Gemm": 0, "Clip": 0, "Relu": 0})


def residual():
    constants = {}
    nodes = [
        conv("a", "x", "a1", constants, channels=(8, 8)), node("Add", ["a1", "x"], ["s"]), node("Relu", ["s"], ["r"]),
        conv("b", "r", "b1", constants, channels=(8, 8), seed=2), node("Add", ["r", "b1"], ["t"]),
        conv("c", "t", "y", constants, channels=(8, 8), seed=3),
    ]
    return Family(nodes, IMAGE, ["y"], constants, {"QLinearConv": 3, "QLinearAdd": 2, "Conv": 0, "Add": 0, "Relu": 0})


def excitation():
    constants = {}
    nodes = [
        conv("a", "x", "a1", constants, channels=(16, 8)), node("Relu", ["a1"], ["a2"]),
        node("GlobalAveragePool", ["a2"], ["g"]), conv("d", "g", "d1", constants, channels=(4, 16), kernel=1, seed=2),
        node("Relu", ["d1"], ["d2"]), conv("e", "d2", "e1", constants, channels=(16, 4), kernel=1, seed=3),
        node("Sigmoid", ["e1"], ["s"]), node("Mul", ["a2", "s"], ["m"]),
        conv("f", "m", "y", constants, channels=(8, 16), kernel=1, seed=4),
    ]
    return Family(nodes, IMAGE, ["y"], constants, {"QLinearConv": 4, "QLinearMul": 1, "QLinearSigmoid": 1, "Conv": 0})


def attention():
    constants = {name: random(i, 32, 32) for i, name in enumerate(("q", "k", "v", "o"))}
    constants.update(bias=random(7, 32), split=ints(0, 0, 4, 8), join=ints(0, 0, 32), scale=np.float32(8**-0.5))
    nodes = []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [node("MatMul", ["x", name], [f"{name}1"]), node("Reshape", [f"{name}1", "split"], [f"{name}2"]),
                  node("Transpose", [f"{name}2"], [f"{name}3"], perm=perm)]
    nodes += [
        node("MatMul", ["q3", "k3"], ["s1"]), node("Mul", ["s1", "scale"], ["s2"]), node("Softmax", ["s2"], ["p"], axis=-1),
        node("MatMul", ["p", "v3"], ["c1"]), node("Transpose", ["c1"], ["c2"], perm=[0, 2, 1, 3]),
        node("Reshape", ["c2", "join"], ["c3"]), node("MatMul", ["c3", "o"], ["y1"]), node("Add", ["y1", "bias"], ["y"]),
    ]
    return Family(nodes, {"x": ["n", 6, 32]}, ["y"], constants,
                  {"QLinearMatMul": 4, "MatMulIntegerToFloat": 2, "MatMul": 0, "QLinearSoftmax": 0})


def products():
    constants = {"w1": random(1, 24, 48, scale=0.2), "b1": random(2, 48), "w2": random(3, 48, 48, scale=0.2),
                 "b2": random(4, 48), "w3": random(5, 8, 48)}
    nodes = [
        node("MatMul", ["x", "w1"], ["m"]), node("Add", ["m", "b1"], ["a"]), node("Relu", ["a"], ["r"]),
        node("Gemm", ["r", "w2", "b2"], ["g"]), node("Relu", ["g"], ["h"]), node("Gemm", ["h", "w3"], ["y"], transB=1),
    ]
    return Family(nodes, {"x": ["n", 24]}, ["y"], constants, {"QGemm": 3, "Gemm": 0, "MatMul": 0})


def heads():
    """Boxes of a hundred and scores of one, joined behind the last products."""
    constants = {"rows": ints(0, 4, -1)}
    nodes = [
        conv("a", "x", "a1", constants), node("Relu", ["a1"], ["a2"]),
        conv("b", "a2", "box", constants, channels=(4, 16), kernel=1, seed=2),
        conv("c", "a2", "c1", constants, channels=(4, 16), kernel=1, seed=3), node("Sigmoid", ["c1"], ["score"]),
        node("Concat", ["box", "score"], ["j"], axis=1), node("Transpose", ["j"], ["y"], perm=[0, 2, 3, 1]),
    ]
    constants["b_w"] = constants["b_w"] * np.float32(100)
    return Family(nodes, IMAGE, ["y"], constants, {"QLinearConv": 3, "QLinearConcat": 0})


def embedding():
    constants = {"table": random(1, 100, 32, scale=1), "w": random(2, 32, 16)}
    nodes = [node("Gather", ["table", "ids"], ["e"]), node("MatMul", ["e", "w"], ["y"])]
    return Family(nodes, {"ids": ["n", 5]}, ["y"], constants, {"MatMulIntegerToFloat": 1}, integers={"ids": 100})


def recurrent(op, gates):
    constants = {"w": random(1, 1, gates * 16, 8, scale=0.3), "r": random(2, 1, gates * 16, 16, scale=0.3),
                 "b": random(3, 1, gates * 32, scale=0.1), "f": random(4, 16, 10)}
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node(op, ["t", "w", "r", "b"], ["h", "last"], hidden_size=16),
             node("Squeeze", ["last", "zero"], ["s"]), node("MatMul", ["s", "f"], ["y"])]
    constants["zero"] = ints(0)
    return Family(nodes, {"x": ["n", 7, 8]}, ["y"], constants, {"MatMulIntegerToFloat": 1, op: 1})


def branch():
    inner = {}
    then = helper.make_graph(
        [conv("t", "a", "t1", inner, channels=(16, 16), seed=5), node("Relu", ["t1"], ["t2"])], "then", [],
        [helper.make_tensor_value_info("t2", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in inner.items()])
    other = helper.make_graph([node("Identity", ["a"], ["o"])], "else", [], [helper.make_tensor_value_info("o", FLOAT, None)])
    condition = [node("ReduceMax", ["x"], ["top"], keepdims=0), node("Greater", ["top", "least"], ["yes"])]
    family = between(*condition, node("If", ["yes"], ["m"], then_branch=then, else_branch=other), fused={},
                     constants={"least": np.float32(-100)})
    return family


def loop():
    inner = {}
    values = [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, []),
              helper.make_tensor_value_info("s", FLOAT, ["n", 16, 12, 12])]
    body = helper.make_graph(
        [conv("l", "s", "l1", inner, channels=(16, 16), seed=5), node("Relu", ["l1"], ["l2"]), node("Identity", ["go"], ["on"])],
        "body", values, [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("l2", FLOAT, ["n", 16, 12, 12])],
        [numpy_helper.from_array(value, name) for name, value in inner.items()])
    family = between(node("Loop", ["times", "", "a"], ["m"], body=body), fused={}, constants={"times": np.int64(2)})
    family.output_dims = ["n", 8, 12, 12]
    return family


def function():
    body = [helper.make_node("Conv", ["d", "w"], ["c"]), helper.make_node("Relu", ["c"], ["r"])]
    block = helper.make_function("local", "Block", ["d", "w"], ["r"], body, [helper.make_opsetid("", 17)])
    constants = {"w1": random(1, 16, 8, 3, 3), "w2": random(2, 8, 16, 3, 3)}
    nodes = [helper.make_node("Block", ["x", "w1"], ["a"], domain="local", name="one"),
             helper.make_node("Block", ["a", "w2"], ["y"], domain="local", name="two")]
    return Family(nodes, IMAGE, ["y"], constants, {"QLinearConv": 2}, functions=[block])


def shared():
    constants = {"w": random(1, 8, 8, 7, 7)}
    nodes = [node("Conv", ["x", "w"], ["a"], pads=[3, 3, 3, 3]), node("Relu", ["a"], ["b"]),
             node("Conv", ["b", "w"], ["c"], pads=[3, 3, 3, 3]), node("Conv", ["b", "w"], ["d"], pads=[3, 3, 3, 3]),
             node("Add", ["c", "d"], ["e"]), node("Conv", ["e", "w"], ["y"], pads=[3, 3, 3, 3])]
    return Family(nodes, IMAGE, ["y"], constants, {"QLinearConv": 4, "QLinearAdd": 1})


FAMILIES = {
    "chain": chain(),
    "residual": residual(),
    "excitation": excitation(),
    "attention": attention(),
    "products": products(),
    "heads": heads(),
    "embedding": embedding(),
    "lstm": recurrent("LSTM", 4),
    "gru": recurrent("GRU", 3),
    "branch": branch(),
    "loop": loop(),
    "function": function(),
    "shared": shared(),
    "concat": between(node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
                      node("Concat", ["a", "b"], ["m"], axis=1), channels=32,
                      fused={"QLinearConv": 2, "QLinearConcat": 1, "Concat": 0}),
    "average_pool": between(node("AveragePool", ["a"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
                            fused={"QLinearConv": 2, "QLinearAveragePool": 1}),
    "leaky": between(node("Mul", ["a", "minus"], ["b"]), node("LeakyRelu", ["b"], ["m"], alpha=0.1),
                     constants={"minus": np.float32(-0.5)},
                     fused={"QLinearConv": 2, "QLinearLeakyRelu": 1, "QLinearMul": 1}),
    "silu": between(node("Sigmoid", ["a"], ["b"]), node("Mul", ["a", "b"], ["m"]),
                    fused={"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1}),
    "hard_swish": between(node("HardSwish", ["a"], ["m"]), fused={"QLinearConv": 2}),
    "scaled": between(node("Mul", ["a", "factor"], ["b"]), node("Add", ["b", "offset"], ["m"]),
                      constants={"factor": random(3, 1, 16, 1, 1, scale=1), "offset": random(4, 1, 16, 1, 1, scale=1)},
                      fused={"QLinearConv": 2, "QLinearMul": 1, "QLinearAdd": 1}),
    "resize": between(node("Resize", ["a", "", "twice"], ["m"], mode="nearest"),
                      constants={"twice": np.array([1, 1, 2, 2], np.float32)}),
    "resize_linear": between(node("Resize", ["a", "", "twice"], ["m"], mode="linear"),
                             constants={"twice": np.array([1, 1, 2, 2], np.float32)}),
    "slice": between(node("Slice", ["a", "from", "to", "axes"], ["m"]),
                     constants={"from": ints(2, 2), "to": ints(8, 10), "axes": ints(2, 3)}),
    "split": between(node("Split", ["a"], ["m0", "m1"], axis=1), channels=8, outputs=("m0", "m1")),
    "gather": between(node("Gather", ["a", "order"], ["m"], axis=1), constants={"order": ints(*range(15, -1, -1))}),
    "reshape": between(node("Reshape", ["a", "flat"], ["b"]), node("Transpose", ["b"], ["c"], perm=[0, 2, 1]),
                       node("Transpose", ["c"], ["d"], perm=[0, 2, 1]), node("Reshape", ["d", "image"], ["m"]),
                       constants={"flat": ints(0, 16, 144), "image": ints(0, 16, 12, 12)}),
    "shuffle": between(node("Reshape", ["a", "split"], ["b"]), node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3, 4]),
                       node("Reshape", ["c", "image"], ["m"]),
                       constants={"split": ints(0, 2, 8, 12, 12), "image": ints(0, 16, 12, 12)}),
    "squeeze": between(node("Unsqueeze", ["a", "one"], ["b"]), node("Squeeze", ["b", "one"], ["m"]), constants={"one": ints(1)}),
    "tile": between(node("Tile", ["a", "times"], ["m"]), constants={"times": ints(1, 1, 2, 1)}),
    "pad": between(node("Pad", ["a", "border"], ["m"]), constants={"border": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
    "depth_to_space": between(node("DepthToSpace", ["a"], ["m"], blocksize=2), channels=4),
    "conv_transpose": between(node("ConvTranspose", ["a", "t"], ["m"], strides=[2, 2]), constants={"t": random(3, 16, 16, 2, 2)}),
    "prelu": between(node("PRelu", ["a", "slope"], ["m"]), constants={"slope": random(3, 16, 1, 1)}),
    "instance_norm": between(node("InstanceNormalization", ["a", "s", "t"], ["m"]),
                             constants={"s": random(3, 16), "t": random(4, 16)}),
    "opset11": between(node("MaxPool", ["a"], ["m"], kernel_shape=[2, 2], strides=[2, 2]), opset=11),
}
