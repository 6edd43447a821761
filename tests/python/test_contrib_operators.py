"""Quantized operators: what `onnxpress run` computes against ONNX Runtime, over shapes and options.

Codes may differ by one where ONNX Runtime orders float32 arithmetic otherwise (fused multiply-add,
an exponential of its own); what both compute in integers must be equal.
"""

import numpy as np
import onnx
import pytest
from conftest import run_runtime
from onnx import TensorProto, helper, numpy_helper
from steps import has_vnni

MS = "com.microsoft"
TYPES = [np.uint8, np.int8]
CENTER = {np.uint8: 121, np.int8: -7}


def check(onnxpress, folder, op, inputs, quanta=0, tolerance=None, domain=MS, outputs=1, **attributes):
    """Runs one node on both: its first input is fed, the others are initializers (None: omitted).

    Types and shapes must be equal, integers within `quanta`, floats within `tolerance` of the range.
    """
    names = ["" if value is None else f"i{k}" for k, value in enumerate(inputs)]
    initializers = []
    for name, value in zip(names[1:], inputs[1:]):
        if isinstance(value, TensorProto):
            initializers.append(value)
            value.name = name
        elif value is not None:
            initializers.append(numpy_helper.from_array(np.asarray(value), name))
    first = inputs[0]
    results = [f"y{k}" for k in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, domain=domain, **attributes)], "g",
        [helper.make_tensor_value_info("i0", helper.np_dtype_to_tensor_dtype(first.dtype), first.shape)],
        [helper.make_empty_tensor_value_info(name) for name in results], initializers)
    model = folder / "m.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]), model)
    np.savez(folder / "in.npz", i0=first)
    onnxpress("run", model, "--input", folder / "in.npz", "-o", folder / "out.npz")
    found = np.load(folder / "out.npz")
    for name, expected in run_runtime(model, {"i0": first}).items():
        compare(expected, found[name], quanta, tolerance)


def compare(expected, found, quanta, tolerance):
    assert found.shape == expected.shape
    if expected.dtype == np.float16:  # .npz has float32 in its place
        assert found.dtype == np.float32
    else:
        assert found.dtype == expected.dtype
    if expected.dtype.kind == "f":
        expected = expected.astype(np.float64)
        spread = float(expected.max() - expected.min()) or 1.0
        assert np.abs(expected - found).max() <= tolerance * spread
    else:
        difference = np.abs(expected.astype(np.int64) - found.astype(np.int64))
        assert difference.max(initial=0) <= quanta, f"{(difference > quanta).sum()} of {difference.size} differ"


def codes(seed, shape, dtype=np.uint8):
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


def weights_of(seed, shape, dtype):
    """Codes of weights; small int8 without VNNI, where ONNX Runtime adds pairs of products in 16 bits, saturated."""
    found = codes(seed, shape, dtype)
    return found // 4 if dtype == np.int8 and not has_vnni() else found


def floats(seed, shape, low=-1.0, high=1.0, dtype=np.float32):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(dtype)


def quantization(scale, zero_point=None, dtype=np.uint8):
    """A scale and a zero point, as inputs."""
    return [np.float32(scale), None if zero_point is None else dtype(zero_point)]


CONVOLUTIONS = [
    ((2, 3, 7, 6), (4, 3, 3, 3), {}),
    ((1, 4, 9, 8), (6, 2, 3, 2), {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [2, 3]}),
    ((2, 5, 6, 6), (5, 1, 3, 3), {"group": 5, "pads": [1, 1, 1, 1]}),
    ((1, 8, 5, 5), (3, 8, 1, 1), {"strides": [2, 2]}),
    ((2, 3, 11), (4, 3, 4), {"strides": [3], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {"pads": [1, 0, 1, 0, 1, 1], "strides": [1, 2, 1]}),
]


@pytest.mark.parametrize("shape,weights,attributes", CONVOLUTIONS)
@pytest.mark.parametrize("x_type,w_type", [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
def test_qlinear_conv(onnxpress, tmp_path, shape, weights, attributes, x_type, w_type):
    filters = weights[0]
    depth = int(np.prod(weights[1:]))
    for per_channel in (False, True):
        w_scale = floats(3, filters, 0.001, 0.02) if per_channel else np.float32(0.01)
        w_zero = np.zeros(filters, w_type) if per_channel else w_type(3)
        bias = codes(5, filters, np.int16).astype(np.int32)
        for domain, options in [("", {}), (MS, {}), (MS, {"channels_last": 1})]:
            x = codes(1, shape, x_type)
            if options:
                x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
                if len(shape) != 4 and "auto_pad" in attributes:
                    continue
            check(onnxpress, tmp_path, "QLinearConv",
                  [x, *quantization(0.02, CENTER[x_type], x_type), weights_of(2, weights, w_type), w_scale, w_zero,
                   *quantization(0.02 * depth**0.5, CENTER[x_type], x_type), bias if per_channel else None],
                  domain=domain, **attributes, **options)


@pytest.mark.parametrize("shape,weights,attributes", CONVOLUTIONS)
def test_conv_integer(onnxpress, tmp_path, shape, weights, attributes):
    x, w = codes(1, shape), codes(2, weights)
    check(onnxpress, tmp_path, "ConvInteger", [x, w], domain="", **attributes)
    check(onnxpress, tmp_path, "ConvInteger", [x, w, np.uint8(200), np.uint8(9)], domain="", **attributes)


PRODUCTS = [((5, 7), (7, 3)), ((2, 5, 64), (64, 33)), ((2, 3, 4, 6), (3, 6, 5)), ((1, 300), (300, 40))]


@pytest.mark.parametrize("a,b", PRODUCTS)
@pytest.mark.parametrize("a_type,b_type", [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
def test_products(onnxpress, tmp_path, a, b, a_type, b_type):
    columns = b[-1]
    left, right = codes(1, a, a_type), weights_of(2, b, b_type)
    check(onnxpress, tmp_path, "MatMulInteger", [left, right, a_type(5), b_type(3)], domain="")
    check(onnxpress, tmp_path, "MatMulInteger", [left, right], domain="")
    b_scales = [(np.float32(0.01), b_type(3))]
    if len(b) == 2:
        check(onnxpress, tmp_path, "MatMulInteger", [left, right, a_type(5), codes(4, columns, b_type)], domain="")
        b_scales.append((floats(3, columns, 0.005, 0.02), codes(4, columns, b_type)))
    for b_scale, b_zero in b_scales:
        check(onnxpress, tmp_path, "QLinearMatMul",
              [left, *quantization(0.02, CENTER[a_type], a_type), right, b_scale, b_zero,
               *quantization(0.4 * a[-1] ** 0.5, CENTER[a_type], a_type)], domain="")
        for bias in (None, floats(6, columns))[:len(b_scales)]:
            check(onnxpress, tmp_path, "MatMulIntegerToFloat",
                  [left, right, np.float32(0.02), b_scale, a_type(CENTER[a_type]), b_zero, bias], tolerance=1e-5)
            check(onnxpress, tmp_path, "DynamicQuantizeMatMul", [floats(7, a), right, b_scale, b_zero, bias],
                  tolerance=1e-5)


@pytest.mark.parametrize("transpose_a,transpose_b", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("dtype", TYPES)
def test_qgemm(onnxpress, tmp_path, transpose_a, transpose_b, dtype):
    a, b = codes(1, (9, 6) if transpose_a else (6, 9), dtype), codes(2, (4, 9) if transpose_b else (9, 4), dtype)
    options = {"transA": transpose_a, "transB": transpose_b, "alpha": 0.75}
    bias = codes(3, (1, 4), np.int16).astype(np.int32)
    for b_scale, b_zero in [(np.float32(0.01), dtype(3)), (floats(3, 4, 0.005, 0.02), codes(4, 4, dtype))]:
        inputs = [a, *quantization(0.02, CENTER[dtype], dtype), b, b_scale, b_zero]
        check(onnxpress, tmp_path, "QGemm", [*inputs, bias], tolerance=1e-5, **options)
        for c in (None, bias[0], codes(9, (6, 1), np.int16).astype(np.int32)):
            check(onnxpress, tmp_path, "QGemm", [*inputs, c, *quantization(0.6, CENTER[dtype], dtype)], **options)


@pytest.mark.parametrize("low,high", [(-1, 1), (0.5, 3), (-7, -2), (0, 0)])
def test_dynamic_quantize_linear(onnxpress, tmp_path, low, high):
    check(onnxpress, tmp_path, "DynamicQuantizeLinear", [floats(1, (3, 50), low, high)], domain="", outputs=3,
          tolerance=0)


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("a,b", [((2, 3, 40), (2, 3, 40)), ((4, 17), (17,)), ((3, 1, 5), (4, 1)), ((6,), ())])
def test_binary(onnxpress, tmp_path, op, dtype, a, b):
    check(onnxpress, tmp_path, op,
          [codes(1, a, dtype), *quantization(0.03, CENTER[dtype], dtype), codes(2, b, dtype),
           *quantization(0.05, 3, dtype), *quantization(0.07, CENTER[dtype] + 4, dtype)], quanta=1)


@pytest.mark.parametrize("dtype", TYPES)
def test_tables(onnxpress, tmp_path, dtype):
    every = np.arange(256).astype(np.uint8).view(dtype).reshape(16, 16)
    for zero_point in (CENTER[dtype], None):
        x = [every, *quantization(0.05, zero_point, dtype)]
        check(onnxpress, tmp_path, "QLinearSigmoid", [*x, *quantization(1 / 256, zero_point, dtype)], quanta=1)
        for alpha in (0.01, 0.2):
            check(onnxpress, tmp_path, "QLinearLeakyRelu", [*x, *quantization(0.04, zero_point, dtype)], alpha=alpha)


@pytest.mark.parametrize("dtype", TYPES)
def test_where_and_concat(onnxpress, tmp_path, dtype):
    condition = np.random.default_rng(1).integers(0, 2, (4, 1, 6)).astype(bool)
    check(onnxpress, tmp_path, "QLinearWhere",
          [condition, codes(2, (3, 6), dtype), *quantization(0.02, CENTER[dtype], dtype), codes(3, (4, 3, 1), dtype),
           *quantization(0.05, 9, dtype), *quantization(0.03, CENTER[dtype], dtype)])
    for axis in (1, -2):
        parts = [[codes(4, (2, 3, 4), dtype), *quantization(0.02, CENTER[dtype], dtype)],
                 [codes(5, (2, 5, 4), dtype), *quantization(0.07, 1, dtype)]]
        inputs = [*quantization(0.05, 20, dtype), *parts[0], *parts[1]]
        # The first input is fed: the scale, as an array of one sample.
        inputs[0] = np.full(1, 0.05, np.float32)
        check(onnxpress, tmp_path, "QLinearConcat", inputs, axis=axis)


POOLS = [
    ((2, 3, 9, 8), {"kernel_shape": [3, 2]}),
    ((1, 4, 9, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 4, 10, 7), {"kernel_shape": [3, 3], "strides": [2, 3], "auto_pad": "SAME_LOWER"}),
    ((1, 2, 10, 9), {"kernel_shape": [4, 2], "strides": [3, 2], "ceil_mode": 1}),
]


@pytest.mark.parametrize("shape,attributes", POOLS)
@pytest.mark.parametrize("dtype", TYPES)
def test_pools(onnxpress, tmp_path, shape, attributes, dtype):
    x = codes(1, shape, dtype)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    rest = [*quantization(0.03, CENTER[dtype], dtype), *quantization(0.02, 5, dtype)]
    check(onnxpress, tmp_path, "NhwcMaxPool", [last], **attributes)
    for data, option in ((x, 0), (last, 1)):
        check(onnxpress, tmp_path, "QLinearGlobalAveragePool", [data, *rest], quanta=1, channels_last=option)
        for include in (0, 1):
            check(onnxpress, tmp_path, "QLinearAveragePool", [data, *rest], quanta=1, channels_last=option,
                  count_include_pad=include, **attributes)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape,opset,axis", [((5, 40), 13, -1), ((3, 7, 5), 13, 1), ((2, 3, 4), 12, 1), ((4, 300), 12, 1)])
def test_softmax(onnxpress, tmp_path, dtype, shape, opset, axis):
    # Signed results stay below 1/2: ONNX Runtime's wrap around at 1.
    for seed, factor in ((1, 0.02), (2, 0.002)):
        x = codes(seed, shape, dtype)
        check(onnxpress, tmp_path, "QLinearSoftmax",
              [x, *quantization(factor, CENTER[dtype], dtype),
               *quantization(1 / 256, 0 if dtype == np.uint8 else -128, dtype)], quanta=1, axis=axis, opset=opset)


NBITS = [(1, 32, 8, 32), (5, 64, 16, 16), (7, 100, 33, 32), (3, 256, 20, 128)]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("rows,depth,columns,block", NBITS)
def test_matmul_nbits(onnxpress, tmp_path, bits, rows, depth, columns, block):
    blocks = -(-depth // block)
    weights = codes(1, (columns, blocks, block * bits // 8))
    scales = floats(2, (columns, blocks), 0.01, 0.1)
    packed = codes(3, (columns, -(-blocks * bits // 8)))
    a = floats(4, (rows, depth))
    options = {"K": depth, "N": columns, "bits": bits, "block_size": block}
    # ONNX Runtime has no 8-bit weights with zero points that are not packed, and takes a group index
    # as it is written with 4 bits and no zero points only.
    unpacked = [floats(5, (columns, blocks), 0, 2**bits - 1)] if bits < 8 else []
    for zero_points in (None, packed, *unpacked):
        inputs = [a, weights, scales, zero_points, None, None if zero_points is None else floats(6, columns)]
        check(onnxpress, tmp_path, "MatMulNBits", inputs, tolerance=1e-5, **options)
    if bits == 4:
        groups = np.random.default_rng(7).integers(0, blocks, depth).astype(np.int32)
        check(onnxpress, tmp_path, "MatMulNBits", [a, weights, scales, None, groups], tolerance=1e-5, **options)
    half = [a.astype(np.float16), weights, scales.astype(np.float16), packed]
    check(onnxpress, tmp_path, "MatMulNBits", half, tolerance=4e-3, **options)
    check(onnxpress, tmp_path, "MatMulNBits", [a[None], weights, scales.ravel(), packed.ravel()],
          tolerance=1e-5, **options)


def packed4(values, dtype):
    return helper.make_tensor("t", dtype, values.shape, values.ravel().tolist())


@pytest.mark.parametrize("scale_type", [np.float32, np.float16])
def test_gather_block_quantized(onnxpress, tmp_path, scale_type):
    rng = np.random.default_rng(1)
    rows = np.array([[3, -1, 0], [7, 3, 4]], np.int64)

    def run(data, scales, zero_points, **attributes):
        """The data is an initializer: the table is gathered by fed indices."""
        names = ["d", "i0", "s"] + (["z"] if zero_points is not None else [])
        return names, data, scales.astype(scale_type), zero_points, attributes

    cases = []
    for bits in (2, 4, 8):
        per_byte = 8 // bits
        for points in (None, codes(2, (8, -(-5 // per_byte)))):
            cases.append(run(codes(1, (8, 70 // per_byte + (70 % per_byte > 0))),
                             floats(3, (8, -(-(70 // per_byte + (70 % per_byte > 0)) * per_byte // 16)), 0.1, 1), points,
                             bits=bits, block_size=16, quantize_axis=-1))
    for dtype, low in ((TensorProto.UINT4, 0), (TensorProto.INT4, -8)):
        table = packed4(rng.integers(low, low + 16, (8, 3, 33)), dtype)
        for points in (None, packed4(rng.integers(low, low + 16, (8, 3, 3)), dtype)):
            cases.append(run(table, floats(4, (8, 3, 3), 0.1, 1), points, block_size=16, quantize_axis=2))
        table = packed4(rng.integers(low, low + 16, (33, 8, 2)), dtype)
        for points in (None, packed4(rng.integers(low, low + 16, (3, 8, 2)), dtype)):
            cases.append(run(table, floats(4, (3, 8, 2), 0.1, 1), points, block_size=16, quantize_axis=0,
                             gather_axis=1))
    for names, data, scales, points, attributes in cases:
        tensors = {"d": data, "s": scales, "z": points}
        initializers = []
        for name in names:
            value = tensors.get(name)
            if isinstance(value, TensorProto):
                value.name = name
                initializers.append(value)
            elif value is not None:
                initializers.append(numpy_helper.from_array(value, name))
        graph = helper.make_graph(
            [helper.make_node("GatherBlockQuantized", names, ["y"], domain=MS, **attributes)], "g",
            [helper.make_tensor_value_info("i0", TensorProto.INT64, rows.shape)],
            [helper.make_empty_tensor_value_info("y")], initializers)
        model = tmp_path / "m.onnx"
        onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[
            helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]), model)
        np.savez(tmp_path / "in.npz", i0=rows)
        onnxpress("run", model, "--input", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
        found = np.load(tmp_path / "out.npz")["y"]
        expected = run_runtime(model, {"i0": rows})["y"]
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_contrib_quantize_and_dequantize(onnxpress, tmp_path, dtype):
    for x_type in (np.float32, np.float16):
        x = floats(1, (4, 5, 6), -3, 3, x_type)
        check(onnxpress, tmp_path, "QuantizeLinear", [x, x_type(0.02), dtype(7)])
        check(onnxpress, tmp_path, "QuantizeLinear", [x, floats(2, 5, 0.01, 0.03, x_type), codes(3, 5, dtype)], axis=1)
        y = codes(4, (4, 5, 6), dtype)
        check(onnxpress, tmp_path, "DequantizeLinear", [y, x_type(0.02), dtype(7)], tolerance=1e-6)
        check(onnxpress, tmp_path, "DequantizeLinear", [y, floats(2, 6, 0.01, 0.03, x_type), codes(3, 6, dtype)],
              tolerance=1e-6, axis=-1)
