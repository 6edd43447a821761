"""Fixtures of the tests against the real ONNX Runtime.

ONNXPRESS names the built command, ONNXPRESS_ROUNDTRIP the read-and-write test program. A missing
one is a failure: nothing here skips.
"""

import json
import os
import pathlib
import subprocess

import numpy as np
import onnxruntime
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTDATA = ROOT / "testdata"
BACKEND_DATA = pathlib.Path(os.environ.get("ONNXPRESS_ONNX_TESTDATA", "/usr/share/libonnx-testdata/data"))


class Command:
    """Runs the onnxpress command and checks its exit status."""

    def __init__(self, program):
        self.program = program

    def __call__(self, *arguments, status=0, stdin=None):
        result = subprocess.run([self.program, *map(str, arguments)], input=stdin, capture_output=True, check=False)
        assert result.returncode == status, (
            f"{' '.join(map(str, arguments))}\nstatus {result.returncode}, expected {status}\n"
            f"{result.stdout.decode(errors='replace')}\n{result.stderr.decode(errors='replace')}"
        )
        return result

    def report(self, *arguments, folder, status=0):
        """Runs with --report and returns the report."""
        path = pathlib.Path(folder) / "report.json"
        self(*arguments, "--report", path, status=status)
        return json.loads(path.read_text())


@pytest.fixture(scope="session")
def onnxpress():
    return Command(os.environ["ONNXPRESS"])


@pytest.fixture(scope="session")
def roundtrip():
    return Command(os.environ["ONNXPRESS_ROUNDTRIP"])


def session(path):
    """An ONNX Runtime session that computes DequantizeLinear + MatMul in float32 as written."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_runtime(path, feeds):
    """Outputs by name, from ONNX Runtime."""
    runtime = session(path)
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, feeds)))


def relative_error(expected, found):
    """Largest absolute difference over the range of the expected values."""
    expected = np.asarray(expected, dtype=np.float64)
    found = np.asarray(found, dtype=np.float64)
    assert expected.shape == found.shape
    spread = float(expected.max() - expected.min()) if expected.size else 0.0
    return float(np.abs(expected - found).max()) / (spread or 1.0)


def expected_arrays(name):
    """The inputs and the outputs that testdata/expected holds for a model, by name."""
    arrays = dict(np.load(TESTDATA / "expected" / f"{name}.npz"))
    inputs = {value.name for value in session(TESTDATA / f"{name}.onnx").get_inputs()}
    return {k: v for k, v in arrays.items() if k in inputs}, {k: v for k, v in arrays.items() if k not in inputs}
