"""convert_float on real models: half the size, run by ONNX Runtime, outputs close to the original's."""

import numpy as np
import onnx
import pytest
from conftest import TESTDATA, expected_arrays, run_runtime

MODELS = ["digits_cnn", "digits_dwcnn", "digits_lstm", "digits_mlp", "speech_gru", "tiny_bert"]


def snr_db(expected, found):
    expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    return 10 * np.log10((expected**2).sum() / max(((expected - found) ** 2).sum(), 1e-30))


@pytest.mark.parametrize("name", MODELS)
def test_float16(onnxpress, tmp_path, name):
    source, target = TESTDATA / f"{name}.onnx", tmp_path / "half.onnx"
    feeds, _ = expected_arrays(name)
    np.savez(tmp_path / "calib.npz", **feeds)
    report = onnxpress.report("compress", source, "-o", target, "--passes", "simplify,fuse,convert_float",
                              "--calib", tmp_path / "calib.npz", folder=tmp_path)  # fmt: skip
    assert target.stat().st_size < 0.56 * source.stat().st_size
    converted = report["passes"][-1]
    assert {row["type"] for row in converted["layers"]} <= {"float16", "float32"}
    assert all(row["why"] for row in converted["layers"] if row["type"] == "float32")
    assert any("ranges of" in note for note in converted["notes"])

    model, original = onnx.load(target), onnx.load(source)
    onnx.checker.check_model(model, full_check=True)
    for now, before in ((model.graph.input, original.graph.input), (model.graph.output, original.graph.output)):
        assert [(v.name, v.type.tensor_type.elem_type) for v in now] == [
            (v.name, v.type.tensor_type.elem_type) for v in before if v.name in {n.name for n in now}
        ]
    expected, found = run_runtime(source, feeds), run_runtime(target, feeds)
    for key, value in expected.items():
        if value.dtype == np.float32:
            assert snr_db(value, found[key]) > 40, key


def test_bfloat16(onnxpress, tmp_path):
    """ONNX Runtime has no such kernels on CPU: the checker and our engine."""
    source, target = TESTDATA / "tiny_bert.onnx", tmp_path / "half.onnx"
    feeds, expected = expected_arrays("tiny_bert")
    np.savez(tmp_path / "x.npz", **feeds)
    onnxpress("compress", source, "-o", target, "--passes", "simplify,convert_float{type=bf16}")
    assert target.stat().st_size < 0.56 * source.stat().st_size
    onnx.checker.check_model(onnx.load(target), full_check=True)
    onnxpress("run", target, "--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz")
    found = np.load(tmp_path / "y.npz")
    for key, value in expected.items():
        assert snr_db(value, found[key]) > 20, key
