"""The onnx package's checker accepts what we wrote wherever it accepted the original."""

import onnx
import pytest
from conftest import BACKEND_DATA, TESTDATA


def accepted(path):
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError):
        return False
    return True


@pytest.mark.parametrize("folder", ["node", "simple", "pytorch-converted", "pytorch-operator", "testdata"])
def test_checker_agrees(roundtrip, folder, tmp_path):
    root = TESTDATA if folder == "testdata" else BACKEND_DATA / folder
    models = sorted(root.rglob("*.onnx"))
    assert models
    refused = []
    for model in models:
        out = tmp_path / "out.onnx"
        roundtrip(model, out)
        if accepted(model) and not accepted(out):
            refused.append(model.name)
    assert refused == []
