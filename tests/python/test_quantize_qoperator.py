"""Operators on 8-bit codes that replace QDQ: they load in ONNX Runtime, and both engines agree within one quantum."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run_runtime
from onnx import TensorProto, helper, numpy_helper
from steps import has_vnni

FLOAT = TensorProto.FLOAT
SCALE = 0.02
MS = "com.microsoft."


def codes(seed, shape, dtype):
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


class Qdq:
    """A QDQ model under construction: input x (and z) quantized, one operator, its result quantized."""

    def __init__(self, dtype, dims, result_scale=0.05, result_zero=None):
        self.dtype = dtype
        self.nodes, self.initializers = [], {}
        self.dims = dims
        zero = {np.uint8: 120, np.int8: -7}[dtype]
        self.constant("x_scale", np.float32(SCALE))
        self.constant("x_zero", dtype(zero))
        self.constant("y_scale", np.float32(result_scale))
        self.constant("y_zero", dtype(zero if result_zero is None else result_zero))
        self.add("QuantizeLinear", ["x", "x_scale", "x_zero"], "x_codes")
        self.add("DequantizeLinear", ["x_codes", "x_scale", "x_zero"], "x_float")

    def constant(self, name, value):
        self.initializers[name] = np.asarray(value)
        return name

    def add(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def weight(self, name, shape, axis=None):
        """int8 codes with a scale for each channel of `axis`, or one; of 7 bits where ONNX Runtime would saturate."""
        numbers = codes(len(name) + len(shape), shape, np.int8)
        self.constant(name + "_codes", numbers if has_vnni() else numbers // 2)
        channels = () if axis is None else (shape[axis],)
        self.constant(name + "_scale", np.random.default_rng(5).uniform(0.002, 0.006, channels).astype(np.float32))
        self.constant(name + "_zero", np.zeros(channels, np.int8))
        return self.add("DequantizeLinear", [f"{name}_codes", f"{name}_scale", f"{name}_zero"], name,
                        **({} if axis is None else {"axis": axis}))

    def bias(self, name, channels):
        scale = np.broadcast_to(SCALE * self.initializers["w_scale"], (channels,)).astype(np.float32)
        self.constant(name + "_codes", codes(9, (channels,), np.int16).astype(np.int32) // 8)
        self.constant(name + "_scale", scale.copy())
        return self.add("DequantizeLinear", [f"{name}_codes", f"{name}_scale"], name, axis=0)

    def save(self, path, result="t", quantized=True):
        if quantized:
            self.add("QuantizeLinear", [result, "y_scale", "y_zero"], "y_codes")
            self.add("DequantizeLinear", ["y_codes", "y_scale", "y_zero"], "y")
        graph = helper.make_graph(self.nodes, "g", [helper.make_tensor_value_info("x", FLOAT, self.dims)],
                                  [helper.make_tensor_value_info("y" if quantized else result, FLOAT, None)],
                                  [numpy_helper.from_array(value, name) for name, value in self.initializers.items()])
        onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def plain_runtime(path, feeds):
    """What ONNX Runtime computes of the QDQ model as it is written, in floats."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def operators(path):
    return collections.Counter((MS if node.domain else "") + node.op_type for node in onnx.load(path).graph.node)


def check(onnxpress, folder, model, expected_operators, quantum, dims, exact=False):
    source, target = folder / "qdq.onnx", folder / "qoperator.onnx"
    model.save(source, quantized=quantum is not None)
    onnxpress("compress", source, "-o", target, "--passes", "fuse{level=runtime}", "--require-verified")
    expected = dict(expected_operators, QuantizeLinear=1, **({} if quantum is None else {"DequantizeLinear": 1}))
    assert operators(target) == expected
    feeds = {"x": np.random.default_rng(11).uniform(-2.4, 2.4, dims).astype(np.float32)}
    before = plain_runtime(source, feeds)
    after = next(iter(run_runtime(target, feeds).values()))
    np.savez(folder / "in.npz", **feeds)
    onnxpress("run", target, "--input", folder / "in.npz", "-o", folder / "out.npz")
    ours = next(iter(dict(np.load(folder / "out.npz")).values()))
    allowed = 1e-4 * np.ptp(before) if quantum is None else 0 if exact else 1.01 * quantum
    assert np.abs(before - after).max() <= allowed
    assert np.abs(ours - after).max() <= allowed


TYPES = [np.uint8, np.int8]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("has_bias", [False, True])
def test_conv(onnxpress, tmp_path, dtype, axis, has_bias):
    model = Qdq(dtype, [2, 6, 7, 5], 0.1)
    inputs = ["x_float", model.weight("w", (8, 3, 3, 3), axis)] + ([model.bias("b", 8)] if has_bias else [])
    if has_bias:
        inputs[2] = "b"
    model.add("Conv", inputs, "t", group=2, pads=[1, 0, 1, 1], strides=[2, 1])
    check(onnxpress, tmp_path, model, {"QLinearConv": 1}, 0.1, (2, 6, 7, 5))


@pytest.mark.parametrize("activation, attributes", [("Relu", {}), ("Clip", {})])
def test_conv_and_activation(onnxpress, tmp_path, activation, attributes):
    model = Qdq(np.uint8, [1, 3, 6, 6], 0.1, result_zero=0)
    model.add("Conv", ["x_float", model.weight("w", (4, 3, 3, 3), 0)], "c")
    bounds = [model.constant("low", np.float32(0)), model.constant("high", np.float32(30))] if activation == "Clip" else []
    model.add(activation, ["c", *bounds], "t", **attributes)
    check(onnxpress, tmp_path, model, {"QLinearConv": 1}, 0.1, (1, 3, 6, 6))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [None, 1])
def test_matmul(onnxpress, tmp_path, dtype, axis):
    model = Qdq(dtype, [2, 5, 12], 0.1)
    model.add("MatMul", ["x_float", model.weight("w", (12, 9), axis)], "t")
    check(onnxpress, tmp_path, model, {"QLinearMatMul": 1}, 0.1, (2, 5, 12))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [None, 0])
def test_gemm(onnxpress, tmp_path, dtype, axis):
    model = Qdq(dtype, [5, 12], 0.1)
    inputs = ["x_float", model.weight("w", (9, 12), axis), model.bias("b", 9)]
    model.add("Gemm", inputs, "t", transB=1)
    check(onnxpress, tmp_path, model, {MS + "QGemm": 1}, 0.1, (5, 12))


def test_products_read_as_floats(onnxpress, tmp_path):
    model = Qdq(np.uint8, [5, 12])
    model.add("MatMul", ["x_float", model.weight("w", (12, 9), 1)], "t")
    check(onnxpress, tmp_path, model, {MS + "MatMulIntegerToFloat": 1}, None, (5, 12))
    model = Qdq(np.uint8, [5, 12])
    model.add("Gemm", ["x_float", model.weight("w", (12, 9), 1), model.bias("b", 9)], "t")
    check(onnxpress, tmp_path, model, {MS + "QGemm": 1}, None, (5, 12))


ELEMENTWISE = {
    "Add": (["x_float", "x_float"], {}, "QLinearAdd", 0.05),
    "Mul": (["x_float", "x_float"], {}, "QLinearMul", 0.05),
    "Sigmoid": (["x_float"], {}, "QLinearSigmoid", 0.01),
    "LeakyRelu": (["x_float"], {"alpha": 0.3}, "QLinearLeakyRelu", 0.03),
    "Relu": (["x_float"], {}, "QLinearLeakyRelu", 0.03),
    "GlobalAveragePool": (["x_float"], {}, "QLinearGlobalAveragePool", 0.01),
    "AveragePool": (["x_float"], {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 1, 0, 1]}, "QLinearAveragePool", 0.02),
    "Concat": (["x_float", "s_float"], {"axis": 1}, "QLinearConcat", 0.04),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("op", ELEMENTWISE)
def test_elementwise(onnxpress, tmp_path, op, dtype):
    inputs, attributes, name, scale = ELEMENTWISE[op]
    model = Qdq(dtype, [2, 3, 6, 5], scale)
    expected = {MS + name: 1}
    if op == "Concat":
        model.add("Sigmoid", ["x_float"], "s")
        model.constant("s_scale", np.float32(0.01))
        model.constant("s_zero", dtype(3))
        model.add("QuantizeLinear", ["s", "s_scale", "s_zero"], "s_codes")
        model.add("DequantizeLinear", ["s_codes", "s_scale", "s_zero"], "s_float")
        expected[MS + "QLinearSigmoid"] = 1
    model.add(op, inputs, "t", **attributes)
    check(onnxpress, tmp_path, model, expected, scale, (2, 3, 6, 5))


MOVEMENTS = {
    "MaxPool": ([], {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 1, 0, 1]}),
    "Reshape": ([("shape", np.array([2, -1, 5], np.int64))], {}),
    "Flatten": ([], {"axis": 2}),
    "Transpose": ([], {"perm": [0, 3, 1, 2]}),
    "Unsqueeze": ([("axes", np.array([1], np.int64))], {}),
    "Slice": ([("starts", np.array([1], np.int64)), ("ends", np.array([5], np.int64)), ("axes", np.array([2], np.int64))], {}),
    "Gather": ([("indices", np.array([3, 0, -1], np.int64))], {"axis": 2}),
    "Expand": ([("shape", np.array([2, 4, 6, 5], np.int64))], {}),
    "Tile": ([("repeats", np.array([1, 2, 1, 3], np.int64))], {}),
    "Resize": ([("", None), ("scales", np.array([1, 1, 2, 2], np.float32))], {"mode": "nearest"}),
    "DepthToSpace": ([], {"blocksize": 2}),
    "SpaceToDepth": ([], {"blocksize": 1}),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("op", MOVEMENTS)
def test_movements(onnxpress, tmp_path, op, dtype):
    others, attributes = MOVEMENTS[op]
    dims = (2, 1, 6, 5) if op == "Expand" else (2, 4, 6, 5)
    model = Qdq(dtype, list(dims), SCALE)
    model.add(op, ["x_float", *[model.constant(name, value) if name else "" for name, value in others]], "t", **attributes)
    source = tmp_path / "qdq.onnx"
    model.save(source)
    target = tmp_path / "q.onnx"
    onnxpress("compress", source, "-o", target, "--passes", "runtime_qoperator{level=runtime}", "--require-verified")
    assert operators(target) == {"QuantizeLinear": 1, op: 1, "DequantizeLinear": 1}
    feeds = {"x": np.random.default_rng(11).uniform(-2.4, 2.4, dims).astype(np.float32)}
    after = next(iter(run_runtime(target, feeds).values()))
    assert np.array_equal(plain_runtime(source, feeds), after)
    np.savez(tmp_path / "in.npz", **feeds)
    onnxpress("run", target, "--input", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert np.array_equal(next(iter(dict(np.load(tmp_path / "out.npz")).values())), after)


def test_softmax_of_int8_stays(onnxpress, tmp_path):
    """ONNX Runtime's QLinearSoftmax of int8 wraps."""
    model = Qdq(np.int8, [2, 5])
    model.add("Softmax", ["x_float"], "t")
    model.save(tmp_path / "qdq.onnx")
    onnxpress("compress", tmp_path / "qdq.onnx", "-o", tmp_path / "q.onnx", "--passes", "fuse{level=runtime}")
    assert operators(tmp_path / "q.onnx")["Softmax"] == 1
