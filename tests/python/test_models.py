"""What the command writes is run by ONNX Runtime, and both give the same."""

import numpy as np
import onnx
import pytest
from conftest import TESTDATA, expected_arrays, relative_error, run_runtime, session

MODELS = sorted(path.stem for path in TESTDATA.glob("*.onnx"))
RUN_BY_ENGINE = ["digits_mlp", "digits_cnn", "digits_dwcnn"]
PIPELINE = "simplify,fuse,prune_magnitude{sparsity=0.5},quantize_weights{bits=8}"


def digits_test():
    data = np.load(TESTDATA / "digits_test.npz")
    return data["x"], data["y"]


def run_engine(onnxpress, model, feeds, folder):
    """Outputs by name, from our engine."""
    np.savez(folder / "in.npz", **feeds)
    onnxpress("run", model, "--input", folder / "in.npz", "-o", folder / "out.npz")
    return dict(np.load(folder / "out.npz"))


@pytest.mark.parametrize("name", RUN_BY_ENGINE)
def test_engine_equals_runtime(onnxpress, name, tmp_path):
    model = TESTDATA / f"{name}.onnx"
    x, _ = digits_test()
    feeds = {session(model).get_inputs()[0].name: x}
    ours = run_engine(onnxpress, model, feeds, tmp_path)
    for output, expected in run_runtime(model, feeds).items():
        assert relative_error(expected, ours[output]) < 1e-4


def test_whole_path(onnxpress, tmp_path):
    out = tmp_path / "out.onnx"
    report = onnxpress.report(
        "compress", TESTDATA / "digits_cnn.onnx", "-o", out, "--passes", PIPELINE,
        "--eval", TESTDATA / "digits_test.npz", "--report", tmp_path / "r.md",
        "--max-drop", "1%", "--min-ratio", "3", folder=tmp_path)
    assert report["schema"] == "onnxpress.report/1"
    assert out.stat().st_size * 3 <= (TESTDATA / "digits_cnn.onnx").stat().st_size
    assert (tmp_path / "r.md").read_text().startswith("- verified")

    x, y = digits_test()
    runtime = run_runtime(out, {"x": x})["logits"]
    ours = run_engine(onnxpress, out, {"x": x}, tmp_path)["logits"]
    spread = runtime.max() - runtime.min()
    per_sample = np.abs(runtime - ours).max(axis=1) / spread
    assert per_sample.max() < 1e-4

    accuracy = float((runtime.argmax(axis=1) == y).mean())
    assert report["accuracy"]["after"]["metrics"]["top1"]["value"] == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("symmetric", ["true", "false"])
@pytest.mark.parametrize("bits,storage", [*((bits, "loadable") for bits in range(2, 9)), (2, "smallest"), (4, "smallest")])
def test_quantized_weights_load(onnxpress, bits, symmetric, granularity, storage, tmp_path):
    options = f"bits={bits},symmetric={symmetric},granularity={granularity},storage={storage}"
    x, _ = digits_test()
    for name in RUN_BY_ENGINE:
        out = tmp_path / f"{name}.onnx"
        onnxpress("compress", TESTDATA / f"{name}.onnx", "-o", out, "--passes", f"simplify,fuse,quantize_weights{{{options}}}")
        onnx.checker.check_model(str(out), full_check=True)
        feeds = {session(out).get_inputs()[0].name: x[:64]}
        ours = run_engine(onnxpress, out, feeds, tmp_path)
        for output, expected in run_runtime(out, feeds).items():
            assert relative_error(expected, ours[output]) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_quantized_weights_of_every_family(onnxpress, name, tmp_path):
    """Also models our engine does not run yet: the file must load and stay near the original."""
    out = tmp_path / "out.onnx"
    onnxpress("compress", TESTDATA / f"{name}.onnx", "-o", out, "--passes", "simplify,quantize_weights{bits=8}")
    assert out.stat().st_size < (TESTDATA / f"{name}.onnx").stat().st_size
    inputs, outputs = expected_arrays(name)
    for output, found in run_runtime(out, inputs).items():
        assert relative_error(outputs[output], found) < 0.05


@pytest.mark.parametrize("name", MODELS)
def test_lossless_keeps_outputs(onnxpress, name, tmp_path):
    out = tmp_path / "out.onnx"
    onnxpress("compress", TESTDATA / f"{name}.onnx", "-o", out, "--preset", "lossless")
    onnx.checker.check_model(str(out), full_check=True)
    assert out.stat().st_size <= (TESTDATA / f"{name}.onnx").stat().st_size
    inputs, outputs = expected_arrays(name)
    for output, found in run_runtime(out, inputs).items():
        assert relative_error(outputs[output], found) < 1e-4


@pytest.mark.parametrize("target", [17, 18, 20, 21, 23, 25, 26])
@pytest.mark.parametrize("name", MODELS)
def test_upgraded_models_run(onnxpress, name, target, tmp_path):
    out = tmp_path / "out.onnx"
    onnxpress("compress", TESTDATA / f"{name}.onnx", "-o", out, "--passes", f"upgrade_opset{{target={target}}}")
    onnx.checker.check_model(str(out), full_check=True)
    before = onnx.load(TESTDATA / f"{name}.onnx").opset_import[0].version
    assert onnx.load(out).opset_import[0].version == max(target, before)
    inputs, outputs = expected_arrays(name)
    for output, found in run_runtime(out, inputs).items():
        assert relative_error(outputs[output], found) < 1e-5
