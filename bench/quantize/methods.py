"""Rounding methods side by side: accuracy in ONNX Runtime, and errors of layers' outputs.

    build/python-env/bin/python bench/quantize/methods.py [--models mnist_lenet5 ...] [--bits 3 2] [--methods ...]

Weights only, one scale per channel, for the classifiers that make_models.py trains. Calibration: samples of the training
set; accuracy: the whole test set, decoded by onnxpress for both. 'gap' is the share of what rounding to nearest loses
that a method wins back. The second table is of 4-bit weights in blocks of 32: every layer quantized by itself, the squared
error of its output on test data, over that of rounding to nearest.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import samples
from onnx import helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = ("rtn", "mse", "hqq", "gptq", "adaround")
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def samples_of(name, folder, onnxpress, part, work):
    return samples.mnist(folder, part) if name.startswith("mnist") else samples.cifar10(folder, onnxpress, part, work)


class Runner:
    def __init__(self, path, threads):
        self.session = samples.session(path, threads)
        self.input = self.session.get_inputs()[0].name

    def __call__(self, x, output=None):
        names = [output] if output else None
        return np.concatenate([self.session.run(names, {self.input: x[i : i + 500]})[0] for i in range(0, len(x), 500)])


def accuracy(path, x, y, threads):
    return 100 * float(np.mean(Runner(path, threads)(x).argmax(1) == y))


def compress(onnxpress, source, target, passes, calibration, threads):
    """Seconds."""
    call = [onnxpress, "compress", source, "-o", target, "--passes", passes, "--quiet", "--threads", str(threads)]
    begin = time.perf_counter()
    done = subprocess.run(call + (["--calib", calibration] if calibration else []), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{passes}: {done.stderr.strip()}")
    return time.perf_counter() - begin


def accuracy_table(name, base, x, y, calibration, work, args):
    exact = accuracy(base, x, y, args.threads)
    rows = []
    for bits in args.bits:
        for symmetric in args.symmetric:
            lost = None
            for method in args.methods:
                target = work / f"{name}_{bits}_{method}.onnx"
                passes = f"quantize{{scheme=weights,bits={bits},symmetric={symmetric},method={method}}}"
                seconds = compress(args.onnxpress, base, target, passes, calibration, args.threads)
                found = accuracy(target, x, y, args.threads)
                if method == "rtn":
                    lost = exact - found
                gap = 100 * (1 - (exact - found) / lost) if lost and lost > 0 else None
                rows.append({"model": name, "bits": bits, "symmetric": symmetric, "method": method, "float": exact,
                             "accuracy": found, "gap": gap, "seconds": seconds})  # fmt: skip
                shown = f"{gap:.1f} %" if gap is not None and lost >= 5 else "-"
                print(f"| {name} | {bits} | {'yes' if symmetric == 'true' else 'no'} | {method} | {exact:.2f} | {found:.2f} "
                      f"| {shown} | {seconds:.1f} |", flush=True)  # fmt: skip
    return rows


def layer_errors(name, base, x, calibration, work, args):
    """Every layer's output error by gptq over that by rtn, the layer being the only one quantized."""
    model = onnx.load(base)
    constants = {tensor.name for tensor in model.graph.initializer}
    rows = []
    for node in model.graph.node:
        if node.op_type not in LINEAR or not any(value in constants for value in node.input[:2]):
            continue
        weight = next(value for value in node.input[:2] if value in constants)
        seen = onnx.ModelProto()
        seen.CopyFrom(model)
        if node.output[0] not in [value.name for value in seen.graph.output]:
            seen.graph.output.append(helper.make_empty_tensor_value_info(node.output[0]))
        source = work / "layer.onnx"
        onnx.save(seen, source)
        exact = Runner(source, args.threads)(x, node.output[0])
        errors = {}
        for method in ("rtn", "gptq"):
            target = work / f"layer_{method}.onnx"
            passes = (f"quantize{{scheme=weights,bits=4,granularity=block,block=32,form=qdq,method={method},"
                      f"select='tensor:{weight}'}}")  # fmt: skip
            compress(args.onnxpress, source, target, passes, calibration, args.threads)
            errors[method] = float(np.square(Runner(target, args.threads)(x, node.output[0]) - exact).sum())
        ratio = errors["gptq"] / errors["rtn"] if errors["rtn"] else float("nan")
        rows.append({"model": name, "layer": node.name or node.output[0], "op": node.op_type, "ratio": ratio})
        print(f"| {name} | {rows[-1]['layer']} | {node.op_type} | {ratio:.3f} |", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxpress", type=pathlib.Path, default=ROOT / "build/onnxpress")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build/bench-models/trained")
    parser.add_argument("--models", nargs="+", default=["mnist_lenet5", "mnist_mobile", "cifar10_cnn"])
    parser.add_argument("--bits", nargs="+", type=int, default=[3, 2])
    parser.add_argument("--symmetric", nargs="+", default=["true", "false"], choices=["true", "false"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--samples", type=int, default=1024, help="of the training set, for calibration")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-layers", action="store_true", help="leave out the second table")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    data = pathlib.Path(os.environ.get("ONNXPRESS_DATA", ROOT.parent / "shared")) / "data"
    found = {"accuracy": [], "layers": []}
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        prepared = []
        for name in args.models:
            base = work / f"{name}.onnx"
            compress(args.onnxpress, args.folder / f"{name}.onnx", base, "simplify,fuse", None, args.threads)
            x, y = samples_of(name, data, args.onnxpress, "train", work)
            chosen = np.sort(np.random.default_rng(1).permutation(len(x))[: args.samples])
            calibration = work / f"{name}_calibration.npz"
            np.savez(calibration, x=x[chosen])
            prepared.append((name, base, calibration))
        print("| model | bits | symmetric | method | float, % | accuracy, % | gap closed | seconds |\n" + "|---" * 8 + "|")
        for name, base, calibration in prepared:
            x, y = samples_of(name, data, args.onnxpress, "test", work)
            found["accuracy"] += accuracy_table(name, base, x, y, calibration, work, args)
        if not args.no_layers:
            print("\n| model | layer | operator | gptq error / rtn error |\n" + "|---" * 4 + "|")
            for name, base, calibration in prepared:
                x, _ = samples_of(name, data, args.onnxpress, "test", work)
                found["layers"] += layer_errors(name, base, x[:2000], calibration, work, args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
