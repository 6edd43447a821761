"""quantize{scheme=dynamic}: what it writes loads in ONNX Runtime, is fused there, and both engines agree on it."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import TESTDATA, run_runtime
from onnx import TensorProto, helper, numpy_helper
from steps import has_vnni, largest_code

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def random(seed, shape, low=-1.0, high=1.0, dtype=np.float32):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(dtype)


def info(name, shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def save(folder, nodes, inputs, outputs, initializers, opset=17, dtype=FLOAT):
    graph = helper.make_graph(nodes, "g", inputs, [info(value, None, dtype) if isinstance(value, str) else value for value in outputs],
                              [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    path = folder / "float.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def graphs(graph):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def operators(path):
    return collections.Counter(node.op_type for graph in graphs(onnx.load(path).graph) for node in graph.node)


def snr(expected, found):
    expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    noise = ((expected - found) ** 2).sum()
    return np.inf if noise == 0 else 10 * np.log10((expected**2).sum() / noise)


def quantize(onnxpress, model, options="", least_snr=30.0, feeds=None, tolerance=4e-3):
    """Quantizes, checks the file, and compares float and quantized in ONNX Runtime, and both engines.

    Without VNNI, ONNX Runtime saturates sums of products with weights of 8 bits: there the target is ort-cpu-avx2 where none
    is said, and where another one is, our engine alone is compared with the float model.
    """
    target = model.with_name("quantized.onnx")
    if not has_vnni() and "target=" not in options:
        options, least_snr = ",".join(filter(None, [options, "target=ort-cpu-avx2"])), least_snr - 6
    step = "quantize{scheme=dynamic" + ("," + options if options else "") + "}"
    report = onnxpress.report("compress", model, "-o", target, "--passes", step, "--require-verified",
                              folder=model.parent)
    onnx.checker.check_model(onnx.load(target))
    assert target.stat().st_size < model.stat().st_size
    if feeds is None:
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        feeds = {value.name: random(k, [d if isinstance(d, int) else 3 for d in value.shape],
                                    dtype=np.float16 if "float16" in value.type else np.float32)
                 for k, value in enumerate(session.get_inputs())}
    np.savez(model.parent / "in.npz", **feeds)
    onnxpress("run", target, "--input", model.parent / "in.npz", "-o", model.parent / "out.npz")
    ours = np.load(model.parent / "out.npz")
    before, after = run_runtime(model, feeds), run_runtime(target, feeds)
    saturates = not has_vnni() and largest_code(target) >= 64
    for name, value in before.items():
        assert snr(value, ours[name] if saturates else after[name]) >= least_snr, name
    for name, value in ({} if saturates else after).items():
        # A value between two codes may be rounded to either: a quantum of the activations.
        spread = float(np.ptp(value.astype(np.float64))) or 1.0
        assert np.abs(ours[name].astype(np.float64) - value.astype(np.float64)).max() <= tolerance * spread, name
    return target, report


def fused(path):
    """The operators that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return operators(path.with_name("optimized.onnx"))


def mlp(folder, dtype=FLOAT):
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    weights = {"w0": random(1, (64, 96)), "b0": random(2, (96,)), "w1": random(3, (48, 96)), "b1": random(4, (48,)),
               "w2": random(5, (48, 64))}
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["m"]), helper.make_node("Add", ["m", "b0"], ["a"]),
             helper.make_node("Relu", ["a"], ["r"]),
             helper.make_node("Gemm", ["r", "w1", "b1"], ["g"], transB=1, alpha=0.5, beta=2.0),
             helper.make_node("MatMul", ["g", "w2"], ["y"])]
    return save(folder, nodes, [info("x", ["n", 64], dtype)], ["y"],
                {name: value.astype(numpy_type) for name, value in weights.items()}, dtype=dtype)


@pytest.mark.parametrize("options", ["", "granularity=tensor", "symmetric=false", "symmetric=false,granularity=tensor",
                                     "type=uint8", "type=int8,symmetric=false", "target=ort-cpu-avx2",
                                     "target=openvino", "target=generic", "power_of_two=true", "method=mse"])
def test_products(onnxpress, tmp_path, options):
    target, report = quantize(onnxpress, mlp(tmp_path), options)
    assert operators(target)["MatMulInteger"] == 3
    assert operators(target)["DynamicQuantizeLinear"] == 3
    # Each has one reader: all becomes one operator.
    assert fused(target)["DynamicQuantizeMatMul"] == 3
    layers = report["passes"][-1]["layers"]
    assert {layer["tensor"] for layer in layers} == {"w0", "w1", "w2"}
    assert all(layer["form"] == "MatMulInteger" for layer in layers)
    limit = 63 if "target=ort-cpu-avx2" in report["passes"][-1]["text"] else 127
    if "uint8" not in options and "false" not in options:
        codes = [numpy_helper.to_array(t) for t in onnx.load(target).graph.initializer if t.data_type == TensorProto.INT8]
        assert max(np.abs(code.astype(int)).max() for code in codes if code.ndim == 2) == limit


def test_fewer_levels(onnxpress, tmp_path):
    target, _ = quantize(onnxpress, mlp(tmp_path), "bits=5", least_snr=15)
    codes = [numpy_helper.to_array(t) for t in onnx.load(target).graph.initializer if t.data_type == TensorProto.INT8]
    assert max(np.abs(code.astype(int)).max() for code in codes) == 15


def test_half_precision(onnxpress, tmp_path):
    target, _ = quantize(onnxpress, mlp(tmp_path, HALF), tolerance=1e-2)
    assert operators(target)["MatMulInteger"] == 3


def test_one_quantization_for_all_readers(onnxpress, tmp_path):
    weights = {name: random(k, (32, 40)) for k, name in enumerate("qkv")}
    nodes = [helper.make_node("MatMul", ["x", name], ["y" + name]) for name in weights]
    model = save(tmp_path, nodes, [info("x", ["b", "s", 32])], ["yq", "yk", "yv"], weights)
    target, _ = quantize(onnxpress, model)
    assert operators(target)["DynamicQuantizeLinear"] == 1
    assert fused(target) == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 3}


def test_weights_behind_movement_and_shared(onnxpress, tmp_path):
    nodes = [helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]), helper.make_node("Identity", ["wt"], ["wi"]),
             helper.make_node("MatMul", ["x", "wi"], ["a"]), helper.make_node("Gemm", ["x", "w"], ["b"], transB=1),
             helper.make_node("MatMul", ["z", "w"], ["c"])]
    model = save(tmp_path, nodes, [info("x", ["n", 50]), info("z", ["m", 40])], ["a", "b", "c"], {"w": random(1, (40, 50))})
    target, report = quantize(onnxpress, model)
    assert operators(target)["MatMulInteger"] == 3
    codes = [t for t in onnx.load(target).graph.initializer if t.data_type == TensorProto.INT8]
    assert len(codes) == 1
    assert len(report["passes"][-1]["layers"]) == 1


def test_tied_embeddings(onnxpress, tmp_path):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("Tanh", ["e"], ["h"]),
             helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]), helper.make_node("MatMul", ["h", "head"], ["y"])]
    table = random(1, (200, 32)) * random(2, (200, 1), 0.01, 1)
    model = save(tmp_path, nodes, [info("ids", ["b", "s"], TensorProto.INT64)], ["y"], {"table": table})
    feeds = {"ids": np.array([[0, 5, -1], [199, 7, 7]], np.int64)}
    target, _ = quantize(onnxpress, model, feeds=feeds)
    assert operators(target)["MatMulInteger"] == 1
    stored = onnx.load(target).graph.initializer
    assert [t.dims for t in stored if t.data_type == TensorProto.INT8] == [[200, 32]]
    assert not any(len(t.raw_data) > 4 * 200 for t in stored if t.data_type == FLOAT)


@pytest.mark.parametrize("options", ["", "granularity=tensor", "symmetric=false", "symmetric=false,granularity=tensor"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_embeddings(onnxpress, tmp_path, options, axis):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], axis=axis)]
    model = save(tmp_path, nodes, [info("ids", ["b", "s"], TensorProto.INT64)], ["y"], {"table": random(1, (60, 40))})
    target, _ = quantize(onnxpress, model, options, feeds={"ids": np.array([[0, 5, -1], [39, 7, 7]], np.int64)})
    assert "Float" not in str(fused(target))
    assert operators(target)["Gather"] >= 1


CONVOLUTIONS = {
    "plain": ((8, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ((8, 16, 5, 5), {"strides": [2, 2], "pads": [2, 1, 2, 3], "dilations": [1, 2]}),
    "same": ((24, 16, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
}


@pytest.mark.parametrize("options", ["", "granularity=tensor", "symmetric=false,granularity=tensor", "symmetric=false"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(onnxpress, tmp_path, case, options):
    shape, attributes = CONVOLUTIONS[case]
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)]
    model = save(tmp_path, nodes, [info("x", ["n", 16, 12, 11])], ["y"],
                 {"w": random(1, shape), "b": random(2, shape[:1])})
    target, report = quantize(onnxpress, model, options)
    assert operators(target)["ConvInteger"] == 1
    # ONNX Runtime has no ConvInteger of int8 weights.
    assert [layer["storage"] for layer in report["passes"][-1]["layers"]] == ["uint8"]


def test_grouped_and_transposed_convolutions_keep_float_arithmetic(onnxpress, tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["t"], group=32), helper.make_node("ConvTranspose", ["t", "v"], ["y"])]
    model = save(tmp_path, nodes, [info("x", ["n", 32, 9, 9])], ["y"],
                 {"w": random(1, (96, 1, 3, 3)), "v": random(2, (96, 8, 3, 3))})
    target, report = quantize(onnxpress, model)
    assert operators(target)["ConvInteger"] == 0
    assert operators(target)["DequantizeLinear"] == 2
    assert {layer["form"] for layer in report["passes"][-1]["layers"]} == {"DequantizeLinear"}


def recurrent(folder, op, directions, **attributes):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    hidden, width = 24, 40
    weights = {"w": random(1, (directions, gates * hidden, width), -0.3, 0.3),
               "r": random(2, (directions, gates * hidden, hidden), -0.3, 0.3),
               "b": random(3, (directions, 2 * gates * hidden), -0.3, 0.3)}
    outputs = ["y", "h", "c"] if op == "LSTM" else ["y", "h"]
    node = helper.make_node(op, ["x", "w", "r", "b"], outputs, hidden_size=hidden,
                            direction="bidirectional" if directions == 2 else "forward", **attributes)
    return save(folder, [node], [info("x", ["s", "n", width])], outputs, weights)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("options", ["", "granularity=tensor", "symmetric=false", "target=ort-cpu-avx2"])
def test_lstm(onnxpress, tmp_path, directions, options):
    target, report = quantize(onnxpress, recurrent(tmp_path, "LSTM", directions), options, least_snr=25, tolerance=1e-2)
    assert operators(target) == {"DynamicQuantizeLSTM": 1}
    assert {layer["form"] for layer in report["passes"][-1]["layers"]} == {"DynamicQuantizeLSTM"}


def test_lstm_with_all_inputs(onnxpress, tmp_path):
    hidden, width = 16, 24
    weights = {"w": random(1, (1, 4 * hidden, width), -0.3, 0.3), "r": random(2, (1, 4 * hidden, hidden), -0.3, 0.3),
               "b": random(3, (1, 8 * hidden)), "p": random(4, (1, 3 * hidden))}
    node = helper.make_node("LSTM", ["x", "w", "r", "b", "n", "h0", "c0", "p"], ["", "h", "c"], hidden_size=hidden,
                            direction="reverse", clip=2.0, activations=["Sigmoid", "Tanh", "Relu"])
    model = save(tmp_path, [node], [info("x", [7, 2, width]), info("n", [2], TensorProto.INT32),
                                    info("h0", [1, 2, hidden]), info("c0", [1, 2, hidden])], ["h", "c"], weights)
    feeds = {"x": random(5, (7, 2, width)), "n": np.array([7, 4], np.int32), "h0": random(6, (1, 2, hidden)),
             "c0": random(7, (1, 2, hidden))}
    target, _ = quantize(onnxpress, model, feeds=feeds, least_snr=20, tolerance=2e-2)
    assert operators(target) == {"DynamicQuantizeLSTM": 1}


@pytest.mark.parametrize("op, options", [("GRU", ""), ("RNN", ""), ("GRU", "granularity=tensor"), ("LSTM", "target=generic"),
                                         ("LSTM", "target=openvino")])
def test_recurrent_weights(onnxpress, tmp_path, op, options):
    target, report = quantize(onnxpress, recurrent(tmp_path, op, 2), options)
    assert operators(target) == {op: 1, "DequantizeLinear": 2}
    assert {layer["tensor"] for layer in report["passes"][-1]["layers"]} == {"w", "r"}


def test_bodies(onnxpress, tmp_path):
    """A Loop that holds an If: products of captured and own values, with a weight of the graph around."""
    branch = {}
    for name, weight in (("then", "w"), ("else", "v")):
        branch[name] = helper.make_graph([helper.make_node("MatMul", ["state", weight], [name + "_y"])], name, [],
                                         [info(name + "_y", ["n", 32])],
                                         [numpy_helper.from_array(random(9, (32, 32), -0.2, 0.2), "v")] if weight == "v" else [])
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["outer"]),
         helper.make_node("If", ["flag"], ["chosen"], then_branch=branch["then"], else_branch=branch["else"]),
         helper.make_node("Add", ["chosen", "outer"], ["next"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "body", [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("state", ["n", 32])],
        [info("go_on", [], TensorProto.BOOL), info("next", ["n", 32])])
    nodes = [helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)]
    model = save(tmp_path, nodes, [info("x", ["n", 32]), info("flag", [], TensorProto.BOOL)], [info("y", ["n", 32])],
                 {"w": random(1, (32, 32), -0.2, 0.2), "trips": np.array(3, np.int64)})
    for flag in (True, False):
        target, _ = quantize(onnxpress, model, feeds={"x": random(3, (4, 32)), "flag": np.array(flag)}, tolerance=1e-2)
        assert operators(target)["MatMulInteger"] == 3
        stored = [t for graph in graphs(onnx.load(target).graph) for t in graph.initializer if t.data_type == TensorProto.INT8]
        assert len(stored) == 2


def test_selection_and_float(onnxpress, tmp_path):
    target, report = quantize(onnxpress, mlp(tmp_path), "select='w0;w1',overrides='w1=float'")
    assert operators(target)["MatMulInteger"] == 1
    assert [layer["tensor"] for layer in report["passes"][-1]["layers"]] == ["w0"]


def test_small_weights_stay(onnxpress, tmp_path):
    model = save(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [info("x", ["n", 8])], ["y"], {"w": random(1, (8, 8))})
    target = tmp_path / "q.onnx"
    report = onnxpress.report("compress", model, "-o", target, "--passes", "quantize{scheme=dynamic}", "--explain", folder=tmp_path)
    assert operators(target) == {"MatMul": 1}
    assert any("would not shrink" in note for note in report["passes"][-1]["notes"])


def test_old_opset_is_raised(onnxpress, tmp_path):
    model = save(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [info("x", ["n", 48])], ["y"],
                 {"w": random(1, (48, 40))}, opset=9)
    target, _ = quantize(onnxpress, model)
    assert onnx.load(target).opset_import[0].version == 11


@pytest.mark.parametrize("options, message", [
    ("target=tensorrt", "no DynamicQuantizeLinear"), ("form=qdq", "form=auto"), ("act_bits=4", "uint8"),
    ("act_symmetric=true", "uint8"), ("granularity=block", "granularity=block"), ("bits=16", "at most 8"),
    ("type=int4", "int4"), ("scales=fp16", "scheme=weights")])
def test_refusals(onnxpress, tmp_path, options, message):
    target = tmp_path / "q.onnx"
    result = onnxpress("compress", mlp(tmp_path), "-o", target, "--passes", "quantize{scheme=dynamic," + options + "}", status=2)
    assert message in result.stderr.decode()
    assert not target.exists()


@pytest.mark.parametrize("name", sorted(path.stem for path in TESTDATA.glob("*.onnx")))
def test_real_models(onnxpress, tmp_path, name):
    """Never larger, verified, and loaded."""
    target = tmp_path / "q.onnx"
    onnxpress("compress", TESTDATA / f"{name}.onnx", "-o", target, "--passes", "simplify,quantize{scheme=dynamic}")
    assert target.stat().st_size <= (TESTDATA / f"{name}.onnx").stat().st_size
    onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
