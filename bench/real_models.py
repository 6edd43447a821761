"""Real models: read, written, checked, and run by our engine and by ONNX Runtime on the same 16 random inputs.

    real_models.py --onnxpress build/onnxpress --roundtrip build/tests/onnxpress_roundtrip --engine build/bench/bench_engine
                   [--models build/bench-models] [--only NAME ...] [--no-sizes]

Takes every .onnx under $ONNXPRESS_DATA/models (default ../shared), in testdata/, and those that bench/make_models.py made.
Columns: whether the checker of the onnx package accepts what we wrote (where it accepted the original); the largest
difference of our engine's outputs from ONNX Runtime's over the range that the output has on all inputs; and sizes
after `--preset lossless` and after 8-bit weights. Inputs are what the consumers of each allow (token ids, sampling rates),
with batches of 1 to 3 where the batch is open. The exit status is 1 when the checker disagrees or a difference is above 1e-4.
Models of 8-bit arithmetic (*_int8) turn a last bit into a whole quantization step: ours may be twice as far from ONNX Runtime
without graph optimizations as ONNX Runtime with them is.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = pathlib.Path(os.environ.get("ONNXPRESS_DATA", ROOT.parent / "shared"))
INPUTS = 16
BAR = 1e-4
QUANTIZED_FACTOR = 2
OPTIONS = {
    "silero_vad_16k_op15": ("--input-shape=input={batch}x512", "--input-shape=state=2x{batch}x128", "--input-range=sr=16000..16000"),
    "bert_base": tuple(f"--input-shape={name}={{batch}}x32" for name in ("input_ids", "attention_mask", "token_type_ids")),
    "speech": ("--input-shape=input={batch}x1x161x100",),
    "tiny_bert": ("--input-shape=input_ids={batch}x33",),
    "tiny_bert_dynamo": ("--input-shape=input_ids={batch}x33",),
}
"""Of models that need, or are worth, other inputs than bench_engine picks by itself."""


def accepted(path):
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError):
        return False
    return True


def last_line(process):
    return (process.stderr.strip().splitlines() or [f"status {process.returncode}"])[-1][:90]


def open_session(model, optimized=True):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def make_inputs(engine, model, seed, folder):
    """Writes FOLDER/input_N.pb and returns the arrays."""
    batch = 1 + seed % 3
    options = [option.format(batch=batch) for option in OPTIONS.get(model.stem, ())]
    subprocess.run([engine, model, "--write-inputs", folder, "--seed", str(seed), "--batch", str(batch), *options],
                   check=True, capture_output=True, text=True)  # fmt: skip
    tensors = [onnx.load_tensor(folder / f"input_{i}.pb") for i in range(len(list(folder.glob("input_*.pb"))))]
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}


class Error:
    """Of one program's outputs, by name, over all inputs: the largest difference over the range of the reference."""

    def __init__(self):
        self.largest, self.low, self.high = {}, {}, {}

    def add(self, references, found):
        for name, reference in references.items():
            ours, reference = found[name].astype(np.float64), reference.astype(np.float64)
            if ours.shape != reference.shape:
                raise ValueError(f"{name}: expected {reference.shape}, found {ours.shape}")
            self.largest[name] = np.maximum(self.largest.get(name, 0.0), np.abs(reference - ours).max())
            self.low[name] = min(self.low.get(name, np.inf), reference.min())
            self.high[name] = max(self.high.get(name, -np.inf), reference.max())

    def value(self):
        """NaN when one side has NaN."""
        return float(np.max([self.largest[name] / ((self.high[name] - self.low[name]) or 1.0) for name in self.largest]))


def run_theirs(session, feeds):
    try:
        return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise ValueError(f"ONNX Runtime: {str(error).splitlines()[0][:60]}") from error


def run_ours(program, model, inputs, out):
    ran = subprocess.run([program, "run", model, "--input", inputs, "-o", out], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise ValueError(last_line(ran))
    return np.load(out)


def compare(programs, model, folder):
    """(text for the table, whether the bar is met)"""
    quantized = model.stem.endswith("_int8")
    session = open_session(model, optimized=not quantized)
    other = open_session(model) if quantized else None
    ours, theirs = Error(), Error()
    try:
        for seed in range(INPUTS):
            feeds = make_inputs(programs.engine, model, seed, folder / f"inputs{seed}")
            reference = run_theirs(session, feeds)
            ours.add(reference, run_ours(programs.onnxpress, model, folder / f"inputs{seed}", folder / "out.npz"))
            if quantized:
                theirs.add(reference, run_theirs(other, feeds))
    except subprocess.CalledProcessError as failure:
        return last_line(failure), False
    except ValueError as failure:
        return str(failure), False
    error = ours.value()
    if quantized:
        return f"{error:.1e} (ONNX Runtime's own {theirs.value():.1e})", error <= QUANTIZED_FACTOR * theirs.value()
    return f"{error:.1e}", error <= BAR


def compressed_size(program, model, out, *options):
    ran = subprocess.run([program, "compress", model, "-o", out, *options, "--quiet"], capture_output=True, text=True, check=False)
    return f"{out.stat().st_size:,}" if ran.returncode == 0 else f"status {ran.returncode}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxpress", required=True)
    parser.add_argument("--roundtrip", required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("build/bench-models"))
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--no-sizes", action="store_true", help="leave out the two columns of sizes")
    arguments = parser.parse_args()
    models = [*(DATA / "models").rglob("*.onnx"), *(ROOT / "testdata").glob("*.onnx"), *arguments.models.glob("*.onnx")]
    models = [model for model in models if model.stem != "bert_sized" and (not arguments.only or model.stem in arguments.only)]
    if not models:
        parser.error("no models")

    missed = []
    print("| model | bytes | checker | error |" + ("" if arguments.no_sizes else " lossless | 8-bit weights |"))
    print("|---|---|---|---|" + ("" if arguments.no_sizes else "---|---|"))
    for model in sorted(models, key=lambda model: (model.parent.name, model.stem)):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            subprocess.run([arguments.roundtrip, model, folder / "again.onnx"], check=True, stdout=subprocess.DEVNULL)
            agrees = accepted(model) <= accepted(folder / "again.onnx")
            error, within = compare(arguments, model, folder)
            cells = [f"{model.parent.name}/{model.stem}", f"{model.stat().st_size:,}", "agrees" if agrees else "DISAGREES", error]
            if not arguments.no_sizes:
                for name, options in (("lossless", ("--preset", "lossless")), ("small", ("--passes", "simplify,fuse,quantize_weights{bits=8}"))):
                    cells.append(compressed_size(arguments.onnxpress, model, folder / f"{name}.onnx", *options))
            print(f"| {' | '.join(cells)} |", flush=True)
            if not (agrees and within):
                missed.append(cells[0])
    print(f"\n{len(models)} models, {INPUTS} inputs each (onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}); "
          + (f"MISSED: {', '.join(missed)}" if missed else "every bar is met"))  # fmt: skip
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
