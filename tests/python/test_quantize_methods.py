"""Equalization, smoothing, bias correction and automatic widths, judged by ONNX Runtime."""

import numpy as np
import onnx
import pytest
from conftest import TESTDATA, expected_arrays, relative_error, run_runtime
from onnx import TensorProto, helper, numpy_helper


def snr_db(expected, found):
    expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    return 10 * np.log10((expected**2).sum() / max(((expected - found) ** 2).sum(), 1e-30))


def hard_net(seed=0, channels=16):
    """Conv, Relu, depthwise Conv, Relu, Conv whose channels differ by up to 10^4, the same function as before."""
    random = np.random.default_rng(seed)
    one, two = (10.0 ** random.uniform(-2, 2, channels) for _ in range(2))

    weights = {
        "w": random.standard_normal((channels, 3, 3, 3)) / 5 * one[:, None, None, None],
        "k": random.standard_normal(channels) * one,
        "d": random.standard_normal((channels, 1, 3, 3)) / 3 / one[:, None, None, None] * two[:, None, None, None],
        "e": random.standard_normal(channels) * two,
        "v": random.standard_normal((64, channels, 1, 1)) / 4 / two[None, :, None, None],
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "k"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "d", "e"], ["c"], "depthwise", pads=[1, 1, 1, 1], group=channels),
        helper.make_node("Relu", ["c"], ["f"]),
        helper.make_node("Conv", ["f", "v"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes, "hard", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64, 8, 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_equalize_keeps_the_function_and_saves_int8(onnxpress, tmp_path):
    source = tmp_path / "hard.onnx"
    onnx.save(hard_net(), source)
    feeds = {"x": np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)}
    expected = run_runtime(source, feeds)["y"]
    onnxpress("compress", source, "-o", tmp_path / "equal.onnx", "--passes", "equalize")
    assert relative_error(expected, run_runtime(tmp_path / "equal.onnx", feeds)["y"]) < 1e-5
    per_tensor = "quantize{scheme=weights,bits=8,granularity=tensor}"
    found = {}
    for name, passes in (("plain", per_tensor), ("equalized", "equalize," + per_tensor)):
        onnxpress("compress", source, "-o", tmp_path / f"{name}.onnx", "--passes", passes)
        onnx.checker.check_model(onnx.load(tmp_path / f"{name}.onnx"), full_check=True)
        found[name] = snr_db(expected, run_runtime(tmp_path / f"{name}.onnx", feeds)["y"])
    assert found["plain"] < 15
    assert found["equalized"] > 25


@pytest.mark.parametrize("name", ["digits_cnn", "digits_dwcnn", "digits_mlp", "digits_vae", "tiny_bert_dynamo"])
def test_equalize_on_real_models(onnxpress, tmp_path, name):
    feeds, _ = expected_arrays(name)
    source, target = TESTDATA / f"{name}.onnx", tmp_path / "equal.onnx"
    onnxpress("compress", source, "-o", target, "--passes", "simplify,fuse,equalize")
    expected, found = run_runtime(source, feeds), run_runtime(target, feeds)
    for key, value in expected.items():
        if value.dtype == np.float32:
            assert relative_error(value, found[key]) < 1e-4, key


@pytest.mark.parametrize("step", ["smooth_quant", "smooth_quant{insert=true}", "awq", "awq{insert=true,block=0}"])
def test_smoothing_keeps_the_function(onnxpress, tmp_path, step):
    source, target = TESTDATA / "tiny_bert_dynamo.onnx", tmp_path / "smooth.onnx"
    report = onnxpress.report("compress", source, "-o", target, "--passes", step, "--calib", TESTDATA / "tokens_train.npz",
                              folder=tmp_path)  # fmt: skip
    if "insert" in step:
        assert report["passes"][-1]["layers"]
    feeds, _ = expected_arrays("tiny_bert_dynamo")
    expected, found = run_runtime(source, feeds), run_runtime(target, feeds)
    for key, value in expected.items():
        if value.dtype == np.float32:
            assert relative_error(value, found[key]) < 1e-4, key


@pytest.mark.parametrize("how", ["empirical", "analytic"])
def test_bias_correction(onnxpress, tmp_path, how):
    """At 4 bits the mean of every channel is off; correction brings it back, in ONNX Runtime too."""
    source = TESTDATA / "digits_cnn.onnx"
    with np.load(TESTDATA / "digits_train.npz") as data:
        feeds = {"x": data["x"][:256]}
    name = onnx.load(source).graph.input[0].name
    feeds = {name: feeds["x"]}
    passes = "simplify,fuse" if how == "empirical" else "simplify"
    errors = {}
    expected = list(run_runtime(source, feeds).values())[0].mean(0)
    for method in ("none", how):
        target = tmp_path / f"{method}.onnx"
        onnxpress("compress", source, "-o", target, "--passes",
                  f"{passes},quantize{{scheme=weights,bits=4,bias_correction={method}}}",
                  "--calib", TESTDATA / "digits_train.npz")  # fmt: skip
        onnx.checker.check_model(onnx.load(target), full_check=True)
        errors[method] = float(np.abs(list(run_runtime(target, feeds).values())[0].mean(0) - expected).mean())
    assert errors[how] < (0.1 if how == "empirical" else 1) * errors["none"], errors


def test_bias_correction_of_int32_biases(onnxpress, tmp_path):
    source = TESTDATA / "digits_cnn.onnx"
    with np.load(TESTDATA / "digits_train.npz") as data:
        feeds = {onnx.load(source).graph.input[0].name: data["x"][:256]}
    expected = list(run_runtime(source, feeds).values())[0].mean(0)
    errors = {}
    for method in ("none", "empirical"):
        target = tmp_path / f"{method}.onnx"
        onnxpress("compress", source, "-o", target, "--passes",
                  f"simplify,fuse,quantize{{bits=4,type=int8,bias_correction={method}}}",
                  "--calib", TESTDATA / "digits_train.npz")  # fmt: skip
        errors[method] = float(np.abs(list(run_runtime(target, feeds).values())[0].mean(0) - expected).mean())
    assert errors["empirical"] < 0.3 * errors["none"], errors


def test_automatic_widths_within_a_budget(onnxpress, tmp_path):
    """No larger than 4 bits everywhere, and nearer to the original."""
    source = TESTDATA / "digits_cnn.onnx"
    with np.load(TESTDATA / "digits_test.npz") as data:
        feeds = {onnx.load(source).graph.input[0].name: data["x"]}
    expected = list(run_runtime(source, feeds).values())[0]
    found, sizes = {}, {}
    for name, options in (("uniform", "bits=4"), ("auto", "bits=auto,budget=4.3bpw")):
        target = tmp_path / f"{name}.onnx"
        report = onnxpress.report("compress", source, "-o", target, "--passes", f"simplify,fuse,quantize{{scheme=weights,{options}}}",
                                  "--calib", TESTDATA / "digits_train.npz", folder=tmp_path)  # fmt: skip
        layers = report["passes"][-1]["layers"]
        sizes[name] = sum(row["bytes_after"] for row in layers)
        found[name] = snr_db(expected, list(run_runtime(target, feeds).values())[0])
        if name == "auto":
            assert sum(row["bytes_after"] for row in layers) * 8 <= 4.3 * sum(row["elements"] for row in layers)
            assert len({row["bits"] for row in layers}) > 1
            assert all(row["alone"] for row in layers)
    assert found["auto"] > found["uniform"], (found, sizes)


def test_automatic_widths_under_max_drop(onnxpress, tmp_path):
    source = TESTDATA / "digits_cnn.onnx"
    report = onnxpress.report("compress", source, "-o", tmp_path / "q.onnx", "--passes",
                              "simplify,fuse,quantize{scheme=weights,bits=auto}", "--max-drop", "1%",
                              "--calib", TESTDATA / "digits_train.npz", "--eval", TESTDATA / "digits_test.npz",
                              folder=tmp_path)  # fmt: skip
    assert report["passes"][-1]["options"]["max_drop"] == "1%"
    widths = {row["bits"] for row in report["passes"][-1]["layers"]}
    assert min(widths) < 8
    onnxpress("compress", source, "-o", tmp_path / "x.onnx", "--passes", "quantize{scheme=weights,bits=auto}", status=2)
