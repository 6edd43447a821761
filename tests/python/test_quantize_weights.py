"""Weight-only quantization: every form and type is accepted by the checker, runs in our engine and, where ONNX Runtime
has the kernels, in ONNX Runtime with the same weights bit for bit."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run_runtime
from onnx import TensorProto, helper, numpy_helper
from steps import WITHOUT_KERNELS

INPUTS, OUTPUTS = 96, 40

INTEGERS = ["int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16"]
FLOATS = ["float8e4m3fn", "float8e5m2"]
SMALLEST = ["float4e2m1", "mxfp4", "mxfp8", "nvfp4"]
"""What storage=smallest alone writes."""

GRANULARITIES = ["tensor", "channel", "block"]


def product(folder, name="product.onnx", element=TensorProto.FLOAT, opset=25, shape=(INPUTS, OUTPUTS)):
    """x -> MatMul with a constant: fed the identity matrix it gives the constant."""
    dtype = helper.tensor_dtype_to_np_dtype(element)
    weight = np.random.default_rng(1).normal(size=shape).astype(dtype)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")], "product",
        [helper.make_tensor_value_info("x", element, ["n", shape[0]])],
        [helper.make_tensor_value_info("y", element, ["n", shape[1]])],
        [numpy_helper.from_array(weight, "w")])  # fmt: skip
    return save(graph, folder / name, opset), weight


def save(graph, path, opset):
    ir_version = 13 if opset > 22 else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def compress(onnxpress, source, step, *, target=None):
    target = target or source.with_name("small.onnx")
    report = onnxpress.report("compress", source, "-o", target, "--passes", step, folder=source.parent)
    onnx.checker.check_model(onnx.load(target), full_check=True)
    assert target.stat().st_size < source.stat().st_size
    return target, report


def in_engine(onnxpress, path, feeds):
    np.savez(path.with_suffix(".x.npz"), **feeds)
    onnxpress("run", path, "--input", path.with_suffix(".x.npz"), "-o", path.with_suffix(".y.npz"))
    return dict(np.load(path.with_suffix(".y.npz")))


def as_written(path, feeds):
    """Outputs of ONNX Runtime without graph optimizations: every node as the file has it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return runtime.run(None, feeds)[0]


def stored_weights(path):
    """What the file's constants stand for, computed with NumPy."""
    graph = onnx.load(path).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        inputs = [arrays.get(name) for name in node.input]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Cast":
            arrays[node.output[0]] = inputs[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
        elif node.op_type == "Add":
            arrays[node.output[0]] = inputs[0] + inputs[1]
        elif node.op_type == "Gather":
            arrays[node.output[0]] = inputs[0][inputs[1]]
        elif node.op_type == "DequantizeLinear":
            arrays[node.output[0]] = dequantized(*inputs, **attributes)
    return arrays[onnx.load(path).graph.node[-1].input[1]]


def dequantized(codes, scale, zero_point=None, axis=1, block_size=0, output_dtype=0):
    def spread(values):
        values = values.astype(np.float32)
        if values.ndim == 0:
            return values
        if block_size:
            return values.repeat(block_size, axis).take(range(codes.shape[axis]), axis)
        return values.reshape([-1 if i == axis else 1 for i in range(codes.ndim)])

    numbers = codes.astype(np.float32) - (0 if zero_point is None else spread(zero_point))
    result = scale.dtype if not output_dtype else helper.tensor_dtype_to_np_dtype(output_dtype)
    return (numbers * spread(scale)).astype(result)


def check_weights(onnxpress, path, size, element=np.float32):
    """The same numbers from the file, from our engine and from ONNX Runtime."""
    expected = stored_weights(path).astype(np.float32)
    x = np.eye(size, dtype=element)
    ours = in_engine(onnxpress, path, {"x": x})["y"]
    np.testing.assert_array_equal(ours.astype(np.float32), expected)
    np.testing.assert_array_equal(as_written(path, {"x": x}).astype(np.float32), expected)
    optimized = run_runtime(path, {"x": x})["y"].astype(np.float32)
    tolerance = 1e-6 if element == np.float32 else 1e-3
    np.testing.assert_allclose(optimized, expected, atol=tolerance * np.abs(expected).max())
    return expected


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", INTEGERS + FLOATS)
def test_types(onnxpress, tmp_path, kind, granularity):
    source, weight = product(tmp_path)
    for options in {"tensor": [""], "channel": [",power_of_two=true"], "block": ["", ",scales=fp16"]}[granularity]:
        step = f"quantize_weights{{type={kind},granularity={granularity}{options}}}"
        path, report = compress(onnxpress, source, step)
        (layer,) = report["passes"][-1]["layers"]
        assert layer["storage"] == kind and layer["granularity"] == granularity
        found = check_weights(onnxpress, path, INPUTS)
        noise = np.square(found - weight).sum()
        assert 10 * np.log10(np.square(weight).sum() / noise) == pytest.approx(layer["snr_db"], abs=0.01)


@pytest.mark.parametrize("kind", ["int4", "uint4", "int8", "float8e4m3fn"])
def test_float16(onnxpress, tmp_path, kind):
    source, _ = product(tmp_path, element=TensorProto.FLOAT16)
    for granularity in ("channel", "block"):
        path, _ = compress(onnxpress, source, f"quantize_weights{{type={kind},granularity={granularity}}}")
        check_weights(onnxpress, path, INPUTS, np.float16)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_widths(onnxpress, tmp_path, bits, symmetric):
    source, _ = product(tmp_path)
    path, report = compress(onnxpress, source, f"quantize_weights{{bits={bits},symmetric={symmetric}}}".lower())
    assert report["passes"][-1]["layers"][0]["bits"] == bits
    found = check_weights(onnxpress, path, INPUTS)
    levels = max(len(np.unique(column)) for column in found.T)
    assert levels <= 2**bits - symmetric


@pytest.mark.parametrize("block", [32, 40])
@pytest.mark.parametrize("kind", ["int4", "uint4", "int8"])
def test_last_block_is_shorter(onnxpress, tmp_path, kind, block):
    source, _ = product(tmp_path, shape=(70, 24))
    path, _ = compress(onnxpress, source, f"quantize_weights{{type={kind},granularity=block,block={block}}}")
    check_weights(onnxpress, path, 70)


def test_every_line_of_the_list_stands_for_a_case():
    cases = [f"weights/{kind}" for kind in SMALLEST]
    assert not [line for line in WITHOUT_KERNELS.unused(cases) if line.startswith("weights/")]


@pytest.mark.parametrize("kind", SMALLEST)
def test_smallest_types(onnxpress, tmp_path, kind):
    source, weight = product(tmp_path)
    onnxpress("compress", source, "-o", tmp_path / "no.onnx", "--passes", f"quantize_weights{{type={kind}}}", status=2)
    path, _ = compress(onnxpress, source, f"quantize_weights{{type={kind},storage=smallest}}")
    expected = stored_weights(path)
    x = np.eye(INPUTS, dtype=np.float32)
    np.testing.assert_array_equal(in_engine(onnxpress, path, {"x": x})["y"], expected)
    assert 10 * np.log10(np.square(weight).sum() / np.square(expected - weight).sum()) > 15
    if WITHOUT_KERNELS.reason(f"weights/{kind}") is None:
        np.testing.assert_array_equal(as_written(path, {"x": x}), expected)
        return
    with pytest.raises(Exception, match="NOT_IMPLEMENTED|not find an implementation|Unsupported|not implemented"):
        as_written(path, {"x": x})


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block,block=8"])
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_codebook(onnxpress, tmp_path, bits, granularity):
    for element in (np.float32, np.float16):
        source, _ = product(tmp_path, element=helper.np_dtype_to_tensor_dtype(np.dtype(element)), shape=(INPUTS, 160))
        path, _ = compress(onnxpress, source, f"quantize_weights{{form=codebook,bits={bits},granularity={granularity}}}")
        found = check_weights(onnxpress, path, INPUTS, element)
        assert max(len(np.unique(column)) for column in found.T) <= 2**bits


def unpacked(array, bits):
    """Codes of uint8 rows, low bits first."""
    parts = [(array >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, -1).reshape(*array.shape[:-1], -1)


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_matmul_nbits(onnxpress, tmp_path, bits, symmetric, block):
    for element in (np.float32, np.float16):
        source, _ = product(tmp_path, element=helper.np_dtype_to_tensor_dtype(np.dtype(element)), shape=(70, 24), opset=17)
        step = f"quantize_weights{{form=contrib,bits={bits},symmetric={symmetric},block={block}}}".lower()
        path, report = compress(onnxpress, source, step)
        assert report["passes"][-1]["layers"][0]["form"] == "MatMulNBits"
        x = np.eye(70, dtype=element)
        arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        codes = unpacked(arrays["w_quantized"].reshape(24, -1), bits).astype(np.float32)
        zeros = np.full(arrays["w_scale"].shape, 2 ** (bits - 1), np.float32)
        if not symmetric:
            zeros = unpacked(arrays["w_zero_point"], bits)[:, : zeros.shape[1]].astype(np.float32)
        scale = arrays["w_scale"].astype(np.float32)
        expected = ((codes - zeros.repeat(block, 1)) * scale.repeat(block, 1))[:, :70].T.astype(element)
        ours = in_engine(onnxpress, path, {"x": x})["y"]
        np.testing.assert_array_equal(ours.astype(element), expected)
        found = as_written(path, {"x": x})
        tolerance = 1e-6 if element == np.float32 else 2e-3
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def values(name, *shape):
    return numpy_helper.from_array(np.random.default_rng(len(name)).normal(0, 0.3, shape).astype(np.float32), name)


def info(name, *shape, element=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


def one(op, inputs, x, weights, y, **attributes):
    return helper.make_graph([helper.make_node(op, inputs, ["y"], "node", **attributes)], op, [x], [y], weights)


def body(name, inputs=()):
    return helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], [f"{name}_p"]), helper.make_node("MatMul", [f"{name}_p", "v"], [f"{name}_y"])],
        name, list(inputs), [info(f"{name}_y", 3, 64)], [values("v", 64, 64)])  # fmt: skip


def branches():
    return helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0), helper.make_node("Greater", ["sum", "zero"], ["c"]),
         helper.make_node("If", ["c"], ["y"], then_branch=body("a"), else_branch=body("b"))],
        "If", [info("x", 3, 64)], [info("y", 3, 64)],
        [values("w", 64, 64), numpy_helper.from_array(np.array(0, np.float32), "zero")])  # fmt: skip


def loop():
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["state", "w"], ["next"]), helper.make_node("Identity", ["go"], ["on"])], "body",
        [info("i", element=TensorProto.INT64), info("go", element=TensorProto.BOOL), info("state", 3, 64)],
        [info("on", element=TensorProto.BOOL), info("next", 3, 64)], [values("w", 64, 64)])  # fmt: skip
    return helper.make_graph(
        [helper.make_node("Loop", ["count", "", "x"], ["y"], body=inner)], "Loop", [info("x", 3, 64)], [info("y", 3, 64)],
        [numpy_helper.from_array(np.array(2, np.int64), "count")])  # fmt: skip


def scan():
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["row", "w"], ["product"]), helper.make_node("Add", ["product", "state"], ["next"]),
         helper.make_node("Identity", ["next"], ["out"])],
        "body", [info("state", 64), info("row", 64)], [info("next", 64), info("out", 64)], [values("w", 64, 64)])  # fmt: skip
    return helper.make_graph(
        [helper.make_node("Scan", ["start", "x"], ["last", "y"], body=inner, num_scan_inputs=1)], "Scan",
        [info("x", 3, 64)], [info("y", 3, 64)], [numpy_helper.from_array(np.zeros(64, np.float32), "start")])  # fmt: skip


def moved():
    """A weight that reaches its operator through Transpose and Reshape."""
    return helper.make_graph(
        [helper.make_node("Reshape", ["w", "shape"], ["r"]), helper.make_node("Transpose", ["r"], ["t"], perm=[1, 0]),
         helper.make_node("MatMul", ["x", "t"], ["y"])],
        "moved", [info("x", 3, 64)], [info("y", 3, 48)],
        [values("w", 48, 8, 8), numpy_helper.from_array(np.array([48, 64]), "shape")])  # fmt: skip


def shared():
    return helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])],
        "shared", [info("x", 3, 64)], [info("y", 3, 64)], [values("w", 64, 64)])  # fmt: skip


READERS = {
    "Conv": lambda: one("Conv", ["x", "w"], info("x", 2, 32, 6, 6), [values("w", 16, 32, 3, 3)], info("y", 2, 16, 4, 4)),
    "depthwise": lambda: one("Conv", ["x", "w"], info("x", 2, 64, 6, 6), [values("w", 64, 1, 3, 3)],
                             info("y", 2, 64, 4, 4), group=64),
    "ConvTranspose": lambda: one("ConvTranspose", ["x", "w"], info("x", 2, 32, 4, 4), [values("w", 32, 8, 3, 3)],
                                 info("y", 2, 8, 6, 6)),
    "Gemm": lambda: one("Gemm", ["x", "w", "b"], info("x", 3, 64), [values("w", 48, 64), values("b", 48)],
                        info("y", 3, 48), transB=1),
    "Gemm, not transposed": lambda: one("Gemm", ["x", "w"], info("x", 3, 64), [values("w", 64, 48)], info("y", 3, 48)),
    "MatMul": lambda: one("MatMul", ["x", "w"], info("x", 2, 3, 64), [values("w", 64, 48)], info("y", 2, 3, 48)),
    "MatMul, stacked": lambda: one("MatMul", ["x", "w"], info("x", 2, 3, 64), [values("w", 2, 64, 48)], info("y", 2, 3, 48)),
    "MatMul on the left": lambda: one("MatMul", ["w", "x"], info("x", 64, 5), [values("w", 48, 64)], info("y", 48, 5)),
    "Einsum": lambda: one("Einsum", ["x", "w"], info("x", 2, 3, 64), [values("w", 64, 4, 16)], info("y", 2, 3, 4, 16),
                          equation="bsd,dhk->bshk"),
    "Gather": lambda: one("Gather", ["w", "x"], info("x", 2, 3, element=TensorProto.INT64), [values("w", 50, 64)],
                          info("y", 2, 3, 64)),
    "LSTM": lambda: one("LSTM", ["x", "w", "r"], info("x", 5, 2, 32), [values("w", 1, 64, 32), values("r", 1, 64, 16)],
                        info("y", 5, 1, 2, 16), hidden_size=16),
    "GRU": lambda: one("GRU", ["x", "w", "r"], info("x", 5, 2, 32), [values("w", 1, 48, 32), values("r", 1, 48, 16)],
                       info("y", 5, 1, 2, 16), hidden_size=16),
    "RNN": lambda: one("RNN", ["x", "w", "r"], info("x", 5, 2, 32), [values("w", 2, 16, 32), values("r", 2, 16, 16)],
                       info("y", 5, 2, 2, 16), hidden_size=16, direction="bidirectional"),
    "If": branches,
    "Loop": loop,
    "Scan": scan,
    "moved": moved,
    "shared": shared,
}  # fmt: skip


@pytest.mark.parametrize("step", ["bits=8", "bits=4,granularity=block,block=16", "bits=4,form=contrib", "bits=4,form=codebook"])
@pytest.mark.parametrize("reader", READERS)
def test_readers(onnxpress, tmp_path, reader, step):
    graph = READERS[reader]()
    source = save(graph, tmp_path / "float.onnx", 21)
    path, report = compress(onnxpress, source, f"quantize_weights{{{step}}}")
    assert report["passes"][-1]["layers"]
    shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(3)
    integer = graph.input[0].type.tensor_type.elem_type == TensorProto.INT64
    x = rng.integers(-50, 50, shape) if integer else rng.normal(size=shape).astype(np.float32)
    before, ours = run_runtime(source, {"x": x})["y"], in_engine(onnxpress, path, {"x": x})["y"]
    found = run_runtime(path, {"x": x})["y"]
    np.testing.assert_allclose(ours, found, atol=2e-5 * np.abs(before).max())
    snr = 10 * np.log10(np.square(before).sum() / np.square(found - before).sum())
    assert snr > (30 if step == "bits=8" else 12)


def tied():
    table = np.random.default_rng(5).normal(0, 0.3, (50, 64)).astype(np.float32)
    return helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["rows"]), helper.make_node("MatMul", ["rows", "head"], ["y"])],
        "tied", [info("x", 4, element=TensorProto.INT64)], [info("y", 4, 50)],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(table.T.copy(), "head")])  # fmt: skip


def test_an_embedding_tied_to_the_output_layer_is_stored_once(onnxpress, tmp_path):
    source = save(tied(), tmp_path / "float.onnx", 21)
    path, report = compress(onnxpress, source, "quantize_weights{bits=8}")
    assert [layer["tensor"] for layer in report["passes"][-1]["layers"]] == ["table"]
    x = np.array([0, 49, 7, 7])
    before, found = run_runtime(source, {"x": x})["y"], run_runtime(path, {"x": x})["y"]
    np.testing.assert_allclose(in_engine(onnxpress, path, {"x": x})["y"], found, atol=2e-5 * np.abs(before).max())
    assert 10 * np.log10(np.square(before).sum() / np.square(found - before).sum()) > 30


def test_a_weight_of_several_readers_is_stored_once(onnxpress, tmp_path):
    source = save(shared(), tmp_path / "float.onnx", 21)
    for form in ("qdq", "contrib", "codebook"):
        path, report = compress(onnxpress, source, f"quantize_weights{{bits=4,granularity=block,form={form}}}")
        assert len(report["passes"][-1]["layers"]) == 1
        assert path.stat().st_size < 0.2 * source.stat().st_size


def test_shares_of_the_float_bytes(onnxpress, tmp_path):
    source, _ = product(tmp_path, shape=(1024, 1024))
    for options, most in (("", 0.158), (",symmetric=false", 0.162), (",scales=fp16", 0.15), (",form=contrib", 0.158)):
        path, _ = compress(onnxpress, source, f"quantize_weights{{bits=4,granularity=block,block=32{options}}}")
        assert path.stat().st_size <= most * source.stat().st_size, options


def test_float16_scales_keep_the_fast_form(onnxpress, tmp_path):
    """ONNX Runtime folds the Cast of the scales and multiplies with 4-bit weights as they are."""
    source, _ = product(tmp_path, opset=21)
    for options in ("", ",scales=fp16"):
        path, _ = compress(onnxpress, source, f"quantize_weights{{bits=4,granularity=block,block=32{options}}}")
        session = onnxruntime.SessionOptions()
        session.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        session.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), session, providers=["CPUExecutionProvider"])
        assert [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node] == ["MatMulNBits"]


def test_types_of_numpy():
    """The reference above reads the types that files hold."""
    assert numpy_helper.to_array(numpy_helper.from_array(np.array([-8, 7], ml_dtypes.int4))).astype(int).tolist() == [-8, 7]
