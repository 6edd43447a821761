"""Real models: read, written, checked, and run by our engine and by ONNX Runtime on the same inputs.

    real_models.py --onnxpress build/onnxpress --roundtrip build/tests/onnxpress_roundtrip

Takes every .onnx under $ONNXPRESS_DATA/models (default ../shared). Columns: whether the checker of the onnx package
accepts what we wrote (where it accepted the original), the largest absolute difference of our engine's outputs to ONNX
Runtime's over the output range (aim: under 1e-4), and sizes after `--preset lossless` and after 8-bit weights.
"""

import argparse
import os
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime

DATA = pathlib.Path(os.environ.get("ONNXPRESS_DATA", pathlib.Path(__file__).resolve().parents[2] / "shared"))
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


def accepted(path):
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError):
        return False
    return True


def make_feeds(session):
    """Seeded inputs; open dimensions are 2 for the batch and 16 elsewhere."""
    random = np.random.default_rng(0)
    feeds = {}
    for value in session.get_inputs():
        shape = [d if isinstance(d, int) else (2 if i == 0 else 16) for i, d in enumerate(value.shape)]
        kind = TYPES[value.type]
        feeds[value.name] = (random.standard_normal(shape) if kind is np.float32 else random.integers(0, 2, shape)).astype(kind)
    return feeds


def engine_error(program, model, folder):
    """Largest relative error of our outputs, or why there is none."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds = make_feeds(session)
    try:
        expected = session.run(None, feeds)
    except Exception as error:  # pylint: disable=broad-except
        return f"ONNX Runtime refuses the inputs: {str(error).splitlines()[0][:60]}"
    np.savez(folder / "in.npz", **feeds)
    ran = subprocess.run([program, "run", model, "--input", folder / "in.npz", "-o", folder / "out.npz"],
                         capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        return ran.stderr.strip().splitlines()[-1][:90]
    found = np.load(folder / "out.npz")
    worst = 0.0
    for value, reference in zip(session.get_outputs(), expected):
        spread = float(reference.max() - reference.min()) or 1.0
        worst = max(worst, float(np.abs(reference.astype(np.float64) - found[value.name]).max()) / spread)
    return f"{worst:.1e}"


def compressed_size(program, model, out, *options):
    ran = subprocess.run([program, "compress", model, "-o", out, *options, "--quiet"], capture_output=True, text=True, check=False)
    return f"{out.stat().st_size:,}" if ran.returncode == 0 else f"status {ran.returncode}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxpress", required=True)
    parser.add_argument("--roundtrip", required=True)
    arguments = parser.parse_args()
    print("| model | bytes | checker | error | lossless | 8-bit weights |")
    print("|---|---|---|---|---|---|")
    for model in sorted((DATA / "models").rglob("*.onnx")):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            subprocess.run([arguments.roundtrip, model, folder / "again.onnx"], check=True, stdout=subprocess.DEVNULL)
            checker = "agrees" if accepted(model) <= accepted(folder / "again.onnx") else "DISAGREES"
            lossless = compressed_size(arguments.onnxpress, model, folder / "lossless.onnx", "--preset", "lossless")
            small = compressed_size(arguments.onnxpress, model, folder / "small.onnx", "--passes", "simplify,fuse,quantize_weights{bits=8}")
            print(f"| {model.stem} | {model.stat().st_size:,} | {checker} | {engine_error(arguments.onnxpress, model, folder)} | {lossless} | {small} |", flush=True)


if __name__ == "__main__":
    main()
